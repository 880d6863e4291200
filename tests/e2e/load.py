"""A load whose totals are known to the unit: every batch is sent, the same bytes, until it is acknowledged."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from chassis.ids import uuid7
from tests.e2e.api import Answer, Json, Project

#: What a client may meet while processes die: it sends the same batch again.
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})


@dataclass
class Load:
    """Several producers at once; `expected` is the oracle."""

    project: Project
    #: Metric name → what must be counted, from acknowledged batches alone.
    expected: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    retries: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    #: Whether each batch brings a metric that is not defined, which config is asked about before it is rejected.
    undefined: bool = True

    async def run(
        self,
        *,
        producers: int,
        batches: int,
        seed: int = 1,
        duplicates: float = 0.1,
        going_on: Callable[[], bool] = lambda: False,
    ) -> None:
        """Each producer sends `batches` batches, and more while `going_on` says so.

        Some acknowledged ones are sent again, as if the answer was lost.
        """
        async with asyncio.TaskGroup() as group:
            for number in range(producers):
                group.create_task(self._produce(batches, random.Random(seed * 1000 + number), duplicates, going_on))

    async def _produce(
        self, batches: int, chance: random.Random, duplicates: float, going_on: Callable[[], bool]
    ) -> None:
        producer, sequence = str(uuid7()), 0
        while sequence < batches or going_on():
            sequence += 1
            amount = chance.randint(1, 5)
            batch: Json = {
                "producer": producer,
                "sequence": sequence,
                "floor": max(1, sequence - 10),
                "metrics": [
                    {"name": "load_orders_total", "value": amount, "labels": {"plan": chance.choice(["free", "pro"])}},
                    {"name": "load_latency_seconds", "value": [0.1, 0.7]},
                    *([{"name": "load_unknown_total", "value": 1}] if self.undefined else []),
                ],
            }
            await self._send_until_acknowledged(batch)
            self.expected["load_orders_total"] += amount
            self.expected["load_latency_seconds_count"] += 2
            if chance.random() < duplicates:
                await self._send_until_acknowledged(batch)

    async def _send_until_acknowledged(self, batch: Json) -> None:
        pause = 0.05
        while True:
            status = await self._send(batch)
            self.statuses[status] += 1
            if status == 202:
                self.acknowledged += 1
                return
            assert status in _RETRIED or status == 0, f"a batch was answered {status}"
            self.retries += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, 1.0)

    async def _send(self, batch: Json) -> int:
        try:
            answer = await self._ask(batch)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0
        if answer.status == 202:
            assert answer.json["accepted"] == 2, answer.text
            rejected = ["METRIC_NOT_DEFINED"] if self.undefined else []
            assert [rejection["code"] for rejection in answer.json["rejected"]] == rejected
        return answer.status

    async def _ask(self, batch: Json) -> Answer:
        return await self.project.api.call("POST", "/api/v1/metrics", batch, credential=self.project.secret_key)

    async def define(self) -> None:
        """The definitions that the load needs."""
        await self.project.define("load_orders_total", labels=[{"name": "plan", "required": True}])
        await self.project.define("load_latency_seconds", "histogram", unit="seconds", buckets=[0.5, 1.0])

    async def adds_up(self, within_seconds: float = 60.0) -> None:
        """Waits until Prometheus answers exactly what was acknowledged, and nothing looks like a counter reset."""
        for name, total in self.expected.items():
            await self.project.shows(f"sum({name})", total, within_seconds=within_seconds)
        half = self.expected["load_latency_seconds_count"] / 2
        await self.project.shows('sum(load_latency_seconds_bucket{le="0.5"})', half)
        await self.project.shows("sum(resets(load_orders_total[1h]))", 0)
