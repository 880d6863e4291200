"""What callers share (calls, turns, memory) and may each have a part of only, so that nobody takes all of it."""

import asyncio
import collections
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakValueDictionary

from prometheus_client import Counter

from chassis.breakers import NotAsked
from chassis.errors import Unavailable
from services.gateway import metrics

#: On whose behalf calls are made: a person and the tenant that it is about, a key's tenant, an address where nobody is
#: known; nobody: the gateway itself.
HOLDERS: ContextVar[Sequence[str]] = ContextVar("holders", default=())

#: Of what is shared each holder may have a quarter, a tenant whoever of it calls: something is left for others.
_HOLDERS_PART = 4
_RETRY_AFTER_SECONDS = 1.0
_TOO_MUCH = "There is too much to do at this moment; nothing was done."


class Shares:
    """So much of something, and of each holder a quarter of it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_one = max(1, most // _HOLDERS_PART)
        self._taken_by: collections.Counter[str] = collections.Counter()
        self.taken = 0

    def take(self, holders: Sequence[str], amount: int = 1) -> bool:
        """Whether there was so much left for these, who have it now."""
        if self.taken + amount > self._most or any(
            self._taken_by[holder] + amount > self._most_of_one for holder in holders
        ):
            return False
        self.taken += amount
        for holder in holders:
            self._taken_by[holder] += amount
        return True

    def give_back(self, holders: Sequence[str], amount: int = 1) -> None:
        self.taken -= amount
        for holder in holders:
            self._taken_by[holder] -= amount
            if not self._taken_by[holder]:
                del self._taken_by[holder]


class Places:
    """So many calls to one upstream at a time, and of each holder a quarter as many. More are turned away."""

    def __init__(self, upstream: str, most_calls: int) -> None:
        self._shares = Shares(most_calls)
        metrics.UPSTREAM_CALLS.labels(upstream).set_function(lambda: self._shares.taken)
        self._shed = metrics.SHED.labels(upstream)

    @contextmanager
    def one(self) -> Iterator[None]:
        """A place for the block. Raises NotAsked where there is none."""
        holders = HOLDERS.get()
        if not self._shares.take(holders):
            self._shed.inc()
            raise NotAsked(_TOO_MUCH, retry_after_seconds=_RETRY_AFTER_SECONDS)
        try:
            yield
        finally:
            self._shares.give_back(holders)


class Turns:
    """So many calls to one upstream at a time, and of each holder a quarter as many. More wait, in the order in which
    they came."""

    def __init__(self, upstream: str, most_calls: int) -> None:
        self._all = asyncio.Semaphore(most_calls)
        self._most_of_one = max(1, most_calls // _HOLDERS_PART)
        self._shed = metrics.SHED.labels(upstream)
        #: Of holders who have or wait for a turn.
        self._of_holders: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def one(self, timeout_seconds: float) -> AsyncIterator[None]:
        """A turn for the block. Raises NotAsked where none comes in time."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(timeout_seconds):
                    # Their own first: who waits for all together is one of a few of their holder.
                    for semaphore in [*map(self._of, HOLDERS.get()), self._all]:
                        await stack.enter_async_context(semaphore)
            except TimeoutError as error:
                self._shed.inc()
                raise NotAsked(_TOO_MUCH, retry_after_seconds=_RETRY_AFTER_SECONDS) from error
            yield

    def _of(self, holder: str) -> asyncio.Semaphore:
        return self._of_holders.setdefault(holder, asyncio.Semaphore(self._most_of_one))


class HeldBytes:
    """So many bytes in memory at a time that requests or their answers are made of, and of each holder a quarter."""

    def __init__(self, what: str, most_bytes: int) -> None:
        self._shares = Shares(most_bytes)
        metrics.HELD_BYTES.labels(what).set_function(lambda: self._shares.taken)
        self._shed = metrics.SHED.labels(what)

    def begin(self) -> "Held":
        """For the request that the current task answers: what is taken is given back when that ends, which is when the
        answer was written."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - requests are answered by tasks
        held = Held(self._shares, HOLDERS.get(), self._shed)
        task.add_done_callback(held.give_back)
        return held


class Held:
    """What one request holds."""

    def __init__(self, shares: Shares, holders: Sequence[str], shed: Counter) -> None:
        self._shares = shares
        self._holders = holders
        self._shed = shed
        self._bytes = 0

    def more(self, size: int) -> None:
        """Raises Unavailable where so much is too much."""
        if not self._shares.take(self._holders, size):
            self._shed.inc()
            raise Unavailable.waiting_for("memory", _TOO_MUCH, _RETRY_AFTER_SECONDS)
        self._bytes += size

    def give_back(self, _ended: "asyncio.Task[Any]") -> None:
        self._shares.give_back(self._holders, self._bytes)
