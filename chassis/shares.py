"""What many share, and each may have a part of only, so that those who take theirs leave something for the next."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)


class Shares:
    """So much of something, which is counted by holder.

    A holder may have one of `parts` of it, such as a quarter, while the others have nothing, and less the more these
    have: that part of the square of what they leave. So four holders leave nearly half of it, and ten a quarter; where
    each may have half, a quarter and a seventh. Who has little may have `least` for as long as there is as much, which
    many use up: some 40 holders where it is a 128th, 29 where it is a 64th, and 19 of these where each may have half.
    """

    def __init__(self, most: int, *, least: int = 1, parts: int = 4) -> None:
        self._most = most
        self._least = least
        self._parts = parts
        self.taken = 0
        self._taken_by: dict[str, int] = {}

    def take(self, holders: Sequence[str], amount: int = 1) -> bool:
        """Whether there was so much left for these, who have it now."""
        if self.taken + amount > self._most:
            return False
        for holder in holders:
            its = self._taken_by.get(holder, 0)
            left = self._most - self.taken + its
            if its + amount > max(self._least, left**2 // (self._parts * self._most)):
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


class Holdings(Generic[Name]):
    """What holders have in a memory that one alone may fill, until others need room there: what goes then is the oldest
    of who has most, so that nobody's many things push out others' few."""

    def __init__(self) -> None:
        self.size = 0
        #: By holder: what is theirs and the size of each, the oldest first, and the size of all of it.
        self._theirs: dict[str, dict[Name, int]] = {}
        self._sizes: dict[str, int] = {}
        #: Holders by the number of bits of their size; whose has changed last is the last one.
        self._by_bits: defaultdict[int, dict[str, None]] = defaultdict(dict)

    def add(self, holder: str, name: Name, size: int) -> None:
        """Something that is not there yet."""
        self._theirs.setdefault(holder, {})[name] = size
        self._change(holder, size)

    def used(self, holder: str, name: Name) -> None:
        """It is the newest of theirs again."""
        theirs = self._theirs[holder]
        theirs[name] = theirs.pop(name)

    def remove(self, holder: str, name: Name) -> None:
        theirs = self._theirs[holder]
        self._change(holder, -theirs.pop(name))
        if not theirs:
            del self._theirs[holder]

    def first_to_go(self) -> Name:
        """The oldest of who has most. Where others have more than half as much, it may be one of these: whose has
        changed last."""
        most = max(bits for bits, holders in self._by_bits.items() if holders)
        return next(iter(self._theirs[next(reversed(self._by_bits[most]))]))

    def _change(self, holder: str, by: int) -> None:
        before = self._sizes.pop(holder, 0)
        self._by_bits[before.bit_length()].pop(holder, None)
        if after := before + by:
            self._sizes[holder] = after
            self._by_bits[after.bit_length()][holder] = None
        self.size += by


class Turns:
    """So many at a time, shared by holders. More wait: of those who may have another one, it comes to who has had none
    for the longest time, whose oldest begins."""

    def __init__(self, most: int, *, least: int = 1) -> None:
        self._shares = Shares(most, least=least)
        #: Turns that have not come, the oldest first, and whose they are.
        self._waiting: dict[asyncio.Future[None], tuple[str, ...]] = {}
        #: By two with each turn that begins.
        self._now = 0
        #: Of each holder and of all of a turn's together: when their last one began, or, just before the latest one,
        #: when they began to wait. Nobody stays who does not wait.
        self._last: dict[str | tuple[str, ...], int] = {}

    @asynccontextmanager
    async def one(self, holders: Sequence[str]) -> AsyncIterator[None]:
        """A turn for the block, which begins once it has come."""
        await self.take(holders)
        try:
            yield
        finally:
            self.give_back(holders)

    async def take(self, holders: Sequence[str]) -> None:
        """Returns once a turn of theirs has come."""
        if self._take(holders):
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = tuple(holders)
        for each in _and_all(holders):
            self._last.setdefault(each, self._now - 1)
        try:
            await turn
        except asyncio.CancelledError:
            if self._waiting.pop(turn, None) is None:  # it had come just then
                self.give_back(holders)
            raise

    def give_back(self, holders: Sequence[str]) -> None:
        """A turn of theirs is over."""
        self._shares.give_back(holders)
        oldest: dict[tuple[str, ...], asyncio.Future[None]] = {}
        for turn, waiting in self._waiting.items():
            if not turn.cancelled():
                oldest.setdefault(waiting, turn)
        self._last = {each: self._last[each] for waiting in oldest for each in _and_all(waiting)}
        for waiting in sorted(oldest, key=self._last_turns):  # a turn less leaves nobody more than one more
            if self._take(waiting):
                del self._waiting[oldest[waiting]]
                oldest[waiting].set_result(None)

    def _take(self, holders: Sequence[str]) -> bool:
        if not self._shares.take(holders):
            return False
        self._now += 2
        self._last |= dict.fromkeys(_and_all(holders), self._now)
        return True

    def _last_turns(self, holders: tuple[str, ...]) -> tuple[int, int]:
        """That of any of them first: whoever acts for a tenant waits until it is the tenant's turn."""
        return max((self._last[holder] for holder in holders), default=0), self._last[holders]


def _and_all(holders: Sequence[str]) -> Sequence[str | tuple[str, ...]]:
    return [*holders, tuple(holders)]
