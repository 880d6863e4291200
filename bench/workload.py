"""The metrics that are sent: counters with three labels, in batches of 100 different series."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

METRICS_A_BATCH = 100
#: A metric has so many series; more are spread over several definitions, as a project's budget wants it.
SERIES_A_METRIC = 10_000

_PATHS = [f"/api/v1/items/{number:02}" for number in range(20)]
_STATUSES = ["200", "201", "304", "404", "500"]
_SERIES_A_HOST = len(_PATHS) * len(_STATUSES)
_SHUFFLE_SEED = 4


@dataclass(frozen=True, kw_only=True)
class Series:
    """One counter."""

    name: str
    labels: Mapping[str, str]


Batch = list[Series]

#: Counts one batch at a time, so that each can be seen to arrive.
PROBE = "bench_probe_total"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one load is made of."""

    #: of all tenants together; a multiple of 100 for each
    series: int
    #: metrics that each tenant's series are spread over; 0: as few as budgets allow
    definitions: int = 0
    tenants: int = 1
    connections: int = 256


def definitions(count: int) -> list[dict[str, Any]]:
    """So many metric definitions, and the probe's, as `POST …/metrics` takes them."""
    probe = {"name": PROBE, "type": "counter", "help": "Batches of the probe."}
    return [probe, *(_definition(_name(number)) for number in range(count))]


def _definition(name: str) -> dict[str, Any]:
    labels = [{"name": label, "required": True} for label in ("host", "path", "status")]
    return {"name": name, "type": "counter", "help": "Requests that a host has answered.", "labels": labels}


def definitions_for(series: int) -> int:
    """As few as budgets allow."""
    return -(-series // SERIES_A_METRIC)


def batches(series: int, definitions: int = 0) -> list[Batch]:
    """Every series of a tenant once, in random order, the same each time; see `Workload`."""
    shuffled = list(_series(series, definitions or definitions_for(series)))
    random.Random(_SHUFFLE_SEED).shuffle(shuffled)
    return [shuffled[first : first + METRICS_A_BATCH] for first in range(0, series, METRICS_A_BATCH)]


def _series(count: int, definitions: int) -> Iterator[Series]:
    for number in range(count):
        host, rest = divmod(number, _SERIES_A_HOST)
        path, status = divmod(rest, len(_STATUSES))
        labels = {"host": f"host-{host:05}", "path": _PATHS[path], "status": _STATUSES[status]}
        yield Series(name=_name(number * definitions // count), labels=labels)


def _name(number: int) -> str:
    return f"bench_{number:02}_requests_total"
