"""The whole suite, as `make run` starts it.

Fixture `suite` (session): a `Suite` that runs on ports and a data folder of its own. Requests are not limited there
beyond what a test can reach; a test of limits starts its own with `start_suite`:

    suite.base_url, suite.port, suite.data, suite.ports, suite.prometheus_url
    suite.processes()                         name -> {"pid", "ports", "restarts"}, from run.json
    suite.pid("receiver"); suite.log("receiver"); suite.secret("postgres_password"); suite.dsn("auth")
    pid = suite.kill("aggregator")            kill -9 (or another signal); returns the process id that it had
    suite.wait_restarted("aggregator", pid)   returns when another process runs and is ready
    with suite.paused("valkey"): …            frozen: connections are open, nothing answers
    with suite.gone("gateway"): …             killed with -9, and not restarted until the block ends
    suite.wait_ready()                        every process is ready
    suite.stop(), suite.start()               Ctrl-C, and again on the same data
    with suite.servers_alone(): …             stopped, and the backing servers started, as by `make servers`

Fixture `start_suite` (session): `start_suite(PULSEGATE_DEFAULT_PLAN="free", …)` starts one more, stopped at the end of
the session; call `stop()` as soon as it is no longer needed.

The report of a test that fails shows the end of each log of the suites that run then. Their folders are removed at the
end of the session, unless PULSEGATE_KEEP_TEST_DATA is set: then the report says where they are.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from deploy.local.bootstrap import DATABASE
from deploy.local.layout import OPERATIONS_PORTS, DataFolder, Ports
from deploy.local.programs import NotReady, Program, probe_http
from deploy.local.servers import HOST
from tests.suite_servers import freeze
from tests.waiting import wait_for

#: Environment of a suite whose requests are not limited beyond what a test can reach.
TIRELESS = {
    # a breaker that a test opened must not refuse what the next one asks
    "PULSEGATE_BREAKER_RESET_SECONDS": "1",
    # a gateway that is asked to stop can be seen to
    "PULSEGATE_UNREADY_SECONDS": "1",
    "PULSEGATE_AUTH_REQUESTS_PER_MINUTE": "100000",
    "PULSEGATE_OPERATORS": "operator@example.com,second-operator@example.com",
    "PULSEGATE_ADDRESS_REQUESTS_PER_15_MINUTES": "1000000",
    "PULSEGATE_SSO_PRIVATE_NETWORKS": "127.0.0.1",
}
_START_SECONDS = 240.0
_STOP_SECONDS = 90.0
#: The supervisor gives a service 120 seconds to become ready.
_READY_SECONDS = 130.0
_REPORTED_LINES = 5

_SUITES = pytest.StashKey["list[Suite]"]()


class Suite:
    """One running suite; see the module's docstring."""

    def __init__(self, data: Path, ports: Ports, environment: dict[str, str]) -> None:
        self.data = data
        self.ports = ports
        self.port = ports.public
        self.base_url = f"http://{HOST}:{ports.public}"
        self.prometheus_url = f"http://{HOST}:{ports.server('prometheus')}"
        self._folder = DataFolder(data)
        self._terminal = data.with_name("terminal.txt")
        self._environment = {**environment, "PULSEGATE_PORT": str(ports.public), "PULSEGATE_DATA": str(data)}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def terminal(self) -> str:
        """What `make run` has printed."""
        return self._terminal.read_text()

    @property
    def runs(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    def log_ends(self) -> str:
        """The last lines of everything that it has written."""
        files = [self._terminal, *sorted(self._folder.logs.glob("*.log"))]
        ends = [(file, file.read_text(errors="replace").splitlines()[-_REPORTED_LINES:]) for file in files]
        return "\n".join("\n  ".join([f"{file}:", *lines]) for file, lines in ends)

    def start(self) -> None:
        """Returns when everything is ready."""
        self._launch("run")
        wait_for(self._is_ready, within_seconds=_START_SECONDS, what="the suite is ready")

    @contextmanager
    def servers_alone(self) -> Iterator[None]:
        """The services are stopped meanwhile; afterwards everything is ready again."""
        self.stop()
        said = len(self.terminal)
        self._launch("servers")
        try:
            wait_for(lambda: "Ctrl-C stops them." in self.terminal[said:], what="the backing servers are ready")
            yield
        finally:
            self.stop()
            self.start()

    def _launch(self, command: str) -> None:
        program = Program(
            name="suite",
            argv=(sys.executable, "-m", "deploy.local", command),
            log=self._terminal,
            ports={},
            probe=self._probe,
            environment={**os.environ, **self._environment},
            orphan_signal=signal.SIGTERM,
        )
        self._process = program.start()

    def stop(self) -> int:
        """As Ctrl-C does; returns the exit status. Nothing happens where it is stopped already."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGINT)
        status = self._process.wait(timeout=_STOP_SECONDS)
        self._process = None
        return status

    def kill_supervisor(self) -> None:
        """kill -9 of the process that `make run` is; everything that it started ends with it."""
        assert self._process is not None, "the suite does not run"
        self._process.kill()
        self._process.wait()
        self._process = None

    def processes(self) -> dict[str, dict[str, Any]]:
        """What runs now, by name; empty while run.json is not there."""
        try:
            described = json.loads(self._folder.run_json.read_text())
        except FileNotFoundError:
            return {}
        return {process["name"]: process for process in described["processes"] if process["pid"] is not None}

    def pid(self, name: str) -> int:
        return int(self.processes()[name]["pid"])

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Sends the signal to a process; returns its process id."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def wait_restarted(self, name: str, old_pid: int, *, within_seconds: float = _READY_SECONDS) -> None:
        """Returns when another process runs under the name and is ready."""

        def restarted() -> bool:
            process = self.processes().get(name, {"pid": old_pid})
            return process["pid"] != old_pid and self._answers(name)

        wait_for(restarted, within_seconds=within_seconds, what=f"{name} runs again")

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        pids = _with_children(self.pid(name))
        _signal_each(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal_each(pids, signal.SIGCONT)

    @contextmanager
    def gone(self, name: str) -> Iterator[None]:
        """Nothing listens on its ports meanwhile; afterwards it runs and is ready again."""
        assert self._process is not None, "the suite does not run"
        freeze(self._process)
        pid = self.kill(name)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)
        self.wait_restarted(name, pid)

    def wait_ready(self, *, within_seconds: float = _READY_SECONDS) -> None:
        """Returns when every service says that it is ready."""
        wait_for(self._is_ready, within_seconds=within_seconds, what="every service is ready")

    def log(self, name: str) -> str:
        return self._folder.log(name).read_text(errors="replace")

    def secret(self, name: str) -> str:
        """A generated secret, by the name of its file below data/secrets."""
        return (self._folder.secrets / name).read_text()

    def dsn(self, role: str = "postgres") -> str:
        """The address of the suite's database for one of its roles, the superuser unless named."""
        password = self.secret(f"{role}_password")
        return f"postgresql://{role}:{password}@{HOST}:{self.ports.server('postgres')}/{DATABASE}"

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.terminal
        return all(self._answers(name) for name in OPERATIONS_PORTS)

    def _probe(self) -> None:
        probe_http(self.ports.operations("gateway"), "/health/ready")

    def _answers(self, name: str) -> bool:
        if name not in OPERATIONS_PORTS:
            return True
        try:
            probe_http(self.ports.operations(name), "/health/ready")
        except NotReady:
            return False
        return True


def _with_children(pid: int) -> list[int]:
    """A process and those that it made: Postgres answers from one for each connection."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def _signal_each(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.fixture(scope="session")
def start_suite(
    request: pytest.FixtureRequest, lasting_port_blocks: Callable[[], Ports], prometheus_binary: Path
) -> Iterator[Callable[..., Suite]]:
    started = request.config.stash.setdefault(_SUITES, [])

    def start(**environment: str) -> Suite:
        folder = Path(tempfile.mkdtemp(prefix="pulsegate-suite-"))
        folder.chmod(0o711)
        suite = Suite(folder / "data", lasting_port_blocks(), {**environment, "PROMETHEUS_BIN": str(prometheus_binary)})
        started.append(suite)
        suite.start()
        return suite

    yield start
    for suite in started:
        suite.stop()
        if not _kept():
            shutil.rmtree(suite.data.parent, ignore_errors=True)


def _kept() -> bool:
    return bool(os.environ.get("PULSEGATE_KEEP_TEST_DATA"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to a failure what the running suites have to say about it."""
    report = yield
    if report.failed:
        running = [suite for suite in item.config.stash.get(_SUITES, []) if suite.runs]
        report.sections += [(f"the suite on port {suite.port}", suite.log_ends()) for suite in running]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for suite in config.stash.get(_SUITES, []):
        if _kept():
            terminalreporter.write_line(f"kept: {suite.data.parent}")


@pytest.fixture(scope="session")
def suite(start_suite: Callable[..., Suite]) -> Suite:
    return start_suite(**TIRELESS)
