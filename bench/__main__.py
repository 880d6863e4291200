"""Measures the suite on this machine.

`full`: with its peers; keeps the results. `quick`: alone, in a minute and a half. `profile`: what its processes spend
it on. `steady`: a million batches, under which nothing may grow.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from bench.disk import measure_sync
from bench.load import LoadFailed
from bench.machine import describe_machine
from bench.peers import PeerFigures, measure_peer, peers
from bench.phases import Figures, measure, measure_idle, send
from bench.plot import draw
from bench.profiling import ProfileFailed, costliest, profile
from bench.recovery import Recovery, measure_recovery
from bench.report import Results, render
from bench.steady import Round, grown, line, rounds
from bench.suite import Suite, running_suite
from bench.visibility import NotVisible
from bench.workload import Workload, batches
from deploy.local.debian import DebianUnavailable
from deploy.local.demo.api import ApiError
from deploy.local.progress import say, step
from deploy.local.prometheus import PrometheusMissing
from deploy.local.supervisor import StartFailed

_FAILURES = (
    LoadFailed,
    NotVisible,
    ProfileFailed,
    DebianUnavailable,
    PrometheusMissing,
    StartFailed,
    ApiError,
    TimeoutError,
    OSError,
)

_RESULTS = Path(__file__).parent / "results"
_PROFILES = Path(__file__).parent / "profiles"
_USUAL = Workload(series=10_000)
_CROWD = Workload(series=10_000, connections=1_000)
#: Ten times as much of one thing.
_GROWN = {
    "10 definitions": Workload(series=10_000, definitions=10),
    "10 tenants": Workload(series=10_000, tenants=10),
    # The last, because its series go on being written for as long as they live.
    "100,000 series": Workload(series=100_000),
}
#: Commits of so many series come every four seconds instead of every second: so it has as many of them as the others.
_LONGER = {"100,000 series": 4}
_DEFINITIONS = 10
#: The usual one, and those of the grown loads.
_TENANTS = 11
#: The rate that latencies and costs are named for, where it is less than half of what was sustained.
_PACED_RATE = 100_000
_PEER_SECONDS = 6.0
_WARM_UP_SECONDS = 4.0


def main() -> int:
    """Returns the exit status: 1 when something failed, or when Prometheus has not what was accepted."""
    arguments = _parser().parse_args()
    try:
        with _data_folder() as folder:
            if arguments.extent == "steady":
                return asyncio.run(_steady(folder, arguments.batches))
            if arguments.extent == "profile":
                return asyncio.run(_profile(folder, arguments.seconds))
            results = asyncio.run(_measured(folder, arguments.seconds, full=arguments.extent == "full"))
    except _FAILURES as error:
        sys.stderr.write(f"\n{error or type(error).__name__}\n")
        return 1
    say(f"\n{render(results)}")
    if results.peers:
        _keep(results)
    return 0 if all(figures.exact for figures in results.loads.values()) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("extent", choices=["full", "quick", "profile", "steady"])
    parser.add_argument(
        "--seconds",
        type=float,
        default=15.0,
        help="of each load on the suite, of the one with the most series four times as many (15)",
    )
    parser.add_argument("--batches", type=int, default=1_000_000, help="of `steady` in all (1 000 000)")
    return parser


async def _profile(folder: Path, seconds: float) -> int:
    _PROFILES.mkdir(exist_ok=True)
    say("Starting the suite")
    async with running_suite(folder, definitions=_DEFINITIONS) as suite:
        with step("Warming up"):
            await send(suite, folder, _USUAL, seconds=_WARM_UP_SECONDS)
        with step("As fast as it goes, with py-spy"):
            files = await profile(suite, folder, _PROFILES, _USUAL, seconds=seconds)
    for name, file in files.items():
        say(f"\n# {name}: {file}\n\n{costliest(file.read_text().splitlines())}")
    return 0


async def _steady(folder: Path, batches: int) -> int:
    say("Starting the suite")
    seen: list[Round] = []
    async with running_suite(folder, definitions=_DEFINITIONS) as suite:
        async for each in rounds(suite, folder, _USUAL, batches=batches):
            seen.append(each)
            say(line(each))
    growth = grown(seen)
    say("Grown: " + "; ".join(growth) if growth else "Nothing has grown.")
    return 1 if growth or not all(each.figures.exact for each in seen) else 0


async def _measured(folder: Path, seconds: float, *, full: bool) -> Results:
    with step("Measuring the disk"):
        sync = await asyncio.to_thread(measure_sync, folder)
    say("Starting the suite")
    async with running_suite(folder, definitions=_DEFINITIONS, tenants=_TENANTS if full else 1) as suite:
        with step("Doing nothing"):
            idle = await measure_idle(suite)
        loads = await _loads(suite, folder, seconds, full=full)
        recovery = await _recovery(suite) if full else None
    figures = await _peers(folder) if full else []
    return Results(
        machine=await asyncio.to_thread(describe_machine, folder),  # with the peers, which are installed as needed
        sync=sync,
        idle=idle,
        loads=loads,
        recovery=recovery,
        peers=figures,
    )


async def _loads(suite: Suite, folder: Path, seconds: float, *, full: bool) -> dict[str, Figures]:
    with step("Warming up"):
        await send(suite, folder, _USUAL, seconds=_WARM_UP_SECONDS)
    with step("As fast as it goes"):
        fastest = await measure(suite, folder, _USUAL, seconds=seconds)
    loads = {"as fast as it goes": fastest}
    for name, (workload, rate) in paced_loads(fastest.visible_per_second).items():
        with step(f"{rate:,.0f} metrics/s over {workload.connections:,} connections"):
            loads[name] = await measure(suite, folder, workload, seconds=seconds, rate=rate)
    for name, workload in _GROWN.items() if full else ():
        await send(suite, folder, workload, seconds=_WARM_UP_SECONDS)
        with step(f"As fast as it goes, {name}"):
            loads[name] = await measure(suite, folder, workload, seconds=seconds * _LONGER.get(name, 1))
    return loads


def paced_loads(sustained: float) -> dict[str, tuple[Workload, float]]:
    """Loads at fixed rates by name, with these, in metrics a second: half of what was sustained, and a rate that is the
    same for all machines that sustain twice as much."""
    half = sustained / 2
    rate = min(_PACED_RATE, half)
    loads = {"half as fast": (_USUAL, half)}
    if rate < half:
        loads[f"{rate:,.0f} metrics/s"] = (_USUAL, rate)
    loads[f"{_CROWD.connections:,} clients"] = (_CROWD, rate)
    return loads


async def _recovery(suite: Suite) -> Recovery:
    with step("Killing the aggregator, with a million series"):
        return await measure_recovery(suite)


async def _peers(folder: Path) -> list[PeerFigures]:
    measured = []
    for number, peer in enumerate(peers(batches(_USUAL.series))):
        data = folder / f"peer-{number}"
        data.mkdir()
        with step(peer.name):
            measured.append(await measure_peer(peer, data, _PEER_SECONDS))
    return measured


def _keep(results: Results) -> None:
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "figures.json").write_text(json.dumps(asdict(results), indent=2) + "\n")
    draw(results, _RESULTS / "figures.svg")
    (_RESULTS / "README.md").write_text(f"# Results\n\n![The same as a picture](figures.svg)\n\n{render(results)}\n")
    say(f"\nKept in {_RESULTS}")


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
