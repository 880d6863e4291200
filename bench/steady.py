"""Eight hours of 35 batches a second, sent as fast as they go: memory and files of the suite must not grow."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.phases import Figures, measure
from bench.processes import memory_bytes, open_files
from bench.suite import Suite
from bench.workload import Workload

_ROUND_SECONDS = 60.0
#: What is Pulsegate's own to keep flat. Prometheus and Postgres hold what they are given to keep; they are shown alone.
_JUDGED = ("gateway", "receiver", "aggregator", "auth", "config", "nats", "valkey", "supervisor")
#: Rounds in which caches fill, and what a process may have more afterwards.
_WARM_ROUNDS = 2
_MORE_MEMORY, _MORE_BYTES, _MORE_FILES = 1.1, 8 << 20, 16


@dataclass(frozen=True, kw_only=True)
class Round:
    """One minute's load, and what processes held when all of it was visible."""

    figures: Figures
    #: accepted since the beginning
    batches: float
    memory_bytes: Mapping[str, int]
    #: files and sockets
    open_files: Mapping[str, int]


async def rounds(suite: Suite, folder: Path, workload: Workload, *, batches: int) -> AsyncIterator[Round]:
    """Rounds until so many batches were accepted. Raises as `measure` does."""
    sent = 0.0
    while sent < batches:
        figures = await measure(suite, folder, workload, seconds=_ROUND_SECONDS)
        sent += figures.outcome.batches
        pids = suite.pids()
        yield Round(figures=figures, batches=sent, memory_bytes=memory_bytes(pids), open_files=open_files(pids))


def grown(seen: Sequence[Round]) -> list[str]:
    """The processes that hold clearly more at the end than after the caches were filled, with what."""
    before, after = seen[min(_WARM_ROUNDS, len(seen)) - 1], seen[-1]
    found = []
    for name in _JUDGED:
        memory, files = (
            (before.memory_bytes[name], after.memory_bytes[name]),
            (before.open_files[name], after.open_files[name]),
        )
        if memory[1] > memory[0] * _MORE_MEMORY + _MORE_BYTES:
            found.append(f"{name}: {memory[0] >> 20} → {memory[1] >> 20} MiB")
        if files[1] > files[0] + _MORE_FILES:
            found.append(f"{name}: {files[0]} → {files[1]} files")
    return found


def line(each: Round) -> str:
    """One round for the terminal."""
    memory = ", ".join(f"{name} {held / 2**20:.0f}/{each.open_files[name]}" for name, held in each.memory_bytes.items())
    outcome = each.figures.outcome
    return (
        f"{each.batches:9,.0f} batches, {outcome.metrics_per_second:7,.0f} metrics/s, p95 {outcome.p95_ms:.0f} ms, "
        f"{'exact' if each.figures.exact else 'NOT EXACT'}; MiB/files: {memory}"
    )
