"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_SECONDS = 0.05
_SHORT_PAUSE_SECONDS = 0.005


def wait_for(condition: Callable[[], T], *, within_seconds: float = 30.0, what: str = "") -> T:
    """Calls `condition` until what it returns is true, and returns that; AssertionError names `what` when it is late:
    when it was still not true though it was asked for after that time. How long an answer takes is not what is judged.

    For tests without an event loop. A condition that raises fails the test at once.
    """
    deadline = time.monotonic() + within_seconds
    while True:
        asked = time.monotonic()
        if value := condition():
            return value
        assert asked < deadline, _late(within_seconds, what, value)
        time.sleep(_PAUSE_SECONDS)


async def eventually(condition: Callable[[], Awaitable[T]], *, within_seconds: float = 30.0, what: str = "") -> T:
    """The same for async tests: `condition` is awaited each time."""
    deadline = time.monotonic() + within_seconds
    while True:
        asked = time.monotonic()
        if value := await condition():
            return value
        assert asked < deadline, _late(within_seconds, what, value)
        await asyncio.sleep(_PAUSE_SECONDS)


async def seconds_until(condition: Callable[[], Awaitable[object]], *, what: str = "") -> float:
    """When, in seconds from now on, it was last begun to ask for `condition` in vain.

    Judges what holds for whoever asks so much later: how long an answer takes is the machine's affair.
    """
    began = last = time.monotonic()
    while True:
        asked = time.monotonic()
        if await condition():
            return last - began
        last = asked
        assert last - began < 10.0, _late(10.0, what, False)
        await asyncio.sleep(_SHORT_PAUSE_SECONDS)


def _late(within_seconds: float, what: str, value: object) -> str:
    return f"not within {within_seconds} s: {what or 'the condition'} (last: {value!r})"
