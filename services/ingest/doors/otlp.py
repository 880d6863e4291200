"""OTLP/HTTP metrics: protobuf and JSON, delta and cumulative temporality.

Source: the OpenTelemetry protocol and data model specifications, and their "Prometheus and OpenMetrics Compatibility".
Monotonic sums are counters, other sums and gauges are gauges, histograms are histograms whose bounds equal those of the
definition, exponential ones are native histograms. What a data point's series comes from (resource, `job`, `instance`,
scope) is offered as labels. A cumulative series is identified by its resource, scope, metric, attributes and
start time, as the data model has it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from services.ingest.domain import MOST_POINTS_IN_REQUEST, Fault, MetricType
from services.ingest.doors import otlp_json
from services.ingest.doors.otlp_exponential import UnusableHistogramError, exponential
from services.ingest.doors.otlp_names import label_name, metric_names
from services.ingest.errors import BatchTooLarge, MalformedBody, MalformedJson
from services.ingest.exemplars import Span, span_of
from services.ingest.points import (
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    NATIVE_HISTOGRAMS,
    Buckets,
    ExponentialBuckets,
    Origin,
    Point,
    source_id,
)

_DELTA, _CUMULATIVE = 1, 2
#: Flag of a data point without a value: the series ended.
_NO_RECORDED_VALUE = 1
#: Far more than a definition has labels; more in a resource are not looked at.
_MOST_ATTRIBUTES = 128
#: Of a data point; more are not looked at.
_MOST_EXEMPLARS = 128
#: Of all data points together: twenty for each of the most that there may be.
_MOST_ATTRIBUTES_IN_REQUEST = 20 * MOST_POINTS_IN_REQUEST

_DELTA_LEVEL_REFUSED = Fault(
    "METRIC_TYPE_MISMATCH",
    "Changes of a sum that may fall cannot be added up here: send its level, with cumulative temporality.",
)
_SUMMARY_REFUSED = Fault("METRIC_TYPE_MISMATCH", "Quantiles of one source cannot be merged with those of others.")

#: A message of OTLP, as protobuf or as `otlp_json` has it.
Message = Any
Points = Iterator[Point | Fault]


def decode_protobuf(body: bytes) -> list[Point | Fault]:
    """Raises MalformedBody, BatchTooLarge."""
    request = ExportMetricsServiceRequest()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise MalformedBody("The body is no OTLP metrics request in protobuf.") from error
    return list(_points(request))


def decode_json(body: bytes) -> list[Point | Fault]:
    """Raises MalformedJson, BatchTooLarge."""
    request = otlp_json.parse(body)
    try:
        return list(_points(request))
    except (RecursionError, ValueError, OverflowError) as error:
        raise MalformedJson("An attribute of a resource is nested too deeply, or no number.") from error


class _Context(NamedTuple):
    """What the data points of a scope have in common."""

    #: Labels.
    offered: Mapping[str, str]
    #: Stands for the resource and the scope.
    identity: bytes


class _Budget:
    """Bounds what is walked through: the parts that hold data points, and these."""

    def __init__(self) -> None:
        self._left = 2 * MOST_POINTS_IN_REQUEST
        self._attributes_left = _MOST_ATTRIBUTES_IN_REQUEST

    def spend(self, parts: Sequence[Message]) -> Sequence[Message]:
        """The parts. Raises BatchTooLarge where they are too many."""
        self._left -= len(parts)
        if self._left < 0:
            raise BatchTooLarge(f"A request takes at most {MOST_POINTS_IN_REQUEST} data points.")
        return parts

    def spend_attributes(self, count: int) -> None:
        """Raises BatchTooLarge where they are too many."""
        self._attributes_left -= count
        if self._attributes_left < 0:
            raise BatchTooLarge(f"The data points of a request have at most {_MOST_ATTRIBUTES_IN_REQUEST} attributes.")


def _points(request: Message) -> Points:
    budget = _Budget()
    for resource in budget.spend(request.resource_metrics):
        from_resource = _from_resource(resource.resource.attributes[:_MOST_ATTRIBUTES])
        of_source = _identifying(resource.resource.attributes)
        for scope in budget.spend(resource.scope_metrics):
            name, version = scope.scope.name, scope.scope.version
            identity = source_id(of_source, name, version, _identifying(scope.scope.attributes))
            context = _Context({**from_resource, "otel_scope_name": name, "otel_scope_version": version}, identity)
            for metric in budget.spend(scope.metrics):
                yield from _points_of(metric, context, budget)


def _points_of(metric: Message, context: _Context, budget: _Budget) -> Points:
    """A metric has one kind of data; the others are empty."""
    for data in (metric.gauge, metric.sum, metric.histogram, metric.exponential_histogram):
        budget.spend_attributes(sum([len(point.attributes) for point in budget.spend(data.data_points)]))
    yield from _numbers(metric, metric.gauge.data_points, context, monotonic=False)
    yield from _sums(metric, metric.sum.data_points, context)
    yield from _histograms(metric, metric.histogram, HISTOGRAMS, _buckets, context)
    yield from _histograms(metric, metric.exponential_histogram, NATIVE_HISTOGRAMS, exponential, context)
    yield from (_SUMMARY_REFUSED for _ in budget.spend(metric.summary.data_points))


def _sums(metric: Message, points: Sequence[Message], context: _Context) -> Points:
    monotonic, temporality = metric.sum.is_monotonic, metric.sum.aggregation_temporality
    if not monotonic and temporality == _DELTA:
        return (_DELTA_LEVEL_REFUSED for _ in points)
    if temporality not in (_DELTA, _CUMULATIVE):
        return (_no_temporality() for _ in points)
    return _numbers(metric, points, context, monotonic=monotonic)


def _numbers(metric: Message, points: Sequence[Message], context: _Context, *, monotonic: bool) -> Points:
    names = metric_names(metric.name, metric.unit, monotonic=monotonic, gauge=bool(metric.gauge.data_points))
    cumulative = monotonic and metric.sum.aggregation_temporality == _CUMULATIVE

    def number(point: Message) -> Point | Fault:
        which = point.WhichOneof("value")
        if which is None:
            return Fault("METRIC_MALFORMED", "The data point has no value.")
        return Point(
            names=names,
            labels=_labels(point.attributes),
            offered=context.offered,
            types=COUNTERS if monotonic else GAUGES,
            value=float(getattr(point, which)),
            exemplar=_exemplar(point),
            timestamp_ms=int(point.time_unix_nano) / 1e6 or None,
            origin=_origin(metric, point, context) if cumulative else None,
            reporter=context.identity,
        )

    return _each(points, number)


def _histograms(
    metric: Message,
    data: Message,
    types: frozenset[MetricType],
    read: Callable[[Message], Buckets | ExponentialBuckets],
    context: _Context,
) -> Points:
    temporality = data.aggregation_temporality
    if temporality not in (_DELTA, _CUMULATIVE):
        return (_no_temporality() for _ in data.data_points)
    names = metric_names(metric.name, metric.unit, monotonic=False, gauge=False)

    def histogram(point: Message) -> Point | Fault:
        if not point.HasField("sum"):
            return Fault("METRIC_MALFORMED", "A histogram has a sum.")
        return Point(
            names=names,
            labels=_labels(point.attributes),
            offered=context.offered,
            types=types,
            value=read(point),
            exemplar=_exemplar(point),
            origin=_origin(metric, point, context) if temporality == _CUMULATIVE else None,
        )

    return _each(data.data_points, histogram)


def _buckets(point: Message) -> Buckets:
    counts = [int(count) for count in point.bucket_counts]
    if sum(counts) != int(point.count):
        raise UnusableHistogramError("A histogram has buckets that add up to its count.")
    return Buckets(tuple([float(bound) for bound in point.explicit_bounds]), counts, float(point.sum))


def _exemplar(point: Message) -> tuple[float, Span] | None:
    """The newest one that names a span. What cannot be read is passed over: it is no reason to refuse the point."""
    found: tuple[int, float, Span] | None = None
    for each in point.exemplars[:_MOST_EXEMPLARS]:
        try:
            which, span = each.WhichOneof("value"), span_of(each.trace_id, each.span_id)
            if which is None or span is None:
                continue
            at_ns, value = int(each.time_unix_nano), float(getattr(each, which))
        except (ValueError, OverflowError):
            continue
        if found is None or at_ns >= found[0]:
            found = at_ns, value, span
    return found and found[1:]


def _origin(metric: Message, point: Message, context: _Context) -> Origin:
    """Each start of a source is one of its own: totals of several that are identified alike do not mix, and a new start
    is no total that fell."""
    attributes, started_ns = _identifying(point.attributes), int(point.start_time_unix_nano)
    return Origin(
        source_id(context.identity, metric.name, metric.unit, attributes, started_ns), int(point.time_unix_nano)
    )


def _identifying(attributes: Iterable[Message]) -> list[tuple[str, str]]:
    """Attributes in an order and form that tell equal ones from others."""
    return sorted([(each.key, msgspec.json.encode(_plain(each.value)).decode()) for each in attributes])


def _no_temporality() -> Fault:
    return Fault("METRIC_MALFORMED", "Sums and histograms have a temporality, delta or cumulative.")


def _each(points: Sequence[Message], read: Callable[[Message], Point | Fault]) -> Points:
    """What each point that has a value comes to."""
    for point in points:
        if point.flags & _NO_RECORDED_VALUE:
            continue
        if len(point.attributes) > _MOST_ATTRIBUTES:
            yield Fault("METRIC_MALFORMED", f"A data point has at most {_MOST_ATTRIBUTES} attributes.")
            continue
        try:
            yield read(point)
        except UnusableHistogramError as error:
            yield Fault("METRIC_MALFORMED", str(error))
        except (ValueError, OverflowError):  # numbers that JSON has as text
            yield Fault("METRIC_MALFORMED", "A number of this data point cannot be read.")


def _labels(attributes: Sequence[Message]) -> Mapping[str, str]:
    """Labels by name. Values of attributes whose names become the same are joined in the order of those names."""
    pairs = [(label_name(each.key), each.key, _text(each.value)) for each in attributes]
    labels = {name: value for name, _, value in pairs}
    if len(labels) == len(pairs):
        return labels
    joined: dict[str, str] = {}
    for name, _, value in sorted(pairs):
        joined[name] = f"{joined[name]};{value}" if name in joined else value
    return joined


def _from_resource(attributes: Iterable[Message]) -> Mapping[str, str]:
    """A resource's attributes as labels, and the `job` and `instance` that they come to."""
    found = dict(_labels(list(attributes)))
    service, namespace = found.get("service_name", ""), found.get("service_namespace", "")
    job = f"{namespace}/{service}" if namespace and service else service
    return {"job": job, "instance": found.get("service_instance_id", ""), **found}


def _text(value: Message) -> str:
    """An attribute's value: text as it is, anything else as JSON has it."""
    plain = _plain(value)
    if plain is None:
        return ""
    return plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()


def _plain(value: Message) -> Any:
    which = value.WhichOneof("value")
    if which is None:
        return None
    found = getattr(value, which)
    if which == "int_value":
        return int(found)
    if which == "double_value":
        return float(found)
    if which == "array_value":
        return [_plain(each) for each in found.values]
    if which == "kvlist_value":
        return {each.key: _plain(each.value) for each in found.values}
    return found
