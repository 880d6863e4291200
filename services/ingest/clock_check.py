"""How far this machine's clock is from Postgres', which all processes share and leases are kept by."""

from collections.abc import Awaitable, Callable

from chassis.clock import Clock
from chassis.errors import Unavailable

MOST_AHEAD_SECONDS = 5.0
#: So late, what an owner of lanes writes is still among what Prometheus looks at: the last five minutes.
MOST_BEHIND_SECONDS = 60.0
#: Who was later than that is right again once it is less behind than this: no lane goes back and forth.
RIGHT_AGAIN_BEHIND_SECONDS = 50.0

#: The time by Postgres' clock, Unix milliseconds.
SharedNow = Callable[[], Awaitable[int]]


async def seconds_ahead(clock: Clock, shared_now_ms: SharedNow) -> float:
    """How far the clock is ahead of the shared one; negative where it is behind. Raises Unavailable."""
    now_ms = clock.now_ms()  # before the question: what that takes is nobody's lead
    return (now_ms - await shared_now_ms()) / 1000


def told(ahead_seconds: float) -> str:
    """What is amiss, for readiness."""
    way = "ahead of" if ahead_seconds > 0 else "behind"
    return f"this machine's clock is {abs(ahead_seconds):.0f} s {way} Postgres'"


async def probe(clock: Clock, shared_now_ms: SharedNow) -> None:
    """A health check: raises Unavailable where the clock is too far ahead or behind, or cannot be compared. Soft: where
    Postgres' is the wrong one, all others seem to be."""
    ahead_seconds = await seconds_ahead(clock, shared_now_ms)
    if not -MOST_BEHIND_SECONDS <= ahead_seconds <= MOST_AHEAD_SECONDS:
        raise Unavailable(told(ahead_seconds))
