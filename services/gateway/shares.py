"""What callers share (calls, turns, memory), so that nobody takes all of it, nor a few of them together."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

from prometheus_client import Counter

from chassis import shares
from chassis.breakers import NotAsked
from chassis.errors import Unavailable
from chassis.shares import Shares
from services.gateway import metrics

#: On whose behalf calls are made: a person and the tenant that it is about, a key's tenant, a tenant's scripts where
#: anybody reads them, an address where nobody is known; nobody: the gateway itself.
HOLDERS: ContextVar[Sequence[str]] = ContextVar("holders", default=())

#: Who asks for little has a place for that, and memory for a batch.
_LEAST_PLACES = 2
_LEAST_BYTES = 1 << 20
_RETRY_AFTER_SECONDS = 1.0
_TOO_MUCH = "There is too much to do at this moment; nothing was done."


class Places:
    """So many calls to one upstream at a time, shared by holders. More are turned away."""

    def __init__(self, upstream: str, most_calls: int) -> None:
        self._shares = Shares(most_calls, least=_LEAST_PLACES)
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
    """So many calls to one upstream at a time, shared by holders. More wait, as `shares.Turns` has it."""

    def __init__(self, upstream: str, most_calls: int) -> None:
        self._turns = shares.Turns(most_calls)
        self._shed = metrics.SHED.labels(upstream)

    @asynccontextmanager
    async def one(self, timeout_seconds: float) -> AsyncIterator[None]:
        """A turn for the block. Raises NotAsked where none comes in time."""
        holders = HOLDERS.get()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._turns.take(holders)
        except TimeoutError as error:
            self._shed.inc()
            raise NotAsked(_TOO_MUCH, retry_after_seconds=_RETRY_AFTER_SECONDS) from error
        try:
            yield
        finally:
            self._turns.give_back(holders)


class HeldBytes:
    """So many bytes in memory at a time that requests or their answers are made of, shared by holders."""

    def __init__(self, what: str, most_bytes: int) -> None:
        self._shares = Shares(most_bytes, least=_LEAST_BYTES)
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
