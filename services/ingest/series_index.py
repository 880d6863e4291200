"""Which row of the table holds a series: a hash table in NumPy, asked for thousands of ids at once.

For a million series a `dict` takes ten times as long, because each question waits for memory on its own, and 140 bytes
a series instead of 8. The table is open: an id stands in its own slot or in one of those that follow, up to an empty
one. Ids are digests, but whoever chooses labels could choose them to meet in one slot; a secret multiplier forbids it.
"""

import secrets

import numpy as np
from numpy.typing import NDArray

from services.ingest.columns import Ids, Rows

_EMPTY, _REMOVED = -1, -2
_SMALLEST_BITS = 10
#: Part of the slots that may be taken.
_MOST_TAKEN = 0.7


class SeriesIndex:
    """Rows by id. `columns` in its methods are the ids of all rows, as the table keeps them."""

    def __init__(self) -> None:
        self._secret = np.uint64(secrets.randbits(64) | 1)
        self._make(_SMALLEST_BITS)

    def _make(self, bits: int) -> None:
        self._slots: NDArray[np.int32] = np.full(1 << bits, _EMPTY, np.int32)
        self._mask = (1 << bits) - 1
        self._shift = np.uint64(64 - bits)
        #: Slots that are not empty, or more: one that a removed id left may be counted twice.
        self._taken = 0

    def _home(self, ids: Ids) -> Rows:
        return ((ids.low * self._secret) >> self._shift).astype(np.intp)

    def find(self, ids: Ids, columns: Ids) -> Rows:
        """The row of each id; -1 where it has none."""
        slots = self._home(ids)
        rows = self._slots[slots].astype(np.intp)
        searching = np.flatnonzero((rows != _EMPTY) & ~_same(rows, ids, columns))
        while searching.size:
            following = (slots[searching] + 1) & self._mask
            slots[searching] = following
            found = self._slots[following].astype(np.intp)
            rows[searching] = found
            searching = searching[(found != _EMPTY) & ~_same(found, ids.at(searching), columns)]
        return rows

    def add(self, ids: Ids, rows: Rows, columns: Ids) -> None:
        """Takes in ids that it does not have, all different."""
        if self._taken + rows.size > _MOST_TAKEN * self._slots.size:
            self._grow(rows.size, columns)
        self._place(ids, rows)
        self._taken += rows.size

    def _place(self, ids: Ids, rows: Rows) -> None:
        slots, numbers = self._home(ids), rows.astype(np.int32)
        waiting = np.arange(rows.size)
        while waiting.size:
            wanted = slots[waiting]
            free = self._slots[wanted] < 0
            self._slots[wanted[free]] = numbers[waiting[free]]  # of several that want a slot, the last one has it
            waiting = waiting[self._slots[wanted] != numbers[waiting]]
            slots[waiting] = (slots[waiting] + 1) & self._mask

    def _grow(self, more: int, columns: Ids) -> None:
        kept = self._slots[self._slots >= 0].astype(np.intp)
        self._make(max(_SMALLEST_BITS, (2 * (kept.size + more) - 1).bit_length()))
        self._place(columns.at(kept), kept)
        self._taken = kept.size

    def remove(self, ids: Ids, rows: Rows) -> None:
        """Forgets ids that it has, with their rows."""
        slots, numbers = self._home(ids), rows.astype(np.int32)
        searching = np.flatnonzero(self._slots[slots] != numbers)
        while searching.size:
            slots[searching] = (slots[searching] + 1) & self._mask
            searching = searching[self._slots[slots[searching]] != numbers[searching]]
        self._slots[slots] = _REMOVED


def _same(rows: Rows, ids: Ids, columns: Ids) -> NDArray[np.bool_]:
    """Where a row has the id. A negative number is no row."""
    same: NDArray[np.bool_] = (columns.low[rows] == ids.low) & (columns.high[rows] == ids.high) & (rows >= 0)
    return same
