"""What callers share, and may each have a part of only."""

import asyncio
from collections.abc import Iterable
from contextlib import ExitStack, suppress

import pytest

from chassis.breakers import NotAsked
from chassis.errors import Unavailable
from services.gateway.shares import HOLDERS, HeldBytes, Places, Turns


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


async def test_turns_of_four_leave_some_for_others() -> None:
    turns, order = Turns("upstream", 16), list[str]()
    release = asyncio.Event()

    async def ask(tenant: str) -> None:
        HOLDERS.set((tenant,))
        async with turns.one(10):
            order.append(tenant)
            await release.wait()

    greedy = [asyncio.create_task(ask(tenant)) for tenant in "abcd" for _ in range(20)]
    await asyncio.sleep(0)
    assert [order.count(tenant) for tenant in "abcd"] == [4, 2, 1, 1]
    modest = asyncio.create_task(ask("e"))
    await asyncio.sleep(0)
    assert order[-1] == "e"
    release.set()
    await asyncio.gather(*greedy, modest)
    assert len(order) == 81


async def test_a_turn_that_comes_to_who_leaves_just_then_is_for_the_next() -> None:
    turns = Turns("upstream", 1)

    async def ask() -> None:
        async with turns.one(10):
            pass

    async with turns.one(10):
        leaving, next_one = asyncio.create_task(ask()), asyncio.create_task(ask())
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait_for(next_one, 1)
    assert leaving.cancelled()


async def as_much_as_each_may(tenants: Iterable[str]) -> list[tuple[int, int]]:
    """Calls and MiB, one tenant after the other."""
    places, held, taken = Places("upstream", 256), HeldBytes("bodies", 128 << 20), list[tuple[int, int]]()
    with ExitStack() as calls:
        for tenant in tenants:
            HOLDERS.set((tenant,))
            of_tenant, body, mebibytes = 0, held.begin(), 0
            with suppress(NotAsked):
                for of_tenant in range(256):  # noqa: B007 - how many there were
                    calls.enter_context(places.one())
            with suppress(Unavailable):
                for mebibytes in range(128):  # noqa: B007
                    body.more(1 << 20)
            taken.append((of_tenant, mebibytes))
    return taken


async def test_four_with_all_the_calls_and_memory_that_they_may_have_leave_some_for_others() -> None:
    assert await as_much_as_each_may("abcde") == [(64, 32), (36, 18), (23, 11), (17, 8), (13, 6)]


async def test_fewer_than_forty_leave_some_calls_and_memory_for_others_and_fifty_nothing() -> None:
    taken = await as_much_as_each_may(f"tenant {number}" for number in range(51))
    assert all(calls and mebibytes for calls, mebibytes in taken[:40])
    assert taken[50] == (0, 0)
