"""Whether an aggregator takes its clock for late."""

import asyncio
from collections.abc import Sequence

from services.ingest.fleet import Fleet, Others
from tests.moved_clock import MovedClock


class ScriptedAttendance:
    """Whose clock is ahead of the aggregator's by so many seconds, one question after the other."""

    def __init__(self, clock: MovedClock, ahead_seconds: Sequence[int]) -> None:
        self._clock = clock
        self._ahead_seconds = iter(ahead_seconds)
        #: What the aggregator has said of its clock.
        self.late: list[bool] = []
        self.over = asyncio.Event()

    async def now_ms(self) -> int:
        for seconds in self._ahead_seconds:
            return self._clock.now_ms() + seconds * 1000
        self.over.set()
        return await asyncio.Future()

    async def attend(self, owner: str, lanes: int, lease_seconds: float, *, late: bool) -> Others:
        self.late.append(late)
        return Others(right=1, late=0)

    async def leave(self, owner: str) -> None:
        pass

    async def acquire(self, lane: int, lanes: int, owner: str, lease_seconds: float) -> int | None:
        return None


async def test_a_clock_that_was_late_is_right_again_once_it_is_well_within_what_it_may_be_behind() -> None:
    clock = MovedClock()
    attendance = ScriptedAttendance(clock, [55, 60, 61, 59, 51, 49, 59, 61])
    async with Fleet(attendance, clock, lanes=4, lease_seconds=5.0).attending():
        await asyncio.wait_for(attendance.over.wait(), 5.0)
    assert attendance.late == [False, False, True, True, True, False, False, True]
