"""Holds each metric of a batch against its definition, and lays out what is good in the columns of a log record.

The common case costs two dictionary look-ups a metric: by name, then by the raw bytes of its labels. Only a label set
whose bytes were not seen before is decoded and checked. The common batch, of counters alone, is looked at in columns.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, TypeGuard
from weakref import WeakSet

import msgspec

from chassis.patterns import Pattern, PatternError
from services.ingest.decoding import Batch, Metric
from services.ingest.domain import (
    GAUGE_NEWEST_MS,
    GAUGE_OLDEST_MS,
    MOST_LABEL_VALUE_BYTES,
    MOST_OBSERVATIONS,
    OTHER,
    Definition,
    Fault,
    LabelRule,
    MetricType,
    Rejection,
    add_finite,
    series_id,
)
from services.ingest.exemplars import Span
from services.ingest.native_histograms import NativeBuckets
from services.ingest.points import Origin
from services.ingest.records import DefinitionFacts, Distribution, Identity, RecordedExemplar, encode_identity
from services.ingest.sketches import count_into
from services.ingest.turns import Steps

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

#: Compiled at a time, of all tenants together, each in up to 128 KiB: the texts of far more may be defined.
_MOST_PATTERNS = 512

_labels_decoder = msgspec.json.Decoder(dict[str, str] | None)


class LabelSet:
    """An allowed label set of a definition."""

    __slots__ = ("id", "identity")

    def __init__(self, definition_id: bytes, labels: tuple[str, ...]) -> None:
        self.id = series_id(definition_id, labels)
        #: As the log's records have it.
        self.identity = encode_identity(Identity(definition_id, labels))


class _Part:
    """What one definition remembers: what label sets came to, by their bytes as sent."""

    def __init__(self) -> None:
        self.allowed: dict[bytes, LabelSet] = {}
        self.refused: dict[bytes, Fault] = {}
        self.used_bytes = 0

    def __len__(self) -> int:
        return len(self.allowed) + len(self.refused)

    def add(self, raw: bytes, found: LabelSet | Fault) -> None:
        self.used_bytes += _taken_bytes(raw)
        if isinstance(found, LabelSet):
            self.allowed[raw] = found
        else:
            self.refused[raw] = found

    def clear(self) -> None:
        self.used_bytes = 0
        self.allowed.clear()
        self.refused.clear()


def _taken_bytes(raw: bytes) -> int:
    return len(raw) + _OVERHEAD_BYTES


class LabelSetMemory:
    """Bounds what all definitions together remember of label sets: past the bound all is forgotten and learnt anew."""

    def __init__(self, most_bytes: int = 128 << 20) -> None:
        self._most_bytes = most_bytes
        self._used_bytes = 0
        self._parts: WeakSet[_Part] = WeakSet()

    def part(self) -> _Part:
        """A new definition's part of the memory."""
        part = _Part()
        self._parts.add(part)
        return part

    def remember(self, part: _Part, raw: bytes, found: LabelSet | Fault) -> None:
        """Keeps what the bytes came to, unless they are too long to be worth it."""
        if len(raw) > _LONGEST_REMEMBERED:
            return
        if len(part) >= _MOST_REMEMBERED:
            self._used_bytes -= part.used_bytes
            part.clear()
        self._used_bytes += _taken_bytes(raw)
        if self._used_bytes > self._most_bytes:  # with what definitions had that are gone
            self._used_bytes = _taken_bytes(raw) + sum(each.used_bytes for each in self._parts)
        if self._used_bytes > self._most_bytes:
            self._used_bytes = _taken_bytes(raw)
            for each in self._parts:
                each.clear()
        part.add(raw, found)


class CompiledDefinition:
    """A definition, ready to be held against metrics, with the label sets that it has seen."""

    def __init__(self, definition: Definition, memory: LabelSetMemory) -> None:
        self.definition = definition
        self.facts = DefinitionFacts(
            definition.id,
            definition.name,
            definition.type,
            definition.bounds,
            {name: rule.max_distinct for name, rule in definition.labels.items() if rule.max_distinct},
            definition.gauge_merge,
            definition.objectives,
        )
        self.is_counter = definition.type is MetricType.COUNTER
        self.is_gauge = definition.type is MetricType.GAUGE
        self.shows_exemplars = definition.type not in (MetricType.GAUGE, MetricType.SUMMARY)
        self.is_scalar = self.is_counter or self.is_gauge
        self._required = frozenset(name for name, rule in definition.labels.items() if rule.required)
        self._memory = memory
        self._part = memory.part()
        #: The allowed label sets as they were sent; the rest is for `resolve`.
        self.remembered = self._part.allowed
        #: The same where this is a counter, nothing where it is not.
        self.remembered_of_counter = self.remembered if self.is_counter else {}

    def label_set(self, raw: bytes) -> LabelSet | Fault:
        """What labels, as sent, come to."""
        return self.remembered.get(raw) or self.resolve(raw)

    def resolve(self, raw: bytes) -> LabelSet | Fault:
        """What labels come to that are not among the remembered ones."""
        if (refused := self._part.refused.get(raw)) is not None:
            return refused
        found = self._resolve(raw)
        self._memory.remember(self._part, raw, found)
        return found

    def _resolve(self, raw: bytes) -> LabelSet | Fault:
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
        return LabelSet(self.definition.id, tuple(text for name in sorted(labels) for text in (name, labels[name])))

    def _refuse(self, name: str, value: str) -> Fault | None:
        rule: LabelRule | None = self.definition.labels.get(name)
        if rule is None:
            return Fault("LABEL_UNKNOWN", f"The definition has no label {shown(name)}.")
        if len(value.encode()) > MOST_LABEL_VALUE_BYTES:
            return Fault(
                "LABEL_VALUE_TOO_LONG", f"The value of {name!r} is longer than {MOST_LABEL_VALUE_BYTES} bytes."
            )
        if value == OTHER or "\x00" in value or not _allows(rule, value):
            return Fault("LABEL_VALUE_NOT_ALLOWED", f"The label {name!r} does not allow the value {shown(value)}.")
        return None


def _allows(rule: LabelRule, value: str) -> bool:
    if rule.values is not None and value not in rule.values:
        return False
    if not rule.pattern:
        return True
    pattern = _compiled(rule.pattern)
    return pattern is not None and pattern.matches(value)


@lru_cache(_MOST_PATTERNS)
def _compiled(pattern: str) -> Pattern | None:
    """None: it cannot be used, as one that was defined while patterns could need more memory."""
    try:
        return Pattern(pattern)
    except PatternError:
        return None


class AcceptedTotal(NamedTuple):
    """What a source has counted of a series since its start."""

    label_set: LabelSet
    value: float | Distribution
    #: See `records.PART_VALUE`.
    part: int
    origin: Origin


@dataclass(slots=True)
class Validated:
    """A batch after validation: what was accepted, as a log record holds it."""

    accepted: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    definitions: set[CompiledDefinition] = field(default_factory=set)
    #: Of each accepted counter and gauge, in the order of the batch: label set, value, a gauge's time (0 otherwise; no
    #: times where all are counters that were taken at once).
    label_sets: list[LabelSet] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    #: What was observed of histograms and summaries, by series id.
    distributions: dict[bytes, tuple[LabelSet, Distribution]] = field(default_factory=dict)
    #: Totals of cumulative sources, which are a record of their own.
    totals: list[AcceptedTotal] = field(default_factory=list)
    #: Who reports a merged gauge, by its place in `label_sets`, where that is not the producer.
    reporters: dict[int, bytes] = field(default_factory=dict)
    #: The buckets of those that are native histograms, until `pack_native`.
    native: dict[bytes, NativeBuckets] = field(default_factory=dict)
    #: By series id.
    exemplars: dict[bytes, RecordedExemplar] = field(default_factory=dict)
    #: Whose totals are not taken.
    refused_sources: Collection[bytes] = ()

    @property
    def curable(self) -> bool:
        """Whether a newer definition might take more of the batch."""
        return any(rejection.code in CURABLE for rejection in self.rejections)

    def pack_native(self) -> None:
        """Lays the buckets of native histograms out as the record has them; to be called at the end."""
        for series, buckets in self.native.items():
            self.distributions[series][1].buckets = buckets.packed()


def remembered(batch: Batch, definitions: Mapping[str, CompiledDefinition]) -> Validated | None:
    """What `validate` comes to where all metrics are counters with a good value and a label set that is remembered, at
    half the price; else None."""
    result = Validated()
    if not _are_read(batch.metrics) or not _take_counters(batch.metrics, definitions, result):
        return None
    if batch.spans:
        deque(_take_exemplars(batch, definitions, result), maxlen=0)
    return _completed(batch, result)


def validate(batch: Batch, definitions: Mapping[str, CompiledDefinition], now_ms: int) -> Steps[Validated]:
    """Each metric taken or rejected, in order. `now_ms`: the receiver's clock, which gauges without a time get."""
    result = Validated()
    for index, metric in enumerate(batch.metrics):
        if isinstance(metric, Fault):
            fault: Fault | None = _refused_array(metric, definitions) or metric
        else:
            fault = take(metric, definitions, now_ms, result)
        if fault is not None:
            result.rejections.append(Rejection(index=index, code=fault.code, message=fault.message))
        yield
    yield from _take_exemplars(batch, definitions, result)
    return _completed(batch, result)


def _are_read(metrics: Sequence[Metric | Fault]) -> TypeGuard[Sequence[Metric]]:
    return set(map(type, metrics)) == {Metric}


def _take_counters(metrics: Sequence[Metric], definitions: Mapping[str, CompiledDefinition], result: Validated) -> bool:
    """False, and nothing is taken, where one is anything else than `remembered` says."""
    try:
        label_sets = [definitions[metric.name].remembered_of_counter[bytes(metric.labels)] for metric in metrics]
    except KeyError:
        return False
    values = [metric.value for metric in metrics]
    if not _are_numbers(values) or min(values) < 0.0:
        return False
    result.label_sets, result.values = label_sets, values
    result.definitions.update([definitions[name] for name in {metric.name for metric in metrics}])
    return True


def _are_numbers(values: list[float | list[float]]) -> TypeGuard[list[float]]:
    return set(map(type, values)) == {float}


def _completed(batch: Batch, result: Validated) -> Validated:
    result.accepted = len(batch.metrics) - len(result.rejections)
    result.pack_native()
    return result


def _take_exemplars(batch: Batch, definitions: Mapping[str, CompiledDefinition], result: Validated) -> Steps[None]:
    """Of an array of observations the last one stands for all."""
    rejected = {rejection.index for rejection in result.rejections}
    for index, span in batch.spans.items():
        metric = batch.metrics[index]
        if not isinstance(metric, Fault) and index not in rejected:
            value = metric.value if isinstance(metric.value, float) else metric.value[-1]
            take_exemplar(definitions[metric.name], bytes(metric.labels), value, span, result)
        yield


def take_exemplar(compiled: CompiledDefinition, labels: bytes, value: float, span: Span, result: Validated) -> None:
    """Adds an exemplar of a series that the result has, where its type can show one."""
    label_set = compiled.label_set(labels)
    if compiled.shows_exemplars and isinstance(label_set, LabelSet):
        result.exemplars[label_set.id] = RecordedExemplar(label_set.id, value, span.trace_id, span.span_id)


def take(metric: Metric, definitions: Mapping[str, CompiledDefinition], now_ms: int, result: Validated) -> Fault | None:
    """Adds the metric to the result, or says why not. Written out rather than split up: this is what a metric costs."""
    compiled = definitions.get(metric.name)
    if compiled is None:
        return Fault("METRIC_NOT_DEFINED", f"This project has no metric {shown(metric.name)}.")
    value = metric.value
    if not compiled.is_scalar:
        return _take_observations(metric.labels, [value] if isinstance(value, float) else value, compiled, result)
    if not isinstance(value, float):
        return _no_array(compiled)
    if value < 0.0 and compiled.is_counter:
        return Fault("VALUE_NEGATIVE", "A counter's value is what is added to it, and never negative.")
    raw = bytes(metric.labels)
    label_set = compiled.remembered.get(raw) or compiled.resolve(raw)
    if not isinstance(label_set, LabelSet):
        return label_set
    timestamp_ms = 0
    if compiled.is_gauge:
        sent_ms = now_ms if metric.timestamp is None else metric.timestamp
        if not now_ms - GAUGE_OLDEST_MS <= sent_ms <= now_ms + GAUGE_NEWEST_MS:
            return Fault("TIMESTAMP_OUT_OF_RANGE", "A gauge's timestamp is from 8 days back to 10 minutes ahead.")
        timestamp_ms = int(sent_ms)
    result.definitions.add(compiled)
    result.label_sets.append(label_set)
    result.values.append(value)
    result.timestamps.append(timestamp_ms)
    return None


def _refused_array(fault: Fault, definitions: Mapping[str, CompiledDefinition]) -> Fault | None:
    """Of what could not be decoded: what its definition says first."""
    compiled = definitions.get(fault.metric) if fault.is_array else None
    return _no_array(compiled) if compiled is not None and compiled.is_scalar else None


def _no_array(compiled: CompiledDefinition) -> Fault:
    return Fault("METRIC_TYPE_MISMATCH", f"A {compiled.definition.type.words} takes one number, not an array.")


def _take_observations(
    labels: msgspec.Raw, observations: list[float], compiled: CompiledDefinition, result: Validated
) -> Fault | None:
    if not 0 < len(observations) <= MOST_OBSERVATIONS:
        return Fault("METRIC_MALFORMED", f"An array has 1 to {MOST_OBSERVATIONS} observations.")
    found = distribution_of(bytes(labels), compiled, result)
    if isinstance(found, Fault):
        return found
    observe(found, compiled.definition.bounds, observations, result)
    return None


def distribution_of(labels: bytes, compiled: CompiledDefinition, result: Validated) -> Distribution | Fault:
    """Where one metric's observations of a label set are added up: in the result from now on."""
    label_set = compiled.label_set(labels)
    if not isinstance(label_set, LabelSet):
        return label_set
    result.definitions.add(compiled)
    if label_set.id not in result.distributions:
        kind = compiled.definition.type
        buckets = [0] * (len(compiled.definition.bounds) + 1) if kind is MetricType.HISTOGRAM else []
        if kind is MetricType.NATIVE_HISTOGRAM:
            result.native[label_set.id] = NativeBuckets()
        result.distributions[label_set.id] = label_set, Distribution(label_set.id, 0.0, 0, buckets, metrics=0)
    distribution = result.distributions[label_set.id][1]
    distribution.metrics += 1
    return distribution


def observe(
    distribution: Distribution,
    bounds: Sequence[float],
    observations: Sequence[float],
    result: Validated,
    weight: int = 1,
) -> None:
    """Adds observations, each of which stands for `weight` alike."""
    distribution.count += len(observations) * weight
    if distribution.id in result.native:
        result.native[distribution.id].observe(observations, weight)
    elif not distribution.buckets:
        count_into(distribution.bins, observations, weight)
    for observation in observations:
        distribution.sum = add_finite(distribution.sum, observation * weight)
        if distribution.buckets:
            distribution.buckets[bisect_left(bounds, observation)] += weight


def shown(text: str) -> str:
    """What a client sent, for a message."""
    return repr(text if len(text) <= 80 else text[:77] + "…")
