"""Holds each data point of the other doors against its definition, by the rules of `validation`."""

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence

import msgspec

from services.ingest.decoding import Metric
from services.ingest.domain import (
    GAUGE_NEWEST_MS,
    GAUGE_OLDEST_MS,
    MOST_METRICS_IN_BATCH,
    Fault,
    GaugeMerge,
    MetricType,
    Rejection,
    add_finite,
)
from services.ingest.native_histograms import NativeBuckets
from services.ingest.points import Buckets, Component, ComponentKind, ExponentialBuckets, Observations, Origin, Point
from services.ingest.records import PART_BUCKETS, PART_COUNT, PART_VALUE, Distribution
from services.ingest.turns import Steps
from services.ingest.validation import (
    AcceptedTotal,
    CompiledDefinition,
    LabelSet,
    Validated,
    distribution_of,
    observe,
    shown,
    take,
    take_exemplar,
)

#: Observations that one data point may stand for: an increment, of which very many add up in 64 bits, and a total,
#: which replaces the one before.
_MOST_INCREMENT = 1 << 32
_MOST_TOTAL = 1 << 40
#: Labels that a definition may have.
_MOST_LABELS = 16
_NO_ROOM = (
    "This project has as many series of cumulative sources as it may have (PULSEGATE_SOURCES_PER_PROJECT; where a"
    " publishable key sends them, half of that, and not too many in ten minutes), and this one is new. Those that it"
    " has go on; each counts until eight days after its last total."
)

_encoder = msgspec.json.Encoder()


def validate_points(
    points: Sequence[Point | Fault],
    definitions: Mapping[str, CompiledDefinition],
    now_ms: int,
    refused_sources: Collection[bytes] = (),
) -> Steps[list[Validated]]:
    """Each point taken or rejected, in order, in parts of the size of a batch, which bounds the size of a record.

    Rejections have the point's position among all points. `refused_sources`: whose totals are none that can be taken.
    """
    parts = []
    for first in range(0, len(points), MOST_METRICS_IN_BATCH):
        part = points[first : first + MOST_METRICS_IN_BATCH]
        parts.append((yield from _validate_part(first, part, definitions, now_ms, refused_sources)))
    return parts


def _validate_part(
    first: int,
    points: Sequence[Point | Fault],
    definitions: Mapping[str, CompiledDefinition],
    now_ms: int,
    refused_sources: Collection[bytes],
) -> Steps[Validated]:
    result = Validated(refused_sources=refused_sources)
    for index, point in enumerate(points, first):
        fault = point if isinstance(point, Fault) else _take(point, definitions, now_ms, result)
        if fault is None:
            _take_exemplar(point, definitions, result)
        else:
            result.rejections.append(Rejection(index=index, code=fault.code, message=fault.message))
        yield
    result.accepted = len(points) - len(result.rejections)
    result.pack_native()
    return result


def defined_as(point: Point, definitions: Mapping[str, CompiledDefinition]) -> CompiledDefinition | None:
    """Under the likeliest of its names that has a definition; None: under none of them."""
    return next((definitions[name] for name in point.names if name in definitions), None)


def _take(point: Point, definitions: Mapping[str, CompiledDefinition], now_ms: int, result: Validated) -> Fault | None:
    compiled = defined_as(point, definitions)
    if compiled is None:
        names = " or ".join([shown(name) for name in point.names])
        return Fault("METRIC_NOT_DEFINED", f"This project has no metric {names}.")
    if compiled.definition.type not in point.types:
        return _mismatch(point, compiled)
    labels, value = _labels(point, compiled), point.value
    if point.origin is not None and not compiled.is_gauge:
        return _take_total(value, point.origin, labels, compiled, now_ms, result)
    if isinstance(value, Observations):
        return _take_observations(value, labels, compiled, result)
    if isinstance(value, Buckets):
        return _take_buckets(value, labels, compiled, result)
    if isinstance(value, Component):
        return Fault("METRIC_MALFORMED", "A single part of a histogram is a total, and says where it comes from.")
    if isinstance(value, ExponentialBuckets):
        return _take_exponential(value, labels, compiled, result)
    if not math.isfinite(value):
        return _not_finite()
    metric = Metric(compiled.definition.name, value, msgspec.Raw(labels), point.timestamp_ms)
    fault = take(metric, definitions, now_ms, result)
    if fault is None and point.reporter and compiled.definition.gauge_merge is not GaugeMerge.LAST:
        result.reporters[len(result.label_sets) - 1] = point.reporter
    return fault


def _take_exemplar(point: Point | Fault, definitions: Mapping[str, CompiledDefinition], result: Validated) -> None:
    if isinstance(point, Point) and point.exemplar is not None and math.isfinite(point.exemplar[0]):
        compiled = defined_as(point, definitions)
        if compiled is not None:
            take_exemplar(compiled, _labels(point, compiled), *point.exemplar, result)


def _labels(point: Point, compiled: CompiledDefinition) -> bytes:
    """The labels that count, as a JSON object, which is how label sets are remembered."""
    labels, offered = point.labels, point.offered
    if len(labels) > _MOST_LABELS:
        labels = _telling(labels, compiled)
    if not offered:
        return _encoder.encode(labels)
    kept = {name: offered[name] for name in compiled.definition.labels if name in offered}
    return _encoder.encode({**kept, **labels} if kept else labels)


def _telling(labels: Mapping[str, str], compiled: CompiledDefinition) -> Mapping[str, str]:
    """Those that the definition has, and one that it has not: they are refused like all of them together, and all the
    points that share them do not carry the others along."""
    known = compiled.definition.labels
    unknown = next((name for name, value in labels.items() if value and name not in known), None)
    telling = {name: labels[name] for name in known if name in labels}
    return telling if unknown is None else {**telling, unknown: labels[unknown]}


def _take_observations(
    value: Observations, labels: bytes, compiled: CompiledDefinition, result: Validated
) -> Fault | None:
    if not all(map(math.isfinite, value.values)):
        return _not_finite()
    found = distribution_of(labels, compiled, result)
    if isinstance(found, Fault):
        return found
    observe(found, compiled.definition.bounds, value.values, result, value.weight)
    return None


def _take_buckets(value: Buckets, labels: bytes, compiled: CompiledDefinition, result: Validated) -> Fault | None:
    if fault := _fault_of_buckets(value, compiled, _MOST_INCREMENT):
        return fault
    found = distribution_of(labels, compiled, result)
    if isinstance(found, Fault):
        return found
    found.count += sum(value.counts)
    found.sum = add_finite(found.sum, value.sum)
    found.buckets[:] = [there + more for there, more in zip(found.buckets, value.counts, strict=True)]
    return None


def _fault_of_buckets(value: Buckets, compiled: CompiledDefinition, most: int) -> Fault | None:
    bounds = compiled.definition.bounds
    if value.bounds != bounds:
        return Fault(
            "METRIC_TYPE_MISMATCH",
            f"The buckets end at {_listed(value.bounds)}; those of the definition at {_listed(bounds)}.",
        )
    if not math.isfinite(value.sum):
        return _not_finite()
    if len(value.counts) != len(bounds) + 1 or min(value.counts) < 0 or sum(value.counts) > most:
        return Fault("METRIC_MALFORMED", f"A histogram has a count, 0 to {most} in all, for each bucket.")
    return None


def _take_exponential(
    value: ExponentialBuckets, labels: bytes, compiled: CompiledDefinition, result: Validated
) -> Fault | None:
    if fault := _fault_of_exponential(value, _MOST_INCREMENT):
        return fault
    found = distribution_of(labels, compiled, result)
    if isinstance(found, Fault):
        return found
    found.count += value.count
    found.sum = add_finite(found.sum, value.sum)
    result.native[found.id].add(NativeBuckets.unpacked(value.packed))
    return None


def _fault_of_exponential(value: ExponentialBuckets, most: int) -> Fault | None:
    if not math.isfinite(value.sum):
        return _not_finite()
    if value.count > most:
        return Fault("METRIC_MALFORMED", f"A histogram has at most {most} observations.")
    return None


def _take_total(
    value: float | Observations | Buckets | Component | ExponentialBuckets,
    origin: Origin,
    labels: bytes,
    compiled: CompiledDefinition,
    now_ms: int,
    result: Validated,
) -> Fault | None:
    """Adds a total of a cumulative source. Its time is what tells a new one from one that was counted, so a clock that
    is far off must not count: the next total brings what this one would have brought."""
    if not now_ms - GAUGE_OLDEST_MS <= origin.taken_ns // 1_000_000 <= now_ms + GAUGE_NEWEST_MS:
        return Fault("TIMESTAMP_OUT_OF_RANGE", "A total's timestamp is from 8 days back to 10 minutes ahead.")
    if origin.source in result.refused_sources:
        return Fault("SOURCE_LIMIT_REACHED", _NO_ROOM)
    label_set = compiled.label_set(labels)
    if isinstance(label_set, Fault):
        return label_set
    total, part = _total(value, label_set, compiled)
    if isinstance(total, Fault):
        return total
    result.definitions.add(compiled)
    result.totals.append(AcceptedTotal(label_set, total, part, origin))
    return None


def _total(
    value: float | Observations | Buckets | Component | ExponentialBuckets,
    label_set: LabelSet,
    compiled: CompiledDefinition,
) -> tuple[float | Distribution | Fault, int]:
    """The total as a record has it, and the part of the series that it is."""
    if isinstance(value, Component):
        return _component(value, compiled.definition.bounds)
    if isinstance(value, Buckets):
        if fault := _fault_of_buckets(value, compiled, _MOST_TOTAL):
            return fault, PART_VALUE
        buckets = [] if compiled.definition.type is MetricType.SUMMARY else list(value.counts)
        return Distribution(label_set.id, value.sum, sum(value.counts), buckets), PART_VALUE
    if isinstance(value, ExponentialBuckets):
        if fault := _fault_of_exponential(value, _MOST_TOTAL):
            return fault, PART_VALUE
        return Distribution(label_set.id, value.sum, value.count, list(value.packed)), PART_VALUE
    if not isinstance(value, float):
        return Fault("METRIC_MALFORMED", "Single observations are no total."), PART_VALUE
    if not math.isfinite(value):
        return _not_finite(), PART_VALUE
    if value < 0:
        return Fault("VALUE_NEGATIVE", "What a counter has counted is never negative."), PART_VALUE
    return value, PART_VALUE


def _component(value: Component, bounds: Sequence[float]) -> tuple[float | Fault, int]:
    total = value.total
    if not math.isfinite(total):
        return _not_finite(), PART_VALUE
    if value.kind is ComponentKind.SUM:
        return total, PART_VALUE
    if total < 0 or total != int(total) or total > _MOST_TOTAL:
        return Fault("METRIC_MALFORMED", f"A histogram counts whole observations, 0 to {_MOST_TOTAL}."), PART_VALUE
    if value.kind is ComponentKind.COUNT:
        return total, PART_COUNT
    if value.bound not in (*bounds, math.inf):
        told = f"A bucket ends at {value.bound:g}; those of the definition at {_listed(bounds)}."
        return Fault("METRIC_TYPE_MISMATCH", told), PART_VALUE
    return total, PART_BUCKETS + bisect_left(bounds, value.bound)


def _mismatch(point: Point, compiled: CompiledDefinition) -> Fault:
    sent = " or a ".join(sorted(each.words for each in point.types))
    defined = compiled.definition.type.words
    return Fault("METRIC_TYPE_MISMATCH", f"{shown(compiled.definition.name)} is a {defined}; this is a {sent}.")


def _not_finite() -> Fault:
    return Fault("VALUE_NOT_FINITE", "The value must be a finite number.")


def _listed(bounds: Sequence[float]) -> str:
    few = ", ".join([f"{bound:g}" for bound in bounds[:20]])
    return few + (", …" if len(bounds) > 20 else "") or "no bound"
