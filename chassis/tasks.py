"""Background tasks with an owner: none is forgotten, none fails unseen, and each one ends when it is told to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from chassis import logs
from chassis.errors import PulsegateError

log = logs.get(__name__)

#: How long a task may take to clear up before it is cancelled once more.
_CLEARING_UP_SECONDS = 5.0


@asynccontextmanager
async def in_background(*coroutines: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Runs the coroutines while open and cancels them at the end. One that fails ends the block with its error.

    That what one waits for was cancelled, and not the task itself, is a failure too. A single error, the body's or a
    task's, comes out as itself; several come out as a group.
    """
    of_body: list[BaseException] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_not_ending_unseen(coroutine)) for coroutine in coroutines]
            try:
                yield
            except Exception as error:
                of_body.append(error)  # a task that fails while it clears up must not replace it
                raise
            finally:
                await ended(tasks)
                for coroutine in coroutines:
                    coroutine.close()  # what was cancelled before it began
    except BaseExceptionGroup as errors:
        failed = list(dict.fromkeys((*of_body, *errors.exceptions)))
        if len(failed) > 1:
            raise BaseExceptionGroup(errors.message, failed) from None
        _raise_as_it_was(failed[0])


async def _not_ending_unseen(coroutine: Coroutine[Any, Any, object]) -> None:
    """A group takes any task that ends as cancelled for one that it has cancelled itself."""
    try:
        await coroutine
    except asyncio.CancelledError as error:
        heed_cancellation()
        raise RuntimeError("What a background task waited for was cancelled.") from error


def _raise_as_it_was(error: BaseException) -> NoReturn:
    """Raises the error with what it says of where it comes from, which raising it here would replace."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context


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


async def for_ever(work: Callable[[], Awaitable[bool]], pause_seconds: float, complaint: str) -> NoReturn:
    """Does the work again and again: at once where it returns that there is more, else after a pause.

    Work that fails with a PulsegateError is done again later; the log has the complaint once until it succeeds.
    """
    failing = False
    while True:
        try:
            more = await work()
            failing = False
        except PulsegateError as error:
            if not failing:
                log.warning(complaint, code=error.code, reason=error.message)
            more, failing = False, True
        heed_cancellation()
        if not more:
            await asyncio.sleep(pause_seconds)
