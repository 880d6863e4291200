"""Work in steps: others have their turn in between."""

import asyncio
import time
from collections.abc import Generator

import pytest

from services.ingest.turns import LONGEST_TURN_SECONDS, Steps, TooMuchWork, Turns, begun, in_turns


def _busy(steps: int, seconds_each: float) -> Steps[int]:
    for _ in range(steps):
        until = time.monotonic() + seconds_each
        while time.monotonic() < until:
            pass
        yield
    return steps


async def test_others_have_their_turn_while_work_goes_on_and_as_much_time_as_it() -> None:
    turns, began = 0, time.monotonic()
    work = asyncio.create_task(in_turns(_busy(5, LONGEST_TURN_SECONDS)))
    while not work.done():
        await asyncio.sleep(0)
        turns += 1
    assert work.result() == 5
    assert turns >= 5
    assert time.monotonic() - began >= 2 * 4 * LONGEST_TURN_SECONDS


def test_what_is_small_is_done_at_once() -> None:
    assert begun(_busy(3, 0), 60.0) == 3


def test_what_takes_long_is_begun_and_goes_on_where_it_was_left() -> None:
    left = begun(_busy(3, 0.01), 0.005)
    assert isinstance(left, Generator)
    assert len(list(left)) == 2


async def test_work_in_turns_may_take_so_much_of_the_processor_and_no_more() -> None:
    def kept_waiting() -> Steps[bool]:
        for _ in range(5):
            time.sleep(0.02)  # the processor does something else
            yield
        return True

    assert await in_turns(kept_waiting(), Turns(0.001, most_seconds=0.05))
    with pytest.raises(TooMuchWork):
        await in_turns(_busy(100, 0.02), Turns(0.001, most_seconds=0.05))
