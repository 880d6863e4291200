"""Background tasks."""

import asyncio

import pytest

from chassis.tasks import in_background


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
