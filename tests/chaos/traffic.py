"""Clients whose log of acknowledged batches says, to the unit, what Prometheus must answer.

Every batch counts orders (a counter by plan), observes latencies (a histogram by plan) and reports a level (a gauge by
worker). Most are sent, the same bytes, until they are acknowledged. A few are sent once and given up when no answer
comes: each of those counts in series of its own, which must then show all of it or nothing.
"""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from tests.chaos.batches import BUCKETS, Batch, Series, Worker
from tests.e2e.api import Project

#: What a client may meet while processes die: it sends the same batch again. 0: no answer.
_RETRIED = frozenset({0, 408, 429, 500, 502, 503, 504})
_GIVEN_UP_PART = 0.04
_FIFTYFOLD_PART = 0.002
_AGAIN_AT_ONCE_PART = 0.08
_AGAIN_LATER_PART = 0.05
_LATER_SECONDS = (1.0, 20.0)
_REMEMBERED = 500
#: A client's patience; shorter than the longest pause of a process.
_TIMEOUT_SECONDS = 4.0


@dataclass
class Known:
    """The clients' log, and how it came to be."""

    expected: dict[Series, float] = field(default_factory=dict)
    #: What the batches that nobody acknowledged add, each for itself.
    given_up: list[dict[Series, float]] = field(default_factory=list)
    acknowledged: int = 0
    #: Metrics of acknowledged batches, by name.
    metrics: Counter[str] = field(default_factory=Counter)
    #: Requests by HTTP status; 0: no answer.
    statuses: Counter[int] = field(default_factory=Counter)
    #: Batches that were sent again although they were acknowledged, by occasion.
    again: Counter[str] = field(default_factory=Counter)

    @property
    def retries(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != 202)


class Traffic:
    """Several producers at once."""

    def __init__(self, project: Project, seed: int) -> None:
        self._project = project
        self._seed = seed
        self._workers = 0
        self.known = Known()
        #: Acknowledged batches that are to be sent again, and when.
        self._later: list[tuple[float, Batch]] = []
        self._remembered: deque[Batch] = deque(maxlen=_REMEMBERED)

    async def define(self) -> None:
        plan = [{"name": "plan", "required": True}]
        attempt = [{"name": "attempt", "required": True}]
        await self._project.define("chaos_orders_total", labels=plan)
        await self._project.define("chaos_latency_seconds", "histogram", buckets=list(BUCKETS), labels=plan)
        await self._project.define("chaos_queue_size", "gauge", labels=[{"name": "worker", "required": True}])
        await self._project.define("chaos_attempts_total", labels=attempt)
        await self._project.define("chaos_attempt_seconds", "histogram", buckets=list(BUCKETS), labels=attempt)

    async def run(self, producers: int, going_on: Callable[[], bool]) -> None:
        """Returns when `going_on` says no and all that must be acknowledged is."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(producers):
                tasks.create_task(self._produce(going_on))
            tasks.create_task(self._send_later_ones(going_on))

    async def replay(self, count: int) -> None:
        """Sends batches again that were acknowledged some time ago, such as before a restart."""
        chance = random.Random(self._seed + len(self._remembered))
        batches = chance.sample(list(self._remembered), min(count, len(self._remembered)))
        await asyncio.gather(*(self._again(batch, "after a restart") for batch in batches))

    async def _produce(self, going_on: Callable[[], bool]) -> None:
        self._workers += 1
        chance = random.Random(self._seed * 1000 + self._workers)
        worker = Worker(f"worker-{self._workers}", chance)
        while going_on():
            drawn = chance.random()
            if drawn < _GIVEN_UP_PART:
                await self._try_once(worker.attempt())
                continue
            batch = worker.orders()
            if drawn < _GIVEN_UP_PART + _FIFTYFOLD_PART:
                await self._fiftyfold(batch)
            await self._until_acknowledged(batch)
            self._count(batch)
            await self._perhaps_again(batch, chance)
        last = worker.orders()
        await self._until_acknowledged(last)
        self._count(last)

    async def _perhaps_again(self, batch: Batch, chance: random.Random) -> None:
        drawn = chance.random()
        if drawn < _AGAIN_AT_ONCE_PART:
            await self._again(batch, "at once")
        elif drawn < _AGAIN_AT_ONCE_PART + _AGAIN_LATER_PART:
            self._later.append((time.monotonic() + chance.uniform(*_LATER_SECONDS), batch))
        elif drawn > 0.9:
            self._remembered.append(batch)

    async def _send_later_ones(self, going_on: Callable[[], bool]) -> None:
        while going_on():
            now = time.monotonic()
            due = [batch for at, batch in self._later if at <= now]
            self._later = [(at, batch) for at, batch in self._later if at > now]
            await asyncio.gather(*(self._again(batch, "later") for batch in due))
            await asyncio.sleep(0.2)
        await asyncio.gather(*(self._again(batch, "later") for _, batch in self._later))

    async def _fiftyfold(self, batch: Batch) -> None:
        await asyncio.gather(*(self._send(batch) for _ in range(50)))
        self.known.again["50 at once"] += 1

    async def _again(self, batch: Batch, occasion: str) -> None:
        await self._until_acknowledged(batch)
        self.known.again[occasion] += 1

    async def _try_once(self, batch: Batch) -> None:
        if await self._send(batch) == 202:
            self._count(batch)
        else:
            self.known.given_up.append(batch.adds)

    def _count(self, batch: Batch) -> None:
        self.known.acknowledged += 1
        self.known.metrics.update(batch.metrics)
        for series, amount in batch.adds.items():
            self.known.expected[series] = self.known.expected.get(series, 0.0) + amount
        self.known.expected.update(batch.levels)

    async def _until_acknowledged(self, batch: Batch) -> None:
        pause = 0.05
        while (status := await self._send(batch)) != 202:
            assert status in _RETRIED, f"a batch was answered {status}"
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, 1.0)

    async def _send(self, batch: Batch) -> int:
        """The status of one attempt; 0 without an answer."""
        project = self._project
        try:
            answer = await project.api.call(
                "POST",
                "/api/v1/metrics",
                data=batch.body,
                credential=project.secret_key,
                timeout_seconds=_TIMEOUT_SECONDS,
            )
        except (aiohttp.ClientError, TimeoutError, OSError):
            status = 0
        else:
            status = answer.status
            if status == 202:
                assert (answer.json["accepted"], answer.json["rejected"]) == (len(batch.metrics), []), answer.text
            else:
                assert status in _RETRIED, f"a batch was answered {status}: {answer.text}"
        self.known.statuses[status] += 1
        return status
