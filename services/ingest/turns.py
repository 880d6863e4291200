"""Work that would keep the event loop for too long, in steps between which whatever else waits has its turn.

A generator that yields now and then, and returns what it came to, is such work: it knows nothing of loops, and what is
small is done at once.
"""

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

#: What can be left alone at each of its yields.
Steps = Generator[None, None, T]

#: How long work goes on before others have their turn on the loop. What a small batch takes is several turns, one after
#: another (it arrives, is put, published, acknowledged, answered): the work is left alone for as long as it went on.
LONGEST_TURN_SECONDS = 0.005
#: However long a step was, or waited by itself.
_LONGEST_PAUSE_SECONDS = 0.25


def begun(steps: Steps[T], longest_seconds: float) -> T | Steps[T]:
    """What the steps come to, without a pause; where that takes longer, those that are left."""
    until = time.monotonic() + longest_seconds
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: T = done.value
            return found
        if time.monotonic() > until:
            return steps


class TooMuchWork(Exception):
    """The work takes longer than it may; it is left where it was."""


class Turns:
    """Work on the loop that pauses between its steps."""

    def __init__(
        self,
        longest_seconds: float = LONGEST_TURN_SECONDS,
        *,
        others_share: float = 1.0,
        most_seconds: float = float("inf"),
    ) -> None:
        """`others_share`: how long others have the loop for each second of the work; `most_seconds`: of work in all,
        as processor time: on a machine that has much else to do nobody has asked for more."""
        self._longest_seconds = longest_seconds
        self._others_share = others_share
        self._left_seconds = most_seconds
        self._begin()

    async def pause(self) -> None:
        """Leaves the loop to others where the work went on for long. Raises TooMuchWork."""
        if (spent := time.monotonic() - self._began) > self._longest_seconds:
            self._left_seconds -= time.thread_time() - self._began_work
            if self._left_seconds < 0:
                raise TooMuchWork
            await asyncio.sleep(min(spent * self._others_share, _LONGEST_PAUSE_SECONDS))
            self._begin()

    def _begin(self) -> None:
        self._began = time.monotonic()
        self._began_work = time.thread_time()


def turns_of_lane() -> Turns:
    """For work on a lane's state, on which nothing else of the lane goes on: others are other lanes, and the lease."""
    return Turns(longest_seconds=0.05, others_share=0.2)


async def in_turns(steps: Steps[T], turns: Turns | None = None) -> T:
    """What the steps come to; others have their turn in between, by default as much time as the work."""
    turns = turns or Turns()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: T = done.value
            return found
        await turns.pause()
