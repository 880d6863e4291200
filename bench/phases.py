"""What is measured of the suite: one load after another on the same running suite."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import aiohttp

from bench.encodings import Shot, as_json, write_shots
from bench.exposition import buckets, quantile, scrape
from bench.load import Load, LoadFailed, Outcome, run_load
from bench.processes import CpuMeter, CpuUse, memory_bytes
from bench.suite import Suite
from bench.visibility import Probe, Totals
from bench.workload import METRICS_A_BATCH, Workload, batches

_APPENDS = "pulsegate_log_append_duration_seconds"
_IDLE_SECONDS = 5.0
_TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one load on the suite."""

    workload: Workload
    outcome: Outcome
    #: metrics of this load that Prometheus has in the end
    visible: int
    #: from the first request until everything accepted was visible
    visible_seconds: float
    #: from a 202 until it shows
    delay_p50_seconds: float
    delay_p95_seconds: float
    #: of a frame, from being published to being durable, as the receiver saw it
    log_append_p99_ms: float
    #: from the first request until everything accepted was visible
    cpu: CpuUse
    #: by process, at the end
    memory_bytes: Mapping[str, int]

    @property
    def exact(self) -> bool:
        """Whether all that was accepted counts, once; what had no answer may count, once."""
        return self.outcome.accepted <= self.visible <= self.outcome.accepted + self.outcome.unanswered

    @property
    def visible_per_second(self) -> float:
        return self.outcome.accepted / self.visible_seconds

    @property
    def cpu_us_a_batch(self) -> dict[str, float]:
        """By process: microseconds of processor time for 100 metrics."""
        return {name: seconds / self.outcome.batches * 1e6 for name, seconds in self.cpu.seconds.items()}

    @property
    def cores(self) -> float:
        """What this rate takes of all processes, the load generator included; above the machine's: a backlog grew."""
        return self.cpu.total_seconds / self.outcome.accepted * self.outcome.metrics_per_second


async def measure(suite: Suite, folder: Path, workload: Workload, *, seconds: float, rate: float = 0.0) -> Figures:
    """One load, in metrics a second, 0 for as many as it takes. Raises LoadFailed, NotVisible, TimeoutError."""
    load = _load(suite, folder, workload, seconds, rate)
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        return await _measure(session, suite, load, workload)


async def send(suite: Suite, folder: Path, workload: Workload, *, seconds: float) -> None:
    """As fast as it goes, unmeasured; returns when nothing of it is under way. Raises LoadFailed, NotVisible."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        totals = Totals(session, suite.prometheus)
        before = await totals.now()
        outcome = await run_load(_load(suite, folder, workload, seconds))
        await totals.reached(before + outcome.accepted)
        await totals.settled()


async def measure_idle(suite: Suite) -> CpuUse:
    """What the suite takes while nobody asks anything of it."""
    meter = CpuMeter(suite.pids())
    await asyncio.sleep(_IDLE_SECONDS)
    return meter.used()


def _load(suite: Suite, folder: Path, workload: Workload, seconds: float, rate: float = 0.0) -> Load:
    shots = folder / "shots"
    write_shots(shots, _shots(suite, workload))
    return Load(
        address=suite.address,
        shots=shots,
        stamp="sequence",
        seconds=seconds,
        headers={"Content-Type": "application/json"},
        rate=rate / METRICS_A_BATCH,
        connections=workload.connections,
    )


def _shots(suite: Suite, workload: Workload) -> Iterator[Shot]:
    """One of each tenant, in turn. What spreads its series differs from the other loads: it has tenants of its own."""
    spread = workload.tenants > 1 or workload.definitions > 0
    keys = suite.keys[1 : 1 + workload.tenants] if spread else suite.keys[:1]
    own = batches(workload.series // workload.tenants, workload.definitions)
    return chain.from_iterable(zip(*(as_json(own, key) for key in keys), strict=True))


async def _measure(session: aiohttp.ClientSession, suite: Suite, load: Load, workload: Workload) -> Figures:
    totals, probe = Totals(session, suite.prometheus), Probe(session, suite)
    receiver = suite.ports.operations("receiver")
    before, appends_before = await totals.now(), buckets(await scrape(session, receiver), _APPENDS)
    pids = suite.pids()
    meter = CpuMeter(pids)
    async with probe.running():
        outcome = await run_load(load)
    # Not before, and hardly more than once: over many series it costs Prometheus as much as what is measured. What the
    # probe has sent shows by now, and it was among the last.
    visible_at = await totals.reached(before + outcome.accepted)
    cpu = meter.used()
    if suite.pids() != pids:
        raise LoadFailed("a process of the suite died under the load")
    appends = buckets(await scrape(session, receiver), _APPENDS)
    return Figures(
        workload=workload,
        outcome=outcome,
        visible=round(await totals.settled() - before),
        visible_seconds=visible_at - outcome.began,
        delay_p50_seconds=probe.delay_seconds(0.5),
        delay_p95_seconds=probe.delay_seconds(0.95),
        log_append_p99_ms=quantile(appends_before, appends, 0.99) * 1000,
        cpu=cpu,
        memory_bytes=memory_bytes(pids),
    )
