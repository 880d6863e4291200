"""When what was acknowledged shows in Prometheus, and whether all of it does."""

import asyncio
import math
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import aiohttp

from bench.suite import Suite
from bench.workload import PROBE

_TOTAL = 'sum({__name__=~"bench_.*_requests_total"})'
#: A sum over many series takes Prometheus a while: then it is asked less often.
_TOTAL_EVERY_SECONDS = 0.25
_PAUSE_FOR_EACH_SECOND = 5.0
_PROBE_EVERY_SECONDS = 0.25
_LOOK_EVERY_SECONDS = 0.1
_MOST_SECONDS = 60.0
#: What would be counted twice shows by then.
_SETTLING_SECONDS = 3.0


class NotVisible(Exception):
    """What was acknowledged did not reach Prometheus in time."""


class Totals:
    """The sum of all series of the workload, as Prometheus has it."""

    def __init__(self, session: aiohttp.ClientSession, prometheus: str) -> None:
        self._session = session
        self._prometheus = prometheus

    async def now(self) -> float:
        return await _value(self._session, self._prometheus, _TOTAL)

    async def reached(self, total: float) -> float:
        """When, of `time.monotonic`, it was seen to be as much, from now on. Raises NotVisible."""
        deadline = time.monotonic() + _MOST_SECONDS
        while True:
            asked = time.monotonic()
            seen, answered = await self.now(), time.monotonic()
            if seen >= total:
                return answered
            if answered > deadline:
                raise NotVisible(f"{total:.0f} metrics were accepted, {seen:.0f} are visible")
            await asyncio.sleep(max(_TOTAL_EVERY_SECONDS, _PAUSE_FOR_EACH_SECOND * (answered - asked)))

    async def settled(self) -> float:
        """The sum when nothing that was sent can be on its way any more."""
        await asyncio.sleep(_SETTLING_SECONDS)
        return await self.now()


class Probe:
    """Sends one metric at a time beside the load, and looks how long after its 202 it shows."""

    def __init__(self, session: aiohttp.ClientSession, suite: Suite) -> None:
        self._session = session
        self._suite = suite
        self._producer = str(uuid.uuid4())
        #: when it was acknowledged, and the value that shows it
        self._waiting: deque[tuple[float, float]] = deque()
        self._all_shown = asyncio.Event()
        self._delays: list[float] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends inside the block; returns when all that was sent has shown. Raises TimeoutError."""
        async with _alongside(self._look()):
            async with _alongside(self._send(await self._value())):
                yield
            await asyncio.wait_for(self._all_shown.wait(), _MOST_SECONDS)

    def delay_seconds(self, share: float) -> float:
        """What so large a part of the metrics did not exceed; NaN where none was sent."""
        ordered = sorted(self._delays)
        return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.nan

    async def _send(self, before: float) -> None:
        sequence = 0
        while True:
            sequence += 1
            await self._send_until_acknowledged(sequence)
            self._waiting.append((time.monotonic(), before + sequence))
            self._all_shown.clear()
            await asyncio.sleep(_PROBE_EVERY_SECONDS)

    async def _send_until_acknowledged(self, sequence: int) -> None:
        batch = {"producer": self._producer, "sequence": sequence, "metrics": [{"name": PROBE, "value": 1}]}
        address, headers = f"{self._suite.address}/api/v1/metrics", {"Authorization": f"Bearer {self._suite.keys[0]}"}
        while True:
            async with self._session.post(address, json=batch, headers=headers) as response:
                if response.status == HTTPStatus.ACCEPTED:
                    return
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _look(self) -> None:
        while True:
            value, now = await self._value(), time.monotonic()
            while self._waiting and self._waiting[0][1] <= value:
                acknowledged, _ = self._waiting.popleft()
                self._delays.append(now - acknowledged)
            if not self._waiting:
                self._all_shown.set()
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _value(self) -> float:
        return await _value(self._session, self._suite.prometheus, PROBE)


@asynccontextmanager
async def _alongside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Works until the block ends; what went wrong with it comes before what went wrong in the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await task


async def _value(session: aiohttp.ClientSession, prometheus: str, query: str) -> float:
    """Of a query that gives one series; 0 where there is none yet."""
    async with session.get(f"{prometheus}/api/v1/query", params={"query": query}, raise_for_status=True) as response:
        result = (await response.json())["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0
