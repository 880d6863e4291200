"""What `pulsegate doctor` says of a log's servers, asked themselves."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.layout import Ports
from deploy.local.servers import Nats
from pulsegate.doctor import findings
from pulsegate.installation import Installation
from pulsegate.observation import fetched
from tests.suite_servers import RunningServer
from tests.waiting import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def careless_nats(tmp_path: Path, port_blocks: Callable[[], Ports]) -> Iterator[str]:
    """The monitoring address of a server with JetStream as it is when nobody has said how often to sync."""
    ports = port_blocks()
    monitoring = ports.server("nats-monitoring")
    program = Path(sys.executable).parent / "nats-server"
    flags = ["--jetstream", "--store_dir", str(tmp_path), "--addr", "127.0.0.1"]
    command = [str(program), *flags, "--port", str(ports.server("nats")), "--http_port", str(monitoring)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        address = f"http://127.0.0.1:{monitoring}"
        wait_for(lambda: fetched(f"{address}/healthz")[0] == 200, what="NATS answers")
        yield address
        server.terminate()


def _said_of_the_log(*monitoring: str) -> list[str]:
    """What is found of it; the rest of the installation is nowhere."""
    nowhere = "http://127.0.0.1:9"
    installation = Installation(
        processes={},
        database="postgresql://127.0.0.1:9/nowhere",
        owners={},
        nats="",
        nats_monitoring=monitoring,
        prometheus=nowhere,
    )
    return [found.what for found in findings(installation) if "NATS" in found.what]


def test_a_server_that_does_not_sync_each_write_is_named(nats_server: RunningServer[Nats], careless_nats: str) -> None:
    right = f"http://127.0.0.1:{nats_server.server.monitoring_port}"
    assert _said_of_the_log(right, careless_nats) == [f"the NATS at {careless_nats} does not sync each write"]


def test_a_server_that_does_not_answer_is_named() -> None:
    (said,) = _said_of_the_log("http://127.0.0.1:9")
    assert said.startswith("NATS' monitoring does not answer at http://127.0.0.1:9 (")
