"""The state of one lane in memory, and how records change it. No I/O: `lane.py` loads, commits and delivers.

Records are folded in place, so that folding goes on while the checkpoint before is being committed; a checkpoint is a
copy taken at one moment. After an error the whole state is dropped and loaded anew.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.ingest import metrics
from services.ingest.domain import OTHER, LabelPairs, MetricType, add_finite, partition_of, series_id
from services.ingest.records import Kind, MetricDelta, Record, SeriesDelta
from services.ingest.windows import Window

#: Each live series is written at least this often: Prometheus forgets after five minutes.
REWRITE_SECONDS = 30

#: Producers that have been quiet for so long leave memory; their windows stay in the state.
_PRODUCER_IDLE_MS = 10 * 60 * 1000

#: Label sets over a budget whose substitute is remembered.
_MOST_SUBSTITUTES = 100_000

ProducerKey = tuple[bytes, bytes]
"""Project id and producer id."""


class Series:
    """One label set of one definition, whatever its buckets."""

    __slots__ = (
        "bounds",
        "buckets",
        "changed_ms",
        "count",
        "created_ms",
        "definition_id",
        "encoded_labels",
        "folded",
        "id",
        "labels",
        "live",
        "name",
        "partition",
        "project_id",
        "stored",
        "tenant_id",
        "timestamp_ms",
        "type",
        "value",
    )

    def __init__(
        self,
        *,
        id: bytes,  # noqa: A002 - the field's name
        tenant_id: bytes,
        project_id: bytes,
        definition_id: bytes,
        name: str,
        type: MetricType,  # noqa: A002
        labels: LabelPairs,
        bounds: tuple[float, ...],
    ) -> None:
        self.id = id
        self.tenant_id = tenant_id
        self.project_id = project_id
        self.definition_id = definition_id
        self.name = name
        self.type = type
        self.labels = labels
        self.bounds = bounds
        self.partition = partition_of(project_id)
        #: See the columns of the table `series`.
        self.value = 0.0
        self.count = 0
        self.buckets = [0] * (len(bounds) + 1) if type is MetricType.HISTOGRAM else []
        self.timestamp_ms = 0
        #: 0 until its first commit.
        self.created_ms = 0
        self.changed_ms = 0
        self.folded = OTHER in labels[1::2]
        #: Is written to the sinks; a series without data for a day is not, until it wakes up.
        self.live = False
        #: Has a row in the state.
        self.stored = False
        #: What a sink needs of its labels, made once (`sinks.remote_write`).
        self.encoded_labels: tuple[bytes, ...] | None = None

    def add(self, delta: SeriesDelta) -> None:
        """Folds one batch's part in."""
        if self.type is MetricType.GAUGE:
            if delta.timestamp_ms >= self.timestamp_ms:
                self.value, self.timestamp_ms = delta.value, delta.timestamp_ms
            return
        self.value = add_finite(self.value, delta.value)
        self.count += delta.count
        if self.buckets:
            self.buckets = [have + more for have, more in zip(self.buckets, delta.buckets, strict=True)]


class Emission(NamedTuple):
    """What a sink is to write of one series: its values as committed, copied."""

    series: Series
    #: Unix milliseconds.
    at_ms: int
    value: float
    observations: int
    buckets: Sequence[int]
    #: The series ends here: a stale marker.
    stale: bool = False


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
    #: The log's sequence up to which everything is in here.
    position: int
    made: list[Series] = field(default_factory=list)
    #: Series and their values as of this moment: (series, value, count, buckets, gauge timestamp).
    changed: list[tuple[Series, float, int, list[int], int]] = field(default_factory=list)
    producers: list[ProducerRow] = field(default_factory=list)
    #: Tenant, project and definition ids.
    ended: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    emissions: list[Emission] = field(default_factory=list)
    #: The receiver's clock of the newest record, Unix milliseconds; 0: none.
    newest_received_ms: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Budgets:
    """How many label sets become series of their own."""

    per_project: int
    per_metric: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A lane's state as it was stored."""

    position: int
    commit_ms: int
    #: Every commit up to here is delivered.
    delivered_ms: int
    series: list[Series]
    ended: set[bytes]


class LaneState:
    """The series and producers of one lane."""

    def __init__(self, loaded: Loaded, budgets: Budgets, *, stale_after_ms: int, interval_ms: int) -> None:
        self.position = loaded.position
        self.commit_ms = loaded.commit_ms
        self._budgets = budgets
        self._stale_after_ms = stale_after_ms
        self._interval_ms = interval_ms
        self._series: dict[bytes, Series] = {}
        self._windows: dict[ProducerKey, Window] = {}
        self._ended = loaded.ended
        self._per_project: dict[bytes, int] = {}
        self._per_definition: dict[bytes, set[bytes]] = {}
        self._distinct: dict[tuple[bytes, str], set[str]] = {}
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
        #: Changed after what was delivered: to be written at the first commit.
        self._undelivered = [series for series in loaded.series if series.changed_ms > loaded.delivered_ms]
        self._undelivered_since_ms = loaded.delivered_ms

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
                for delta in metric.series
                if delta.id not in self._series and delta.id not in self._substitutes
            )
        return missing

    def admit_window(self, key: ProducerKey, window: Window) -> None:
        """A producer's window as it was stored, or a new one."""
        self._windows[key] = window

    def admit(self, series: Series) -> None:
        """A series as it was stored. It stays quiet where it has been for long."""
        self._series[series.id] = series
        self._per_project[series.project_id] = self._per_project.get(series.project_id, 0) + 1
        self._per_definition.setdefault(series.definition_id, set()).add(series.id)
        for name, value in zip(series.labels[::2], series.labels[1::2], strict=True):
            self._distinct.setdefault((series.definition_id, name), set()).add(value)
        if series.changed_ms > self.commit_ms - self._stale_after_ms and series.stored:
            self._enliven(series)

    def _enliven(self, series: Series) -> None:
        series.live = True
        self._slots[series.id[0] % REWRITE_SECONDS][series.id] = series

    # --- folding

    def fold(self, record: Record, position: int) -> None:
        """Takes one record in, unless its producer's window says that it is in already."""
        self._newest_received_ms = max(self._newest_received_ms, record.received_ms)
        self.position = position
        if record.producer and not self._claim(record):
            metrics.RECORDS_FOLDED.labels("duplicate").inc()
            return
        for metric in record.metrics:
            if record.kind is Kind.END:
                self._end(record, metric)
            elif metric.definition_id not in self._ended:
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
        series.add(delta)
        if series.folded:
            metrics.SERIES_FOLDED_AWAY.inc()
        self._dirty[series.id] = series
        if not series.live:
            self._enliven(series)

    def _make(self, record: Record, metric: MetricDelta, delta: SeriesDelta) -> Series:
        labels = self._within_budget(record.project_id, metric, delta.labels)
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
            type=MetricType(metric.type),
            labels=labels,
            bounds=metric.bounds,
        )
        self.admit(series)
        return series

    def _substitute(self, identity: bytes, substitute: bytes) -> None:
        if len(self._substitutes) >= _MOST_SUBSTITUTES:
            self._substitutes.clear()
        self._substitutes[identity] = substitute

    def _within_budget(self, project_id: bytes, metric: MetricDelta, labels: LabelPairs) -> LabelPairs:
        """The labels, with one that has too many values, or all over a series budget, as `__other__`."""
        if metric.max_distinct:
            labels = self._within_distinct(metric, labels)
        known = self._per_definition.get(metric.definition_id, ())
        if labels and series_id(metric.definition_id, labels) not in known:
            over_metric = len(known) >= self._budgets.per_metric
            if over_metric or self._per_project.get(project_id, 0) >= self._budgets.per_project:
                return tuple(OTHER if at % 2 else text for at, text in enumerate(labels))
        return labels

    def _within_distinct(self, metric: MetricDelta, labels: LabelPairs) -> LabelPairs:
        bounded = list(labels)
        for at in range(0, len(labels), 2):
            limit = metric.max_distinct.get(labels[at])
            seen = self._distinct.get((metric.definition_id, labels[at]), set())
            if limit and labels[at + 1] not in seen and len(seen) - (OTHER in seen) >= limit:
                bounded[at + 1] = OTHER
        return labels if tuple(bounded) == labels else tuple(bounded)

    def _end(self, record: Record, metric: MetricDelta) -> None:
        definition_id = metric.definition_id
        self._ended.add(definition_id)
        self._newly_ended.append((record.tenant_id, record.project_id, definition_id))
        for identity in list(self._per_definition.get(definition_id, ())):
            series = self._series[identity]
            if series.live and series.created_ms:
                self._stale.append(series)
            self._forget(series)

    def _forget(self, series: Series) -> None:
        self._dirty.pop(series.id, None)
        self._slots[series.id[0] % REWRITE_SECONDS].pop(series.id, None)
        del self._series[series.id]
        self._per_project[series.project_id] -= 1
        members = self._per_definition[series.definition_id]
        members.discard(series.id)
        if not members:
            del self._per_definition[series.definition_id]
            for name in series.labels[::2]:
                self._distinct.pop((series.definition_id, name), None)

    # --- the checkpoint

    def seal(self, now_ms: int) -> Checkpoint:
        """A copy of what changed since the last one, and of what is due for the sinks.

        Its timestamp is at least 2 ms after the last commit's, whatever this machine's clock says: a counter must not
        look reset, and the millisecond before it is free for stale markers.
        """
        self.commit_ms = max(now_ms, self.commit_ms + 2)
        checkpoint = Checkpoint(
            commit_ms=self.commit_ms, position=self.position, newest_received_ms=self._newest_received_ms
        )
        self._newest_received_ms = 0
        self._seal_series(checkpoint)
        self._seal_undelivered(checkpoint)
        self._seal_quiet(checkpoint)
        self._seal_ended(checkpoint)
        self._seal_producers(checkpoint)
        return checkpoint

    def _seal_series(self, checkpoint: Checkpoint) -> None:
        dirty, self._dirty = self._dirty, {}
        for series in dirty.values():
            series.changed_ms = checkpoint.commit_ms
            if not series.stored:
                series.created_ms, series.stored = checkpoint.commit_ms, True
                checkpoint.made.append(series)
                self._emit_zero(checkpoint, series)
            else:
                checkpoint.changed.append((series, series.value, series.count, series.buckets, series.timestamp_ms))
            checkpoint.emissions.append(_emission(series, checkpoint.commit_ms))

    def _emit_zero(self, checkpoint: Checkpoint, series: Series) -> None:
        """A 0 one interval before a series' first value, so that `rate()` sees the first increment."""
        if series.type is not MetricType.GAUGE:
            zeros = [0] * len(series.buckets)
            checkpoint.emissions.append(Emission(series, series.created_ms - self._interval_ms, 0.0, 0, zeros))

    def _seal_undelivered(self, checkpoint: Checkpoint) -> None:
        """What an earlier owner committed and may not have delivered; once."""
        for series in self._undelivered:
            if series.created_ms > self._undelivered_since_ms:
                self._emit_zero(checkpoint, series)
            if series.changed_ms != checkpoint.commit_ms and series.live:
                checkpoint.emissions.append(_emission(series, checkpoint.commit_ms))
        self._undelivered = []

    def _seal_quiet(self, checkpoint: Checkpoint) -> None:
        """Rewrites the live series whose turn it is, and ends those without data for too long."""
        second = checkpoint.commit_ms // 1000
        swept = self._swept_second or second - 1
        first = max(swept + 1, second - REWRITE_SECONDS + 1)
        self._swept_second = max(second, swept)
        for due in range(first, second + 1):
            for series in list(self._slots[due % REWRITE_SECONDS].values()):
                if series.changed_ms <= checkpoint.commit_ms - self._stale_after_ms:
                    self._stale.append(series)
                    self._retire(series)
                elif series.changed_ms != checkpoint.commit_ms:
                    checkpoint.emissions.append(_emission(series, checkpoint.commit_ms))

    def _retire(self, series: Series) -> None:
        """Out of the sinks and out of memory, not out of the state. What label sets were folded into stays."""
        if series.folded:
            series.live = False
            del self._slots[series.id[0] % REWRITE_SECONDS][series.id]
        else:
            self._forget(series)

    def _seal_ended(self, checkpoint: Checkpoint) -> None:
        for series in self._stale:
            checkpoint.emissions.append(Emission(series, checkpoint.commit_ms - 1, 0.0, 0, series.buckets, stale=True))
        self._stale = []
        checkpoint.ended, self._newly_ended = self._newly_ended, []

    def _seal_producers(self, checkpoint: Checkpoint) -> None:
        dirty, self._dirty_producers = self._dirty_producers, {}
        for key, tenant_id in dirty.items():
            window = self._windows[key]
            checkpoint.producers.append(ProducerRow(tenant_id, key, window.floor, window.ranges[:], window.used_ms))

    def drop_idle_producers(self, now_ms: int) -> None:
        """Forgets windows that have been quiet for long. Call it only while no commit is under way."""
        idle = [
            key
            for key, window in self._windows.items()
            if window.used_ms < now_ms - _PRODUCER_IDLE_MS and key not in self._dirty_producers
        ]
        for key in idle:
            del self._windows[key]


def _emission(series: Series, at_ms: int) -> Emission:
    return Emission(series, at_ms, series.value, series.count, series.buckets)
