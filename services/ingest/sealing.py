"""What one commit stores and what may leave for the sinks once it has: copies, taken at one moment. No I/O.

Folding goes on while the copies are being stored.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from services.ingest.columns import NO_ROWS, Floats, Ids, Ints, Mask, Objects, Rows, joined_rows
from services.ingest.domain import MetricType
from services.ingest.ended_definitions import EndedDefinition
from services.ingest.label_sets import LabelSets
from services.ingest.ledger import LedgerLines
from services.ingest.producers import ProducerRow
from services.ingest.recent import NOTHING_RECENT, Recent
from services.ingest.samples import Samples
from services.ingest.series import Family, SeriesTable
from services.ingest.sources import SourceRow

#: Each live series is written at least this often: Prometheus forgets after five minutes. Only a new owner may need
#: longer once, for very many summaries.
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

    def at(self, places: slice) -> "SealedSeries":
        """Those at some places."""
        ids = Ids(self.ids.low[places], self.ids.high[places])
        return SealedSeries(
            self.partition[places], ids, self.value[places], self.counts[places], self.timestamp_ms[places]
        )


@dataclass(frozen=True, slots=True, eq=False)
class MadeSeries:
    """Series that the state does not have yet."""

    families: Sequence[Family]
    #: As of `series.encode_labels`.
    labels: Sequence[bytes]
    folded: Mask
    values: SealedSeries

    @classmethod
    def of(cls, table: SeriesTable, rows: Rows) -> "MadeSeries":
        """Copies of these rows."""
        return cls(
            [table.families[number] for number in table.family[rows].tolist()],
            [table.labels[row] for row in rows.tolist()],
            table.folded[rows],
            SealedSeries.of(table, rows),
        )

    def __len__(self) -> int:
        return len(self.values)

    def at(self, places: slice) -> "MadeSeries":
        """Those at some places."""
        return MadeSeries(self.families[places], self.labels[places], self.folded[places], self.values.at(places))


@dataclass(frozen=True, slots=True, eq=False)
class Overdue:
    """What an earlier owner committed and may not have delivered to every sink."""

    samples: Samples
    #: The commit that each of them was first due in, Unix milliseconds.
    due_ms: Ints

    @classmethod
    def joined(cls, table: SeriesTable, parts: Sequence["Overdue"]) -> Self:
        """All of the parts, in order."""
        return cls(
            Samples.joined(table, [part.samples for part in parts]),
            np.concatenate([np.empty(0, np.int64), *(part.due_ms for part in parts)]),
        )


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    """All that one commit stores, and what may leave for the sinks once it has."""

    commit_ms: int
    #: The log's sequence up to which everything is in here, and nothing beyond it.
    position: int
    made: MadeSeries
    changed: SealedSeries
    #: What every sink is to be given.
    samples: Samples
    #: What sinks that lack it are to be given besides, with an owner's first commit.
    overdue: Overdue
    producers: list[ProducerRow] = field(default_factory=list)
    sources: list[SourceRow] = field(default_factory=list)
    #: Definitions whose series end, for the first time or once more.
    ended: list[EndedDefinition] = field(default_factory=list)
    #: The receiver's clock of the newest record, Unix milliseconds; 0: none.
    newest_received_ms: int = 0
    ledger: LedgerLines = field(default_factory=LedgerLines)
    recent: Recent = NOTHING_RECENT
    #: Definitions whose objectives the state does not have yet.
    adopted: list[Family] = field(default_factory=list)
    #: Values are in here that memory has no more: until they are stored, nobody may look for them in the state.
    forgotten: bool = False

    def samples_for(self, delivered_ms: int) -> Samples:
        """What a sink is to be given that has every commit of earlier owners up to this one."""
        if not self.overdue.due_ms.size:
            return self.samples
        lacking = self.overdue.samples.at(self.overdue.due_ms > delivered_ms)
        return Samples.joined(self.samples.table, (lacking, self.samples))


class SealedCommit(NamedTuple):
    """What is to be stored of the series, and what is due for the sinks."""

    made: MadeSeries
    changed: SealedSeries
    samples: Samples
    overdue: Overdue


class _Ending(NamedTuple):
    """A definition that ends: project and name, its series, and those of them whose values are to be written."""

    name: tuple[bytes, str]
    rows: Rows
    changed: Rows
    #: Where an earlier owner has committed it: the commits in which `rows` were to be marked and `changed` written.
    due_ms: tuple[Ints, Ints] | None


class Sealer:
    """Finds out what has changed, what is due for the sinks, and what has been quiet for too long."""

    def __init__(
        self,
        table: SeriesTable,
        label_sets: LabelSets,
        *,
        stale_after_ms: int,
        interval_ms: int,
        ended_ms: int,
        delivered_ms: int,
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
        #: Up to which second quiet series were rewritten, by an earlier owner as far as its commits were delivered:
        #: after a pause all of them are due at once, before queries no longer find them.
        self._swept_second = delivered_ms // 1000
        #: Rows whose end is to be written.
        self._stale: list[Rows] = []
        self._undelivered = NO_ROWS
        self._undelivered_since_ms = 0

    def end(self, family: Family, rows: Rows, changed: Rows, due_ms: Ints | None = None) -> None:
        """The next commit writes what these series, all of a definition, have come to where they changed, and that they
        end. `due_ms`: which commit of an earlier owner has ended each of `rows`."""
        due = None if due_ms is None else (due_ms, self._table.changed_ms[changed])
        self._endings.append(_Ending((family.project_id, family.name), rows, changed, due))

    @property
    def least_ms(self) -> int:
        """How far the next commit must be from the last one: each life of a name that ends needs moments of its own."""
        lives = Counter(ending.name for ending in self._endings)
        return 5 + 3 * max(0, max(lives.values(), default=0) - 1)

    def write_undelivered(self, rows: Rows, since_ms: int) -> None:
        """The next commit writes these rows, which an earlier owner committed, to the sinks that may lack them; and the
        first zeros of those that it made after `since_ms`."""
        self._undelivered, self._undelivered_since_ms = rows, since_ms

    @property
    def undelivered(self) -> Rows:
        """Whose values the next commit writes because an earlier owner committed them."""
        ends = [ending.changed for ending in self._endings if ending.due_ms is not None]
        return joined_rows((self._undelivered, *ends))

    def series(self, commit_ms: int, silent: Rows) -> SealedCommit:
        """The series that were made and those that changed, and what is due for the sinks. They are clean then.

        `silent`: live gauges that have no value any more. They end in the sinks until they have one again.
        """
        table = self._table
        dirty = np.flatnonzero(table.dirty[: table.size])
        self._retire(silent[table.present[silent]])
        shown = dirty[table.live[dirty]]
        unseen, undelivered = self._take_undelivered()
        table.dirty[dirty] = False
        touched = joined_rows((dirty, *(ending.changed for ending in self._endings if ending.due_ms is None)))
        table.changed_ms[touched] = commit_ms
        stored = table.stored[touched]
        made = touched[~stored]
        table.created_ms[made] = commit_ms
        table.stored[made] = True
        quiet = self._sweep(commit_ms, besides=undelivered)
        ends, overdue_ends = self._ends(commit_ms)
        samples = [
            *ends,
            Samples.stale_markers(table, joined_rows(self._stale), commit_ms - 2),
            self._zeros(dirty[self._unseen(dirty, commit_ms)], commit_ms - 1),
            Samples.values(table, joined_rows((shown, quiet)), commit_ms),
        ]
        self._stale = []
        table.committed(commit_ms)
        return SealedCommit(
            MadeSeries.of(table, made),
            SealedSeries.of(table, touched[stored]),
            Samples.joined(table, samples),
            Overdue.joined(table, (*overdue_ends, self._overdue(unseen, undelivered, commit_ms))),
        )

    def _ends(self, commit_ms: int) -> tuple[list[Samples], list[Overdue]]:
        """Last values and ends, this owner's and those that are overdue. Where several definitions of one name end
        together, which are one series to a sink, one follows the other in steps of three milliseconds."""
        table, samples, overdue = self._table, list[Samples](), list[Overdue]()
        later = Counter(ending.name for ending in self._endings)
        earlier: set[tuple[bytes, str]] = set()
        for name, rows, changed, due_ms in self._endings:
            later[name] -= 1
            end_ms = commit_ms - 2 - 3 * later[name]
            values = Samples.values(table, changed, end_ms - 1)
            markers = Samples.stale_markers(table, rows, end_ms)
            if due_ms is None:
                unseen = changed[self._unseen(changed, commit_ms)]
                samples += [self._zeros(unseen, end_ms - 2, at_once=name in earlier), values, markers]
            else:
                overdue += [Overdue(markers, due_ms[0]), Overdue(values, due_ms[1])]
            earlier.add(name)
        self._note_endings(commit_ms)
        return samples, overdue

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

    def _take_undelivered(self) -> tuple[Rows, Rows]:
        """Rows whose first zero a sink may lack, and rows whose value one may lack; once. What has changed since is
        written to all sinks anyway."""
        table = self._table
        rows, self._undelivered = self._undelivered, NO_ROWS
        rows = rows[table.present[rows]]
        unseen = rows[table.created_ms[rows] > self._undelivered_since_ms]
        return unseen, rows[table.live[rows] & ~table.dirty[rows]]

    def _overdue(self, unseen: Rows, undelivered: Rows, commit_ms: int) -> Overdue:
        table = self._table
        zeros, values = self._zeros(unseen, commit_ms - 1), Samples.values(table, undelivered, commit_ms)
        due_ms = np.concatenate((table.created_ms[zeros.rows], table.changed_ms[undelivered]))
        return Overdue(Samples.joined(table, (zeros, values)), due_ms)

    def _sweep(self, commit_ms: int, besides: Rows) -> Rows:
        """The quiet live rows whose turn it is; ends those without data for too long."""
        table, second = self._table, commit_ms // 1000
        first = max(self._swept_second + 1, second - REWRITE_SECONDS + 1)
        self._swept_second = max(second, self._swept_second)
        slots = (due % REWRITE_SECONDS for due in range(first, second + 1))
        rows = joined_rows(slot + REWRITE_SECONDS * np.flatnonzero(self._quiet(slot, commit_ms)) for slot in slots)
        if besides.size:
            rows = np.setdiff1d(rows, besides)
        rows = rows[~table.windows.waiting(rows)]  # some are settled, and written, with each commit
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
        """Out of the sinks and out of memory, not out of the state. What has `__other__` everywhere stays: label sets
        are folded into it without a look into the state."""
        self._stale.append(rows)
        self._table.live[rows] = False
        leaving = rows[~self._table.other[rows]]
        if leaving.size:
            self._label_sets.remove(leaving)
            self._table.leave(leaving)
