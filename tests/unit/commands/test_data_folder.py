"""An installation of `make run`, found by its data folder while some of its processes are down."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from deploy.local.backing import backing_servers
from deploy.local.layout import CHECKOUT, DataFolder, Ports
from deploy.local.programs import Program
from deploy.local.supervisor import Supervisor
from tests.waiting import eventually


@pytest.fixture
async def folder(
    tmp_path: Path, port_blocks: Callable[[], Ports], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DataFolder]:
    """Of a supervisor whose Postgres, NATS and gateway have died; they are not started again meanwhile."""
    monkeypatch.setattr("deploy.local.supervisor._BACKOFF_SECONDS", (3600.0,))
    folder, ports = DataFolder(tmp_path), port_blocks()
    folder.make()
    backing = backing_servers(folder, ports, None)
    backing.role_passwords()
    backing.secrets.write("nats_url", backing.nats.url)
    backing.secrets.write("redis_url", backing.valkey.url)

    def sleeper(name: str, **listening: int) -> Program:
        return Program(
            name=name, argv=("sleep", "600"), log=folder.log(name), ports=listening, probe=lambda: None, environment={}
        )

    supervisor = Supervisor(folder.run_json, {"operations": {"gateway": ports.operations("gateway")}})
    postgres = sleeper("postgres", postgres=ports.server("postgres"))
    nats = sleeper("nats", nats=ports.server("nats"), monitoring=ports.server("nats-monitoring"))
    await supervisor.start([postgres, nats])
    await supervisor.start([sleeper("gateway", operations=ports.operations("gateway"))])
    for pid in filter(None, _pids(folder)):
        os.kill(pid, signal.SIGKILL)

    async def dead() -> bool:
        return not any(_pids(folder))

    await eventually(dead, what="all are down")
    yield folder
    await supervisor.stop()


def _pids(folder: DataFolder) -> list[int | None]:
    return [process["pid"] for process in json.loads(folder.run_json.read_text())["processes"]]


async def _told(folder: DataFolder, *arguments: str) -> str:
    """What a command says that cannot do what it is asked for."""
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "pulsegate", "--data", str(folder.root), *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout + ended.stderr


async def test_a_process_that_is_down_is_named(folder: DataFolder) -> None:
    assert (await _told(folder, "status")).startswith("gateway                      away ")
    assert "- gateway does not answer" in await _told(folder, "doctor")


async def test_without_postgres_it_is_said_that_the_database_does_not_answer(
    folder: DataFolder, tmp_path: Path
) -> None:
    assert (await _told(folder, "backup", str(tmp_path / "backup"))).startswith("Error: the database says: ")
