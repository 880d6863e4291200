"""Which sequence numbers of a producer have been counted: exact, and small for well-behaved producers."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable

#: Without a floor from the producer, so many gaps are remembered; past that the oldest one closes.
MOST_GAPS = 4_096


class Window:
    """The numbers seen: everything below `floor`, and the ranges above it.

    `ranges` is flat and sorted, `[first, last, first, last, …]`, both inclusive, neither touching nor overlapping, and
    all above `floor`; eight bytes a number.
    """

    __slots__ = ("floor", "ranges", "used_ms")

    def __init__(self, floor: int = 1, ranges: Iterable[int] = (), used_ms: int = 0) -> None:
        self.floor = floor
        self.ranges = array("q", ranges)
        #: When the producer last sent anything, Unix milliseconds.
        self.used_ms = used_ms

    def claim(self, sequence: int, floor: int = 0) -> bool:
        """Whether `sequence` is new; it is not from now on. `floor`: all below it is settled, says the producer."""
        if floor > self.floor:
            self._raise_floor(floor)
        if sequence < self.floor:
            return False
        if sequence == self.floor and not self.ranges:
            self.floor += 1
            return True
        if not self._insert(sequence):
            return False
        self._compact()
        return True

    def _insert(self, sequence: int) -> bool:
        ranges = self.ranges
        at = bisect_right(ranges, sequence)
        if at % 2 or (at and ranges[at - 1] == sequence):
            return False
        touches_left = at > 0 and ranges[at - 1] == sequence - 1
        touches_right = at < len(ranges) and ranges[at] == sequence + 1
        if touches_left and touches_right:
            del ranges[at - 1 : at + 1]
        elif touches_left:
            ranges[at - 1] = sequence
        elif touches_right:
            ranges[at] = sequence
        else:
            ranges[at:at] = array("q", (sequence, sequence))
        return True

    def _raise_floor(self, floor: int) -> None:
        self.floor = floor
        at = bisect_right(self.ranges, floor - 1)
        if at % 2:  # the floor falls into a range: what is left of it starts there
            self.ranges[at - 1] = floor
            at -= 1
        del self.ranges[:at]
        self._compact()

    def _compact(self) -> None:
        if self.ranges and self.ranges[0] <= self.floor:
            self._close(1)
        self.close_oldest(MOST_GAPS)

    def close_oldest(self, kept: int) -> None:
        """Closes all gaps but the newest `kept`: what is missing there counts as seen from now on."""
        if (many := len(self.ranges) // 2 - kept) > 0:
            self._close(many)

    def _close(self, gaps: int) -> None:
        """Moves the floor past so many ranges, and what is missing below them."""
        self.floor = self.ranges[2 * gaps - 1] + 1
        del self.ranges[: 2 * gaps]
