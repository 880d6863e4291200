"""A clock that tests move forward."""

import asyncio
import time
from datetime import timedelta


class MovableClock:
    """The machine's clock, ahead of it by what `advance` has added up to. Sleepers wake when it has passed for them."""

    def __init__(self) -> None:
        self._ahead_seconds = 0.0
        self._moved = asyncio.Condition()

    async def advance(self, step: timedelta) -> None:
        async with self._moved:
            self._ahead_seconds += step.total_seconds()
            self._moved.notify_all()

    def now_ms(self) -> int:
        return int((time.time() + self._ahead_seconds) * 1000)

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead_seconds

    async def sleep(self, seconds: float) -> None:
        due = self.monotonic() + seconds
        async with self._moved:
            while self.monotonic() < due:
                await self._wait_for_move(due - self.monotonic())

    async def _wait_for_move(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._moved.wait()
        except TimeoutError:
            return
