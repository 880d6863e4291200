"""Pushes in protobuf: `io.prometheus.client.MetricFamily` messages, each with its length before it as a varint."""

from collections.abc import Callable, Iterator, Mapping

from google.protobuf.message import DecodeError

from contracts.pulsegate.ingest.v1 import exposition_pb2 as pb
from services.ingest.domain import MOST_POINTS_IN_REQUEST, Fault
from services.ingest.doors.exposition import (
    MOST_LABELS_IN_PUSH,
    MOST_LABELS_OF_SERIES,
    Family,
    FamilyType,
    Series,
    buckets_of,
    summary_of,
)
from services.ingest.errors import BatchTooLarge, MalformedBody
from services.ingest.turns import Steps

_CUT_SHORT = "The body is no sequence of metric families, each with its length before it."
#: Of all histograms together.
_MOST_BUCKETS = 5 * MOST_POINTS_IN_REQUEST
#: A varint of more bytes is no length of anything that fits into a body.
_LONGEST_LENGTH = 5


def parse(body: bytes) -> Steps[list[Family]]:
    """The families of the body, in order. Raises MalformedBody, BatchTooLarge."""
    families: dict[str, Family] = {}
    budget = _Budget()
    for message in _messages(body):
        budget.take(message)
        if message.name in families:
            raise MalformedBody(f"The metric {message.name[:80]!r} is there twice.")
        families[message.name] = yield from _family(message)
    return list(families.values())


class _Budget:
    """What a push may hold in all its families."""

    def __init__(self) -> None:
        self._families = self._series = MOST_POINTS_IN_REQUEST
        self._buckets = _MOST_BUCKETS
        self._labels = MOST_LABELS_IN_PUSH

    def take(self, message: pb.ExpositionFamily) -> None:
        """Raises BatchTooLarge. The number of series comes first: it costs nothing to know."""
        self._families -= 1
        self._series -= len(message.metric)
        if self._families < 0 or self._series < 0:
            raise BatchTooLarge(f"A push takes at most {MOST_POINTS_IN_REQUEST} series, and metrics.")
        self._buckets -= sum([len(metric.histogram.bucket) for metric in message.metric])
        self._labels -= sum([len(metric.label) for metric in message.metric])
        if self._buckets < 0 or self._labels < 0:
            raise BatchTooLarge(f"A push takes at most {_MOST_BUCKETS} buckets and {MOST_LABELS_IN_PUSH} labels.")


def _messages(body: bytes) -> Iterator[pb.ExpositionFamily]:
    at = 0
    while at < len(body):
        at, length = _length(body, at)
        if at + length > len(body):
            raise MalformedBody(_CUT_SHORT)
        try:
            yield pb.ExpositionFamily.FromString(body[at : at + length])
        except DecodeError as error:
            raise MalformedBody(_CUT_SHORT) from error
        at += length


def _length(body: bytes, at: int) -> tuple[int, int]:
    """Where a message begins, and its length."""
    length = 0
    for place, byte in enumerate(body[at : at + _LONGEST_LENGTH]):
        length |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return at + place + 1, length
    raise MalformedBody(_CUT_SHORT)


def _family(message: pb.ExpositionFamily) -> Steps[Family]:
    try:
        kind, read = _KINDS[message.type]
    except KeyError as error:
        raise MalformedBody(f"The metric {message.name[:80]!r} has a type that is unknown here.") from error
    family = Family(message.name, kind)
    for metric in message.metric:
        if len(metric.label) > MOST_LABELS_OF_SERIES:
            raise MalformedBody(f"A series has at most {MOST_LABELS_OF_SERIES} labels.")
        labels = {label.name: label.value for label in metric.label}
        if len(labels) < len(metric.label):
            raise MalformedBody(f"A label of a series of {message.name[:80]!r} is there twice.")
        if metric.HasField("timestamp_ms"):
            raise MalformedBody("Pushed samples have no timestamps.")
        if len({bucket.upper_bound for bucket in metric.histogram.bucket}) < len(metric.histogram.bucket):
            raise MalformedBody(f"A bucket of {message.name[:80]!r} is there twice.")
        family.series.append(read(metric, labels))
        yield
    return family


def _counter(metric: pb.ExpositionMetric, labels: Mapping[str, str]) -> Series:
    return Series(labels, metric.counter.value, _began(metric.counter))


def _gauge(metric: pb.ExpositionMetric, labels: Mapping[str, str]) -> Series:
    return Series(labels, metric.gauge.value)


def _untyped(metric: pb.ExpositionMetric, labels: Mapping[str, str]) -> Series:
    return Series(labels, metric.untyped.value)


def _summary(metric: pb.ExpositionMetric, labels: Mapping[str, str]) -> Series:
    told = metric.summary
    return Series(labels, summary_of(float(told.sample_count), told.sample_sum), _began(told))


def _histogram(metric: pb.ExpositionMetric, labels: Mapping[str, str]) -> Series:
    told = metric.histogram
    cumulative = {bucket.upper_bound: float(bucket.cumulative_count) for bucket in told.bucket}
    return Series(labels, buckets_of(cumulative, float(told.sample_count), told.sample_sum), _began(told))


def _gauge_histogram(_: pb.ExpositionMetric, labels: Mapping[str, str]) -> Series:
    return Series(labels, Fault("METRIC_TYPE_MISMATCH", "Histograms that may fall cannot be added up over sources."))


def _began(told: pb.ExpositionCounter | pb.ExpositionSummary | pb.ExpositionHistogram) -> float:
    return told.created.seconds + told.created.nanos / 1e9


_Read = Callable[[pb.ExpositionMetric, Mapping[str, str]], Series]
_KINDS: Mapping[int, tuple[FamilyType, _Read]] = {
    pb.EXPOSITION_TYPE_UNSPECIFIED: (FamilyType.COUNTER, _counter),
    pb.EXPOSITION_TYPE_GAUGE: (FamilyType.GAUGE, _gauge),
    pb.EXPOSITION_TYPE_SUMMARY: (FamilyType.SUMMARY, _summary),
    pb.EXPOSITION_TYPE_UNTYPED: (FamilyType.UNTYPED, _untyped),
    pb.EXPOSITION_TYPE_HISTOGRAM: (FamilyType.HISTOGRAM, _histogram),
    pb.EXPOSITION_TYPE_GAUGE_HISTOGRAM: (FamilyType.HISTOGRAM, _gauge_histogram),
}
