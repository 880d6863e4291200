"""The batches of one worker: what they say, and what they do to the series that Prometheus shows."""

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chassis.ids import uuid7
from tests.chaos.levels import MERGERS, Level, merged_gauge
from tests.chaos.series import (
    GUESTS,
    LATENCIES,
    VISITORS,
    VISITS,
    WAITS,
    Series,
    native_observed,
    observed,
)
from tests.chaos.windows import SUMMARY, Sizes
from tests.e2e.api import Json

_PLANS = ("free", "basic", "pro", "enterprise")
#: So many that a level stays a worker's latest one through several disruptions.
_ROOMS = 40
#: Batches of a worker that observe sizes, and how many of these share a series: few, so that one more or less shows.
_SIZES_PART = 0.1
_SIZES_TOGETHER = 8
#: Batches that may be open at the same time.
_OPEN = 10


@dataclass(frozen=True, kw_only=True)
class Part:
    """One metric of a batch, and what it does."""

    metric: Json
    #: To counters, histograms and summaries.
    adds: Mapping[Series, float] = field(default_factory=dict)
    #: To gauges.
    sets: Mapping[Series, float] = field(default_factory=dict)
    level: Level | None = None
    sizes: Sizes | None = None


@dataclass(frozen=True)
class Batch:
    """One batch as it is sent each time."""

    body: bytes
    parts: Sequence[Part]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of its metrics, as often as they come."""
        return tuple(part.metric["name"] for part in self.parts)

    @property
    def adds(self) -> dict[Series, float]:
        """What it adds; no two of its parts add to the same series."""
        return {series: amount for part in self.parts for series, amount in part.adds.items()}


class Worker:
    """Numbers its batches from 1."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self._name = name
        self._chance = chance
        self._producer = str(uuid7())
        self._sequence = 0
        self._timestamp_ms = 0
        self._sized = 0

    def orders(self) -> Batch:
        """One that is to be sent until it is acknowledged."""
        plan = self._chance.choice(_PLANS)
        counted = self._counted("chaos_orders_total", "chaos_latency_seconds", "plan", plan)
        self._timestamp_ms = max(self._timestamp_ms + 1, int(time.time() * 1000))
        sizes = [self._sizes()] if self._chance.random() < _SIZES_PART else []
        return self._batch([*counted, self._queue(), self._sessions(), self._waits(plan), *self._visits(), *sizes])

    def attempt(self) -> Batch:
        """One that may be given up: its counts have series of their own, and it sets no gauge."""
        attempt = f"{self._name}-{self._sequence + 1}"
        return self._batch(self._counted("chaos_attempts_total", "chaos_attempt_seconds", "attempt", attempt))

    def _batch(self, parts: Sequence[Part]) -> Batch:
        self._sequence += 1
        body = {
            "producer": self._producer,
            "sequence": self._sequence,
            "floor": max(1, self._sequence - _OPEN),
            "metrics": [part.metric for part in parts],
        }
        return Batch(json.dumps(body).encode(), parts)

    def _counted(self, counter: str, histogram: str, label: str, value: str) -> list[Part]:
        amount = self._chance.randint(1, 5)
        latencies = self._chance.choices(LATENCIES, k=self._chance.randint(1, 4))
        labels, own = {label: value}, f'{label}="{value}"'
        return [
            Part(metric={"name": counter, "value": amount, "labels": labels}, adds={(counter, own): float(amount)}),
            Part(
                metric={"name": histogram, "value": latencies, "labels": labels},
                adds=observed(histogram, own, latencies),
            ),
        ]

    def _queue(self) -> Part:
        size = self._sequence + 1
        metric = {"name": "chaos_queue_size", "value": size, "labels": {"worker": self._name}}
        own = f'worker="{self._name}"'
        return Part(metric=metric | {"timestamp": self._timestamp_ms}, sets={("chaos_queue_size", own): float(size)})

    def _sessions(self) -> Part:
        rule, room = self._chance.choice(list(MERGERS)), str(self._chance.randrange(_ROOMS))
        value = self._chance.randint(-1000, 1000)
        level = Level(merged_gauge(rule), rule, f'room="{room}"', self._producer, self._timestamp_ms, value)
        metric = {"name": level.series[0], "value": value, "labels": {"room": room}}
        return Part(metric=metric | {"timestamp": self._timestamp_ms}, level=level)

    def _waits(self, plan: str) -> Part:
        waits = self._chance.choices(WAITS, k=self._chance.randint(1, 4))
        metric = {"name": "chaos_wait_seconds", "value": waits, "labels": {"plan": plan}}
        return Part(metric=metric, adds=native_observed("chaos_wait_seconds", f'plan="{plan}"', waits))

    def _visits(self) -> list[Part]:
        amount, visitor = self._chance.randint(1, 5), str(self._chance.randrange(VISITORS))
        metric = {"value": amount, "labels": {"visitor": visitor}}
        guests = metric | {"name": GUESTS, "timestamp": self._timestamp_ms}
        level = Level(GUESTS, "sum", "", f"{self._producer} {visitor}", self._timestamp_ms, amount)
        return [
            Part(metric=metric | {"name": VISITS}, adds={(VISITS, ""): float(amount)}),
            Part(metric=guests, level=level),
        ]

    def _sizes(self) -> Part:
        self._sized += 1
        box = f"{self._name}-{self._sized // _SIZES_TOGETHER}"
        observations = [float(self._chance.randint(1, 1000)) for _ in range(self._chance.randint(1, 4))]
        sizes = Sizes(f'box="{box}"', observations, time.time())
        metric = {"name": SUMMARY, "value": observations, "labels": {"box": box}}
        return Part(metric=metric, adds=sizes.adds, sizes=sizes)
