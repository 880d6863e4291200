"""Batches: open while they gather, then sealed, after which no byte of them changes."""

from __future__ import annotations

import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Sequence

from .metrics import Metric

_DAY_SECONDS = 24 * 3600
_GIVE_UP_SECONDS = 7 * _DAY_SECONDS  # the server remembers a batch for 8 days: later, a retry could count twice
# A clock that nobody sets, and that goes on while the machine sleeps: time.monotonic() does not, but on Windows.
_STEADY_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
_ENVELOPE_BYTES = 160  # at most: producer, sequence and floor around the metrics


@dataclass
class Batch:
    """A sealed batch: its producer, sequence and bytes never change again."""

    producer: str
    sequence: int
    sealed_at: int  # Unix milliseconds, by the clock of then; its first attempt follows at once
    calls: int
    size: int  # bytes of the body
    content: bytes = b""  # the body, where there is no file
    path: Path | None = None  # else a file with just the body
    number: int = 0  # of the gathering; 0 when adopted
    split: Sequence[int] = ()  # calls by metric; unknown when adopted
    sealed_after: float | None = None  # seconds on the steady clock; None when adopted

    def body(self) -> bytes:
        """Raises FileNotFoundError where no file is there (any more), OSError where it cannot be read now."""
        if not self.path:
            return self.content
        if not stat.S_ISREG(self.path.stat().st_mode):  # such as a directory, or a pipe that nobody writes into
            raise FileNotFoundError("no regular file")
        return self.path.read_bytes()

    def expired(self) -> bool:
        if self.sealed_after is not None:  # by this process: the wall clock may have been set right meanwhile
            return _steady_seconds() - self.sealed_after > _GIVE_UP_SECONDS
        age = time.time() - self.sealed_at / 1000
        return not -_DAY_SECONDS <= age <= _GIVE_UP_SECONDS  # from the future: nobody knows how old it is


class Gathering:
    """An open batch: metrics in order of arrival, folded where that changes no total."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.metrics: List[Metric] = []
        self.size = _ENVELOPE_BYTES  # bytes of its body, at most
        self._latest: Dict[Any, Metric] = {}

    def add(self, metric: Metric) -> None:
        latest = self._latest.get((metric.kind, metric.identity))
        before = latest.size if latest else 0
        if latest and latest.fold(metric):
            self.size += latest.size - before
            return
        self.metrics.append(metric)
        self.size += metric.size
        self._latest[metric.kind, metric.identity] = metric

    @property
    def calls(self) -> int:
        return sum(metric.calls for metric in self.metrics)

    def seal(self, producer: str, sequence: int, floor: int) -> Batch:
        """The batch with its bytes. `floor` is the lowest sequence that the producer may still send."""
        head = f'{{"producer":"{producer}","sequence":{sequence},"floor":{floor},"metrics":['
        body = f"{head}{','.join(metric.json() for metric in self.metrics)}]}}".encode()
        split = [metric.calls for metric in self.metrics]
        now, after = int(time.time() * 1000), _steady_seconds()
        return Batch(producer, sequence, now, sum(split), len(body), body, None, self.number, split, after)


def _steady_seconds() -> float:
    return time.monotonic() if _STEADY_CLOCK is None else time.clock_gettime(_STEADY_CLOCK)
