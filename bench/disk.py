"""How fast the disk makes appended bytes durable: what every acknowledgement waits for."""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

#: About what the log writes at a time under load.
_APPENDED_BYTES = 64 * 1024
_MOST_APPENDS = 500
_MOST_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class SyncTimes:
    """Of one append and its fdatasync, in milliseconds."""

    p50_ms: float
    p99_ms: float


def measure_sync(folder: Path) -> SyncTimes:
    """Appends to a file of its own in the folder; blocks for three seconds at most."""
    took: list[float] = []
    block = os.urandom(_APPENDED_BYTES)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        until = time.monotonic() + _MOST_SECONDS
        while len(took) < _MOST_APPENDS and time.monotonic() < until:
            began = time.perf_counter()
            file.write(block)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    percentiles = quantiles(took, n=100)
    return SyncTimes(p50_ms=percentiles[49] * 1000, p99_ms=percentiles[98] * 1000)
