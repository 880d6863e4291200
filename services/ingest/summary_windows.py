"""What summaries observed in the last ten minutes: one sketch for each series and minute of the receivers' clock.

Minutes leave as wholes, so that an observation counts for at least nine minutes and at most ten; a little longer where
very many series have been quiet since the same minute, which are settled in portions.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.ingest.columns import Mask, Rows
from services.ingest.sketches import Sketch

MINUTES = 10
MINUTE_MS = 60_000

#: Quiet series that are settled at once: about 0.2 s of processor time. Nothing else can be done with a lane meanwhile.
MOST_QUIET = 4_000

_FIRST_CAPACITY = 64
#: Instead of an oldest minute: of a window that is as the state had it, and where there is none.
_RESTORED = -1
_NONE = np.iinfo(np.int64).max


class MinuteSketch(NamedTuple):
    """What one series observed in one minute, counted in minutes since 1970."""

    row: int
    minute: int
    sketch: Sketch


class SummaryWindow:
    """One series' sketches."""

    __slots__ = ("_earlier", "_newest", "_observed", "_stored", "minutes")

    def __init__(self) -> None:
        self.minutes: dict[int, Sketch] = {}
        #: Minutes and bins that are not in the sketches yet.
        self._observed: list[tuple[int, Mapping[int, int]]] = []
        #: Minutes and encoded sketches from the state that are not either.
        self._stored: list[tuple[int, bytes]] = []
        #: All minutes but the newest, joined; None: to be made anew.
        self._earlier: Sketch | None = None
        self._newest = 0

    def observe(self, minute: int, bins: Mapping[int, int]) -> None:
        """Takes observations, which count when the window is settled."""
        self._observed.append((minute, bins))

    def restore(self, minute: int, encoded: bytes) -> None:
        """Takes a sketch from the state, which counts when the window is settled."""
        self._stored.append((minute, encoded))

    def settle(self, minute: int) -> list[int]:
        """Makes the sketches those of the ten minutes up to this one; returns the minutes whose sketches changed.

        What is said to be of a later minute, because a receiver's clock is ahead, counts for this one.
        """
        if self._stored:
            self._decode(minute)
        counted: dict[int, list[Mapping[int, int]]] = {}
        for observed, bins in self._observed:
            counted.setdefault(min(observed, minute), []).append(bins)
        self._observed = []
        changed = [each for each in counted if each > minute - MINUTES]
        for each in changed:
            known = [self.minutes[each]] if each in self.minutes else []
            self.minutes[each] = Sketch.joined([*known, Sketch.of(counted[each])])
        gone = [each for each in self.minutes if each <= minute - MINUTES]
        for each in gone:
            del self.minutes[each]
        newest = max(self.minutes, default=0)
        if gone or newest != self._newest or any(each != newest for each in changed):
            self._earlier = None
        self._newest = newest
        return changed

    def _decode(self, minute: int) -> None:
        counting = [(each, encoded) for each, encoded in self._stored if each > minute - MINUTES]
        self.minutes |= {each: Sketch.decoded(encoded) for each, encoded in counting}
        self._stored, self._earlier = [], None

    def total(self) -> Sketch:
        """One sketch of all minutes."""
        if self._earlier is None:
            self._earlier = Sketch.joined([each for minute, each in self.minutes.items() if minute != self._newest])
        return Sketch.joined([self._earlier, *([self.minutes[self._newest]] if self.minutes else [])])


class SummaryWindows:
    """The windows of all summaries of a lane, by row."""

    def __init__(self) -> None:
        self._windows: dict[int, SummaryWindow] = {}
        #: Rows that observed something since the windows were settled.
        self._observed: dict[int, None] = {}
        #: By row: the oldest minute in its window.
        self._oldest: NDArray[np.int64] = np.full(_FIRST_CAPACITY, _NONE)
        self._minute = 0
        self._changed: list[MinuteSketch] = []

    def __len__(self) -> int:
        """How many series have something in their windows."""
        return len(self._windows)

    def observe(self, row: int, received_ms: int, bins: Mapping[int, int]) -> None:
        """Takes what a batch observed."""
        self._windows.setdefault(row, SummaryWindow()).observe(received_ms // MINUTE_MS, bins)
        self._observed[row] = None

    def restore(self, stored: Iterable[tuple[int, int, bytes]]) -> None:
        """Takes in what the state has: rows, minutes and encoded sketches. The rows wait until they are settled."""
        for row, minute, encoded in stored:
            self._windows.setdefault(row, SummaryWindow()).restore(minute, encoded)
            self._note_oldest(row, _RESTORED)

    def _note_oldest(self, row: int, minute: int) -> None:
        if row >= self._oldest.size:
            before, self._oldest = self._oldest, np.full(max(row + 1, 2 * self._oldest.size), _NONE)
            self._oldest[: before.size] = before
        self._oldest[row] = minute

    def forget(self, row: int) -> None:
        """The row stands for another series from now on, or for none."""
        if self._windows.pop(row, None) is not None:
            self._observed.pop(row, None)
            self._note_oldest(row, _NONE)

    def waiting(self, rows: Rows) -> Mask:
        """Which of the rows have not been settled since they came from the state: nothing is known of their windows."""
        if not self._windows:
            return np.zeros(rows.size, np.bool_)
        found: Mask = (rows < self._oldest.size) & (self._oldest.take(rows, mode="clip") == _RESTORED)
        return found

    def settle(self, now_ms: int) -> Iterator[tuple[int, Sketch]]:
        """Rows whose window may have changed, and what is in it now, each settled as it is asked for.

        They are all that observed something, and of those that only wait or lose a minute `MOST_QUIET`, the longest
        overdue first.
        """
        self._minute = max(self._minute, now_ms // MINUTE_MS)
        due = self._observed | dict.fromkeys(self._overdue().tolist())
        self._observed = {}
        return ((row, self.settle_one(row)) for row in due)

    def _overdue(self) -> Rows:
        rows = np.flatnonzero(self._oldest <= self._minute - MINUTES)
        if rows.size > MOST_QUIET:
            rows = rows[np.argpartition(self._oldest[rows], MOST_QUIET)[:MOST_QUIET]]
        return rows

    def settle_one(self, row: int) -> Sketch:
        """What is in the window of a row that has one, as of the minute up to which windows were settled last."""
        window = self._windows[row]
        changed = window.settle(self._minute)
        self._changed += [MinuteSketch(row, each, window.minutes[each]) for each in changed]
        self._note_oldest(row, min(window.minutes, default=_NONE))
        if not window.minutes:
            del self._windows[row]
        return window.total()

    def seal(self) -> list[MinuteSketch]:
        """The sketches that the state does not have yet."""
        changed, self._changed = self._changed, []
        return changed
