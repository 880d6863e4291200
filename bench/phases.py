"""What is measured of the suite: one load after another on the same running suite."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import aiohttp

from bench.encodings import as_json, write_shots
from bench.exposition import buckets, quantile, scrape
from bench.load import Load, Outcome, run_load
from bench.processes import cpu_seconds, machine_cpu_seconds, memory_bytes
from bench.suite import Suite
from bench.visibility import Probe, Totals
from bench.workload import METRICS_A_BATCH, batches

LOAD_GENERATOR = "load generator"
_APPENDS = "pulsegate_log_append_duration_seconds"
_TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one load on the suite."""

    series: int
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
    #: by process, from the first request until everything accepted was visible
    cpu_seconds: Mapping[str, float]
    #: cores that were busy meanwhile with what is not measured here
    foreign_cores: float
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
        return {name: seconds / self.outcome.batches * 1e6 for name, seconds in self.cpu_seconds.items()}

    @property
    def cores(self) -> float:
        """Busy with this load, the load generator's included."""
        return sum(self.cpu_seconds.values()) / self.visible_seconds


async def measure(suite: Suite, folder: Path, *, series: int, seconds: float, rate: float = 0.0) -> Figures:
    """One load, in metrics a second, 0 for as many as it takes. Raises LoadFailed, NotVisible, TimeoutError."""
    shots = folder / f"{series}.shots"
    write_shots(shots, as_json(batches(series)))
    load = Load(
        address=suite.address,
        shots=shots,
        stamp="sequence",
        seconds=seconds,
        headers=suite.headers,
        rate=rate / METRICS_A_BATCH,
    )
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        return await _measure(session, suite, load, series)


async def _measure(session: aiohttp.ClientSession, suite: Suite, load: Load, series: int) -> Figures:
    totals, probe = Totals(session, suite.prometheus), Probe(session, suite)
    receiver = suite.ports.operations("receiver")
    before, appends_before = await totals.now(), buckets(await scrape(session, receiver), _APPENDS)
    pids = {**suite.pids(), LOAD_GENERATOR: os.getpid()}
    async with totals.followed():
        cpu_before, machine_before = cpu_seconds(pids), machine_cpu_seconds()
        async with probe.running():
            outcome = await run_load(load)
        visible_at = await totals.reached(before + outcome.accepted)
        cpu_after, machine_after = cpu_seconds(pids), machine_cpu_seconds()
    cpu = {name: cpu_after[name] - cpu_before[name] for name in pids}
    visible_seconds = visible_at - outcome.began
    delay = quantiles(probe.delays, n=20)
    appends = buckets(await scrape(session, receiver), _APPENDS)
    return Figures(
        series=series,
        outcome=outcome,
        visible=round(await totals.settled() - before),
        visible_seconds=visible_seconds,
        delay_p50_seconds=delay[9],
        delay_p95_seconds=delay[18],
        log_append_p99_ms=quantile(appends_before, appends, 0.99) * 1000,
        cpu_seconds=cpu,
        foreign_cores=(machine_after - machine_before - sum(cpu.values())) / visible_seconds,
        memory_bytes=memory_bytes(suite.pids()),
    )
