"""What summaries observed in the last ten minutes: one sketch for each series and minute of the receivers' clock.

Minutes leave as wholes, so that an observation counts for at least nine minutes and at most ten.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from services.ingest.sketches import Sketch

MINUTES = 10
MINUTE_MS = 60_000


class MinuteSketch(NamedTuple):
    """What one series observed in one minute, counted in minutes since 1970."""

    row: int
    minute: int
    sketch: Sketch


class SummaryWindow:
    """One series' sketches."""

    __slots__ = ("_earlier", "_newest", "_observed", "minutes")

    def __init__(self) -> None:
        self.minutes: dict[int, Sketch] = {}
        #: Minutes and bins that are not in the sketches yet.
        self._observed: list[tuple[int, Mapping[int, int]]] = []
        #: All minutes but the newest, joined; None: to be made anew.
        self._earlier: Sketch | None = None
        self._newest = 0

    def observe(self, minute: int, bins: Mapping[int, int]) -> None:
        """Takes observations, which count when the window is settled."""
        self._observed.append((minute, bins))

    def settle(self, minute: int) -> list[int]:
        """Makes the sketches those of the ten minutes up to this one; returns the minutes whose sketches changed.

        What is said to be of a later minute, because a receiver's clock is ahead, counts for this one.
        """
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
        self._minute = 0
        self._changed: list[MinuteSketch] = []

    def observe(self, row: int, received_ms: int, bins: Mapping[int, int]) -> None:
        """Takes what a batch observed."""
        self._windows.setdefault(row, SummaryWindow()).observe(received_ms // MINUTE_MS, bins)
        self._observed[row] = None

    def restore(self, stored: Iterable[MinuteSketch]) -> None:
        """Takes in what the state has."""
        for row, minute, sketch in stored:
            self._windows.setdefault(row, SummaryWindow()).minutes[minute] = sketch
            self._observed[row] = None

    def forget(self, row: int) -> None:
        """The row stands for another series from now on, or for none."""
        self._windows.pop(row, None)
        self._observed.pop(row, None)

    def settle(self, now_ms: int) -> list[tuple[int, Sketch]]:
        """Rows whose window may have changed, and what is in it now."""
        minute = max(self._minute, now_ms // MINUTE_MS)
        due = list(self._observed if minute == self._minute else self._windows)
        self._observed, self._minute = {}, minute
        settled = []
        for row in due:
            window = self._windows[row]
            changed = window.settle(minute)
            self._changed += [MinuteSketch(row, each, window.minutes[each]) for each in changed]
            settled.append((row, window.total()))
            if not window.minutes:
                del self._windows[row]
        return settled

    def seal(self) -> list[MinuteSketch]:
        """The sketches that the state does not have yet."""
        changed, self._changed = self._changed, []
        return changed
