"""Turns for large bodies: one at a time, fair by bytes, and nothing is kept for those who wait no more."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from chassis import context
from chassis.breakers import upstream_fault
from chassis.errors import DeadlineExceeded, Unavailable
from services.ingest.fair_turns import FairTurns


class Queue:
    """Bodies that are read in turns, and in which order."""

    def __init__(self) -> None:
        self.turns = FairTurns(most_waiting_bytes=2_100, largest_bytes=100)
        self.read: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, size: int) -> None:
        """The name begins with whose it is. Returns when the body waits, or was refused."""
        self.tasks[name] = asyncio.create_task(self._read(name, size))
        await asyncio.sleep(0)

    async def _read(self, name: str, size: int) -> None:
        async with self.turns.turn(name[0], size):
            self.read.append(name)

    @asynccontextmanager
    async def busy(self, whose: str = "z") -> AsyncIterator[None]:
        """While one is read that none of the others is; then all have their turns."""
        async with self.turns.turn(whose, 1):
            yield
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def test_who_asks_for_little_does_not_wait_for_all_that_another_has_asked_for() -> None:
    queue = Queue()
    async with queue.busy():
        for at in range(4):
            await queue.ask(f"a{at}", 100)
        for at in range(3):
            await queue.ask(f"b{at}", 40)
    assert queue.read == ["b0", "b1", "a0", "b2", "a1", "a2", "a3"]


async def test_turns_do_not_overlap() -> None:
    queue = Queue()
    async with queue.busy():
        for name in ("a", "b", "c"):
            await queue.ask(name, 10)
        assert queue.read == []
    assert sorted(queue.read) == ["a", "b", "c"]


async def test_what_waits_is_bounded_for_each_and_for_all_together() -> None:
    queue = Queue()
    async with queue.busy():
        await queue.ask("a0", 400)
        await queue.ask("a1", 200)
        refused = queue.tasks["a1"].exception()
        assert isinstance(refused, Unavailable)
        assert refused.retry_after_seconds
        assert not upstream_fault(refused), "nobody's bodies open a breaker for others"
        await queue.ask("b0", 300)
        await queue.ask("c0", 300)
        assert isinstance(queue.tasks["c0"].exception(), Unavailable)
        await queue.ask("c1", 200)
    assert queue.read == ["c1", "b0", "a0"]
    async with queue.turns.turn("a", 500):
        pass


async def test_who_is_gone_leaves_at_once() -> None:
    queue = Queue()
    async with queue.busy():
        await queue.ask("a0", 500)
        await queue.ask("a1", 100)
        assert isinstance(queue.tasks["a1"].exception(), Unavailable)
        queue.tasks["a0"].cancel()
        await asyncio.sleep(0)
        await queue.ask("a2", 500)
    assert queue.read == ["a2"]


async def test_a_turn_that_comes_to_somebody_who_leaves_just_then_is_the_next_ones() -> None:
    queue = Queue()
    turn = queue.turns.turn("z", 1)
    await turn.__aenter__()
    await queue.ask("a", 10)
    await queue.ask("b", 20)
    await turn.__aexit__(None, None, None)  # it is a's from now on
    queue.tasks["a"].cancel()
    async with asyncio.timeout(5):
        await queue.tasks["b"]
    assert queue.read == ["b"]


async def test_nobody_waits_beyond_the_deadline() -> None:
    queue = Queue()
    async with queue.busy():
        context.DEADLINE.set(time.monotonic() + 0.01)
        with pytest.raises(DeadlineExceeded):
            async with queue.turns.turn("a", 500):
                pass
        context.DEADLINE.set(None)
        await queue.ask("a", 500)
    assert queue.read == ["a"]
