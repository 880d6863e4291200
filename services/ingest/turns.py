"""Work that would keep the event loop for too long, in steps between which whatever else waits has its turn.

A generator that yields now and then, and returns what it came to, is such work: it knows nothing of loops, and what is
small is done at once.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import TypeVar

from chassis.errors import Unavailable

T = TypeVar("T")

#: What can be left alone at each of its yields.
Steps = Generator[None, None, T]

#: How long work goes on before others have their turn on the loop.
LONGEST_TURN_SECONDS = 0.005


def at_once(steps: Steps[T]) -> T:
    """What the steps come to, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: T = done.value
            return found


async def in_turns(steps: Steps[T]) -> T:
    """What the steps come to; others have their turn in between."""
    began = time.monotonic()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: T = done.value
            return found
        if time.monotonic() - began > LONGEST_TURN_SECONDS:
            await asyncio.sleep(0)
            began = time.monotonic()


class OneByOne:
    """Lets large bodies in one at a time, in the order in which they came: what each takes up while it is read is many
    times its size. What may wait is bounded."""

    def __init__(self, most_waiting_bytes: int) -> None:
        self._most_waiting_bytes = most_waiting_bytes
        self._waiting_bytes = 0
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, size_bytes: int) -> AsyncIterator[None]:
        """Open while it is this body's turn. Raises Unavailable where too much waits."""
        if self._waiting_bytes + size_bytes > self._most_waiting_bytes:
            raise Unavailable("Too many large requests wait to be read.", retry_after_seconds=1.0)
        self._waiting_bytes += size_bytes
        try:
            async with self._turn:
                yield
        finally:
            self._waiting_bytes -= size_bytes
