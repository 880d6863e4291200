"""What the tests of ingestion's pure parts share: definitions, batches, and a lane's state without its servers."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services.ingest import decoding
from services.ingest.aggregation import Checkpoint, LaneState, Loaded, Missing
from services.ingest.domain import Definition, LabelPairs, LabelRule, MetricType, partition_of, series_id
from services.ingest.label_sets import Budgets
from services.ingest.records import VERSION, Kind, MetricDelta, Record, SeriesDelta
from services.ingest.series import Sealed, Series
from services.ingest.validation import CompiledDefinition, LabelSetMemory, Validated, validate
from services.ingest.windows import Window

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
            "values": frozenset(values) if values else None,
            "pattern": "",
            "max_distinct": 0,
            **rule,
        }
    )


def validated(definitions: list[Definition], *metrics: Any, memory: LabelSetMemory | None = None) -> Validated:
    """The batch of these metrics, from its JSON on."""
    shared = memory or LabelSetMemory()
    compiled = {each.name: CompiledDefinition(each, shared) for each in definitions}
    return validate(decoding.decode(json.dumps({"metrics": metrics}).encode(), ""), compiled, NOW_MS)


def delta(of: Definition, value: float = 1.0, timestamp_ms: int = 0, **labels: str) -> MetricDelta:
    """One label set's part of a batch; for a histogram `value` is one observation in the first bucket."""
    return delta_of(of, labels, value, timestamp_ms)


def pairs_of(labels: Mapping[str, str]) -> LabelPairs:
    return tuple(text for name in sorted(labels) for text in (name, labels[name]))


def series_of(of: Definition, **labels: str) -> Series:
    """A new series of the definition."""
    return Series(
        id=series_id(of.id, pairs_of(labels)),
        tenant_id=of.tenant_id,
        project_id=of.project_id,
        definition_id=of.id,
        name=of.name,
        type=of.type,
        labels=pairs_of(labels),
        bounds=of.bounds,
    )


def delta_of(of: Definition, labels: Mapping[str, str], value: float = 1.0, timestamp_ms: int = 0) -> MetricDelta:
    """The same with the labels in one mapping."""
    pairs = pairs_of(labels)
    histogram = of.type is MetricType.HISTOGRAM
    series = SeriesDelta(
        series_id(of.id, pairs),
        pairs,
        value,
        count=1 if of.type in (MetricType.HISTOGRAM, MetricType.SUMMARY) else 0,
        buckets=[1] + [0] * len(of.bounds) if histogram else [],
        timestamp_ms=timestamp_ms,
    )
    limits = {name: rule.max_distinct for name, rule in of.labels.items() if rule.max_distinct}
    return MetricDelta(of.id, of.name, of.type, of.bounds, limits, [series])


def record(
    *metrics: MetricDelta, producer: bytes = b"", sequence: int = 0, floor: int = 0, received_ms: int = NOW_MS
) -> Record:
    return Record(
        version=VERSION,
        kind=Kind.DELTA,
        tenant_id=TENANT,
        project_id=PROJECT,
        producer=producer,
        sequence=sequence,
        floor=floor,
        received_ms=received_ms,
        metrics=list(metrics),
    )


def ended(of: Definition) -> Record:
    """What a receiver writes when a definition was deleted."""
    metric = MetricDelta(of.id, of.name, of.type, of.bounds, {}, [])
    told = record(metric)
    told.kind = Kind.END
    return told


class Store:
    """What Postgres keeps of a lane, and a state over it. `crash` drops what was not committed."""

    def __init__(self, *, per_project: int = 100_000, per_metric: int = 10_000, stale_after_ms: int = DAY_MS) -> None:
        self._budgets = Budgets(per_project=per_project, per_metric=per_metric)
        self._stale_after_ms = stale_after_ms
        self._rows: dict[bytes, tuple[Sealed, int, int]] = {}
        self._windows: dict[tuple[bytes, bytes], tuple[int, list[int], int]] = {}
        self._ended: dict[bytes, int] = {}
        self._position = 0
        self.commit_ms = 0
        self.delivered_ms = 0
        self.state = self._load()

    def crash(self) -> None:
        self.state = self._load()

    def fold(self, *records: Record) -> None:
        """The next frame of the log."""
        windows, series = self._missing(self.state.missing(records))
        for key, window in windows.items():
            self.state.admit_window(key, window)
        for stored in series:
            self.state.admit(stored)
        for each in records:
            self.state.fold(each, self.state.position + 1)
        self.state.let_go(series)

    def commit(self, now_ms: int) -> Checkpoint:
        checkpoint = self.state.seal(now_ms)
        self.store(checkpoint)
        return checkpoint

    def store(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.commit_ms > self.commit_ms
        self._position, self.commit_ms = checkpoint.position, checkpoint.commit_ms
        for sealed in checkpoint.made:
            assert sealed.series.id not in self._rows, "a series is made once"
            self._rows[sealed.series.id] = (sealed, checkpoint.commit_ms, checkpoint.commit_ms)
        for sealed in checkpoint.changed:
            self._rows[sealed.series.id] = (sealed, self._rows[sealed.series.id][1], checkpoint.commit_ms)
        for row in checkpoint.producers:
            self._windows[row.key] = (row.floor, row.ranges, row.used_ms)
        for _, _, definition_id in checkpoint.ended:
            self._ended.setdefault(definition_id, checkpoint.commit_ms)

    def totals(self) -> dict[tuple[str, ...], float]:
        """The stored values, by name and label pairs."""
        return {(sealed.series.name, *sealed.series.labels): sealed.value for sealed, _, _ in self._rows.values()}

    def _load(self) -> LaneState:
        since_ms = min(self.commit_ms, self.delivered_ms) - self._stale_after_ms - 30_000
        living = [identity for identity, row in self._rows.items() if row[0].series.definition_id not in self._ended]
        loaded = Loaded(
            position=self._position,
            commit_ms=self.commit_ms,
            delivered_ms=self.delivered_ms,
            series=[
                self._series(each)
                for each in living
                if self._rows[each][2] > since_ms or self._rows[each][0].series.folded
            ],
            live_since_ms=since_ms,
            ended=set(self._ended),
            ended_ms=max(self._ended.values(), default=0),
            unmarked=[
                self._series(identity)
                for identity, (sealed, _, changed_ms) in self._rows.items()
                if self._ended.get(sealed.series.definition_id, 0) > self.delivered_ms and changed_ms > since_ms
            ],
        )
        return LaneState(loaded, self._budgets, stale_after_ms=self._stale_after_ms, interval_ms=1000)

    def _missing(self, missing: Missing) -> tuple[dict[tuple[bytes, bytes], Window], list[Series]]:
        windows = {}
        for key in missing.producers:
            floor, ranges, used_ms = self._windows.get(key, (1, [], 0))
            windows[key] = Window(floor, list(ranges), used_ms)
        assert all(partition == partition_of(PROJECT) for partition, _ in missing.series)
        return windows, [self._series(identity) for _, identity in missing.series if identity in self._rows]

    def _series(self, identity: bytes) -> Series:
        sealed, created_ms, changed_ms = self._rows[identity]
        of = sealed.series
        series = Series(
            id=of.id,
            tenant_id=of.tenant_id,
            project_id=of.project_id,
            definition_id=of.definition_id,
            name=of.name,
            type=of.type,
            labels=of.labels,
            bounds=of.bounds,
        )
        series.value, series.count, series.buckets = sealed.value, sealed.observations, list(sealed.buckets)
        series.timestamp_ms, series.created_ms, series.changed_ms = sealed.timestamp_ms, created_ms, changed_ms
        series.stored = True
        return series


def renamed(of: Definition, definition_id: bytes) -> Definition:
    """Another definition under the same name."""
    return replace(of, id=definition_id)
