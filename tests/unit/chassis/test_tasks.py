"""Background tasks."""

import asyncio
import gc
from collections.abc import Coroutine

import pytest

from chassis import tasks
from chassis.errors import PulsegateError, Unavailable
from chassis.tasks import ended, for_ever, heed_cancellation, in_background
from tests.captured_logs import logged_by


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


async def _fail() -> None:
    try:
        raise IndexError("at first")
    except IndexError:
        raise KeyError("in the background")  # noqa: B904 - the context is what is looked at


async def test_a_task_that_fails_ends_the_block_with_its_error() -> None:
    with pytest.raises(KeyError, match="in the background") as caught:
        async with in_background(in_background_of_another(_fail())):
            await asyncio.Event().wait()
    assert isinstance(caught.value.__context__, IndexError)


async def test_a_task_that_ends_because_what_it_waits_for_was_cancelled_ends_the_block() -> None:
    async def wait_for(future: "asyncio.Future[None]") -> None:
        await future

    async def cancelled_beneath() -> None:
        future = asyncio.get_running_loop().create_future()
        async with in_background(wait_for(future)):
            await asyncio.sleep(0)
            future.cancel()
            await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="was cancelled"):
        async with asyncio.timeout(5):
            await cancelled_beneath()


async def test_what_is_cancelled_before_it_began_is_closed(recwarn: pytest.WarningsRecorder) -> None:
    async with in_background(asyncio.sleep(60)):
        pass
    gc.collect()
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]


async def in_background_of_another(work: Coroutine[None, None, None]) -> None:
    async with in_background(work):
        await asyncio.Event().wait()


async def test_what_the_body_raises_comes_out_of_any_depth_as_it_is() -> None:
    cause = IndexError("at first")
    error = KeyError("in the body")
    with pytest.raises(KeyError) as caught:
        async with in_background(asyncio.sleep(60)), in_background(asyncio.sleep(60)):
            raise error from cause
    assert caught.value is error
    assert error.__cause__ is cause


async def test_a_group_that_the_body_raises_stays_one() -> None:
    with pytest.raises(ExceptionGroup, match="two of the body's") as caught:
        async with in_background(asyncio.sleep(60)):
            raise ExceptionGroup("two of the body's", [KeyError("one"), IndexError("two")])
    assert len(caught.value.exceptions) == 2


async def test_several_errors_come_out_together() -> None:
    async def fail_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("while clearing up")

    async def fail_twice() -> None:
        async with in_background(fail_when_cancelled()):
            await asyncio.sleep(0)
            raise IndexError("in the body")

    with pytest.raises(ExceptionGroup) as caught:
        await fail_twice()
    assert {type(each) for each in caught.value.exceptions} == {IndexError, KeyError}


async def test_a_block_that_is_cancelled_is_cancelled() -> None:
    block = asyncio.create_task(in_background_of_another(asyncio.sleep(60)))
    await asyncio.sleep(0)
    block.cancel()
    with pytest.raises(asyncio.CancelledError):
        await block
    assert block.cancelled()


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


async def test_work_for_ever_goes_on_while_there_is_more_and_says_once_that_it_fails() -> None:
    answers: list[bool | PulsegateError] = [True, True, Unavailable("away"), Unavailable("away"), False]
    done = asyncio.Event()

    async def work() -> bool:
        if not answers:
            done.set()
            return False
        answer = answers.pop(0)
        if isinstance(answer, PulsegateError):
            raise answer
        return answer

    with logged_by(tasks) as lines:
        async with in_background(for_ever(work, 0.001, "it waits")):
            await asyncio.wait_for(done.wait(), 5.0)
    assert [line["event"] for line in lines] == ["it waits"]
