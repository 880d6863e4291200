"""What one commit stores and what may leave for the sinks once it has: copies, taken at one moment. No I/O.

Folding goes on while the copies are being stored.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.ingest.columns import NO_ROWS, Floats, Ids, Ints, Mask, Objects, Rows, joined_rows
from services.ingest.domain import LabelPairs, MetricType
from services.ingest.label_sets import LabelSets
from services.ingest.ledger import LedgerLines
from services.ingest.producers import ProducerRow
from services.ingest.samples import Samples
from services.ingest.series import Family, SeriesTable
from services.ingest.sources import SourceRow

#: Each live series is written at least this often: Prometheus forgets after five minutes.
REWRITE_SECONDS = 30


@dataclass(frozen=True, slots=True, eq=False)
class SealedSeries:
    """Values of rows as of one moment, for the state."""

    partition: NDArray[np.int16]
    ids: Ids
    value: Floats
    counts: Objects
    timestamp_ms: Ints

    @classmethod
    def of(cls, table: SeriesTable, rows: Rows) -> "SealedSeries":
        """Copies of these rows."""
        return cls(
            table.partition[rows], table.ids(rows), table.value[rows], table.counts_of(rows), table.timestamp_ms[rows]
        )

    def __len__(self) -> int:
        return self.value.size


@dataclass(frozen=True, slots=True, eq=False)
class MadeSeries:
    """Series that the state does not have yet."""

    families: Sequence[Family]
    labels: Sequence[LabelPairs]
    folded: Mask
    values: SealedSeries

    @classmethod
    def of(cls, table: SeriesTable, rows: Rows) -> "MadeSeries":
        """Copies of these rows."""
        return cls(
            [table.families[number] for number in table.family[rows].tolist()],
            [table.label_pairs(row) for row in rows.tolist()],
            table.folded[rows],
            SealedSeries.of(table, rows),
        )

    def __len__(self) -> int:
        return len(self.values)


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    """All that one commit stores, and what may leave for the sinks once it has."""

    commit_ms: int
    #: The log's sequence up to which everything is in here, and nothing beyond it.
    position: int
    made: MadeSeries
    changed: SealedSeries
    samples: Samples
    producers: list[ProducerRow] = field(default_factory=list)
    sources: list[SourceRow] = field(default_factory=list)
    #: Tenant, project and definition ids.
    ended: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    #: The receiver's clock of the newest record, Unix milliseconds; 0: none.
    newest_received_ms: int = 0
    ledger: LedgerLines = field(default_factory=LedgerLines)


class _Ending(NamedTuple):
    """Project and name of a definition that ends, its series, and those of them whose values are to be written."""

    name: tuple[bytes, str]
    rows: Rows
    changed: Rows


class Sealer:
    """Finds out what has changed, what is due for the sinks, and what has been quiet for too long."""

    def __init__(
        self, table: SeriesTable, label_sets: LabelSets, *, stale_after_ms: int, interval_ms: int, ended_ms: int
    ) -> None:
        self._table = table
        self._label_sets = label_sets
        self._stale_after_ms = stale_after_ms
        self._interval_ms = interval_ms
        #: When a definition of a project and name ended; of all names, as far as that is not known.
        self._name_ended_ms: dict[tuple[bytes, str], int] = {}
        self._ended_ms = ended_ms
        #: What the next commit ends, in order.
        self._endings: list[_Ending] = []
        self._swept_second = 0
        #: Rows whose end is to be written.
        self._stale: list[Rows] = []
        self._undelivered = NO_ROWS
        self._undelivered_since_ms = 0

    def end(self, family: Family, rows: Rows, changed: Rows) -> None:
        """The next commit writes what these series, all of a definition, have come to where they changed, and that they
        end."""
        self._endings.append(_Ending((family.project_id, family.name), rows, changed))

    @property
    def least_ms(self) -> int:
        """How far the next commit must be from the last one: each life of a name that ends needs moments of its own."""
        lives = Counter(ending.name for ending in self._endings)
        return 5 + 3 * max(0, max(lives.values(), default=0) - 1)

    def write_undelivered(self, rows: Rows, since_ms: int) -> None:
        """The next commit writes what an earlier owner committed after `since_ms` and may not have delivered."""
        self._undelivered, self._undelivered_since_ms = rows, since_ms

    def series(self, commit_ms: int) -> tuple[MadeSeries, SealedSeries, Samples]:
        """The series that were made and those that changed, and what is due for the sinks. They are clean then."""
        table = self._table
        dirty = np.flatnonzero(table.dirty[: table.size])
        table.dirty[dirty] = False
        last = joined_rows(ending.changed for ending in self._endings)
        touched = joined_rows((dirty, last))
        table.changed_ms[touched] = commit_ms
        stored = table.stored[touched]
        made = touched[~stored]
        table.created_ms[made] = commit_ms
        table.stored[made] = True
        zeros, undelivered = self._due_undelivered(commit_ms)
        quiet = self._sweep(commit_ms, besides=undelivered)
        samples = [
            *self._last_samples(commit_ms),
            Samples.stale_markers(table, joined_rows(self._stale), commit_ms - 2),
        ]
        self._note_endings(commit_ms)
        samples += [
            self._zeros(joined_rows((dirty[self._unseen(dirty, commit_ms)], zeros)), commit_ms - 1),
            Samples.values(table, joined_rows((dirty, undelivered, quiet)), commit_ms),
        ]
        self._stale = []
        table.committed(commit_ms)
        return MadeSeries.of(table, made), SealedSeries.of(table, touched[stored]), Samples.joined(table, samples)

    def _last_samples(self, commit_ms: int) -> Iterator[Samples]:
        """Last values and ends. Where several definitions of one name end together, which are one series to a sink, one
        follows the other in steps of three milliseconds."""
        later = Counter(ending.name for ending in self._endings)
        earlier: set[tuple[bytes, str]] = set()
        for name, rows, changed in self._endings:
            later[name] -= 1
            end_ms = commit_ms - 2 - 3 * later[name]
            unseen = changed[self._unseen(changed, commit_ms)]
            yield self._zeros(unseen, end_ms - 2, at_once=name in earlier)
            yield Samples.values(self._table, changed, end_ms - 1)
            yield Samples.stale_markers(self._table, rows, end_ms)
            earlier.add(name)

    def _unseen(self, rows: Rows, commit_ms: int) -> Mask:
        """Which of the rows this commit makes."""
        unseen: Mask = self._table.created_ms[rows] == commit_ms
        return unseen

    def _note_endings(self, commit_ms: int) -> None:
        oldest_ms = commit_ms - self._interval_ms
        known = {name: ended_ms for name, ended_ms in self._name_ended_ms.items() if ended_ms > oldest_ms}
        self._name_ended_ms = known | dict.fromkeys((ending.name for ending in self._endings), commit_ms)
        self._endings = []

    def _zeros(self, rows: Rows, latest_ms: int, *, at_once: bool = False) -> Samples:
        """A 0 one interval before a series' first value, so that `rate()` sees the first increment; but not before the
        end of a deleted definition that had the same name. `at_once`: no earlier than `latest_ms`."""
        table = self._table
        rows = rows[table.type[rows] != MetricType.GAUGE]
        ended_ms = np.full(rows.size, self._ended_ms, np.int64)
        if self._name_ended_ms:
            families = [table.families[number] for number in table.family[rows].tolist()]
            names = [(family.project_id, family.name) for family in families]
            known = np.array([self._name_ended_ms.get(name, 0) for name in names], np.int64)
            ended_ms = np.maximum(ended_ms, known)
        created_ms = table.created_ms[rows]
        at_ms = np.maximum(created_ms - self._interval_ms, np.minimum(ended_ms, created_ms - 1))
        return Samples.zeros(table, rows, np.full(rows.size, latest_ms) if at_once else np.minimum(at_ms, latest_ms))

    def _due_undelivered(self, commit_ms: int) -> tuple[Rows, Rows]:
        """Rows whose first zero may not be delivered, and rows whose value may not be; once."""
        table = self._table
        rows, self._undelivered = self._undelivered, NO_ROWS
        rows = rows[table.present[rows]]
        zeros = rows[table.created_ms[rows] > self._undelivered_since_ms]
        return zeros, rows[table.live[rows] & (table.changed_ms[rows] != commit_ms)]

    def _sweep(self, commit_ms: int, besides: Rows) -> Rows:
        """The quiet live rows whose turn it is; ends those without data for too long."""
        table, second = self._table, commit_ms // 1000
        swept = self._swept_second or second - 1
        first = max(swept + 1, second - REWRITE_SECONDS + 1)
        self._swept_second = max(second, swept)
        slots = (due % REWRITE_SECONDS for due in range(first, second + 1))
        rows = joined_rows(slot + REWRITE_SECONDS * np.flatnonzero(self._quiet(slot, commit_ms)) for slot in slots)
        if besides.size:
            rows = np.setdiff1d(rows, besides)
        over = table.changed_ms[rows] <= commit_ms - self._stale_after_ms
        self._retire(rows[over])
        return rows[~over]

    def _quiet(self, slot: int, commit_ms: int) -> Mask:
        """Of every thirtieth row from this one on, whether it is live and not being written anyway."""
        table = self._table
        every = slice(slot, table.size, REWRITE_SECONDS)
        quiet: Mask = table.live[every] & (table.changed_ms[every] != commit_ms)
        return quiet

    def _retire(self, rows: Rows) -> None:
        """Out of the sinks and out of memory, not out of the state. What label sets were folded into stays."""
        self._stale.append(rows)
        self._table.live[rows] = False
        leaving = rows[~self._table.folded[rows]]
        if leaving.size:
            self._label_sets.remove(leaving)
            self._table.leave(leaving)
