"""Background tasks."""

import asyncio

import pytest

from chassis.tasks import ended, heed_cancellation, in_background


async def test_tasks_run_while_open_and_are_cancelled_at_the_end() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with in_background(work(), work()):
        await begun.wait()
        assert not ended.is_set()
    assert ended.is_set()


async def test_a_task_that_fails_ends_the_block_with_its_error() -> None:
    async def fail() -> None:
        raise KeyError("in the background")

    async def wait_for_ever() -> None:
        async with in_background(fail()):
            await asyncio.Event().wait()

    with pytest.raises(BaseExceptionGroup) as caught:
        await wait_for_ever()
    assert isinstance(caught.value.exceptions[0], KeyError)


async def test_a_task_that_loses_its_cancellation_is_cancelled_again() -> None:
    lost = 0

    async def work() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:  # as `asyncio.wait_for` does before Python 3.12, when both come together
                lost += 1
                if lost > 2:
                    raise

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await ended([task], clearing_up_seconds=0.01)
    assert task.cancelled()
    assert lost == 3


async def test_a_task_has_time_to_clear_up() -> None:
    cleared_up = False

    async def work() -> None:
        nonlocal cleared_up
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.1)
            cleared_up = True

    async with in_background(work()):
        await asyncio.sleep(0)
    assert cleared_up


async def test_a_loop_ends_although_its_client_has_lost_the_request() -> None:
    waits = 0

    async def careless_client() -> None:
        nonlocal waits
        waits += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return

    async def loop() -> None:
        while True:
            await careless_client()
            heed_cancellation()

    looping = asyncio.create_task(loop())
    await asyncio.sleep(0)
    looping.cancel()
    await asyncio.wait([looping], timeout=5.0)
    assert looping.cancelled()
    assert waits == 1
