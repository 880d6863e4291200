"""The batches of one worker: what they say, and what they add to the series that Prometheus shows."""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from chassis.ids import uuid7
from tests.e2e.api import Json

#: A series as Prometheus names it, and its labels besides those that say whose it is: `plan="pro",le="0.5"`.
Series = tuple[str, str]

BUCKETS = (0.5, 1.0)
#: Eighths, so that sums are exact.
LATENCIES = (0.125, 0.5, 0.75, 1.0, 4.0)
_PLANS = ("free", "basic", "pro", "enterprise")
#: Batches that may be open at the same time.
_OPEN = 10


@dataclass(frozen=True)
class Batch:
    """One batch as it is sent each time."""

    body: bytes
    #: The names of its metrics, as often as they come.
    metrics: tuple[str, ...]
    #: What it adds to counters and histograms.
    adds: dict[Series, float]
    #: What it sets gauges to.
    levels: dict[Series, float]


class Worker:
    """Numbers its batches from 1."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self._name = name
        self._chance = chance
        self._producer = str(uuid7())
        self._sequence = 0
        self._timestamp_ms = 0

    def orders(self) -> Batch:
        """One that is to be sent until it is acknowledged."""
        return self._batch("chaos_orders_total", "chaos_latency_seconds", "plan", self._chance.choice(_PLANS))

    def attempt(self) -> Batch:
        """One that may be given up: its counts have series of their own, and it sets no gauge."""
        attempt = f"{self._name}-{self._sequence + 1}"
        return self._batch("chaos_attempts_total", "chaos_attempt_seconds", "attempt", attempt, gauge=False)

    def _batch(self, counter: str, histogram: str, label: str, value: str, *, gauge: bool = True) -> Batch:
        self._sequence += 1
        amount = self._chance.randint(1, 5)
        latencies = self._chance.choices(LATENCIES, k=self._chance.randint(1, 4))
        metrics: list[Json] = [
            {"name": counter, "value": amount, "labels": {label: value}},
            {"name": histogram, "value": latencies, "labels": {label: value}},
        ]
        levels: dict[Series, float] = {}
        if gauge:
            self._timestamp_ms = max(self._timestamp_ms + 1, int(time.time() * 1000))
            metrics.append(
                {
                    "name": "chaos_queue_size",
                    "value": self._sequence,
                    "labels": {"worker": self._name},
                    "timestamp": self._timestamp_ms,
                }
            )
            levels["chaos_queue_size", f'worker="{self._name}"'] = float(self._sequence)
        body = {
            "producer": self._producer,
            "sequence": self._sequence,
            "floor": max(1, self._sequence - _OPEN),
            "metrics": metrics,
        }
        own = f'{label}="{value}"'
        adds = {(counter, own): float(amount), **observed(histogram, own, latencies)}
        names = tuple(metric["name"] for metric in metrics)
        return Batch(json.dumps(body).encode(), names, adds, levels)


def observed(histogram: str, own: str, latencies: Sequence[float]) -> dict[Series, float]:
    """A histogram's classic series, with their cumulative buckets."""
    buckets = {str(bound): sum(each <= bound for each in latencies) for bound in BUCKETS}
    buckets["+Inf"] = len(latencies)
    return {
        (f"{histogram}_count", own): float(len(latencies)),
        (f"{histogram}_sum", own): sum(latencies),
        **{(f"{histogram}_bucket", f'{own},le="{le}"'): float(count) for le, count in buckets.items()},
    }
