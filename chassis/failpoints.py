"""Named points at which a test installation crashes, waits or fails, to show that nothing is lost there.

A point is one line in the code that it names, behind one truth test:

    if failpoints.ARMED:
        await failpoints.reached("committed")

`PULSEGATE_FAILPOINTS` arms some of them: `point:action@when`, separated by commas. Actions: `crash` (at once, as by
kill -9), `pause=2.5` (seconds; other tasks go on), `error` (a service is away). When: a whole number is the time of a
process's life at which the point is reached that often, once; a number with a decimal point is a probability.

Probabilities are drawn by chance, or from `PULSEGATE_FAILPOINTS_SEED`. Then the seed, the process's name and the number
of its life (`PULSEGATE_RESTARTS`) fix at which times, counted as above, each failpoint strikes; when a point is reached
for that time is up to the load.
"""

import asyncio
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from chassis import logs
from chassis.errors import Unavailable

log = logs.get(__name__)

#: Every point, and what has and has not happened there.
POINTS = {
    "frame-sent": "receiver: a frame was given to the log, which has not answered",
    "log-acknowledged": "receiver: the log has a frame on disk, nobody was told",
    "lane-taken": "aggregator: a lane was taken, nothing was loaded",
    "before-commit": "aggregator: a checkpoint was sealed, its transaction did not begin",
    "in-commit": "aggregator: all statements of a checkpoint were executed, its transaction did not commit",
    "committed": "aggregator: a checkpoint was committed, nothing was offered to the sinks",
    "delivered": "aggregator: a sink took samples, which nothing says yet",
    "before-answer": "gateway: a receiver has taken a batch, the client was not answered",
}

_LONGEST_PAUSE_SECONDS = 60.0
_FAILPOINT = re.compile(
    r"(?P<point>[a-z-]+):(?:(?P<action>crash|error)|pause=(?P<pause>\d{1,2}(?:\.\d{1,3})?))"
    r"@(?:(?P<chance>0?\.\d{1,9}|1\.0)|(?P<time>[1-9]\d{0,8}))",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class Failpoint:
    """What happens at a point, and when."""

    point: str
    action: Literal["crash", "pause", "error"]
    pause_seconds: float = 0.0
    #: Each time with this probability; 0: at the `time` alone.
    chance: float = 0.0
    #: Counted from the start of the process, from 1.
    time: int = 0

    def strikes(self, time: int, draw: Callable[[], float]) -> bool:
        """Whether it does so when its point is reached for that time; `draw` gives numbers from 0 to below 1."""
        return draw() < self.chance if self.chance else time == self.time


#: What is armed, by point, with what its probabilities are drawn from. Empty, as it is everywhere but in a test
#: installation, it costs one truth test.
ARMED: dict[str, list[tuple[Failpoint, random.Random]]] = {}

_reached: Counter[str] = Counter()


def parse(text: str) -> tuple[Failpoint, ...]:
    """Parses `PULSEGATE_FAILPOINTS`. Raises ValueError with all faults."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    parsed = [_parsed(part) for part in parts]
    if faults := [each for each in parsed if isinstance(each, str)]:
        raise ValueError("; ".join(faults))
    return tuple(each for each in parsed if isinstance(each, Failpoint))


def _parsed(part: str) -> Failpoint | str:
    """A failpoint, or what is wrong with it."""
    match = _FAILPOINT.fullmatch(part)
    if match is None:
        return f"{part!r} is not point:crash@when, point:pause=seconds@when or point:error@when"
    if match["point"] not in POINTS:
        return f"{match['point']!r} is none of {', '.join(POINTS)}"
    pause_seconds = float(match["pause"] or 0)
    if pause_seconds > _LONGEST_PAUSE_SECONDS:
        return f"{part!r} pauses for more than {_LONGEST_PAUSE_SECONDS:.0f} seconds"
    action: Literal["crash", "pause", "error"] = "pause"
    if match["action"]:
        action = "crash" if match["action"] == "crash" else "error"
    return Failpoint(
        point=match["point"],
        action=action,
        pause_seconds=pause_seconds,
        chance=float(match["chance"] or 0),
        time=int(match["time"] or 0),
    )


def arm(failpoints: Iterable[Failpoint], *, life: str | None = None) -> None:
    """Arms these and no others. `life`: what stands for this life of this process in all that is to be repeated; None:
    nothing is."""
    ARMED.clear()
    _reached.clear()
    for failpoint in failpoints:
        # Of its own: how points that are reached in turn alternate is not repeatable.
        chance = random.Random(life and f"{life} {failpoint}")  # noqa: S311 - no secret
        ARMED.setdefault(failpoint.point, []).append((failpoint, chance))


async def reached(point: str) -> None:
    """Does what is armed at the point. Raises Unavailable where that is an error."""
    if point not in ARMED:
        return
    _reached[point] += 1
    for failpoint, chance in ARMED[point]:
        if failpoint.strikes(_reached[point], chance.random):
            await _strike(failpoint, _reached[point])


async def _strike(failpoint: Failpoint, time: int) -> None:
    log.warning("failpoint", point=failpoint.point, action=failpoint.action, time=time)
    match failpoint.action:
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "pause":
            await asyncio.sleep(failpoint.pause_seconds)
        case "error":
            raise Unavailable(f"The failpoint {failpoint.point} is armed.", retry_after_seconds=0.1)
