"""Large bodies wait for their turn: one is read at a time, because what each takes up meanwhile is many times its size,
and nobody's bodies keep those of somebody else waiting.

Whose turn is next follows self-clocked fair queueing (S. J. Golestani, "A self-clocked fair queueing scheme for
broadband applications", 1994): while several want turns, each is given the same number of bytes, and who has asked for
little so far comes before who has asked for much.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from chassis import context
from chassis.errors import DeadlineExceeded, Unavailable
from chassis.shares import Shares

#: Somebody who is refused before the deadline can try elsewhere, and says nothing against the receiver.
_LONGEST_WAIT_SECONDS = 5.0


class Room:
    """Bounds what waits, of each and of all together: see `Shares`."""

    def __init__(self, most: int, least: int, refusal: Callable[[], Unavailable]) -> None:
        self._shares = Shares(most, least=least)
        self._refusal = refusal

    @contextmanager
    def taken(self, whose: str, size: int) -> Iterator[None]:
        """Takes up room, `size` of it (above 0), meanwhile. Raises the refusal where there is not enough."""
        if not self._shares.take((whose,), size):
            raise self._refusal()
        try:
            yield
        finally:
            self._shares.give_back((whose,), size)


@dataclass(order=True, slots=True)
class _Waiting:
    #: On a clock that counts bytes: when the turn would end if all that wait had theirs at once.
    ends: int
    number: int
    whose: str = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)


class FairTurns:
    """Turns, one at a time, the same number of bytes for each who wants some, in the order in which they asked."""

    def __init__(self, most_waiting_bytes: int, largest_bytes: int) -> None:
        """`largest_bytes`: of a body."""
        self._room = Room(most_waiting_bytes, largest_bytes, _too_much)
        self._waiting: list[_Waiting] = []
        self._numbers = count()
        #: Of whoever waits: when the last of the turns ends.
        self._last_ends: dict[str, int] = {}
        #: When the turn that began last ends.
        self._clock = 0
        self._is_taken = False

    @asynccontextmanager
    async def turn(self, whose: str, size_bytes: int) -> AsyncIterator[None]:
        """Open while it is this body's turn. Whoever is cancelled, or waits for too long, waits no more.

        Raises Unavailable where too much waits, or it took too long; DeadlineExceeded where nobody waits for it.
        """
        with self._room.taken(whose, size_bytes):
            await self._come_up_in_time(whose, size_bytes)
            try:
                _check_deadline()
                yield
            finally:
                self._pass_on()

    async def _come_up_in_time(self, whose: str, size_bytes: int) -> None:
        try:
            async with asyncio.timeout(context.remaining_seconds(_LONGEST_WAIT_SECONDS)):
                await self._come_up(whose, size_bytes)
        except TimeoutError as error:
            _check_deadline()
            raise _too_much() from error

    async def _come_up(self, whose: str, size_bytes: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        ends = self._last_ends[whose] = max(self._clock, self._last_ends.get(whose, 0)) + size_bytes
        heappush(self._waiting, _Waiting(ends, next(self._numbers), whose, turn))
        if not self._is_taken:
            self._pass_on()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had come just then
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """The turn is over: the next one who still waits has theirs."""
        self._is_taken = False
        while self._waiting and not self._is_taken:
            first = heappop(self._waiting)
            if self._last_ends[first.whose] == first.ends:
                del self._last_ends[first.whose]
            if not first.turn.cancelled():
                self._clock = first.ends
                self._is_taken = True
                first.turn.set_result(None)


def _check_deadline() -> None:
    if context.remaining_seconds(1.0) <= 0:
        raise DeadlineExceeded("The receiver came to this batch too late.")


def _too_much() -> Unavailable:
    """It is the sender's share that is used up: that says nothing against the receiver."""
    return Unavailable.waiting_for("turn", "Too many large requests wait to be read.", 1.0)
