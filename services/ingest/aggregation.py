"""The state of one lane in memory, and how records change it. No I/O: `lane.py` loads, commits and delivers.

Records are folded in place, so that folding goes on while the checkpoint before is being committed; a checkpoint is a
copy taken at one moment. After an error the whole state is dropped and loaded anew.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from services.ingest import metrics
from services.ingest.domain import MetricType, partition_of, series_id
from services.ingest.errors import UnreadableLogError
from services.ingest.label_sets import Budgets, LabelSets
from services.ingest.records import Kind, MetricDelta, Record, SeriesDelta
from services.ingest.series import Emission, Sealed, Series
from services.ingest.windows import Window

#: Each live series is written at least this often: Prometheus forgets after five minutes.
REWRITE_SECONDS = 30

#: Producers that have been quiet for so long leave memory, and so do those beyond so many; their windows stay in the
#: state, from which they come back.
_PRODUCER_IDLE_MS = 10 * 60 * 1000
_MOST_PRODUCERS = 200_000

#: Label sets over a budget whose substitute is remembered.
_MOST_SUBSTITUTES = 100_000

ProducerKey = tuple[bytes, bytes]
"""Project id and producer id."""


class Missing(NamedTuple):
    """What records name and memory does not hold."""

    producers: set[ProducerKey]
    #: Partitions and series ids.
    series: set[tuple[int, bytes]]


class ProducerRow(NamedTuple):
    """A producer's window as it is to be stored."""

    tenant_id: bytes
    key: ProducerKey
    floor: int
    ranges: list[int]
    used_ms: int


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    """All that one commit stores, and what may leave for the sinks once it has."""

    commit_ms: int
    #: The log's sequence up to which everything is in here, and nothing beyond it.
    position: int
    made: list[Sealed] = field(default_factory=list)
    changed: list[Sealed] = field(default_factory=list)
    producers: list[ProducerRow] = field(default_factory=list)
    #: Tenant, project and definition ids.
    ended: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    emissions: list[Emission] = field(default_factory=list)
    #: The receiver's clock of the newest record, Unix milliseconds; 0: none.
    newest_received_ms: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A lane's state as it was stored."""

    position: int
    commit_ms: int
    #: Every commit up to here is delivered.
    delivered_ms: int
    #: Those that changed after `live_since_ms`, and all that label sets over a budget were folded into.
    series: list[Series]
    live_since_ms: int
    #: Definitions that were deleted, and the newest commit that ended one.
    ended: set[bytes]
    ended_ms: int
    #: Series of deleted definitions whose stale markers may not be delivered.
    unmarked: list[Series]


class LaneState:
    """The series and producers of one lane."""

    def __init__(self, loaded: Loaded, budgets: Budgets, *, stale_after_ms: int, interval_ms: int) -> None:
        self.position = loaded.position
        self.commit_ms = loaded.commit_ms
        self._stale_after_ms = stale_after_ms
        self._interval_ms = interval_ms
        self._series: dict[bytes, Series] = {}
        self._label_sets = LabelSets(budgets)
        self._windows: dict[ProducerKey, Window] = {}
        self._ended = loaded.ended
        self._ended_ms = loaded.ended_ms
        self._substitutes: dict[bytes, bytes] = {}
        #: Live series by the second, of `REWRITE_SECONDS`, in which they are rewritten.
        self._slots: list[dict[bytes, Series]] = [{} for _ in range(REWRITE_SECONDS)]
        self._swept_second = 0
        self._dirty: dict[bytes, Series] = {}
        self._dirty_producers: dict[ProducerKey, bytes] = {}
        self._newly_ended: list[tuple[bytes, bytes, bytes]] = []
        self._stale: list[Series] = []
        self._newest_received_ms = 0
        for series in loaded.series:
            self.admit(series)
            if series.changed_ms > loaded.live_since_ms:
                self._enliven(series)
        #: Changed after what was delivered: to be written at the first commit.
        self._undelivered = [series for series in loaded.series if series.changed_ms > loaded.delivered_ms]
        self._undelivered_since_ms = loaded.delivered_ms
        self._stale += loaded.unmarked
        for project_id, name in {(series.project_id, series.name) for series in loaded.unmarked}:
            self._write_namesakes(project_id, name)

    def __len__(self) -> int:
        return len(self._series)

    # --- what must be loaded before records can be folded

    def missing(self, records: Iterable[Record]) -> Missing:
        """What must be admitted before these records can be folded."""
        missing = Missing(set(), set())
        for record in records:
            key = (record.project_id, record.producer)
            if record.producer and key not in self._windows:
                missing.producers.add(key)
            partition = partition_of(record.project_id)
            missing.series.update(
                (partition, delta.id)
                for metric in record.metrics
                if metric.definition_id not in self._ended
                for delta in metric.series
                if delta.id not in self._series and delta.id not in self._substitutes
            )
        return missing

    def admit_window(self, key: ProducerKey, window: Window) -> None:
        """A producer's window as it was stored, or a new one."""
        self._windows[key] = window

    def admit(self, series: Series) -> None:
        """A series as it was stored. It stays quiet until a record changes it."""
        self._series[series.id] = series
        self._label_sets.add(series)

    def let_go(self, admitted: Iterable[Series]) -> None:
        """Forgets those that were admitted and that no record has changed, as when the record was a duplicate."""
        for series in admitted:
            if not series.live and not series.folded and self._series.get(series.id) is series:
                self._forget(series)

    def _enliven(self, series: Series) -> None:
        series.live = True
        self._slots[series.id[0] % REWRITE_SECONDS][series.id] = series

    # --- folding

    def fold(self, record: Record, position: int) -> None:
        """Takes one record in, unless its producer's window says that it is in already.

        Raises UnreadableLogError where the record does not fit the series; what is in memory is then void.
        """
        self._newest_received_ms = max(self._newest_received_ms, record.received_ms)
        self.position = position
        if record.producer and not self._claim(record):
            metrics.RECORDS_FOLDED.labels("duplicate").inc()
            return
        for metric in record.metrics:
            if metric.definition_id in self._ended:
                continue
            if record.kind is Kind.END:
                self._end(record, metric)
            else:
                for delta in metric.series:
                    self._fold_series(record, metric, delta)
        metrics.RECORDS_FOLDED.labels("counted").inc()

    def _claim(self, record: Record) -> bool:
        key = (record.project_id, record.producer)
        window = self._windows[key]
        window.used_ms = max(window.used_ms, record.received_ms)
        self._dirty_producers[key] = record.tenant_id
        return window.claim(record.sequence, record.floor)

    def _fold_series(self, record: Record, metric: MetricDelta, delta: SeriesDelta) -> None:
        series = self._series.get(self._substitutes.get(delta.id, delta.id))
        if series is None:
            series = self._make(record, metric, delta)
        if series.bounds != metric.bounds or len(series.buckets) != len(delta.buckets):
            raise UnreadableLogError(f"a record has other buckets than its series, definition {series.name!r}")
        series.add(delta)
        if series.folded:
            metrics.SERIES_FOLDED_AWAY.inc()
        self._dirty[series.id] = series
        if not series.live:
            self._enliven(series)

    def _make(self, record: Record, metric: MetricDelta, delta: SeriesDelta) -> Series:
        labels = self._label_sets.bounded(record.project_id, metric, delta.labels)
        identity = delta.id if labels is delta.labels else series_id(metric.definition_id, labels)
        if identity != delta.id:
            self._substitute(delta.id, identity)
            if (existing := self._series.get(identity)) is not None:
                return existing
        series = Series(
            id=identity,
            tenant_id=record.tenant_id,
            project_id=record.project_id,
            definition_id=metric.definition_id,
            name=metric.name,
            type=metric.type,
            labels=labels,
            bounds=metric.bounds,
        )
        self.admit(series)
        return series

    def _substitute(self, identity: bytes, substitute: bytes) -> None:
        if len(self._substitutes) >= _MOST_SUBSTITUTES:
            self._substitutes.clear()
        self._substitutes[identity] = substitute

    def _end(self, record: Record, metric: MetricDelta) -> None:
        self._ended.add(metric.definition_id)
        self._newly_ended.append((record.tenant_id, record.project_id, metric.definition_id))
        for series in self._label_sets.of_definition(metric.definition_id):
            if series.live and series.created_ms:
                self._stale.append(series)
            self._forget(series)
        self._write_namesakes(record.project_id, metric.name)

    def _write_namesakes(self, project_id: bytes, name: str) -> None:
        """A definition that was made anew under the name of a deleted one shares its series in the sinks: what it has
        is written again after the stale markers."""
        for series in self._label_sets.of_name(project_id, name):
            if series.live:
                self._dirty[series.id] = series

    def _forget(self, series: Series) -> None:
        self._dirty.pop(series.id, None)
        self._slots[series.id[0] % REWRITE_SECONDS].pop(series.id, None)
        del self._series[series.id]
        self._label_sets.remove(series)

    # --- the checkpoint

    def seal(self, now_ms: int) -> Checkpoint:
        """A copy of what changed since the last one, and of what is due for the sinks.

        Its timestamp is at least 3 ms after the last commit's, whatever this machine's clock says: a counter must not
        look reset, and the two milliseconds before it are free for stale markers and the first zeros that follow them.
        """
        self.commit_ms = max(now_ms, self.commit_ms + 3)
        checkpoint = Checkpoint(
            commit_ms=self.commit_ms, position=self.position, newest_received_ms=self._newest_received_ms
        )
        self._newest_received_ms = 0
        self._seal_ended(checkpoint)
        self._seal_series(checkpoint)
        undelivered = self._seal_undelivered(checkpoint)
        self._seal_quiet(checkpoint, besides=undelivered)
        self._seal_stale(checkpoint)
        self._seal_producers(checkpoint)
        return checkpoint

    def _seal_ended(self, checkpoint: Checkpoint) -> None:
        checkpoint.ended, self._newly_ended = self._newly_ended, []
        if checkpoint.ended:
            self._ended_ms = checkpoint.commit_ms

    def _seal_series(self, checkpoint: Checkpoint) -> None:
        dirty, self._dirty = self._dirty, {}
        for series in dirty.values():
            series.changed_ms = checkpoint.commit_ms
            if series.stored:
                checkpoint.changed.append(series.sealed())
            else:
                series.created_ms, series.stored = checkpoint.commit_ms, True
                checkpoint.made.append(series.sealed())
                self._emit_zero(checkpoint, series)
            checkpoint.emissions.append(series.emission(checkpoint.commit_ms))

    def _emit_zero(self, checkpoint: Checkpoint, series: Series) -> None:
        """A 0 one interval before a series' first value, so that `rate()` sees the first increment; but not before the
        end of a deleted definition, which may have had the same name."""
        if series.type is not MetricType.GAUGE:
            zero_ms = max(series.created_ms - self._interval_ms, min(self._ended_ms, series.created_ms - 1))
            checkpoint.emissions.append(Emission(series, zero_ms, 0.0, 0, [0] * len(series.buckets)))

    def _seal_undelivered(self, checkpoint: Checkpoint) -> set[bytes]:
        """What an earlier owner committed and may not have delivered; once. Returns the series' ids."""
        undelivered, self._undelivered = self._undelivered, []
        for series in undelivered:
            if series.created_ms > self._undelivered_since_ms:
                self._emit_zero(checkpoint, series)
            if series.changed_ms != checkpoint.commit_ms and series.live:
                checkpoint.emissions.append(series.emission(checkpoint.commit_ms))
        return {series.id for series in undelivered}

    def _seal_quiet(self, checkpoint: Checkpoint, besides: set[bytes]) -> None:
        """Rewrites the live series whose turn it is, and ends those without data for too long."""
        second = checkpoint.commit_ms // 1000
        swept = self._swept_second or second - 1
        first = max(swept + 1, second - REWRITE_SECONDS + 1)
        self._swept_second = max(second, swept)
        for due in range(first, second + 1):
            for series in list(self._slots[due % REWRITE_SECONDS].values()):
                if series.changed_ms == checkpoint.commit_ms or series.id in besides:
                    continue
                if series.changed_ms <= checkpoint.commit_ms - self._stale_after_ms:
                    self._stale.append(series)
                    self._retire(series)
                else:
                    checkpoint.emissions.append(series.emission(checkpoint.commit_ms))

    def _retire(self, series: Series) -> None:
        """Out of the sinks and out of memory, not out of the state. What label sets were folded into stays."""
        if series.folded:
            series.live = False
            del self._slots[series.id[0] % REWRITE_SECONDS][series.id]
        else:
            self._forget(series)

    def _seal_stale(self, checkpoint: Checkpoint) -> None:
        stale, self._stale = self._stale, []
        checkpoint.emissions.extend(
            Emission(series, checkpoint.commit_ms - 2, 0.0, 0, series.buckets, stale=True) for series in stale
        )

    def _seal_producers(self, checkpoint: Checkpoint) -> None:
        dirty, self._dirty_producers = self._dirty_producers, {}
        for key, tenant_id in dirty.items():
            window = self._windows[key]
            checkpoint.producers.append(ProducerRow(tenant_id, key, window.floor, window.ranges[:], window.used_ms))

    def drop_idle_producers(self, now_ms: int) -> None:
        """Forgets windows that have been quiet for long, or are too many. Call it only while no commit is under way."""
        surplus = max(0, len(self._windows) - _MOST_PRODUCERS)
        settled = [key for key in self._windows if key not in self._dirty_producers]
        for at, key in enumerate(settled):
            if at < surplus or self._windows[key].used_ms < now_ms - _PRODUCER_IDLE_MS:
                del self._windows[key]
