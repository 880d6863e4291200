"""Figures as Markdown: what the terminal shows, and what is kept with the plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from bench.disk import SyncTimes
from bench.load import Outcome
from bench.machine import Machine
from bench.peers import PeerFigures
from bench.phases import Figures
from bench.processes import CpuUse
from bench.recovery import Recovery

_MIB = 2**20
#: Cores that something else may use before the figures are doubtful.
_QUIET_CORES = 0.2


@dataclass(frozen=True, kw_only=True)
class Results:
    """Of one run."""

    machine: Machine
    sync: SyncTimes
    #: of the suite that has nothing to do
    idle: CpuUse
    #: by name; the first is the one as fast as it goes
    loads: Mapping[str, Figures]
    #: not measured in a quick run
    recovery: Recovery | None
    peers: Sequence[PeerFigures]

    @property
    def fastest(self) -> Figures:
        return next(iter(self.loads.values()))


def render(results: Results) -> str:
    """The whole report, but the plot."""
    parts = [_machine(results), *_doubts(results), _figures_table(results.loads), _cpu_table(results)]
    parts += [_memory_table(results.loads), *_growth(results), *_recovery(results.recovery)]
    if results.peers:
        parts += [_PEERS, _peers_table(results)]
    return "\n\n".join(parts)


_PEERS = """\
The same metrics, 100 a request over 256 connections, given to other servers in the same run, one after another. None
of them makes a request durable before it answers, none adds increments up: a Pushgateway keeps the last push of a
group, the others store samples. The ratios are of Pulsegate's figures, as fast as it goes, to the peer's; its processor
time goes as far as Prometheus' storage. Remote write comes in literal snappy blocks, each sample with a fresh value and
time."""


def _machine(results: Results) -> str:
    machine, sync = results.machine, results.sync
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"{machine.date}, commit {machine.commit}. {machine.cores} cores of {machine.processor}, "
        f"{machine.memory_gib:.0f} GiB, Linux {machine.kernel}, {machine.file_system}. "
        f"Appending 64 KiB with fdatasync, idle: p50 {sync.p50_ms:.1f} ms, p99 {sync.p99_ms:.1f} ms. {versions}."
    )


def _doubts(results: Results) -> list[str]:
    measured = [*(load.cpu for load in results.loads.values()), *(peer.cpu for peer in results.peers)]
    foreign = max(cpu.foreign_cores for cpu in measured)
    if foreign < _QUIET_CORES:
        return []
    return [f"**Other work kept up to {foreign:.1f} cores busy meanwhile: only processor times mean much here.**"]


def _figures_table(loads: Mapping[str, Figures]) -> str:
    rows = [
        ("series", lambda f: f"{f.workload.series:,}"),
        ("metrics/s accepted", lambda f: f"{f.outcome.metrics_per_second:,.0f}"),
        ("metrics/s visible in Prometheus", lambda f: f"{f.visible_per_second:,.0f}"),
        ("accepted", lambda f: f"{f.outcome.accepted:,}"),
        ("visible", lambda f: f"{f.visible:,}"),
        ("exact", lambda f: "yes" if f.exact else "**no**"),
        ("answers", lambda f: _answers(f.outcome)),
        ("latency p50 / p95 / p99, ms", lambda f: _latencies(f.outcome)),
        ("sent more than 10 ms late", lambda f: f"{f.outcome.late_ratio:.1%}"),
        ("from 202 to visible p50 / p95, s", lambda f: f"{f.delay_p50_seconds:.1f} / {f.delay_p95_seconds:.1f}"),
        ("frame durable in the log p99, ms", lambda f: f"{f.log_append_p99_ms:.1f}"),
        ("cores that this rate takes", lambda f: f"{f.cores:.2f}"),
        ("cores busy with other work", lambda f: f"{f.cpu.foreign_cores:.2f}"),
    ]
    return table(["", *loads], [[name, *map(cell, loads.values())] for name, cell in rows])


def _cpu_table(results: Results) -> str:
    """Processor time: for 100 metrics under each load, and of an idle second."""
    costs = [figures.cpu_us_a_batch for figures in results.loads.values()]
    costs.append({name: cores * 1e6 for name, cores in results.idle.cores.items()})
    rows = [[name, *(f"{cost[name]:,.0f}" for cost in costs)] for name in by_weight(costs[0])]
    rows.append(["all", *(f"{sum(cost.values()):,.0f}" for cost in costs)])
    return table(["CPU µs for 100 metrics", *results.loads, "of an idle second"], rows)


def _memory_table(loads: Mapping[str, Figures]) -> str:
    sizes = [figures.memory_bytes for figures in loads.values()]
    rows = [[name, *(f"{size[name] / _MIB:,.0f}" for size in sizes)] for name in by_weight(sizes[0])]
    return table(["memory afterwards, MiB", *loads], rows)


def _growth(results: Results) -> list[str]:
    """What ten times as much of one thing costs, where a load had that."""
    few = results.fastest
    usual = few.workload
    grown = {
        name: figures
        for name, figures in results.loads.items()
        if replace(figures.workload, connections=usual.connections) != usual
    }
    if not grown:
        return []
    costs = [f"{name} {_total_cost(each) / _total_cost(few):.2f}" for name, each in grown.items()]
    times = f"Times the processor time for a metric, as fast as it goes: {', '.join(costs)}."
    return [f"{times} {memory_growth(results.loads)}"]


def memory_growth(loads: Mapping[str, Figures]) -> str:
    """What series take that the load with the most of them has made: it has those of the first load, too."""
    few = next(iter(loads.values()))
    before, many = max(pairwise(loads.values()), key=lambda pair: pair[1].workload.series)
    made = many.workload.series - few.workload.series
    sizes = {
        name: many.memory_bytes[name] - before.memory_bytes[name] for name in ("aggregator", "receiver", "prometheus")
    }
    memory = ", ".join(f"{name} {size / made:,.0f}" for name, size in sizes.items())
    return f"Bytes of memory for each further live series: {memory}."


def _recovery(recovery: Recovery | None) -> list[str]:
    if recovery is None:
        return []
    after = f"after {recovery.seconds:.1f} s, and then took {recovery.memory_bytes / _MIB:,.0f} MiB"
    return [f"Killed with {recovery.series:,} series, the aggregator committed again {after}."]


def _total_cost(figures: Figures) -> float:
    return sum(figures.cpu_us_a_batch.values())


def _peers_table(results: Results) -> str:
    head = [
        "",
        "metrics/s accepted",
        "ratio",
        "CPU µs for 100 metrics",
        "ratio",
        "latency p50 / p95 / p99, ms",
        "stored",
    ]
    return table(head, [_peer_row(peer, results.fastest) for peer in results.peers])


def _peer_row(peer: PeerFigures, ours: Figures) -> list[str]:
    outcome = peer.outcome
    cost = peer.cpu.total_seconds / outcome.batches * 1e6
    return [
        peer.name,
        f"{outcome.metrics_per_second:,.0f}",
        f"{ours.outcome.metrics_per_second / outcome.metrics_per_second:.2f}",
        f"{cost:,.0f}",
        f"{sum(ours.cpu_us_a_batch.values()) / cost:.2f}",
        _latencies(outcome),
        "" if peer.stored is None else f"{peer.stored / outcome.accepted:.0%} after {peer.stored_seconds:.0f} s",
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, aligned for the terminal; the first column to the left."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    ruler = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return "\n".join(_line(row, widths) for row in [head, ruler, *rows])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    (first, width), *others = zip(cells, widths, strict=True)
    return "| " + " | ".join([first.ljust(width), *(cell.rjust(width) for cell, width in others)]) + " |"


def by_weight(weights: Mapping[str, float]) -> list[str]:
    """The names, the heaviest first."""
    return sorted(weights, key=lambda name: -weights[name])


def _latencies(outcome: Outcome) -> str:
    return f"{outcome.p50_ms:.1f} / {outcome.p95_ms:.1f} / {outcome.p99_ms:.1f}"


def _answers(outcome: Outcome) -> str:
    answers = [f"{status}: {count:,}" for status, count in sorted(outcome.statuses.items())]
    return ", ".join(answers + [f"{kind}: {count:,}" for kind, count in outcome.errors.items()])
