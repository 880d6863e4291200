"""Work in steps: others have their turn in between, and large bodies are read one at a time."""

import asyncio
import time

import pytest

from chassis.errors import Unavailable
from services.ingest.turns import LONGEST_TURN_SECONDS, OneByOne, Steps, at_once, in_turns


def _busy(steps: int, seconds_each: float) -> Steps[int]:
    for _ in range(steps):
        until = time.monotonic() + seconds_each
        while time.monotonic() < until:
            pass
        yield
    return steps


async def test_others_have_their_turn_while_work_goes_on() -> None:
    turns = 0
    work = asyncio.create_task(in_turns(_busy(5, LONGEST_TURN_SECONDS)))
    while not work.done():
        await asyncio.sleep(0)
        turns += 1
    assert work.result() == 5
    assert turns >= 5


def test_what_is_small_is_done_at_once() -> None:
    assert at_once(_busy(3, 0)) == 3


async def test_large_bodies_are_read_one_at_a_time_and_what_waits_is_bounded() -> None:
    bodies = OneByOne(most_waiting_bytes=100)
    told: list[str] = []

    async def read(name: str, done: asyncio.Event) -> None:
        async with bodies.turn(40):
            told.append(f"{name} begins")
            await done.wait()

    first, second = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(read("first", first))
        tasks.create_task(read("second", second))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            async with bodies.turn(40):
                pass
        assert told == ["first begins"]
        first.set()
        second.set()
    assert told == ["first begins", "second begins"]
    async with bodies.turn(100):
        pass
