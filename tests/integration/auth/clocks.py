"""A clock that tests move forward."""

import asyncio
import time
from datetime import timedelta


class MovableClock:
    """The machine's clock, ahead of it by what `advance` has added up to. Sleepers wake when it has passed for them."""

    def __init__(self) -> None:
        #: What the machine's two clocks said when this one was stopped.
        self._stopped: tuple[float, float] | None = None
        self._ahead_seconds = 0.0
        self._moved = asyncio.Condition()

    async def advance(self, step: timedelta) -> None:
        async with self._moved:
            self._ahead_seconds += step.total_seconds()
            self._moved.notify_all()

    def stop(self) -> None:
        """From here on it moves by `advance` alone, however long the machine takes."""
        self._stopped = time.time(), time.monotonic()

    def now_ms(self) -> int:
        return int(((self._stopped[0] if self._stopped else time.time()) + self._ahead_seconds) * 1000)

    def monotonic(self) -> float:
        return (self._stopped[1] if self._stopped else time.monotonic()) + self._ahead_seconds

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
