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
        if (spent := time.monotonic() - began) > LONGEST_TURN_SECONDS:
            await asyncio.sleep(spent)
            began = time.monotonic()
