"""The config service in this process, on a database of its own, beside a stand-in for auth.

Fixtures: `config`, a `Config` to call; `start_config`, which runs one with other settings.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from chassis import grpc_client
from contracts.pulsegate.auth.v1 import accounts_pb2_grpc, audit_pb2_grpc, credentials_pb2_grpc
from deploy.local.layout import Ports
from services.config.app import running
from services.config.settings import Settings
from tests.integration.config.service import SERVICE_TOKEN, Config, StandInAudit, StandInProjects, StartConfig
from tests.stand_in_auth import StandInAuth
from tests.suite_database import Database


@pytest.fixture
def start_config(database: Database, port_blocks: Callable[[], Ports]) -> StartConfig:
    @asynccontextmanager
    async def start(**changes: Any) -> AsyncIterator[Config]:
        ports, auth = port_blocks(), StandInAuth()  # type: ignore[abstract]  # only what config calls
        audit = changes.pop("audit", None) or StandInAudit()  # type: ignore[abstract]
        projects = changes.pop("projects", None) or StandInProjects()  # type: ignore[abstract]
        auth_address = f"127.0.0.1:{ports.grpc('auth')}"
        settings: dict[str, Any] = {
            "host": "127.0.0.1",
            "operations_port": ports.operations("config"),
            "grpc_port": ports.grpc("config"),
            "service_token": SERVICE_TOKEN,
            "log_level": "info",
            "otlp_endpoint": None,
            "drain_seconds": 5.0,
            "dsn": database.dsn("config"),
            "auth_address": auth_address,
            "most_metrics_per_project": 2000,
            "most_definition_bytes": 64 << 20,
        }
        auth_server = grpc.aio.server()
        credentials_pb2_grpc.add_CredentialServiceServicer_to_server(auth, auth_server)
        audit_pb2_grpc.add_AuditServiceServicer_to_server(audit, auth_server)
        accounts_pb2_grpc.add_AccountServiceServicer_to_server(projects, auth_server)
        auth_server.add_insecure_port(auth_address)
        await auth_server.start()
        try:
            async with (
                grpc_client.connected("config", f"127.0.0.1:{ports.grpc('config')}", SERVICE_TOKEN) as channel,
                running(Settings(**{**settings, **changes})),
            ):
                yield Config(channel=channel, auth=auth, audit=audit, projects=projects, ports=ports)
        finally:
            await auth_server.stop(0)

    return start


@pytest.fixture
async def config(start_config: StartConfig) -> AsyncIterator[Config]:
    async with start_config() as started:
        yield started
