"""A lane's state without its servers: what Postgres keeps of it, and what its samples say, one by one."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from services.ingest.aggregation import LaneState
from services.ingest.columns import Ids, Ints
from services.ingest.domain import OTHER, Definition, LabelPairs, is_other, partition_of, series_id
from services.ingest.fetches import Fetch
from services.ingest.label_sets import Budgets
from services.ingest.loading import Found, Loaded, Missing
from services.ingest.producers import ProducerKey
from services.ingest.recent import Recent, StoredLevels, StoredSketch
from services.ingest.records import Record
from services.ingest.samples import Samples
from services.ingest.sealing import Checkpoint, SealedSeries
from services.ingest.series import Family, SeriesTable, StoredSeries, decode_labels, encode_labels
from services.ingest.sources import SourceKey, Total
from services.ingest.windows import Window
from tests.stepping import at_once
from tests.unit.ingest.ingestion import DAY_MS, NOW_MS, PROJECT, TENANT, pairs_of

#: Of `Store.live_through`.
STEPS = ("fold", "fold", "fold", "commit", "crash", "crash while committing")


class Row(NamedTuple):
    """A row of the table `series`."""

    family: Family
    labels: LabelPairs
    value: float
    counts: tuple[int, ...] | None
    timestamp_ms: int
    created_ms: int
    changed_ms: int


class Store:
    """What Postgres keeps of a lane, and a state over it. `crash` drops what was not committed."""

    def __init__(
        self,
        *,
        per_project: int = 100_000,
        per_metric: int = 10_000,
        per_tenant: int = 1_000_000,
        per_lane: int = 1_000_000,
        stale_after_ms: int = DAY_MS,
        write_all: bool = False,
        full_of_series: Collection[bytes] = (),
    ) -> None:
        self._write_all = write_all
        self._full_of_series = full_of_series
        self._budgets = Budgets(
            per_project=per_project, per_metric=per_metric, per_tenant=per_tenant, per_lane=per_lane
        )
        self._stale_after_ms = stale_after_ms
        self.rows: dict[bytes, Row] = {}
        self._windows: dict[ProducerKey, tuple[int, Iterable[int], int]] = {}
        #: What `Total` is made of, by source and definition.
        self.sources: dict[SourceKey, dict[bytes, tuple[bytes, int, float, Sequence[int], int]]] = {}
        self._ended: dict[bytes, int] = {}
        #: By series and reporter: timestamp, as-of and level; by series and minute: bins.
        self.levels: dict[tuple[bytes, bytes], tuple[int, int, float]] = {}
        self.sketches: dict[tuple[bytes, int], bytes] = {}
        self._position = 0
        self.commit_ms = 0
        self.delivered_ms = 0
        self.table = SeriesTable()
        self.state = self._load()

    def crash(self) -> None:
        self.state = self._load()

    def fold(self, *records: Record) -> None:
        """The next frame of the log."""
        self.take(Fetch(records, self.state.position + len(records)))

    def take(self, fetch: Fetch) -> None:
        """What was read from the log."""
        self.state.fold(fetch, self._found(self.state.missing(fetch)))

    def missing(self, *records: Record) -> Missing:
        return self.state.missing(Fetch(records, self.state.position))

    def commit(self, now_ms: int) -> Checkpoint:
        self.state.delivered(self.delivered_ms)
        checkpoint = at_once(self.state.sealing(now_ms))
        self.store(checkpoint)
        return checkpoint

    def store(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.commit_ms > self.commit_ms
        self._position, self.commit_ms = checkpoint.position, checkpoint.commit_ms
        made = checkpoint.made
        values = _values(made.values)
        for (identity, value), family, labels in zip(values, made.families, made.labels, strict=True):
            assert identity not in self.rows, "a series is made once"
            self.rows[identity] = Row(
                _copy(family), decode_labels(labels), *value, checkpoint.commit_ms, checkpoint.commit_ms
            )
        for identity, value in _values(checkpoint.changed):
            before = self.rows[identity]
            self.rows[identity] = Row(before.family, before.labels, *value, before.created_ms, checkpoint.commit_ms)
        for row in checkpoint.producers:
            self._windows[row.key] = (row.floor, row.ranges, row.used_ms)
        for told in checkpoint.sources:
            of_source = self.sources.setdefault((told.project_id, told.source), {})
            of_source[told.definition_id] = told[3:]
        for _, _, definition_id in checkpoint.ended:
            self._ended[definition_id] = checkpoint.commit_ms
        for family in checkpoint.adopted:
            for identity, stored in self.rows.items():
                if stored.family.definition_id == family.definition_id:
                    self.rows[identity] = stored._replace(family=_copy(family))
        self._store_recent(checkpoint.recent)

    def _store_recent(self, recent: Recent) -> None:
        for levels in recent.levels:
            columns = (levels.timestamp_ms.tolist(), levels.as_of_ms.tolist(), levels.level.tolist())
            keys = zip(levels.series.each(), levels.reporters.each(), strict=True)
            self.levels |= dict(zip(keys, zip(*columns, strict=True), strict=True))
        self.sketches |= {(each.series_id, each.minute): each.bins for each in recent.sketches}

    def live_through(self, log: Sequence[Record], plan: Iterable[str]) -> None:
        """Folds, commits and crashes as planned, then folds and commits what is left."""
        now_ms = NOW_MS
        for now_ms, step in enumerate(plan, NOW_MS):
            if step == "commit":
                self.commit(now_ms)
            elif step == "fold":
                self.fold(*log[self.state.position :][:1])
            elif step == "crash while committing":
                sealed = at_once(self.state.sealing(now_ms))
                if not sealed.forgotten:
                    self.fold(*log[self.state.position :][:1])  # folding goes on meanwhile
                self.store(sealed)
            if step.startswith("crash"):
                self.crash()
        self.fold(*log[self.state.position :])
        self.commit(now_ms + 500)

    def totals(self) -> dict[tuple[str, ...], float]:
        """The stored values, by name and label pairs."""
        return {(row.family.name, *row.labels): row.value for row in self.rows.values()}

    def _load(self) -> LaneState:
        since_ms = min(self.commit_ms, self.delivered_ms) - self._stale_after_ms - 30_000
        self.table = SeriesTable()
        living, unmarked = [], []
        for identity, row in self.rows.items():
            ended_ms = self._ended.get(row.family.definition_id)
            if ended_ms is None and (row.changed_ms > since_ms or is_other(row.labels)):
                living.append(identity)
            elif ended_ms is not None and ended_ms > self.delivered_ms and row.changed_ms > since_ms:
                unmarked.append(identity)
        self.table.restore(self._stored(living))
        loaded = Loaded(
            position=self._position,
            commit_ms=self.commit_ms,
            watermarks={"remote_write": self.delivered_ms},
            table=self.table,
            live_since_ms=since_ms,
            ended=dict(self._ended),
            unmarked=self.table.restore(self._stored(unmarked), findable=False),
            recent=self._recent([*living, *unmarked]),
            full_of_series=self._full_of_series,
        )
        return LaneState(
            loaded,
            self._budgets,
            stale_after_ms=self._stale_after_ms,
            interval_ms=1000,
            write_all=self._write_all,
        )

    def _found(self, missing: Missing) -> Found:
        windows = {}
        for key in missing.producers:
            floor, ranges, used_ms = self._windows.get(key, (1, (), 0))
            windows[key] = Window(floor, ranges, used_ms)
        sources = {key: [Total(*row) for row in self.sources.get(key, {}).values()] for key in missing.sources}
        assert all(partition == partition_of(PROJECT) for partition, _ in missing.series)
        stored = [identity for _, identity in missing.series if identity in self.rows]
        found = [self._stored(stored)] if stored else []
        return Found(windows=windows, series=found, sources=sources, recent=self._recent(stored))

    def _recent(self, of: Sequence[bytes]) -> Recent:
        levels = {key: level for key, level in self.levels.items() if key[0] in of}
        sketches = [
            StoredSketch(partition_of(PROJECT), identity, TENANT, minute, bins)
            for (identity, minute), bins in self.sketches.items()
            if identity in of
        ]
        return Recent([_levels(levels)] if levels else [], sketches)

    def _stored(self, identities: Sequence[bytes]) -> StoredSeries:
        rows = [self.rows[identity] for identity in identities]
        return StoredSeries(
            ids=Ids.of(b"".join(identities)),
            families=[_copy(row.family) for row in rows],
            labels=[encode_labels(row.labels) for row in rows],
            folded=np.array([OTHER in row.labels[1::2] for row in rows], np.bool_),
            value=np.array([row.value for row in rows]),
            counts=[None if row.counts is None else np.array(row.counts) for row in rows],
            timestamp_ms=_ints(row.timestamp_ms for row in rows),
            created_ms=_ints(row.created_ms for row in rows),
            changed_ms=_ints(row.changed_ms for row in rows),
        )


def _levels(stored: Mapping[tuple[bytes, bytes], tuple[int, int, float]]) -> StoredLevels:
    series, reporters = zip(*stored, strict=True)
    timestamps, as_of, levels = zip(*stored.values(), strict=True)
    return StoredLevels(
        partition=np.full(len(stored), partition_of(PROJECT), np.int16),
        series=Ids.of(b"".join(series)),
        tenants=np.frombuffer(TENANT * len(stored), "V16"),
        reporters=Ids.of(b"".join(reporters)),
        timestamp_ms=_ints(timestamps),
        as_of_ms=_ints(as_of),
        level=np.array(levels),
    )


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, np.int64)


def _values(sealed: SealedSeries) -> list[tuple[bytes, tuple[float, tuple[int, ...] | None, int]]]:
    return [
        (identity, (value, None if counts is None else tuple(counts.tolist()), timestamp_ms))
        for identity, value, counts, timestamp_ms in zip(
            sealed.ids.each(), sealed.value.tolist(), sealed.counts, sealed.timestamp_ms.tolist(), strict=True
        )
    ]


def _copy(of: Family) -> Family:
    return Family(
        tenant_id=of.tenant_id,
        project_id=of.project_id,
        definition_id=of.definition_id,
        name=of.name,
        type=of.type,
        bounds=of.bounds,
        merge=of.merge,
        objectives=of.objectives,
    )


def family_of(of: Definition) -> Family:
    return Family(
        tenant_id=of.tenant_id,
        project_id=of.project_id,
        definition_id=of.id,
        name=of.name,
        type=of.type,
        bounds=of.bounds,
        merge=of.gauge_merge,
        objectives=of.objectives,
    )


class Sample(NamedTuple):
    """One of `Samples`."""

    name: str
    labels: LabelPairs
    at_ms: int
    value: float
    #: The count, then the buckets; empty for others than histograms and summaries.
    counts: tuple[int, ...] = ()
    stale: bool = False
    #: Of a summary that observed something lately.
    quantiles: tuple[float, ...] = ()


def each_of(samples: Samples) -> list[Sample]:
    """The samples one by one, in order."""
    table = samples.table
    return [
        Sample(
            table.families[table.family[row]].name,
            table.label_pairs(row),
            int(samples.at_ms[at]),
            float(samples.value[at]),
            () if samples.counts[at] is None else tuple(samples.counts[at].tolist()),
            bool(samples.stale[at]),
            () if samples.quantiles[at] is None else tuple(samples.quantiles[at].tolist()),
        )
        for at, row in enumerate(samples.rows.tolist())
    ]


class Rows:
    """A table of series, made when they are named, and samples of them."""

    def __init__(self) -> None:
        self.table = SeriesTable()

    def of(self, definition: Definition, **labels: str) -> int:
        """The row of a series."""
        pairs = pairs_of(labels)
        identity = series_id(definition.id, pairs)
        row = self.table.row_of(identity)
        if row < 0:
            row = self.table.make(identity, self.table.enter(family_of(definition)), pairs)
            self.table.settle()
        return row

    def sample(
        self,
        row: int,
        at_ms: int,
        value: float = 0.0,
        counts: Sequence[int] | None = None,
        *,
        stale: bool = False,
        quantiles: Sequence[float] | None = None,
    ) -> Samples:
        """One value of a row."""
        in_column = np.full(1, None, np.object_)
        if counts is not None:
            in_column[0] = np.array(counts, np.int64)
        elif not stale:
            in_column = self.table.counts_of(np.array([row]))
        observed = np.full(1, None, np.object_)
        if quantiles is not None:
            observed[0] = np.array(quantiles)
        at = np.array([at_ms])
        return Samples(
            self.table, np.array([row], np.intp), at, np.array([value]), in_column, np.array([stale]), observed
        )

    def joined(self, *samples: Samples) -> Samples:
        return Samples.joined(self.table, samples)
