"""Processes that tell totals through OTLP's door, restart, and repeat themselves: what each counted must count once."""

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Callable
from itertools import pairwise

import aiohttp

from tests.chaos.knowledge import RETRIED, TIMEOUT_SECONDS, Known
from tests.chaos.series import BUCKETS, LATENCIES, Series, observed
from tests.e2e.api import Json, Project

_CUMULATIVE = 2
_RESTART_PART = 0.03
_AGAIN_PART = 0.1
_REMEMBERED = 200
_BETWEEN_SECONDS = 0.05


class Source:
    """A process that counts events and how long they took."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self._name = name
        self._chance = chance
        self._taken_ns = 0
        self._start()

    def _start(self) -> None:
        self._started_ns = time.time_ns()
        self._events = 0
        self._latencies: list[float] = []

    def tell(self) -> tuple[bytes, dict[Series, float]]:
        """A request with all that was counted since the start, and what it adds to the ones before."""
        if self._chance.random() < _RESTART_PART:
            self._start()
        events, latencies = self._chance.randint(1, 5), self._chance.choices(LATENCIES, k=self._chance.randint(1, 4))
        self._events += events
        self._latencies += latencies
        own = f'source="{self._name}"'
        return self._request(), {("chaos_events_total", own): events, **observed("chaos_event_seconds", own, latencies)}

    def _request(self) -> bytes:
        self._taken_ns = max(self._taken_ns + 1, time.time_ns())
        counts = [sum(low < each <= high for each in self._latencies) for low, high in _ranges()]
        distribution = {"count": len(self._latencies), "sum": sum(self._latencies), "bucketCounts": counts}
        metrics = [
            {"name": "chaos.events", "sum": self._data({"asInt": str(self._events)}, isMonotonic=True)},
            {"name": "chaos.event", "unit": "s", "histogram": self._data(distribution | {"explicitBounds": BUCKETS})},
        ]
        return json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}).encode()

    def _data(self, point: Json, **members: bool) -> Json:
        told = {
            "attributes": [{"key": "source", "value": {"stringValue": self._name}}],
            "startTimeUnixNano": str(self._started_ns),
            "timeUnixNano": str(self._taken_ns),
        }
        return {"aggregationTemporality": _CUMULATIVE, "dataPoints": [point | told], **members}


def _ranges() -> list[tuple[float, float]]:
    bounds = [float("-inf"), *BUCKETS, float("inf")]
    return list(pairwise(bounds))


async def define(project: Project) -> None:
    """What sources tell."""
    labels = [{"name": "source", "required": True}]
    await project.define("chaos_events_total", labels=labels)
    await project.define("chaos_event_seconds", "histogram", unit="seconds", buckets=list(BUCKETS), labels=labels)


async def tell_totals(
    project: Project, known: Known, name: str, chance: random.Random, going_on: Callable[[], bool]
) -> None:
    """One source, until `going_on` says no. Each request is repeated until it is answered, and maybe again later."""
    source, told = Source(name, chance), deque[bytes](maxlen=_REMEMBERED)
    while going_on():
        body, adds = source.tell()
        await _until_acknowledged(project, known, body)
        known.count(("chaos_events_total", "chaos_event_seconds"), adds)
        told.append(body)
        if chance.random() < _AGAIN_PART:
            await _until_acknowledged(project, known, chance.choice(told))
            known.again["totals"] += 1
        await asyncio.sleep(_BETWEEN_SECONDS)


async def _until_acknowledged(project: Project, known: Known, body: bytes) -> None:
    while (status := await _send(project, body)) != 200:
        known.statuses[status] += 1
        await asyncio.sleep(0.2)
    known.statuses[status] += 1


async def _send(project: Project, body: bytes) -> int:
    """The status of one attempt; 0 without an answer."""
    try:
        answer = await project.api.call(
            "POST", "/v1/metrics", data=body, credential=project.secret_key, timeout_seconds=TIMEOUT_SECONDS
        )
    except (aiohttp.ClientError, TimeoutError, OSError):
        return 0
    assert answer.status in (200, *RETRIED), f"totals were answered {answer.status}: {answer.text}"
    assert answer.status != 200 or answer.json == {}, answer.text
    return answer.status
