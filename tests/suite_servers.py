"""The real backing servers, one of each for the whole session, on ports and folders of their own.

Fixtures (session): `postgres_server`, `valkey_server`, `nats_server`, `prometheus_server`, each a `RunningServer`:

    postgres_server.server.dsn(database="postgres", user=…, password=…)      libpq address; see deploy.local.servers
    valkey_server.server.url                                                 redis://…
    nats_server.server.url, .server.monitoring_port                          nats://…
    prometheus_server.server.url                                             http://…; remote write: url + /api/v1/write

    with valkey_server.away(): …        it is killed, and runs again after the block
    with valkey_server.paused(): …      it is there and answers nothing
    valkey_server.kill(), .start()      by hand; leave it running at the end of the test

Fixture `data_folder` (session): a fresh folder that every user may pass through, removed at the end of the session.

Each server ends with the test process, however that ends.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import pytest

from deploy.local.debian import find_program
from deploy.local.layout import CHECKOUT, Ports
from deploy.local.programs import NotReady, Program
from deploy.local.prometheus import find_prometheus
from deploy.local.servers import Nats, Postgres, Prometheus, Server, Valkey
from tests.waiting import wait_for

ServerT = TypeVar("ServerT", bound=Server)

#: Servers here listen on loopback for the time of the tests alone.
_PASSWORD = "only-for-tests"
_READY_SECONDS = 120.0
_PROMETHEUS_FOLDER = CHECKOUT / ".tools" / "prometheus"


class RunningServer(Generic[ServerT]):
    """A backing server that a test may take away for a while."""

    def __init__(self, server: ServerT) -> None:
        self.server = server
        self._program: Program | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def start(self) -> None:
        """Returns when it is ready."""
        self.server.prepare()
        program = self.server.program()
        program.clear_up()
        process = self._process = program.start()

        def ready() -> bool:
            assert process.poll() is None, program.log.read_text()[-2000:]
            try:
                program.probe()
            except NotReady:
                return False
            return True

        wait_for(ready, within_seconds=_READY_SECONDS, what=f"{program.name} is ready")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends the signal, which must end it, and returns when it has ended."""
        assert self._process is not None, "the server does not run"
        self._process.send_signal(number)
        self._process.wait(timeout=60)
        self._process = None

    def stop(self) -> None:
        """Ends it if it runs."""
        if self._process is not None:
            self.kill(self.server.program().orphan_signal)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Killed inside the block, running again after it."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Frozen inside the block: connections are open, nothing answers."""
        assert self._process is not None, "the server does not run"
        freeze(self._process)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


def freeze(child: subprocess.Popen[bytes]) -> None:
    """Stops each thread of the process; when this returns none of them does anything any more."""
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)


@contextmanager
def running(server: ServerT) -> Iterator[RunningServer[ServerT]]:
    """The server runs inside the block."""
    started = RunningServer(server)
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def data_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pulsegate-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server_ports(lasting_port_blocks: Callable[[], Ports]) -> Ports:
    return lasting_port_blocks()


@pytest.fixture(scope="session")
def postgres_server(data_folder: Path, server_ports: Ports) -> Iterator[RunningServer[Postgres]]:
    server = Postgres(
        folder=data_folder / "postgres",
        port=server_ports.server("postgres"),
        password=_PASSWORD,
        log=data_folder / "postgres.log",
        settings={"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"},
    )
    with running(server) as started:
        yield started


@pytest.fixture(scope="session")
def valkey_server(data_folder: Path, server_ports: Ports) -> Iterator[RunningServer[Valkey]]:
    server = Valkey(
        folder=data_folder / "valkey",
        port=server_ports.server("valkey"),
        password=_PASSWORD,
        log=data_folder / "valkey.log",
    )
    with running(server) as started:
        yield started


@pytest.fixture(scope="session")
def nats_server(data_folder: Path, server_ports: Ports) -> Iterator[RunningServer[Nats]]:
    server = Nats(
        folder=data_folder / "nats",
        port=server_ports.server("nats"),
        monitoring_port=server_ports.server("nats-monitoring"),
        password=_PASSWORD,
        log=data_folder / "nats.log",
    )
    with running(server) as started:
        yield started


@contextmanager
def fetching_into(folder: Path) -> Iterator[None]:
    """Where a program may have to be fetched, the tests of another process wait until it is."""
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def prometheus_binary() -> Path:
    named = os.environ.get("PROMETHEUS_BIN")
    with fetching_into(_PROMETHEUS_FOLDER):
        return find_prometheus(Path(named) if named else None, _PROMETHEUS_FOLDER)


@pytest.fixture(scope="session")
def promtool(prometheus_binary: Path) -> Path:
    """Comes with Prometheus: it lies beside it, or on PATH."""
    beside = prometheus_binary.with_name("promtool")
    with fetching_into(_PROMETHEUS_FOLDER):
        return beside if beside.exists() else find_program("promtool", _PROMETHEUS_FOLDER, "prometheus")


@pytest.fixture(scope="session")
def prometheus_server(
    prometheus_binary: Path, data_folder: Path, server_ports: Ports
) -> Iterator[RunningServer[Prometheus]]:
    server = Prometheus(
        binary=prometheus_binary,
        folder=data_folder / "prometheus",
        port=server_ports.server("prometheus"),
        log=data_folder / "prometheus.log",
    )
    with running(server) as started:
        yield started
