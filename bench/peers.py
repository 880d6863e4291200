"""Other servers, given the same metrics, 100 a request. None of them is durable before it answers."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import aiohttp

from bench.encodings import Shot, as_remote_write, as_text, write_shots
from bench.exposition import scrape, total
from bench.load import Load, Outcome, Stamp, run_load
from bench.processes import CpuMeter, CpuUse
from bench.programs import free_ports, running
from bench.workload import Batch
from deploy.local.debian import find_program
from deploy.local.layout import CHECKOUT
from deploy.local.programs import Program, probe_http
from deploy.local.prometheus import find_prometheus
from deploy.local.servers import HOST, Prometheus

PUSHGATEWAY = "Pushgateway"
_GROUPS = (1, 100, 500)
_REMOTE_WRITE = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
_STORED_SECONDS = 15.0
_LOOK_EVERY_SECONDS = 0.2

#: Rows, as VictoriaMetrics calls metrics.
_ROWS = "vm_rows_inserted_total"

#: The folder for data, and the port → the program. One behind another listens on the next port.
Described = Callable[[Path, int], Program]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One server, or several behind each other: the first takes the requests."""

    name: str
    programs: Sequence[Described]
    shots: Sequence[Shot]
    stamp: Stamp = "time"
    headers: Mapping[str, str] = field(default_factory=lambda: _REMOTE_WRITE)
    #: a counter of the last program: metrics that it has stored
    stored: str | None = None
    #: takes each request once before, on the same folder
    filled_by: Described | None = None


@dataclass(frozen=True, kw_only=True)
class PeerFigures:
    """Of one load on a peer."""

    name: str
    outcome: Outcome
    #: metrics, and the time from the first request until it had them; None where the peer does not tell
    stored: int | None
    stored_seconds: float
    #: from the first request until it had them
    cpu: CpuUse


def peers(batches: Sequence[Batch]) -> Iterator[Peer]:
    """All of them. Raises DebianUnavailable, PrometheusMissing."""
    for check in (True, False):
        for groups in _GROUPS:
            yield _pushgateway_peer(batches, groups, check=check)
    written = as_remote_write(batches)
    yield Peer(
        name="Prometheus, remote write",
        programs=[_prometheus],
        shots=written,
        stored="prometheus_tsdb_head_samples_appended_total",
    )
    yield Peer(name="VictoriaMetrics", programs=[_victoria_metrics], shots=written, stored=_ROWS)
    yield Peer(name="vmagent → VictoriaMetrics", programs=[_vmagent, _victoria_metrics], shots=written, stored=_ROWS)


async def measure_peer(peer: Peer, folder: Path, seconds: float) -> PeerFigures:
    """As many requests as it takes, on an empty folder. Raises StartFailed, LoadFailed."""
    first_port = free_ports().public
    file = folder / "shots"
    write_shots(file, peer.shots)
    load = Load(
        address=f"http://{HOST}:{first_port}", shots=file, stamp=peer.stamp, seconds=seconds, headers=peer.headers
    )
    if peer.filled_by is not None:
        async with running(peer.filled_by(folder, first_port)):
            await _fill(load.address, peer.shots)
    async with AsyncExitStack() as stack:
        pids = {}
        for offset, described in reversed(list(enumerate(peer.programs))):
            program = described(folder, first_port + offset)
            pids[program.name] = await stack.enter_async_context(running(program))
        return await _measure(peer, load, pids, stored_port=first_port + len(peer.programs) - 1)


async def _measure(peer: Peer, load: Load, pids: Mapping[str, int], stored_port: int) -> PeerFigures:
    meter = CpuMeter(pids)
    outcome = await run_load(load)
    stored = await _until_stored(stored_port, peer.stored, outcome.accepted) if peer.stored else None
    stored_at = time.monotonic()
    return PeerFigures(
        name=peer.name,
        outcome=outcome,
        stored=stored,
        stored_seconds=stored_at - outcome.began,
        cpu=meter.used(),
    )


async def _until_stored(port: int, counter: str, accepted: int) -> int:
    """Waits a while for what was accepted; returns what the peer has then."""
    deadline = time.monotonic() + _STORED_SECONDS
    async with aiohttp.ClientSession() as session:
        while True:
            stored = round(total(await scrape(session, port), counter))
            if stored >= accepted or time.monotonic() > deadline:
                return stored
            await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def _fill(address: str, shots: Sequence[Shot]) -> None:
    async with aiohttp.ClientSession() as session:
        for shot in shots:
            async with session.post(address + shot.path, data=shot.body, raise_for_status=True):
                pass


def _pushgateway_peer(batches: Sequence[Batch], groups: int, *, check: bool) -> Peer:
    checked = "" if check else ", no consistency check"
    return Peer(
        name=f"{PUSHGATEWAY}, {groups} group{'s' * (groups > 1)}{checked}",
        programs=[partial(_pushgateway, check=check)],
        shots=as_text(batches, groups),
        stamp="none",
        headers={},
        filled_by=partial(_pushgateway, check=False, stop_signal=signal.SIGTERM),
    )


def _pushgateway(folder: Path, port: int, *, check: bool, stop_signal: signal.Signals = signal.SIGKILL) -> Program:
    """Asked to end it keeps its groups, but works off all that waits first."""
    program = find_program("prometheus-pushgateway", _tools("prometheus-pushgateway"), "prometheus-pushgateway")
    arguments = [f"--web.listen-address={HOST}:{port}", f"--persistence.file={folder / 'groups'}"]
    if not check:
        arguments.append("--push.disable-consistency-check")
    described = _program("pushgateway", folder, port, "/-/ready", [str(program), *arguments])
    return replace(described, stop_signal=stop_signal)


def _prometheus(folder: Path, port: int) -> Program:
    binary = find_prometheus(None, _tools("prometheus"))
    server = Prometheus(binary=binary, folder=folder / "prometheus", port=port, log=folder / "prometheus.log")
    server.prepare()
    return server.program()


def _victoria_metrics(folder: Path, port: int) -> Program:
    program = find_program("victoria-metrics", _tools("victoria-metrics"), "victoria-metrics")
    arguments = [f"-httpListenAddr={HOST}:{port}", f"-storageDataPath={folder / 'victoria-metrics'}"]
    return _program("victoria-metrics", folder, port, "/health", [str(program), *arguments])


def _vmagent(folder: Path, port: int) -> Program:
    """Writes to what listens on the next port."""
    program = find_program("vmagent", _tools("victoria-metrics"), "victoria-metrics")
    arguments = [
        f"-httpListenAddr={HOST}:{port}",
        f"-remoteWrite.url=http://{HOST}:{port + 1}/api/v1/write",
        f"-remoteWrite.tmpDataPath={folder / 'vmagent'}",
    ]
    return _program("vmagent", folder, port, "/health", [str(program), *arguments])


def _program(name: str, folder: Path, port: int, ready: str, argv: Sequence[str]) -> Program:
    return Program(
        name=name,
        argv=tuple(argv),
        log=folder / f"{name}.log",
        ports={name: port},
        probe=partial(probe_http, port, ready),
    )


def _tools(package: str) -> Path:
    return CHECKOUT / ".tools" / package
