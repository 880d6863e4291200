"""Passwords: bcrypt on a few threads, never on the event loop, and never more waiting than can be served."""

import asyncio
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

import bcrypt

from chassis import context
from services.auth import metrics
from services.auth.errors import TooManyPasswords

#: bcrypt reads no more, so a longer password is refused instead of cut.
MOST_BYTES = 72
LEAST_BYTES = 12

_NICENESS = 10

#: What has not begun by then is turned away, so that it has time to be done: where processors are short, few in a queue
#: take longer than their callers wait, who would take all of auth for broken.
_LONGEST_WAIT_SECONDS = 3.0
_LONGEST_WORK_SECONDS = 10.0

_Result = TypeVar("_Result")


def length_fault(password: str) -> str | None:
    """What is wrong with a password's length or characters, or None."""
    if not LEAST_BYTES <= len(password.encode()) <= MOST_BYTES:
        return f"must be {LEAST_BYTES} to {MOST_BYTES} bytes long in UTF-8"
    if "\0" in password:
        return "must not contain NUL"
    return None


class PasswordHasher:
    """Hashes and compares passwords. Made by `hashing`."""

    def __init__(self, cost: int, executor: ThreadPoolExecutor, most_pending: int, decoy: bytes) -> None:
        self._cost = cost
        self._executor = executor
        self._most_pending = most_pending
        self._pending = 0
        self._counting = threading.Lock()
        #: Compared with where there is no such user, so that the answer takes as long.
        self._decoy = decoy
        #: The highest cost that was met: what it was set to before may be higher.
        self._highest_cost = cost

    async def hash(self, password: str) -> str:
        """bcrypt's text for a password without a `length_fault`. Raises TooManyPasswords."""
        hashed = await self.on_thread(lambda: bcrypt.hashpw(password.encode(), bcrypt.gensalt(self._cost)))
        return hashed.decode()

    async def matches(self, password: str, hashed: str | None) -> bool:
        """Whether the password is the one; takes as long for None, "no such user", and for a hash of less cost.

        Raises TooManyPasswords.
        """
        possible = hashed is not None and length_fault(password) is None
        offered = password.encode() if possible else b"a password that no account can have"
        compared = hashed.encode() if possible and hashed else self._decoy
        return await self.on_thread(lambda: self._compare(offered, compared)) and possible

    async def renewed(self, password: str, hashed: str) -> str:
        """The password's hash at the present cost: the same where it has that cost. Raises TooManyPasswords."""
        return hashed if _cost_of(hashed.encode()) == self._cost else await self.hash(password)

    async def on_thread(self, work: Callable[[], _Result]) -> _Result:
        """Whatever takes long about passwords. Raises TooManyPasswords, also where it is not done in time."""
        if self._pending >= self._most_pending:
            raise _turned_away()
        began = time.monotonic()
        future = self._executor.submit(work)
        self._count(1)
        # Counted until the thread is done with it, also where the caller has given up.
        future.add_done_callback(lambda _: self._count(-1))
        result = asyncio.wrap_future(future)
        try:
            await asyncio.wait([result], timeout=context.waiting_seconds(_LONGEST_WAIT_SECONDS))
            if not future.cancel():  # it has begun
                await asyncio.wait([result], timeout=context.waiting_seconds(_LONGEST_WORK_SECONDS))
            if not result.done():
                raise _turned_away()
            return result.result()
        finally:
            future.cancel()
            metrics.PASSWORD_SECONDS.observe(time.monotonic() - began)

    def _compare(self, offered: bytes, hashed: bytes) -> bool:
        """Each step of cost doubles the time: after a hash of cost 10, hashes of 10 and 11 make it that of 12."""
        matches, cost = bcrypt.checkpw(offered, hashed), _cost_of(hashed)
        self._highest_cost = max(self._highest_cost, cost)
        for missing in range(cost, self._highest_cost):
            bcrypt.hashpw(offered, bcrypt.gensalt(missing))
        return matches

    def _count(self, step: int) -> None:
        with self._counting:  # called on the threads too
            self._pending += step
            metrics.PASSWORDS_PENDING.set(self._pending)


@asynccontextmanager
async def hashing(*, cost: int, threads: int, queue: int) -> AsyncIterator[PasswordHasher]:
    """A hasher whose threads end with the block; what still waits for one is cancelled."""
    executor = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt", initializer=_give_way)
    try:
        decoy: Future[bytes] = executor.submit(bcrypt.hashpw, secrets.token_urlsafe(32).encode(), bcrypt.gensalt(cost))
        yield PasswordHasher(cost, executor, threads + queue, await asyncio.wrap_future(decoy))
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _turned_away() -> TooManyPasswords:
    metrics.PASSWORDS_TURNED_AWAY.inc()
    return TooManyPasswords()


def _cost_of(hashed: bytes) -> int:
    """From bcrypt's text: "$2b$12$…"."""
    return int(hashed.split(b"$")[2])


def _give_way() -> None:
    """Lets the event loop go first where processors are short: a flood of passwords must not slow verdicts down.

    On Linux a thread has a priority of its own (setpriority(2)). One that gives way more already stays as it is: to
    take that back is not everybody's right.
    """
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
