"""The levels that gauges with a merge rule are made of: the latest one of each producer, for five minutes.

They are rows of NumPy columns, about 100 bytes each and 270 more in a row that label sets share, found by the XOR of
the ids of series and producer: ids of series are digests, so that no two pairs meet by chance. Whoever chooses a
producer's id could choose one that meets another's level; a secret forbids it.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import fsum
from sys import float_info

import numpy as np
from numpy.typing import NDArray

from services.ingest import metrics
from services.ingest.columns import Floats, Ids, Ints, Mask, Rows, joined_rows
from services.ingest.domain import GaugeMerge
from services.ingest.series_index import SeriesIndex

#: How long a level counts after its time: its timestamp, or its arrival where a client's clock is ahead.
KEPT_MS = 300_000
#: Levels that one series is made of; of more the latest count.
MOST_LEVELS = 10_000

_FIRST_CAPACITY = 64
_FREE = -1
#: `as_of_ms` of a level that does not count any more, and is in the state until that is told.
_ENDED_MS = 0


@dataclass(frozen=True, slots=True, eq=False)
class Reports:
    """Levels of gauges, in columns."""

    #: Of each level's series, in the table.
    rows: Rows
    series: Ids
    #: Who reports: the producer's id, zero for whoever has none; in a row that label sets share, its XOR with the id of
    #: the label set as sent.
    reporters: Ids
    #: In a row that label sets share because they are over a budget.
    shared: Mask
    #: The number of each row's definition in the table.
    families: Ints
    #: As the client said, Unix milliseconds.
    timestamp_ms: Ints
    #: From when on it counts for five minutes, Unix milliseconds.
    as_of_ms: Ints
    level: Floats

    def __len__(self) -> int:
        return self.level.size


class GaugeLevels:
    """The levels of all gauges of a lane that are made of several."""

    _row: NDArray[np.int32]
    _timestamp_ms: Ints
    _as_of_ms: Ints
    _level: Floats
    #: Not in the state yet.
    _dirty: Mask
    _low: NDArray[np.uint64]
    _high: NDArray[np.uint64]

    def __init__(self) -> None:
        self._size = 0
        self._free: list[int] = []
        self._index = SeriesIndex()
        self._touched: list[Rows] = []
        self._sharing = _Sharing()
        self._secret = _Secret()
        for name, kind in _DTYPES.items():
            setattr(self, name, np.zeros(_FIRST_CAPACITY, kind))

    def __len__(self) -> int:
        """How many levels there are."""
        return self._size - len(self._free)

    @property
    def _ids(self) -> Ids:
        return Ids(self._low, self._high)

    def report(self, reports: Reports) -> None:
        """Takes what producers say: of each one's levels the newest timestamp wins, of equal ones the last."""
        slots = self._take(reports)
        self._gather(reports, slots)
        order = np.argsort(reports.timestamp_ms, kind="stable")
        order = order[reports.timestamp_ms[order] >= self._timestamp_ms[slots[order]]]
        self._write(slots, reports, order)
        self._dirty[slots[order]] = True

    def restore(self, reports: Reports) -> None:
        """Takes in what the state has, one level of each reporter and series."""
        slots = self._take(reports)
        self._sharing.note(self._whose(reports), slots, reports.shared)
        self._write(slots, reports, np.arange(len(reports)))

    def touch(self, rows: Rows) -> None:
        """Values of these rows are to be made anew."""
        self._touched.append(rows)

    def _gather(self, reports: Reports, slots: Rows) -> None:
        """A level goes where its label set has gone: one that shared a row until now has become a series of its own, or
        shares another row."""
        if not self._sharing and not reports.shared.any():
            return
        whose = self._whose(reports)
        for before, slot in self._sharing.moved(whose, slots):
            self._move(before, slot)
        self._sharing.note(whose, slots, reports.shared)

    def _whose(self, reports: Reports) -> Ids:
        """Producer and label set as sent, wherever in their definition the level is."""
        own = _met(reports.series, reports.reporters)
        whose = Ids(*(np.where(reports.shared, *each) for each in zip(reports.reporters, own, strict=True)))
        family = reports.families.astype(np.uint64) + np.uint64(1)
        return _met(whose, self._secret.mixed(Ids(family, family)))

    def _move(self, before: int, slot: int) -> None:
        if self._timestamp_ms[before] > self._timestamp_ms[slot]:
            for column in (self._timestamp_ms, self._as_of_ms, self._level):
                column[slot] = column[before]
        self._as_of_ms[before] = _ENDED_MS
        self._dirty[[before, slot]] = True
        self._touched.append(self._row[[before, slot]].astype(np.intp))

    def _write(self, slots: Rows, reports: Reports, order: Rows) -> None:
        # Of several assignments to one slot, NumPy keeps the last.
        chosen = slots[order]
        self._timestamp_ms[chosen] = reports.timestamp_ms[order]
        self._as_of_ms[chosen] = reports.as_of_ms[order]
        self._level[chosen] = reports.level[order]
        self._touched.append(reports.rows)

    def _take(self, reports: Reports) -> Rows:
        """A slot for each report, those of new levels empty."""
        ids = _met(reports.series, self._secret.mixed(reports.reporters))
        slots = self._index.find(ids, self._ids)
        absent = np.flatnonzero(slots < 0)
        if absent.size:
            slots[absent] = self._make(ids.at(absent), reports.rows[absent])
        return slots

    def _make(self, ids: Ids, rows: Rows) -> Rows:
        each = ids.each()
        first: dict[bytes, int] = {}
        for at, identity in enumerate(each):
            first.setdefault(identity, at)
        made = np.fromiter(first.values(), np.intp)
        slots = np.array(self._allocate(made.size), np.intp)
        for name in _DTYPES:
            getattr(self, name)[slots] = 0
        self._low[slots], self._high[slots] = ids.at(made)
        self._row[slots] = rows[made]
        self._index.add(ids.at(made), slots, self._ids)
        slot_of = dict(zip(first, slots.tolist(), strict=True))
        return np.array([slot_of[identity] for identity in each], np.intp)

    def _allocate(self, count: int) -> list[int]:
        reused = self._free[-count:]
        del self._free[len(self._free) - len(reused) :]
        first = self._size
        self._size += count - len(reused)
        if self._size > self._row.size:
            self._grow()
        return [*reused, *range(first, self._size)]

    def _grow(self) -> None:
        capacity = max(self._size, 2 * self._row.size)
        for name, kind in _DTYPES.items():
            column = np.zeros(capacity, kind)
            before = getattr(self, name)
            column[: before.size] = before
            setattr(self, name, column)

    def expire(self, now_ms: int) -> None:
        """Forgets levels that do not count any more."""
        as_of_ms = self._as_of_ms[: self._size]
        untold = self._dirty[: self._size] & (as_of_ms == _ENDED_MS)
        gone = self._in_use() & (as_of_ms <= now_ms - KEPT_MS) & ~untold
        if gone.any():
            slots = np.flatnonzero(gone)
            self._touched.append(self._row[slots].astype(np.intp))
            self._remove(slots)

    def forget(self, rows: Rows) -> None:
        """Forgets the levels of these rows."""
        self._remove(np.flatnonzero(self._in_use() & np.isin(self._row[: self._size], rows)))

    def _in_use(self) -> Mask:
        used: Mask = self._row[: self._size] != _FREE
        return used

    def _remove(self, slots: Rows) -> None:
        self._sharing.forget(slots)
        self._index.remove(self._ids.at(slots), slots)
        self._row[slots] = _FREE
        self._dirty[slots] = False
        self._free += slots.tolist()

    def take_touched(self) -> Rows:
        """The rows whose levels came, went or changed since this was asked last."""
        touched, self._touched = self._touched, []
        return np.unique(joined_rows(touched))

    def of(self, rows: Rows) -> list[Floats]:
        """The levels of each of the rows, which ascend. Those that are too many are forgotten."""
        used = np.flatnonzero(self._in_use() & (self._as_of_ms[: self._size] != _ENDED_MS))
        slots = used[np.isin(self._row[used], rows)]
        slots = slots[np.argsort(self._row[slots], kind="stable")]
        first = np.searchsorted(self._row[slots], rows)
        return [self._level[self._latest(each)] for each in np.split(slots, first[1:])]

    def _latest(self, slots: Rows) -> Rows:
        if slots.size <= MOST_LEVELS:
            return slots
        order = slots[np.lexsort((self._high[slots], self._low[slots], self._as_of_ms[slots]))]
        metrics.GAUGE_LEVELS_DROPPED.inc(order.size - MOST_LEVELS)
        self._remove(order[:-MOST_LEVELS])
        return order[-MOST_LEVELS:]

    def seal(self, series_of: Callable[[Rows], Ids]) -> Reports:
        """Copies of the levels that the state does not have yet. `series_of` tells the ids of rows."""
        slots = np.flatnonzero(self._dirty[: self._size])
        self._dirty[slots] = False
        rows = self._row[slots].astype(np.intp)
        own = series_of(rows)
        return Reports(
            rows=rows,
            series=own,
            reporters=self._secret.unmixed(_met(own, self._ids.at(slots))),
            shared=np.zeros(slots.size, np.bool_),
            families=np.zeros(slots.size, np.int64),
            timestamp_ms=self._timestamp_ms[slots],
            as_of_ms=self._as_of_ms[slots],
            level=self._level[slots],
        )


class _Secret:
    """Makes of an id one that nobody outside foresees, and back."""

    def __init__(self) -> None:
        self._factors = [secrets.randbits(64) | 1 for _ in Ids._fields]

    def mixed(self, ids: Ids) -> Ids:
        return Ids(*(half * np.uint64(factor) for half, factor in zip(ids, self._factors, strict=True)))

    def unmixed(self, ids: Ids) -> Ids:
        inverses = (np.uint64(pow(factor, -1, 1 << 64)) for factor in self._factors)
        return Ids(*(half * inverse for half, inverse in zip(ids, inverses, strict=True)))


class _Sharing:
    """Where a producer's level of a label set is, by the XOR of their ids, while the label set shares a row."""

    def __init__(self) -> None:
        self._slots: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self._slots)

    def note(self, whose: Ids, slots: Rows, shared: Mask) -> None:
        chosen = np.flatnonzero(shared)
        keys, taken = whose.at(chosen).each(), slots[chosen].tolist()
        self._slots.update(zip(keys, taken, strict=True))
        self._keys.update(zip(taken, keys, strict=True))

    def moved(self, whose: Ids, slots: Rows) -> list[tuple[int, int]]:
        """From where to where levels go that are elsewhere; each once."""
        found = []
        for key, slot in zip(whose.each(), slots.tolist(), strict=True):
            before = self._slots.get(key, slot)
            if before != slot:
                found.append((before, slot))
                del self._slots[key]
        return found

    def forget(self, slots: Rows) -> None:
        if not self._keys:
            return
        for slot in slots.tolist():
            key = self._keys.pop(slot, b"")
            if self._slots.get(key) == slot:
                del self._slots[key]


_DTYPES: dict[str, type[np.generic]] = {
    "_row": np.int32,
    "_timestamp_ms": np.int64,
    "_as_of_ms": np.int64,
    "_level": np.float64,
    "_dirty": np.bool_,
    "_low": np.uint64,
    "_high": np.uint64,
}


def _met(left: Ids, right: Ids) -> Ids:
    """The XOR of ids: applied to itself and one of the two it is the other."""
    return Ids(left.low ^ right.low, left.high ^ right.high)


def merged(rule: GaugeMerge, levels: Floats) -> float:
    """What one or more levels come to. The order in which they stand makes no difference."""
    if rule is GaugeMerge.MIN:
        return float(levels.min())
    if rule is GaugeMerge.MAX:
        return float(levels.max())
    return _sum(levels.tolist())


def _sum(levels: Sequence[float]) -> float:
    """The exact sum, rounded once; where it would overflow, the largest number of that sign."""
    try:
        return fsum(levels)
    except OverflowError:
        scale = 2.0**-20  # sums of less than a million such numbers do not overflow
        most = float_info.max * scale
        return min(max(fsum(level * scale for level in levels), -most), most) / scale
