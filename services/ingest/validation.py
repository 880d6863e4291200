"""Holds each metric of a batch against its definition, and folds what is good into one entry a label set.

The common case costs two dictionary look-ups a metric: by name, then by the raw bytes of its labels. Only a label set
whose bytes were not seen before is decoded and checked.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

import msgspec

from chassis.patterns import Pattern
from services.ingest.decoding import Batch, Fault, Metric
from services.ingest.domain import (
    GAUGE_NEWEST_MS,
    GAUGE_OLDEST_MS,
    MOST_LABEL_VALUE_BYTES,
    MOST_OBSERVATIONS,
    OTHER,
    Definition,
    LabelPairs,
    LabelRule,
    MetricType,
    Rejection,
    add_finite,
    series_id,
)
from services.ingest.records import MetricDelta, SeriesDelta

#: Codes that a newer definition could undo: a batch is not rejected for them before `config` was asked.
CURABLE = frozenset(
    {
        "METRIC_NOT_DEFINED",
        "METRIC_TYPE_MISMATCH",
        "VALUE_NEGATIVE",
        "LABEL_MISSING",
        "LABEL_UNKNOWN",
        "LABEL_VALUE_NOT_ALLOWED",
        "TIMESTAMP_OUT_OF_RANGE",
    }
)

#: Label sets remembered for each definition, and the longest raw text that is worth remembering.
_MOST_REMEMBERED = 10_000
_LONGEST_REMEMBERED = 2_048
#: What one of them takes besides its raw text, about.
_OVERHEAD_BYTES = 600

_labels_decoder = msgspec.json.Decoder(dict[str, str] | None)


@dataclass(frozen=True, slots=True)
class LabelSet:
    """An allowed label set of a definition."""

    id: bytes
    labels: LabelPairs


class LabelSetMemory:
    """Bounds what all definitions together remember of label sets: past the bound all is forgotten and learnt anew."""

    def __init__(self, most_bytes: int = 128 << 20) -> None:
        self._most_bytes = most_bytes
        self._used_bytes = 0
        #: What was remembered under an earlier number is void.
        self.generation = 0

    def take(self, size_bytes: int) -> None:
        """Called for each label set that is remembered."""
        self._used_bytes += size_bytes
        if self._used_bytes > self._most_bytes:
            self._used_bytes = size_bytes
            self.generation += 1


class CompiledDefinition:
    """A definition, ready to be held against metrics, with the label sets that it has seen."""

    def __init__(self, definition: Definition, memory: LabelSetMemory) -> None:
        self.definition = definition
        self._memory = memory
        self._generation = memory.generation
        self._required = frozenset(name for name, rule in definition.labels.items() if rule.required)
        self._patterns: dict[str, Pattern] = {
            name: Pattern(rule.pattern) for name, rule in definition.labels.items() if rule.pattern
        }
        self._remembered: dict[bytes, LabelSet | Fault] = {}
        self.max_distinct = {name: rule.max_distinct for name, rule in definition.labels.items() if rule.max_distinct}

    def label_set(self, raw: msgspec.Raw) -> LabelSet | Fault:
        """What the labels, as sent, come to."""
        key = bytes(raw)
        if self._generation == self._memory.generation and (known := self._remembered.get(key)) is not None:
            return known
        found = self._resolve(raw)
        if len(key) <= _LONGEST_REMEMBERED:
            self._remember(key, found)
        return found

    def _remember(self, key: bytes, found: LabelSet | Fault) -> None:
        self._memory.take(len(key) + _OVERHEAD_BYTES)
        if self._generation != self._memory.generation or len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
            self._generation = self._memory.generation
        self._remembered[key] = found

    def _resolve(self, raw: msgspec.Raw) -> LabelSet | Fault:
        try:
            sent = _labels_decoder.decode(raw) or {}
        except (msgspec.DecodeError, RecursionError):
            return Fault("METRIC_MALFORMED", "Labels are an object of strings.")
        # An empty value is an absent label, as in Prometheus.
        labels = {name: value for name, value in sent.items() if value}
        if missing := self._required - labels.keys():
            return Fault("LABEL_MISSING", f"The label {min(missing)!r} is required.")
        for name, value in labels.items():
            if fault := self._refuse(name, value):
                return fault
        pairs = tuple(text for name in sorted(labels) for text in (name, labels[name]))
        return LabelSet(series_id(self.definition.id, pairs), pairs)

    def _refuse(self, name: str, value: str) -> Fault | None:
        rule: LabelRule | None = self.definition.labels.get(name)
        if rule is None:
            return Fault("LABEL_UNKNOWN", f"The definition has no label {_shown(name)}.")
        if len(value.encode()) > MOST_LABEL_VALUE_BYTES:
            return Fault(
                "LABEL_VALUE_TOO_LONG", f"The value of {name!r} is longer than {MOST_LABEL_VALUE_BYTES} bytes."
            )
        if value == OTHER or "\x00" in value or not self._allows(name, rule, value):
            return Fault("LABEL_VALUE_NOT_ALLOWED", f"The label {name!r} does not allow the value {_shown(value)}.")
        return None

    def _allows(self, name: str, rule: LabelRule, value: str) -> bool:
        if rule.values is not None and value not in rule.values:
            return False
        pattern = self._patterns.get(name)
        return pattern is None or pattern.matches(value)


@dataclass(slots=True)
class Validated:
    """A batch after validation."""

    accepted: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    #: What was accepted, folded.
    metrics: list[MetricDelta] = field(default_factory=list)

    @property
    def curable(self) -> bool:
        """Whether a newer definition might take more of the batch."""
        return any(rejection.code in CURABLE for rejection in self.rejections)


def validate(batch: Batch, definitions: Mapping[str, CompiledDefinition], now_ms: int) -> Validated:
    """Each metric taken or rejected, in order. `now_ms`: the receiver's clock, which gauges without a time get."""
    result = Validated()
    folded: dict[bytes, tuple[MetricDelta, dict[bytes, SeriesDelta]]] = {}
    for index, metric in enumerate(batch.metrics):
        fault = metric if isinstance(metric, Fault) else _take(metric, definitions, now_ms, folded)
        if fault is None:
            result.accepted += 1
        else:
            result.rejections.append(Rejection(index=index, code=fault.code, message=fault.message))
    for delta, series in folded.values():
        delta.series = list(series.values())
        result.metrics.append(delta)
    return result


def _take(
    metric: Metric,
    definitions: Mapping[str, CompiledDefinition],
    now_ms: int,
    folded: dict[bytes, tuple[MetricDelta, dict[bytes, SeriesDelta]]],
) -> Fault | None:
    compiled = definitions.get(metric.name)
    if compiled is None:
        return Fault("METRIC_NOT_DEFINED", f"This project has no metric {_shown(metric.name)}.")
    definition = compiled.definition
    if fault := _refuse_value(metric, definition.type):
        return fault
    label_set = compiled.label_set(metric.labels)
    if isinstance(label_set, Fault):
        return label_set
    timestamp_ms = 0
    if definition.type is MetricType.GAUGE:
        sent_ms = now_ms if metric.timestamp is None else metric.timestamp
        if not now_ms - GAUGE_OLDEST_MS <= sent_ms <= now_ms + GAUGE_NEWEST_MS:
            return Fault("TIMESTAMP_OUT_OF_RANGE", "A gauge's timestamp is from 8 days back to 10 minutes ahead.")
        timestamp_ms = int(sent_ms)
    entry = folded.get(definition.id)
    if entry is None:
        entry = folded[definition.id] = (_empty_delta(compiled), {})
    _fold(entry[1], label_set, definition, metric.value, timestamp_ms)
    return None


def _empty_delta(compiled: CompiledDefinition) -> MetricDelta:
    definition = compiled.definition
    return MetricDelta(definition.id, definition.name, definition.type, definition.bounds, compiled.max_distinct, [])


def _refuse_value(metric: Metric, metric_type: MetricType) -> Fault | None:
    value = metric.value
    if isinstance(value, list):
        if metric_type in (MetricType.COUNTER, MetricType.GAUGE):
            return Fault("METRIC_TYPE_MISMATCH", f"A {metric_type.name.lower()} takes one number, not an array.")
        if not 0 < len(value) <= MOST_OBSERVATIONS:
            return Fault("METRIC_MALFORMED", f"An array has 1 to {MOST_OBSERVATIONS} observations.")
        if not all(map(isfinite, value)):
            return Fault("VALUE_NOT_FINITE", "Every observation must be a finite number.")
    elif not isfinite(value):
        return Fault("VALUE_NOT_FINITE", "The value must be a finite number.")
    elif value < 0 and metric_type is MetricType.COUNTER:
        return Fault("VALUE_NEGATIVE", "A counter's value is what is added to it, and never negative.")
    return None


def _fold(
    series: dict[bytes, SeriesDelta],
    label_set: LabelSet,
    definition: Definition,
    value: float | list[float],
    timestamp_ms: int,
) -> None:
    delta = series.get(label_set.id)
    if isinstance(value, float) and definition.type in (MetricType.COUNTER, MetricType.GAUGE):
        if delta is None:
            series[label_set.id] = SeriesDelta(label_set.id, label_set.labels, value, timestamp_ms=timestamp_ms)
        elif definition.type is MetricType.COUNTER:
            delta.value = add_finite(delta.value, value)
        elif timestamp_ms >= delta.timestamp_ms:
            delta.value, delta.timestamp_ms = value, timestamp_ms
        return
    if delta is None:
        buckets = [0] * (len(definition.bounds) + 1) if definition.type is MetricType.HISTOGRAM else []
        delta = series[label_set.id] = SeriesDelta(label_set.id, label_set.labels, 0.0, buckets=buckets)
    _observe(delta, definition.bounds, [value] if isinstance(value, float) else value)


def _observe(delta: SeriesDelta, bounds: tuple[float, ...], observations: list[float]) -> None:
    delta.count += len(observations)
    for observation in observations:
        delta.value = add_finite(delta.value, observation)
        if delta.buckets:
            delta.buckets[bisect_left(bounds, observation)] += 1


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "…")
