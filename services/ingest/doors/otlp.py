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

from services.ingest.domain import MOST_NAME_LENGTH, MOST_POINTS_IN_REQUEST, Fault, MetricType
from services.ingest.doors import otlp_json
from services.ingest.doors.names import NAME_TOO_LONG, clipped
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
from services.ingest.turns import Steps

_DELTA, _CUMULATIVE = 1, 2
#: Flag of a data point without a value: the series ended.
_NO_RECORDED_VALUE = 1
#: Far more than a definition has labels; more in a resource are not looked at.
_MOST_ATTRIBUTES = 128
#: Of all data points together; more are not looked at.
_MOST_EXEMPLARS_IN_REQUEST = 2 * MOST_POINTS_IN_REQUEST
#: Of resources, scopes and data points together: twenty for each of the most data points that there may be.
_MOST_ATTRIBUTES_IN_REQUEST = 20 * MOST_POINTS_IN_REQUEST
#: Of arrays and of maps, each as often as it is looked at.
_MOST_ELEMENTS_IN_REQUEST = 4 * MOST_POINTS_IN_REQUEST
#: Of a histogram: far more than a definition has.
_MOST_BUCKETS = 4_096
#: Of all histograms together.
_MOST_BUCKETS_IN_REQUEST = 50 * MOST_POINTS_IN_REQUEST

_DELTA_LEVEL_REFUSED = Fault(
    "METRIC_TYPE_MISMATCH",
    "Changes of a sum that may fall cannot be added up here: send its level, with cumulative temporality.",
)
_SUMMARY_REFUSED = Fault("METRIC_TYPE_MISMATCH", "Quantiles of one source cannot be merged with those of others.")
_NO_TEMPORALITY = Fault("METRIC_MALFORMED", "Sums and histograms have a temporality, delta or cumulative.")
_NO_VALUE = Fault("METRIC_MALFORMED", "The data point has no value.")
_NO_SUM = Fault("METRIC_MALFORMED", "A histogram has a sum.")
_NO_BUCKETS = "A histogram without buckets does not say where its observations lie: record it with explicit bounds."
_TOO_MANY_ATTRIBUTES = Fault("METRIC_MALFORMED", f"A data point has at most {_MOST_ATTRIBUTES} attributes.")
_UNREADABLE_NUMBER = Fault("METRIC_MALFORMED", "A number of this data point cannot be read.")

#: A message of OTLP, as protobuf or as `otlp_json` has it.
Message = Any
Points = Iterator[Point | Fault]


def decode_protobuf(body: bytes) -> Points:
    """Raises MalformedBody, BatchTooLarge."""
    request = ExportMetricsServiceRequest()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise MalformedBody("The body is no OTLP metrics request in protobuf.") from error
    yield from _points(request)


def decode_json(body: bytes) -> Steps[Points]:
    """Raises MalformedJson, BatchTooLarge, and so do the points."""
    return _points_of_json((yield from otlp_json.parse(body)))


def _points_of_json(request: otlp_json.ExportMetricsServiceRequest) -> Points:
    try:
        yield from _points(request)
    except (RecursionError, ValueError, OverflowError) as error:
        raise MalformedJson("An attribute of a resource is nested too deeply, or no number.") from error


class _Named(NamedTuple):
    """What a metric is called."""

    name: str
    unit: str


class _Context(NamedTuple):
    """What the data points of a scope have in common."""

    #: Labels.
    offered: Mapping[str, str]
    #: Stands for the resource and the scope.
    identity: bytes
    #: Of the request.
    budget: "_Budget"


class _Budget:
    """Bounds what is walked through: the parts that hold data points, these, and what they have."""

    def __init__(self) -> None:
        self._left = 2 * MOST_POINTS_IN_REQUEST
        self._attributes_left = _MOST_ATTRIBUTES_IN_REQUEST
        self._elements_left = _MOST_ELEMENTS_IN_REQUEST
        self._buckets_left = _MOST_BUCKETS_IN_REQUEST
        self._exemplars_left = _MOST_EXEMPLARS_IN_REQUEST

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
            raise BatchTooLarge(f"A request has at most {_MOST_ATTRIBUTES_IN_REQUEST} attributes.")

    def spend_elements(self, count: int) -> None:
        """Raises BatchTooLarge where they are too many."""
        self._elements_left -= count
        if self._elements_left < 0:
            raise BatchTooLarge(
                f"The arrays and maps of a request have some {_MOST_ELEMENTS_IN_REQUEST} elements at most."
            )

    def spend_buckets(self, count: int) -> None:
        """Raises BatchTooLarge where they are too many."""
        self._buckets_left -= count
        if self._buckets_left < 0:
            raise BatchTooLarge(f"The histograms of a request have at most {_MOST_BUCKETS_IN_REQUEST} buckets.")

    def affordable(self, exemplars: Sequence[Message]) -> Sequence[Message]:
        """Those that are to be looked at."""
        found = exemplars[: self._exemplars_left]
        self._exemplars_left -= len(found)
        return found


def _points(request: Message) -> Points:
    budget = _Budget()
    for resource in budget.spend(request.resource_metrics):
        if scopes := budget.spend(resource.scope_metrics):
            yield from _points_of_resource(resource.resource, scopes, budget)


def _points_of_resource(resource: Message, scopes: Sequence[Message], budget: _Budget) -> Points:
    budget.spend_attributes(len(resource.attributes))
    from_resource = _from_resource(resource.attributes[:_MOST_ATTRIBUTES], budget)
    of_source = _identifying(resource.attributes, budget)
    for each in scopes:
        if metrics := budget.spend(each.metrics):
            scope, name, version = each.scope, each.scope.name, each.scope.version
            budget.spend_attributes(len(scope.attributes) + len(from_resource))  # these are copied
            identity = source_id(of_source, name, version, _identifying(scope.attributes, budget))
            of_scope = {"otel_scope_name": clipped(name), "otel_scope_version": clipped(version)}
            context = _Context({**from_resource, **of_scope}, identity, budget)
            for metric in metrics:
                yield from _points_of(metric, context)


def _points_of(metric: Message, context: _Context) -> Points:
    """A metric has one kind of data; the others are empty."""
    named = _Named(metric.name, metric.unit)
    for kind, read in _READERS.items():
        data = getattr(metric, kind)
        points = context.budget.spend(data.data_points)
        if not points:
            continue
        if max(len(named.name), len(named.unit)) > MOST_NAME_LENGTH:
            yield from (NAME_TOO_LONG for _ in points)
        else:
            context.budget.spend_attributes(sum([len(point.attributes) for point in points]))
            yield from read(named, data, points, context)
    yield from (_SUMMARY_REFUSED for _ in context.budget.spend(metric.summary.data_points))


def _gauges(named: _Named, _: Message, points: Sequence[Message], context: _Context) -> Points:
    return _numbers(metric_names(*named, monotonic=False, gauge=True), GAUGES, None, points, context)


def _sums(named: _Named, data: Message, points: Sequence[Message], context: _Context) -> Points:
    temporality = data.aggregation_temporality
    if not data.is_monotonic and temporality == _DELTA:
        return (_DELTA_LEVEL_REFUSED for _ in points)
    if temporality not in (_DELTA, _CUMULATIVE):
        return (_NO_TEMPORALITY for _ in points)
    names = metric_names(*named, monotonic=data.is_monotonic, gauge=False)
    if not data.is_monotonic:
        return _numbers(names, GAUGES, None, points, context)
    return _numbers(names, COUNTERS, named if temporality == _CUMULATIVE else None, points, context)


def _numbers(
    names: Sequence[str],
    types: frozenset[MetricType],
    total_of: _Named | None,
    points: Sequence[Message],
    context: _Context,
) -> Points:
    """`total_of` tells whose totals these are, where they are any."""

    def number(point: Message) -> Point | Fault:
        which = point.WhichOneof("value")
        if which is None:
            return _NO_VALUE
        return Point(
            names=names,
            labels=_labels(point.attributes, context.budget),
            offered=context.offered,
            types=types,
            value=_number(point, which),
            exemplar=_exemplar(point, context.budget),
            timestamp_ms=int(point.time_unix_nano) / 1e6 or None,
            origin=_origin(total_of, point, context) if total_of else None,
            reporter=context.identity,
        )

    return _each(points, number)


def _number(point: Message, which: str) -> float:
    """Raises ValueError where it is no whole number of 64 bits and should be."""
    found = getattr(point, which)
    if which == "as_int" and not -(2**63) <= int(found) < 2**63:
        raise ValueError("a number of more than 64 bits")
    return float(found)


def _histograms(named: _Named, data: Message, points: Sequence[Message], context: _Context) -> Points:
    return _distributions(named, data, points, context, HISTOGRAMS, _buckets)


def _exponential_histograms(named: _Named, data: Message, points: Sequence[Message], context: _Context) -> Points:
    return _distributions(named, data, points, context, NATIVE_HISTOGRAMS, _exponential)


def _distributions(
    named: _Named,
    data: Message,
    points: Sequence[Message],
    context: _Context,
    types: frozenset[MetricType],
    read: Callable[[Message, _Budget], Buckets | ExponentialBuckets],
) -> Points:
    temporality = data.aggregation_temporality
    if temporality not in (_DELTA, _CUMULATIVE):
        return (_NO_TEMPORALITY for _ in points)
    names = metric_names(*named, monotonic=False, gauge=False)

    def histogram(point: Message) -> Point | Fault:
        if not point.HasField("sum"):
            return _NO_SUM
        return Point(
            names=names,
            labels=_labels(point.attributes, context.budget),
            offered=context.offered,
            types=types,
            value=read(point, context.budget),
            exemplar=_exemplar(point, context.budget),
            origin=_origin(named, point, context) if temporality == _CUMULATIVE else None,
        )

    return _each(points, histogram)


_READERS: Mapping[str, Callable[[_Named, Message, Sequence[Message], _Context], Points]] = {
    "gauge": _gauges,
    "sum": _sums,
    "histogram": _histograms,
    "exponential_histogram": _exponential_histograms,
}


def _exponential(point: Message, budget: _Budget) -> ExponentialBuckets:
    budget.spend_buckets(len(point.positive.bucket_counts) + len(point.negative.bucket_counts))
    return exponential(point)


def _buckets(point: Message, budget: _Budget) -> Buckets:
    budget.spend_buckets(len(point.bucket_counts) + len(point.explicit_bounds))
    if max(len(point.bucket_counts), len(point.explicit_bounds)) > _MOST_BUCKETS:
        raise UnusableHistogramError(f"A histogram has at most {_MOST_BUCKETS} buckets.")
    counts = [int(count) for count in point.bucket_counts]
    if not counts:
        raise UnusableHistogramError(_NO_BUCKETS)
    if sum(counts) != int(point.count):
        raise UnusableHistogramError("A histogram has buckets that add up to its count.")
    return Buckets(tuple([float(bound) for bound in point.explicit_bounds]), counts, float(point.sum))


def _exemplar(point: Message, budget: _Budget) -> tuple[float, Span] | None:
    """The newest one that names a span. What cannot be read is passed over: it is no reason to refuse the point."""
    found: tuple[int, float, Span] | None = None
    for each in budget.affordable(point.exemplars):
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


def _origin(named: _Named, point: Message, context: _Context) -> Origin:
    """Each start of a source is one of its own: totals of several that are identified alike do not mix, and a new start
    is no total that fell. A total that was taken at its start is one whose start is not known, as the data model has
    it."""
    attributes = _identifying(point.attributes, context.budget)
    start_ns, taken_ns = int(point.start_time_unix_nano), int(point.time_unix_nano)
    return Origin(source_id(context.identity, *named, attributes, start_ns), taken_ns, baseline=start_ns == taken_ns)


def _identifying(attributes: Iterable[Message], budget: _Budget) -> list[tuple[str, str]]:
    """Attributes in an order and form that tell equal ones from others."""
    return sorted([(each.key, msgspec.json.encode(_plain(each.value, budget)).decode()) for each in attributes])


def _each(points: Sequence[Message], read: Callable[[Message], Point | Fault]) -> Points:
    """What each point that has a value comes to."""
    for point in points:
        try:
            if int(point.flags) & _NO_RECORDED_VALUE:
                continue
            yield read(point) if len(point.attributes) <= _MOST_ATTRIBUTES else _TOO_MANY_ATTRIBUTES
        except UnusableHistogramError as error:
            yield Fault("METRIC_MALFORMED", str(error))
        except (ValueError, OverflowError):  # numbers that JSON has as text
            yield _UNREADABLE_NUMBER


def _labels(attributes: Sequence[Message], budget: _Budget) -> dict[str, str]:
    """Labels by name. Values of attributes whose names become the same are joined in the order of those names."""
    pairs = [(label_name(clipped(key := each.key)), key, _text(each.value, budget)) for each in attributes]
    labels = {name: value for name, _, value in pairs}
    if len(labels) == len(pairs):
        return labels
    joined: dict[str, str] = {}
    for name, _, value in sorted(pairs):
        joined[name] = clipped(f"{joined[name]};{value}") if name in joined else value
    return joined


def _from_resource(attributes: Sequence[Message], budget: _Budget) -> Mapping[str, str]:
    """A resource's attributes as labels, and the `job` and `instance` that they come to."""
    found = _labels(attributes, budget)
    service, namespace = found.get("service_name", ""), found.get("service_namespace", "")
    job = f"{namespace}/{service}" if namespace and service else service
    return {"job": clipped(job), "instance": found.get("service_instance_id", ""), **found}


def _text(value: Message, budget: _Budget) -> str:
    """An attribute's value, as far as a label's may be long: text as it is, anything else as JSON has it."""
    plain = _plain(value, budget)
    if plain is None:
        return ""
    return clipped(plain if isinstance(plain, str) else msgspec.json.encode(plain).decode())


def _plain(value: Message, budget: _Budget) -> Any:
    which = value.WhichOneof("value")
    if which is None:
        return None
    found = getattr(value, which)
    if which == "int_value":
        return int(found)
    if which == "double_value":
        return float(found)
    if which not in ("array_value", "kvlist_value"):
        return found
    budget.spend_elements(len(found.values))
    if which == "array_value":
        return [_plain(each, budget) for each in found.values]
    return {each.key: _plain(each.value, budget) for each in found.values}
