"""Processor time and memory of processes, each with those that it started and that have no name of their own."""

import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

#: The name of this process with those that it starts.
LOAD_GENERATOR = "load generator"

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
#: Of `/proc/<pid>/stat`, counted behind the name: user and system time, of the process and of its ended children.
_TIMES = slice(11, 15)


@dataclass(frozen=True, kw_only=True)
class CpuUse:
    """Of a stretch of time."""

    elapsed_seconds: float
    #: processor time by process
    seconds: Mapping[str, float]
    #: cores that were busy meanwhile with anything else
    foreign_cores: float

    @property
    def cores(self) -> dict[str, float]:
        """By process."""
        return {name: seconds / self.elapsed_seconds for name, seconds in self.seconds.items()}

    @property
    def total_seconds(self) -> float:
        return math.fsum(self.seconds.values())


class CpuMeter:
    """Measures from its making on; this process, with all that it starts and is not named, is the load generator."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = {**pids, LOAD_GENERATOR: os.getpid()}
        self._before = self._now()

    def used(self) -> CpuUse:
        """So far."""
        moment, machine, processes = self._now()
        began, machine_before, before = self._before
        seconds = {name: processes[name] - before[name] for name in self._pids}
        foreign = machine - machine_before - math.fsum(seconds.values())
        elapsed = moment - began
        return CpuUse(elapsed_seconds=elapsed, seconds=seconds, foreign_cores=foreign / elapsed)

    def _now(self) -> tuple[float, float, dict[str, float]]:
        return time.monotonic(), _machine_cpu_seconds(), _cpu_seconds_by_name(self._pids)


def _cpu_seconds_by_name(pids: Mapping[str, int]) -> dict[str, float]:
    return {name: sum(map(_cpu_seconds, tree)) for name, tree in _trees(pids)}


def _machine_cpu_seconds() -> float:
    """Processor time of everything on this machine since it was started."""
    user, nice, system, _idle, _waiting, *interrupts = Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    return sum(map(int, (user, nice, system, *interrupts))) / _TICKS_A_SECOND


def memory_bytes(pids: Mapping[str, int]) -> dict[str, int]:
    """Resident memory; what processes share counts once (the proportional set size)."""
    return {name: sum(map(_memory_bytes, tree)) for name, tree in _trees(pids)}


def open_files(pids: Mapping[str, int]) -> dict[str, int]:
    """Open files and sockets."""
    return {name: sum(map(_open_files, tree)) for name, tree in _trees(pids)}


def _trees(pids: Mapping[str, int]) -> Iterator[tuple[str, list[int]]]:
    named = frozenset(pids.values())
    for name, pid in pids.items():
        yield name, [pid, *_descendants(pid, named)]


def _descendants(pid: int, others: frozenset[int]) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in map(int, _read(task / "children").split()):
            if child not in others:
                yield child
                yield from _descendants(child, others)


def _cpu_seconds(pid: int) -> float:
    behind_name = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(int(ticks) for ticks in behind_name[_TIMES]) / _TICKS_A_SECOND


def _memory_bytes(pid: int) -> int:
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _open_files(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0


def _read(path: Path) -> str:
    """Nothing of a process that has just ended, or that belongs to somebody else."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
