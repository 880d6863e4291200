"""`python -m bench` measures the suite and its peers; `python -m bench quick` the suite alone, in about a minute."""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.disk import measure_sync
from bench.load import LoadFailed
from bench.phases import Figures, measure
from bench.report import REFERENCE_RATE, suite_tables
from bench.suite import Suite, running_suite
from bench.visibility import NotVisible
from deploy.local.debian import DebianUnavailable
from deploy.local.demo.api import ApiError
from deploy.local.progress import say, step
from deploy.local.prometheus import PrometheusMissing
from deploy.local.supervisor import StartFailed

_FAILURES = (LoadFailed, NotVisible, DebianUnavailable, PrometheusMissing, StartFailed, ApiError, OSError)
_WARM_UP_SECONDS = 3.0
_SERIES = 10_000

Loads = list[tuple[str, Figures]]


def main() -> int:
    """Returns the exit status: 1 when something failed, or when Prometheus has not what was accepted."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("extent", choices=["quick"])
    parser.add_argument("--series", type=int, default=_SERIES, help=f"a multiple of 100 ({_SERIES})")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load (10)")
    arguments = parser.parse_args()
    try:
        with _data_folder() as folder:
            loads = asyncio.run(_quick(folder, arguments.series, arguments.seconds))
    except _FAILURES as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    return 0 if all(figures.exact for _, figures in loads) else 1


async def _quick(folder: Path, series: int, seconds: float) -> Loads:
    sync = measure_sync(folder)
    say("Starting the suite")
    async with running_suite(folder, series) as suite:
        loads = await _loads(suite, folder, series, seconds)
    say(f"\n{suite_tables(loads)}\n\nfdatasync of 64 KiB: p50 {sync.p50_ms:.1f} ms, p99 {sync.p99_ms:.1f} ms")
    return loads


async def _loads(suite: Suite, folder: Path, series: int, seconds: float) -> Loads:
    """As fast as it goes, then at the rate that latencies are named for, or at half of what it took."""
    with step("Warming up"):
        await measure(suite, folder, series=series, seconds=_WARM_UP_SECONDS)
    with step("Sending as fast as answers come"):
        fastest = await measure(suite, folder, series=series, seconds=seconds)
    rate = min(REFERENCE_RATE, fastest.visible_per_second / 2)
    with step(f"Sending {rate:,.0f} metrics/s"):
        paced = await measure(suite, folder, series=series, seconds=seconds, rate=rate)
    return [("as fast as it goes", fastest), (f"{rate:,.0f}/s", paced)]


@contextmanager
def _data_folder() -> Iterator[Path]:
    """Removed afterwards. Others may pass through: as root, Postgres runs as somebody else."""
    folder = Path(tempfile.mkdtemp(prefix="pulsegate-bench-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
