"""The codegen service in this process, on a database of its own, between stand-ins for auth and config.

Fixtures: `codegen`, a `Codegen` to call; `start_codegen`, which runs one with other settings; `upstreams`, what it
calls; `ingestion`, where generated clients send to.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chassis import grpc_client
from deploy.local.layout import CHECKOUT, Ports
from services.codegen.app import running
from services.codegen.settings import Settings
from tests.integration.codegen import ingestion as scripted
from tests.integration.codegen import upstreams as stand_ins
from tests.integration.codegen.service import SERVICE_TOKEN, Codegen, StartCodegen
from tests.integration.codegen.upstreams import Upstreams
from tests.suite_database import Database


@pytest.fixture
async def upstreams() -> AsyncIterator[Upstreams]:
    async with stand_ins.serving() as serving:
        yield serving


@pytest.fixture
def start_codegen(upstreams: Upstreams, database: Database, port_blocks: Callable[[], Ports]) -> StartCodegen:
    """A function that runs the service, with settings of the caller's choice."""

    @asynccontextmanager
    async def start(**changes: Any) -> AsyncIterator[Codegen]:
        ports = port_blocks()
        settings: dict[str, Any] = {
            "host": "127.0.0.1",
            "operations_port": ports.operations("codegen"),
            "grpc_port": ports.grpc("codegen"),
            "service_token": SERVICE_TOKEN,
            "log_level": "info",
            "otlp_endpoint": None,
            "drain_seconds": 1.0,
            "dsn": database.dsn("codegen"),
            "auth_address": upstreams.address,
            "config_address": upstreams.address,
            "sdk_directory": CHECKOUT / "sdk",
            "artifact_retention_days": 400,
            "artifacts_per_project": 1000,
            "artifact_bytes_per_tenant": 256 << 20,
        }
        address = f"127.0.0.1:{ports.grpc('codegen')}"
        async with (
            running(Settings(**{**settings, **changes})),
            grpc_client.connected("codegen", address, SERVICE_TOKEN) as channel,
        ):
            yield Codegen(channel=channel, auth=upstreams.auth, ports=ports)

    return start


@pytest.fixture
async def codegen(start_codegen: StartCodegen) -> AsyncIterator[Codegen]:
    async with start_codegen() as started:
        yield started


@pytest.fixture
def ingestion() -> Iterator[scripted.Ingestion]:
    with scripted.serving() as serving:
        yield serving
