"""Holds each data point of the other doors against its definition, by the rules of `validation`."""

import math
from collections.abc import Mapping, Sequence

import msgspec

from services.ingest.decoding import Metric
from services.ingest.domain import MOST_METRICS_IN_BATCH, Fault, Rejection, add_finite
from services.ingest.points import Buckets, Observations, Point
from services.ingest.validation import CompiledDefinition, Validated, distribution_of, observe, shown, take

#: Observations that one data point may stand for: sums of very many such still fit into 64 bits.
_MOST_COUNT = 1 << 40

_encoder = msgspec.json.Encoder()


def validate_points(
    points: Sequence[Point | Fault], definitions: Mapping[str, CompiledDefinition], now_ms: int
) -> list[Validated]:
    """Each point taken or rejected, in order, in parts of the size of a batch, which bounds the size of a record.

    Rejections have the point's position among all points.
    """
    return [
        _validate_part(first, points[first : first + MOST_METRICS_IN_BATCH], definitions, now_ms)
        for first in range(0, len(points), MOST_METRICS_IN_BATCH)
    ]


def _validate_part(
    first: int, points: Sequence[Point | Fault], definitions: Mapping[str, CompiledDefinition], now_ms: int
) -> Validated:
    result = Validated()
    for index, point in enumerate(points, first):
        fault = point if isinstance(point, Fault) else _take(point, definitions, now_ms, result)
        if fault is not None:
            result.rejections.append(Rejection(index=index, code=fault.code, message=fault.message))
    result.accepted = len(points) - len(result.rejections)
    return result


def _take(point: Point, definitions: Mapping[str, CompiledDefinition], now_ms: int, result: Validated) -> Fault | None:
    compiled = next((definitions[name] for name in point.names if name in definitions), None)
    if compiled is None:
        names = " or ".join([shown(name) for name in point.names])
        return Fault("METRIC_NOT_DEFINED", f"This project has no metric {names}.")
    if compiled.definition.type not in point.types:
        return _mismatch(point, compiled)
    labels, value = _labels(point, compiled), point.value
    if isinstance(value, Observations):
        return _take_observations(value, labels, compiled, result)
    if isinstance(value, Buckets):
        return _take_buckets(value, labels, compiled, result)
    if not math.isfinite(value):
        return _not_finite()
    metric = Metric(compiled.definition.name, value, msgspec.Raw(labels), point.timestamp_ms)
    return take(metric, definitions, now_ms, result)


def _labels(point: Point, compiled: CompiledDefinition) -> bytes:
    """The labels that count, as a JSON object, which is how label sets are remembered."""
    labels, known = point.labels, compiled.definition.labels
    kept = {name: value for name, value in point.offered.items() if name in known}
    return _encoder.encode({**kept, **labels} if kept else labels)


def _take_observations(
    value: Observations, labels: bytes, compiled: CompiledDefinition, result: Validated
) -> Fault | None:
    if not all(map(math.isfinite, value.values)):
        return _not_finite()
    found = distribution_of(labels, compiled, result)
    if isinstance(found, Fault):
        return found
    observe(found, compiled.definition.bounds, value.values, value.weight)
    return None


def _take_buckets(value: Buckets, labels: bytes, compiled: CompiledDefinition, result: Validated) -> Fault | None:
    bounds = compiled.definition.bounds
    if value.bounds != bounds:
        return Fault(
            "METRIC_TYPE_MISMATCH",
            f"The buckets end at {_listed(value.bounds)}; those of the definition at {_listed(bounds)}.",
        )
    if not math.isfinite(value.sum):
        return _not_finite()
    count = sum(value.counts)
    if len(value.counts) != len(bounds) + 1 or min(value.counts) < 0 or count > _MOST_COUNT:
        return Fault("METRIC_MALFORMED", f"A histogram has a count, 0 to {_MOST_COUNT} in all, for each bucket.")
    found = distribution_of(labels, compiled, result)
    if isinstance(found, Fault):
        return found
    found.count += count
    found.sum = add_finite(found.sum, value.sum)
    found.buckets[:] = [there + more for there, more in zip(found.buckets, value.counts, strict=True)]
    return None


def _mismatch(point: Point, compiled: CompiledDefinition) -> Fault:
    sent = " or ".join(sorted(each.name.lower() for each in point.types))
    defined = compiled.definition.type.name.lower()
    return Fault("METRIC_TYPE_MISMATCH", f"{shown(compiled.definition.name)} is a {defined}; this is a {sent}.")


def _not_finite() -> Fault:
    return Fault("VALUE_NOT_FINITE", "The value must be a finite number.")


def _listed(bounds: Sequence[float]) -> str:
    few = ", ".join([f"{bound:g}" for bound in bounds[:20]])
    return few + (", …" if len(bounds) > 20 else "") or "no bound"
