"""What many share, and each may have a part of only: however many take theirs, something is left for the next."""

from collections.abc import Sequence

#: One alone may have a quarter.
_PARTS = 4


class Shares:
    """So much of something, which is counted by holder.

    A holder may have a quarter of it while the others have nothing, and less the more these have: a quarter of the
    square of the part that they leave. So four holders leave nearly half of it, and ten a quarter. Who has little may
    have `least` for as long as there is as much.
    """

    def __init__(self, most: int, *, least: int = 1) -> None:
        self._most = most
        self._least = least
        self.taken = 0
        self._taken_by: dict[str, int] = {}

    def take(self, holders: Sequence[str], amount: int = 1) -> bool:
        """Whether there was so much left for these, who have it now."""
        if self.taken + amount > self._most:
            return False
        for holder in holders:
            its = self._taken_by.get(holder, 0)
            left = self._most - self.taken + its
            if its + amount > max(self._least, left**2 // (_PARTS * self._most)):
                return False
        self.taken += amount
        for holder in holders:
            self._taken_by[holder] = self._taken_by.get(holder, 0) + amount
        return True

    def give_back(self, holders: Sequence[str], amount: int = 1) -> None:
        self.taken -= amount
        for holder in holders:
            if its := self._taken_by.pop(holder, 0) - amount:
                self._taken_by[holder] = its
