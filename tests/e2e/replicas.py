"""Further processes of a service beside those of the running suite, as a cluster has them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.programs import NotReady, Program, probe_http
from tests.suite_running import Suite
from tests.waiting import wait_for


class Replica:
    """One such process, with the settings of the suite's own except for what is changed."""

    def __init__(self, suite: Suite, service: str, operations_port: int, *module: str, **changes: str) -> None:
        inherited = Path(f"/proc/{suite.pid(service)}/environ").read_bytes().decode()
        environment = dict(variable.split("=", 1) for variable in inherited.rstrip("\0").split("\0"))
        self._operations_port = operations_port
        self._program = Program(
            name=f"further {service}",
            argv=(sys.executable, "-m", *module),
            log=suite.data / "logs" / f"{service}-{operations_port}.log",
            ports={},
            probe=lambda: None,
            environment={**environment, "PULSEGATE_OPS_PORT": str(operations_port), **changes},
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """To be called from a thread that stays: it ends with that."""
        self._process = self._program.start()

    def wait_ready(self) -> None:
        """Returns when it is ready."""
        wait_for(self._is_ready, within_seconds=60, what=f"the {self._program.name} is ready")

    def stop(self) -> None:
        """Asks it to end, and returns when it has, in good order."""
        assert self._process is not None, "it does not run"
        self._process.terminate()
        assert self._process.wait(timeout=30) == 0, self._program.log.read_text()
        self._process = None

    def kill(self) -> None:
        """Ends it if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _is_ready(self) -> bool:
        try:
            probe_http(self._operations_port, "/health/ready")
        except NotReady:
            return False
        return True


@contextmanager
def running(replica: Replica) -> Iterator[Replica]:
    """It runs while open, and is asked to end then."""
    try:
        replica.start()
        replica.wait_ready()
        yield replica
        replica.stop()
    finally:
        replica.kill()
