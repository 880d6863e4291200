"""One run of wrk with the prepared requests."""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from bench.workload import METRICS_A_BATCH
from deploy.local.debian import find_program, libraries
from deploy.local.layout import CHECKOUT

_SCRIPT = Path(__file__).with_name("load.lua")
#: How long answers may be late when no more is sent.
_DRAIN_SECONDS = 15
_ANSWER_SECONDS = 30
_WRK_PACKAGES = ("wrk", "libluajit-5.1-2", "libluajit-5.1-common")
_ERRORS = ("connect", "read", "write", "timeout")

#: What each request is given before it is sent; see load.lua.
Stamp = Literal["sequence", "time", "none"]


class LoadFailed(Exception):
    """The load generator could not do its work."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is sent where."""

    address: str
    shots: Path
    stamp: Stamp
    seconds: float
    headers: Mapping[str, str] = field(default_factory=dict)
    #: requests a second by the clock; 0: as fast as answers come
    rate: float = 0.0
    connections: int = 256


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of it; latencies in milliseconds."""

    seconds: float
    #: of `time.monotonic`, when the first request was sent
    began: float
    sent: int
    answered: int
    #: metrics in requests that were answered 2xx
    accepted: int
    #: of these, before the time was over
    accepted_in_time: int
    statuses: Mapping[str, int]
    #: connections that failed, by when
    errors: Mapping[str, int]
    p50_ms: float
    p95_ms: float
    p99_ms: float
    #: requests that were sent more than 10 ms after their time, as a part of all, and the latest of them
    late_ratio: float
    most_late_ms: float

    @property
    def metrics_per_second(self) -> float:
        return self.accepted_in_time / self.seconds

    @property
    def batches(self) -> float:
        """Accepted ones."""
        return self.accepted / METRICS_A_BATCH

    @property
    def unanswered(self) -> int:
        """Metrics whose requests may count or not."""
        settled = sum(count for status, count in self.statuses.items() if int(status) < 500)
        return (self.sent - settled) * METRICS_A_BATCH


def find_wrk() -> Path:
    """wrk, fetched where it is not installed. Raises DebianUnavailable."""
    return find_program("wrk", CHECKOUT / ".tools" / "wrk", *_WRK_PACKAGES)


async def run_load(load: Load) -> Outcome:
    """Returns when all is answered, or given up. Raises LoadFailed."""
    wrk = find_wrk()
    process = await asyncio.create_subprocess_exec(
        wrk,
        *_arguments(load),
        env={**os.environ, "LD_LIBRARY_PATH": libraries(wrk.parents[2])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    described = await _said(process)
    if not described["accepted"]:
        raise LoadFailed(f"nothing was accepted: {described}")
    return _outcome(load, described)


async def _said(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """What the script prints at the end, which comes as soon as everything is answered."""
    line = b""
    async for line in cast("asyncio.StreamReader", process.stdout):
        if line == b"drained\n":
            process.send_signal(signal.SIGINT)
    status = await process.wait()
    try:
        described: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise LoadFailed(f"wrk ended with status {status}: {line.decode()}") from error
    return described


def _arguments(load: Load) -> list[str]:
    headers = [word for name, value in load.headers.items() for word in ("--header", f"{name}: {value}")]
    script = {
        "file": load.shots,
        "stamp": load.stamp,
        "seconds": load.seconds,
        "rate": load.rate,
        "metrics": METRICS_A_BATCH,
    }
    return [
        *("--threads", "1", "--connections", str(load.connections), "--timeout", f"{_ANSWER_SECONDS}s"),
        *("--duration", f"{round(load.seconds + _DRAIN_SECONDS)}s", "--script", str(_SCRIPT)),
        *headers,
        load.address,
        "--",
        *(f"{name}={value}" for name, value in script.items()),
    ]


def _outcome(load: Load, described: dict[str, Any]) -> Outcome:
    return Outcome(
        seconds=load.seconds,
        began=described["began"],
        sent=int(described["sent"]),
        answered=int(described["answered"]),
        accepted=int(described["accepted"]),
        accepted_in_time=int(described["in_time"]),
        statuses=described["statuses"],
        errors={kind: count for kind in _ERRORS if (count := described[f"{kind}_errors"])},
        p50_ms=described["p50_us"] / 1000,
        p95_ms=described["p95_us"] / 1000,
        p99_ms=described["p99_us"] / 1000,
        late_ratio=described["late"] / max(1, described["sent"]),
        most_late_ms=described["most_late"] * 1000,
    )
