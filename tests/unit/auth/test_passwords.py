"""The hashing of passwords on threads."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt
import pytest
from prometheus_client import REGISTRY

from chassis import context
from chassis.errors import Unavailable
from services.auth import passwords
from services.auth.passwords import PasswordHasher, hashing
from tests.waiting import eventually

_Result = TypeVar("_Result")

PASSWORD = "correct horse battery staple"


def pending() -> float | None:
    return REGISTRY.get_sample_value("pulsegate_auth_passwords_pending")


async def test_a_password_matches_its_own_hash_alone() -> None:
    async with hashing(cost=4, threads=1, queue=10) as hasher:
        hashed = await hasher.hash(PASSWORD)

        assert hashed.startswith("$2b$04$")
        assert await hasher.matches(PASSWORD, hashed)
        assert not await hasher.matches(PASSWORD + ".", hashed)
        assert not await hasher.matches(PASSWORD, None)


async def test_two_hashes_of_one_password_differ() -> None:
    async with hashing(cost=4, threads=2, queue=10) as hasher:
        assert await hasher.hash(PASSWORD) != await hasher.hash(PASSWORD)


@pytest.mark.parametrize("password", ["", "x" * 73, "a fine\0password"])
async def test_a_password_that_no_account_can_have_never_matches(password: str) -> None:
    hashed = bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode()
    async with hashing(cost=4, threads=1, queue=10) as hasher:
        assert not await hasher.matches(password, hashed)


async def test_a_comparison_takes_the_same_work_whatever_cost_a_hash_has(monkeypatch: pytest.MonkeyPatch) -> None:
    costly, cheap = (bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(cost)).decode() for cost in (7, 4))
    async with hashing(cost=5, threads=1, queue=10) as hasher:
        present = await hasher.hash(PASSWORD)
        spent = spent_work(monkeypatch)

        assert [await hasher.matches(PASSWORD, hashed) for hashed in (cheap, present)] == [True, True]
        assert not await hasher.matches(PASSWORD, None)
        assert [sum(spent[:2]), *spent[2:]] == [2**5] * 3
        spent.clear()
        assert [await hasher.matches(PASSWORD, hashed) for hashed in (costly, cheap)] == [True, True]
        assert not await hasher.matches(PASSWORD, None)
        assert sum(spent) == 3 * 2**7


def spent_work(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds of each use of bcrypt from now on."""
    spent: list[int] = []

    def counted(genuine: Callable[[bytes, bytes], _Result]) -> Callable[[bytes, bytes], _Result]:
        def count(password: bytes, salt: bytes) -> _Result:
            spent.append(2 ** int(salt[4:6]))
            return genuine(password, salt)

        return count

    monkeypatch.setattr(bcrypt, "checkpw", counted(bcrypt.checkpw))
    monkeypatch.setattr(bcrypt, "hashpw", counted(bcrypt.hashpw))
    return spent


class BusyThreads:
    """bcrypt as slow as the test wants: every comparison waits until `go_on`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._gate = threading.Event()
        genuine = bcrypt.checkpw

        def checkpw(password: bytes, hashed: bytes) -> bool:
            assert self._gate.wait(10)
            return genuine(password, hashed)

        monkeypatch.setattr(bcrypt, "checkpw", checkpw)

    def go_on(self) -> None:
        self._gate.set()


async def flooded(hasher: PasswordHasher, hashed: str, count: int) -> list[asyncio.Task[bool]]:
    waiting = [asyncio.create_task(hasher.matches(PASSWORD, hashed)) for _ in range(count)]

    async def all_pending() -> bool:
        return pending() == count

    await eventually(all_pending)
    return waiting


async def test_a_flood_is_turned_away_and_those_who_wait_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hashing(cost=4, threads=1, queue=2) as hasher:
        hashed = await hasher.hash(PASSWORD)
        threads = BusyThreads(monkeypatch)
        waiting = await flooded(hasher, hashed, 3)

        with pytest.raises(Unavailable) as turned_away:
            await hasher.matches(PASSWORD, hashed)
        threads.go_on()

        assert turned_away.value.retry_after_seconds
        assert await asyncio.gather(*waiting) == [True, True, True]
        assert await hasher.matches(PASSWORD, hashed)


async def test_who_would_wait_too_long_is_told_so_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's breaker opens for a flood of sign-ins, however slow the processor."""
    async with hashing(cost=4, threads=1, queue=2) as hasher:
        hashed = await hasher.hash(PASSWORD)
        threads = BusyThreads(monkeypatch)
        monkeypatch.setattr(passwords, "_LONGEST_WAIT_SECONDS", 0.5)
        deadline = time.monotonic() + 3
        token = context.DEADLINE.set(deadline)
        monkeypatch.setattr(context, "_SECONDS_TO_ANSWER", 1.5)
        waiting = await flooded(hasher, hashed, 3)
        context.DEADLINE.reset(token)

        refused = await asyncio.gather(*waiting, return_exceptions=True)

        assert time.monotonic() < deadline
        assert [error.details for error in refused if isinstance(error, Unavailable)] == [
            {"waitingFor": "password-checks"}
        ] * 3
        assert pending() == 1  # on its thread still
        threads.go_on()
        await eventually(nothing_pending)
        assert await hasher.matches(PASSWORD, hashed)


async def nothing_pending() -> bool:
    return pending() == 0


async def test_who_gives_up_waiting_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hashing(cost=4, threads=1, queue=2) as hasher:
        hashed = await hasher.hash(PASSWORD)
        threads = BusyThreads(monkeypatch)
        working, *giving_up = await flooded(hasher, hashed, 3)

        for task in giving_up:
            task.cancel()
        await asyncio.gather(*giving_up, return_exceptions=True)

        assert pending() == 1
        threads.go_on()
        assert await working
        assert pending() == 0


async def test_the_event_loop_goes_on_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hashing(cost=4, threads=1, queue=2) as hasher:
        threads = BusyThreads(monkeypatch)
        [waiting] = await flooded(hasher, await hasher.hash(PASSWORD), 1)

        asyncio.get_running_loop().call_soon(threads.go_on)

        assert await waiting


def test_threads_of_a_process_that_gives_way_already_do_not_give_way_less() -> None:
    async def niceness() -> int:
        async with hashing(cost=4, threads=1, queue=2) as hasher:
            return await hasher.on_thread(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    def of_a_nicer_thread() -> int:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)
        return asyncio.run(niceness())

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(of_a_nicer_thread).result(timeout=30) == 15
