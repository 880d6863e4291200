"""Clients whose log of acknowledged batches says, to the unit, what Prometheus must answer.

Every batch counts orders (a counter by plan) and visits (a counter whose label sets fold), observes latencies (a
histogram by plan) and waits (a native histogram), reports the size of a queue (a gauge by worker) and sessions in a
room (a gauge that is merged over workers); some observe sizes (a summary). Most are sent, the same bytes, until they
are acknowledged. A few are sent once and given up when no answer comes: each of those counts in series of its own,
which must then show all of it or nothing. Other clients tell totals (`sources.py`).
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable

import aiohttp

from tests.chaos import sources
from tests.chaos.batches import Batch, Worker
from tests.chaos.folding import Limits
from tests.chaos.knowledge import RETRIED, TIMEOUT_SECONDS, Known
from tests.chaos.levels import MERGERS, merged_gauge
from tests.chaos.series import BUCKETS
from tests.chaos.windows import OBJECTIVES, SUMMARY
from tests.e2e.api import Project

_GIVEN_UP_PART = 0.04
_FIFTYFOLD_PART = 0.002
_AGAIN_AT_ONCE_PART = 0.08
_AGAIN_LATER_PART = 0.05
_LATER_SECONDS = (1.0, 20.0)
_REMEMBERED = 500
#: Processes that tell totals instead of numbered batches.
_SOURCES = 2


class Traffic:
    """Several producers at once."""

    def __init__(self, project: Project, seed: int) -> None:
        self._project = project
        self._seed = seed
        self._workers = 0
        self._sources = 0
        self.known = Known()
        self.limits = Limits(project)
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
        await self._project.define("chaos_wait_seconds", "histogram", unit="seconds", nativeHistogram=True, labels=plan)
        for rule in MERGERS:
            await self._project.define(merged_gauge(rule), "gauge", gaugeMerge=rule, labels=[{"name": "room"}])
        await self._project.define(SUMMARY, "summary", unit="bytes", objectives=OBJECTIVES, labels=[{"name": "box"}])
        await sources.define(self._project)
        await self.limits.define()
        await self._project.define("chaos_attempt_seconds", "histogram", buckets=list(BUCKETS), labels=attempt)

    async def run(self, producers: int, going_on: Callable[[], bool]) -> None:
        """Returns when `going_on` says no and all that must be acknowledged is."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(producers):
                tasks.create_task(self._produce(going_on))
            for _ in range(_SOURCES):
                self._sources += 1
                name, chance = f"source-{self._sources}", random.Random(self._seed * 2000 + self._sources)
                tasks.create_task(sources.tell_totals(self._project, self.known, name, chance, going_on))
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
            self.known.count_batch(batch)
            await self._perhaps_again(batch, chance)
        last = worker.orders()
        await self._until_acknowledged(last)
        self.known.count_batch(last)

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
            self.known.count_batch(batch)
        else:
            self.known.given_up.append(batch.adds)

    async def _until_acknowledged(self, batch: Batch) -> None:
        pause = 0.05
        while (status := await self._send(batch)) != 202:
            assert status in RETRIED, f"a batch was answered {status}"
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, 1.0)

    async def _send(self, batch: Batch) -> int:
        """The status of one attempt; 0 without an answer."""
        project = self._project
        self.known.attempted.update(batch.metrics)
        try:
            answer = await project.api.call(
                "POST",
                "/api/v1/metrics",
                data=batch.body,
                credential=project.secret_key,
                timeout_seconds=TIMEOUT_SECONDS,
            )
        except (aiohttp.ClientError, TimeoutError, OSError):
            status = 0
        else:
            status = answer.status
            if status == 202:
                assert (answer.json["accepted"], answer.json["rejected"]) == (len(batch.metrics), []), answer.text
            else:
                assert status in RETRIED, f"a batch was answered {status}: {answer.text}"
        self.known.statuses[status] += 1
        return status
