"""Background tasks with an owner: none is forgotten, none fails unseen, and each one ends when it is told to."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

#: How long a task may take to clear up before it is cancelled once more.
_CLEARING_UP_SECONDS = 5.0


@asynccontextmanager
async def in_background(*coroutines: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Runs the coroutines while open and cancels them at the end. One that fails ends the block with its error."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        try:
            yield
        finally:
            await ended(tasks)


async def ended(tasks: Collection[asyncio.Task[Any]], clearing_up_seconds: float = _CLEARING_UP_SECONDS) -> None:
    """Cancels the tasks and returns when they have ended; what they raise stays with them.

    Once is not always enough: before Python 3.12 `asyncio.wait_for`, on which the Postgres pool waits, forgets a
    cancellation that comes together with what it waits for.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=clearing_up_seconds)


def heed_cancellation() -> None:
    """Raises CancelledError where this task has been asked to end.

    For every loop that waits for the log or the database: their clients use `asyncio.wait_for`, which before Python
    3.12 may lose the request, and then the loop would never end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
