"""What the tests of ingestion's pure parts share: definitions, batches and records of the log."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from services.ingest import decoding
from services.ingest.allowed_values import AllowedValues
from services.ingest.domain import Definition, LabelPairs, LabelRule, MetricType, series_id
from services.ingest.native_histograms import NativeBuckets
from services.ingest.records import (
    PART_VALUE,
    DefinitionFacts,
    Distribution,
    Identity,
    Kind,
    Origins,
    Record,
    encode_identity,
    float64s,
    int64s,
)
from services.ingest.sketches import bin_of
from services.ingest.validation import CompiledDefinition, LabelSetMemory, Validated, remembered, validate
from tests.stepping import at_once

TENANT, PROJECT = b"t" * 16, b"p" * 16
NOW_MS = 1_795_200_000_000
DAY_MS = 24 * 3600 * 1000


def definition(name: str = "orders_total", kind: MetricType = MetricType.COUNTER, **changes: Any) -> Definition:
    """A definition without labels unless `labels` says otherwise; its id follows from its name."""
    return Definition(
        **{
            "id": name.encode().ljust(16, b".")[:16],
            "tenant_id": TENANT,
            "project_id": PROJECT,
            "name": name,
            "type": kind,
            "bounds": (),
            "labels": {},
            "version": 1,
            **changes,
        }
    )


def label(**rule: Any) -> LabelRule:
    values = rule.pop("values", None)
    return LabelRule(
        **{
            "required": False,
            "values": AllowedValues.of(values) if values else None,
            "pattern": "",
            "max_distinct": 0,
            **rule,
        }
    )


def batch_of(*metrics: Any) -> decoding.Batch:
    """The batch of these metrics, from its JSON on."""
    return decoding.decode(json.dumps({"metrics": metrics}).encode(), "")


def validated(definitions: list[Definition], *metrics: Any, memory: LabelSetMemory | None = None) -> Validated:
    """The batch of these metrics, from its JSON on."""
    shared = memory or LabelSetMemory()
    compiled = {each.name: CompiledDefinition(each, shared) for each in definitions}
    return validation_of(batch_of(*metrics), compiled)


def validation_of(batch: decoding.Batch, compiled: Mapping[str, CompiledDefinition]) -> Validated:
    """As a receiver does it."""
    return remembered(batch, compiled) or at_once(validate(batch, compiled, NOW_MS))


class Delta(NamedTuple):
    """One metric of a batch: a value of one label set."""

    of: Definition
    labels: LabelPairs
    value: float
    timestamp_ms: int

    @property
    def id(self) -> bytes:
        return series_id(self.of.id, self.labels)

    @property
    def facts(self) -> DefinitionFacts:
        limits = {name: rule.max_distinct for name, rule in self.of.labels.items() if rule.max_distinct}
        return DefinitionFacts(
            self.of.id, self.of.name, self.of.type, self.of.bounds, limits, self.of.gauge_merge, self.of.objectives
        )

    @property
    def distribution(self) -> Distribution:
        """One observation, in a classic histogram's first bucket."""
        if self.of.type is MetricType.SUMMARY:
            return Distribution(self.id, self.value, 1, [], bins={bin_of(self.value): 1})
        buckets = [1] + [0] * len(self.of.bounds)
        if self.of.type is MetricType.NATIVE_HISTOGRAM:
            native = NativeBuckets()
            native.observe([self.value])
            buckets = native.packed()
        return Distribution(self.id, self.value, 1, buckets)


def delta(of: Definition, value: float = 1.0, timestamp_ms: int = 0, **labels: str) -> Delta:
    """For a histogram `value` is one observation, in a classic one's first bucket."""
    return Delta(of, pairs_of(labels), value, timestamp_ms)


def delta_of(of: Definition, labels: Mapping[str, str], value: float = 1.0, timestamp_ms: int = 0) -> Delta:
    """The same with the labels in one mapping."""
    return Delta(of, pairs_of(labels), value, timestamp_ms)


def pairs_of(labels: Mapping[str, str]) -> LabelPairs:
    return tuple(text for name in sorted(labels) for text in (name, labels[name]))


def record(
    *deltas: Delta, producer: bytes = b"", sequence: int = 0, floor: int = 0, received_ms: int = NOW_MS
) -> Record:
    scalars = [each for each in deltas if each.of.type in (MetricType.COUNTER, MetricType.GAUGE)]
    others = [each for each in deltas if each.of.type > MetricType.GAUGE]
    identities = [Identity(each.of.id, each.labels) for each in (*scalars, *others)]
    return Record(
        kind=Kind.DELTA,
        tenant_id=TENANT,
        project_id=PROJECT,
        producer=producer,
        sequence=sequence,
        floor=floor,
        received_ms=received_ms,
        definitions=list({each.of.id: each.facts for each in deltas}.values()),
        ids=b"".join(each.id for each in scalars),
        values=float64s(each.value for each in scalars),
        timestamps=int64s(each.timestamp_ms for each in scalars) if any(each.timestamp_ms for each in scalars) else b"",
        distributions=[each.distribution for each in others],
        identities=b"".join(map(encode_identity, identities)),
    )


class Told(NamedTuple):
    """A total of a source."""

    of: Definition
    source: str
    #: A second of the source's clock.
    at: int
    #: A counter's total, that of one part of a histogram, or a histogram's sum.
    value: float
    #: Of a histogram as a whole.
    buckets: Sequence[int] = ()
    part: int = PART_VALUE
    labels: LabelPairs = ()
    #: Nobody knows when the source began.
    baseline: bool = False


def totals(*told: Told, received_ms: int = NOW_MS) -> Record:
    """What a receiver writes of a request of cumulative sources."""
    scalars, others = [each for each in told if not each.buckets], [each for each in told if each.buckets]
    every = [*scalars, *others]
    ids = [series_id(each.of.id, each.labels) for each in every]
    distributions = [
        Distribution(series_id(each.of.id, each.labels), each.value, _count_of(each), list(each.buckets))
        for each in others
    ]
    return msgspec.structs.replace(
        record(received_ms=received_ms),
        kind=Kind.CUMULATIVE,
        definitions=list({each.of.id: delta(each.of).facts for each in told}.values()),
        ids=b"".join(ids[: len(scalars)]),
        values=float64s(each.value for each in scalars),
        distributions=distributions,
        identities=b"".join(encode_identity(Identity(each.of.id, each.labels)) for each in every),
        origins=Origins(
            b"".join(each.source.encode().ljust(16, b".") for each in every),
            int64s(each.at * 10**9 for each in every),
            int64s(each.part for each in scalars),
            bytes(each.baseline for each in every),
        ),
    )


def _count_of(told: Told) -> int:
    is_native = told.of.type is MetricType.NATIVE_HISTOGRAM
    return NativeBuckets.unpacked(told.buckets).count if is_native else sum(told.buckets)


def ended(*of: Definition) -> Record:
    """What a receiver writes when definitions were deleted."""
    return msgspec.structs.replace(record(), kind=Kind.END, definitions=[delta(each).facts for each in of])


def renamed(of: Definition, definition_id: bytes) -> Definition:
    """Another definition under the same name."""
    return replace(of, id=definition_id)
