"""What callers share, and may each have a quarter of."""

import asyncio

import pytest

from chassis.breakers import NotAsked
from services.gateway.shares import HOLDERS, Shares, Turns


def test_nobody_gets_more_than_there_is_and_no_holder_more_than_a_quarter() -> None:
    shares = Shares(100)
    assert shares.take(["a", "b"], 20)
    assert not shares.take(["a"], 6)
    assert not shares.take(["c", "b"], 6)
    assert shares.take(["a"], 5)
    assert shares.take([], 75)
    assert not shares.take(["c"])
    shares.give_back([], 75)
    shares.give_back(["a", "b"], 20)
    assert shares.take(["b"], 25)
    assert shares.taken == 30


async def test_who_waits_for_a_turn_gets_it_when_another_ends() -> None:
    turns, order = Turns("upstream", 4), list[int]()
    HOLDERS.set(("tenant",))

    async def take(number: int) -> None:
        async with turns.one(10):
            order.append(number)

    async with turns.one(10):
        waiting = [asyncio.create_task(take(number)) for number in range(3)]
        await asyncio.sleep(0)
        assert not order
        HOLDERS.set(("other",))
        async with turns.one(0.001):
            waiting[1].cancel()
    await asyncio.wait(waiting)
    assert order == [0, 2]


async def test_a_turn_that_does_not_come_in_time_is_none() -> None:
    turns = Turns("upstream", 1)
    async with turns.one(10):
        with pytest.raises(NotAsked):
            async with turns.one(0.001):
                pass
    async with turns.one(0.001):
        pass
