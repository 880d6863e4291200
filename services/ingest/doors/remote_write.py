"""Prometheus remote write 1.0.

Source: https://prometheus.io/docs/specs/prw/remote_write_spec/. Names say what a series is, as the conventions have
it: `x_total` is a counter, `x_bucket`, `x_sum` and `x_count` are parts of the histogram x, anything else is a gauge.
A sender's counters are totals since the start of whatever it scraped, and all its labels together identify them.
"""

import struct
from collections.abc import Iterator

from google.protobuf.message import DecodeError

from contracts.pulsegate.ingest.v1 import remote_write_pb2 as pb
from services.ingest.domain import MOST_POINTS_IN_REQUEST, Fault
from services.ingest.errors import BatchTooLarge, MalformedBody
from services.ingest.points import COUNTERS, GAUGES, HISTOGRAMS, Component, ComponentKind, Origin, Point, source_id

#: Labels of where a series comes from, rather than of what it counts.
_OF_TARGET = ("job", "instance")
#: Far more than a definition has.
_MOST_LABELS = 128
#: Of all series together: twenty for each of the most that there may be.
_MOST_LABELS_IN_REQUEST = 20 * MOST_POINTS_IN_REQUEST
_MADE_AT = "_created"
_SUM, _COUNT, _BUCKET = "_sum", "_count", "_bucket"

_double, _bits = struct.Struct("<d"), struct.Struct("<Q")
#: The NaN that says that a series ends here.
_STALE_MARKER = 0x7FF0000000000002

_NATIVE_REFUSED = Fault("METRIC_TYPE_MISMATCH", "Native histograms are not taken: have classic buckets scraped.")


def decode(body: bytes) -> list[Point | Fault]:
    """Raises MalformedBody, BatchTooLarge."""
    try:
        request = pb.WriteRequest.FromString(body)
    except DecodeError as error:
        raise MalformedBody("The body is no write request of remote write 1.0.") from error
    _check_size(request)
    return [point for series in request.timeseries for point in _points(series)]


def _check_size(request: pb.WriteRequest) -> None:
    samples = sum([len(series.samples) + len(series.histograms) for series in request.timeseries])
    if max(samples, len(request.timeseries)) > MOST_POINTS_IN_REQUEST:
        raise BatchTooLarge(f"A request takes at most {MOST_POINTS_IN_REQUEST} samples: lower max_samples_per_send.")
    if sum([len(series.labels) for series in request.timeseries]) > _MOST_LABELS_IN_REQUEST:
        raise BatchTooLarge(f"The series of a request have at most {_MOST_LABELS_IN_REQUEST} labels.")


def _points(series: pb.TimeSeries) -> Iterator[Point | Fault]:
    """What each sample comes to. Stale markers end nothing: the next total of the series is compared with the last."""
    labels = {label.name: label.value for label in series.labels}
    name = labels.pop("__name__", "")
    if name.endswith(_MADE_AT):
        return
    yield from (_NATIVE_REFUSED for _ in series.histograms)
    samples = [sample for sample in series.samples if not _is_stale(sample.value)]
    if not name or len(labels) + 1 != len(series.labels) or len(labels) > _MOST_LABELS:
        told = f"A series has a __name__ and at most {_MOST_LABELS} other labels, each once."
        yield from (Fault("METRIC_MALFORMED", told) for _ in samples)
        return
    source = source_id("remote write", name, sorted(labels.items()))
    offered = {label: labels.pop(label) for label in _OF_TARGET if label in labels}
    bound = labels.pop("le", "") if name.endswith(_BUCKET) else ""
    for sample in samples:
        yield _point(name, labels, offered, bound, sample, source)


def _point(
    name: str, labels: dict[str, str], offered: dict[str, str], bound: str, sample: pb.Sample, source: bytes
) -> Point | Fault:
    component = _component(name, bound, sample.value)
    if isinstance(component, Fault):
        return component
    types = HISTOGRAMS if component else COUNTERS if name.endswith("_total") else GAUGES
    return Point(
        names=(name.rpartition("_")[0] if component else name,),
        labels=labels,
        offered=offered,
        types=types,
        value=component or sample.value,
        timestamp_ms=sample.timestamp,
        origin=None if types is GAUGES else Origin(source, sample.timestamp * 1_000_000),
        reporter=source,
    )


def _component(name: str, bound: str, total: float) -> Component | Fault | None:
    """The part of a histogram that a series is, if it is one."""
    if name.endswith(_SUM):
        return Component(ComponentKind.SUM, total)
    if name.endswith(_COUNT):
        return Component(ComponentKind.COUNT, total)
    if not name.endswith(_BUCKET):
        return None
    try:
        return Component(ComponentKind.BUCKET, total, float(bound))
    except ValueError:
        return Fault("METRIC_MALFORMED", "A series of buckets has a number in its label le.")


def _is_stale(value: float) -> bool:
    return value != value and _bits.unpack(_double.pack(value))[0] == _STALE_MARKER
