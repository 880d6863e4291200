"""config as the process that an installation runs."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiohttp import ClientSession

from chassis.errors import Unavailable
from chassis.grpc_client import connected
from chassis.migrations import migrate
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from contracts.pulsegate.config.v1 import definitions_pb2_grpc as pb_grpc
from deploy.local.layout import CHECKOUT, Ports
from services.config.app import MIGRATIONS
from tests.integration.config.service import StartConfig, counter
from tests.suite_database import Database
from tests.waiting import eventually, wait_for


def environment(database: Database, ports: Ports) -> dict[str, str]:
    return {
        **os.environ,
        "PULSEGATE_OPS_PORT": str(ports.operations("config")),
        "PULSEGATE_GRPC_PORT": str(ports.grpc("config")),
        "PULSEGATE_POSTGRES_DSN": database.dsn("config"),
        "PULSEGATE_AUTH_ADDRESS": f"127.0.0.1:{ports.grpc('auth')}",
        "PULSEGATE_SERVICE_TOKEN": "shared",
        "PULSEGATE_DRAIN_SECONDS": "60",  # longer than any of these tests waits for its end
    }


@contextmanager
def process(database: Database, ports: Ports, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The service, started; killed at the end where it still runs."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", "services.config"], cwd=CHECKOUT, env=environment(database, ports), stdout=output
        )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def readiness(ports: Ports) -> dict[str, Any]:
    """What `/health/ready` answers; empty where nothing does, or where it is 503."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{ports.operations('config')}/health/ready") as response:
            found: dict[str, Any] = json.load(response)
            return found
    except OSError:
        return {}


def test_it_serves_without_auth_and_says_so(
    database: Database, port_blocks: Callable[[], Ports], tmp_path: Path
) -> None:
    ports = port_blocks()
    with process(database, ports, tmp_path / "log"):
        report = wait_for(lambda: readiness(ports), within_seconds=60)
    assert report["status"] == "degraded"
    assert {name: (check["status"], check["hard"]) for name, check in report["checks"].items()} == {
        "postgres": ("up", True),
        "auth": ("down", False),
    }
    assert database.dsn("config") not in (tmp_path / "log").read_text()


async def test_it_ends_soon_although_it_is_watched(
    database: Database, port_blocks: Callable[[], Ports], tmp_path: Path
) -> None:
    ports = port_blocks()
    address = f"127.0.0.1:{ports.grpc('config')}"
    async with connected("config", address, "shared") as channel:
        watch = pb_grpc.DefinitionFeedServiceStub(channel.grpc_channel).WatchDefinitions
        with process(database, ports, tmp_path / "log") as started:
            wait_for(lambda: readiness(ports), within_seconds=60)
            messages = channel.stream(watch, pb.WatchDefinitionsRequest())
            assert (await anext(messages)).snapshot_complete
            started.send_signal(signal.SIGTERM)
            async for _ in messages:  # ends, and without an error
                pass
            assert started.wait(timeout=30) == 0


async def test_it_waits_for_its_schema_and_says_so(start_config: StartConfig, database: Database) -> None:
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("DROP SCHEMA config CASCADE")
        connection.execute("CREATE SCHEMA config AUTHORIZATION config_owner")
        connection.execute("GRANT USAGE ON SCHEMA config TO config, config_feed")
    async with start_config() as config, ClientSession() as session:
        address = f"http://127.0.0.1:{config.ports.operations('config')}/health/ready"

        async def status() -> int:
            async with session.get(address) as response:
                return response.status

        async def says_what_is_missing() -> bool:
            async with session.get(address) as response:
                report = await response.json()
                return "this code needs" in report["checks"]["postgres"].get("reason", "")

        await eventually(says_what_is_missing)
        assert await status() == 503
        with pytest.raises(Unavailable):
            await config.person().list()
        await migrate("config", MIGRATIONS, database.owner_dsn("config"))

        async def ready() -> bool:
            return await status() == 200

        await eventually(ready)
        async with config.watching() as feed:
            assert await feed.snapshot() == []
            created = await config.person().create(counter())
            assert list((await feed.next_change()).metrics) == [created]


def test_wrong_settings_are_all_named_and_end_it() -> None:
    wrong = {
        "PATH": os.environ["PATH"],
        "PULSEGATE_OPS_PORT": "http",
        "PULSEGATE_GRPC_PORT": "5",
        "PULSEGATE_AUTH_ADDRESS": "auth",
        "PULSEGATE_CONFIG_METRICS_PER_PROJECT": "0",
        "PULSEGATE_DEFINITIONS_BYTES": "1000",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "services.config"], cwd=CHECKOUT, env=wrong, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 78
    for variable in (
        "PULSEGATE_OPS_PORT",
        "PULSEGATE_AUTH_ADDRESS",
        "PULSEGATE_CONFIG_METRICS_PER_PROJECT",
        "PULSEGATE_DEFINITIONS_BYTES",
        "PULSEGATE_POSTGRES_DSN",
        "PULSEGATE_SERVICE_TOKEN",
    ):
        assert variable in ended.stderr
    assert "PULSEGATE_GRPC_PORT" not in ended.stderr


@pytest.mark.parametrize("password", ["s3cr%zz", "s3cr/et"])
def test_an_address_that_cannot_be_read_ends_migrations_and_is_not_told(password: str) -> None:
    address = {"PULSEGATE_POSTGRES_OWNER_DSN": f"postgresql://config_owner:{password}@localhost/pulsegate"}
    ended = subprocess.run(
        [sys.executable, "-m", "services.config", "migrate"],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], **address},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 78
    assert "PULSEGATE_POSTGRES_OWNER_DSN: must be a well-formed address" in ended.stderr
    assert "s3cr" not in ended.stdout + ended.stderr
