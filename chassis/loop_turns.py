"""Turns on the event loop: what takes long in all leaves it to whatever else waits."""

import asyncio
import time

#: How long work goes on before others have their turn.
_LONGEST_TURN_SECONDS = 0.005


class LoopTurns:
    """Of work that goes on step by step: cheap steps share a turn, because a turn of a busy loop may take long."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def pause(self) -> None:
        """After a step: others have their turn where this one was long."""
        if time.monotonic() - self._began > _LONGEST_TURN_SECONDS:
            await asyncio.sleep(0)
            self._began = time.monotonic()
