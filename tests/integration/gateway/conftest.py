"""The gateway in this process, with a real Valkey, before played services.

Fixtures: `gateway`, a `Gateway` to call; `start_gateway`, which runs one with other settings.
"""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from deploy.local.layout import Ports
from deploy.local.servers import Valkey
from services.gateway.app import running
from services.gateway.settings import Settings
from tests.integration.gateway.fakes import (
    SERVICE_TOKEN,
    Played,
    PlayedAuth,
    PlayedConfig,
    PlayedReceiver,
    PlayedServer,
    registrations,
)
from tests.integration.gateway.running import Gateway, StartGateway
from tests.openapi_conformance import Conformance
from tests.suite_servers import RunningServer
from tests.waiting import eventually


@pytest.fixture
def start_gateway(port_blocks: Callable[[], Ports], valkey_server: RunningServer[Valkey]) -> StartGateway:
    @asynccontextmanager
    async def start(**changes: Any) -> AsyncIterator[Gateway]:
        ports, auth = port_blocks(), PlayedAuth()
        config, codegen, ingest = PlayedConfig(), Played(), PlayedReceiver(auth)
        servers = {
            name: PlayedServer(ports.grpc(name), served, auth)
            for name, served in registrations(auth, config, codegen, ingest).items()
        }
        for server in servers.values():
            await server.start()
        settings = Settings(**{**_settings(ports, valkey_server.server.url), **changes})
        try:
            async with running(settings), _client(settings) as session:
                gateway = Gateway(session, ports, auth, config, codegen, ingest, servers)
                await eventually(lambda: _is_ready(gateway), what="the gateway is ready")
                document = (await gateway.call("GET", "/api/v1/openapi.json")).json
                yield replace(gateway, conformance=Conformance(document))
        finally:
            for server in servers.values():
                await server.stop()

    return start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> AsyncIterator[Gateway]:
    async with start_gateway() as started:
        yield started


def _client(settings: Settings) -> aiohttp.ClientSession:
    trusting = ssl.create_default_context(cafile=settings.tls_certificate) if settings.tls_certificate else True
    scheme = "https" if settings.tls_certificate else "http"
    return aiohttp.ClientSession(f"{scheme}://127.0.0.1:{settings.port}", connector=aiohttp.TCPConnector(ssl=trusting))


async def _is_ready(gateway: Gateway) -> bool:
    """Every service is up, and the feed has begun."""
    ready = await gateway.call("GET", "/health/ready")
    return bool(ready.json["status"] == "ready")


def _settings(ports: Ports, redis_url: str) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": ports.public,
        "public_url": "https://metrics.example.com",
        "operations_port": ports.operations("gateway"),
        "service_token": SERVICE_TOKEN,
        "log_level": "info",
        "otlp_endpoint": None,
        "drain_seconds": 5.0,
        **{f"{name}_address": f"127.0.0.1:{ports.grpc(name)}" for name in ("auth", "config", "codegen")},
        "ingest_address": f"127.0.0.1:{ports.grpc('receiver')}",
        "ingest_streams": 1,
        "redis_url": redis_url,
        "prometheus_url": None,
        "default_plan": "enterprise",
        # Tests share an address and, within a session, a Valkey.
        "auth_requests_per_minute": 100_000,
        "ingest_requests_per_minute": None,
        "address_requests_per_15_minutes": 100_000,
        "replicas": 1,
        "auth_outage_grace_seconds": 30.0,
        "cors_origins": frozenset({"https://console.example.com"}),
        "trusted_proxies": (),
        # No test of anything else is of an attack's shape.
        "request_rules": "enforce",
        "request_timeout_seconds": 10.0,
        "query_timeout_seconds": 10.0,
        "slow_client_seconds": 10.0,
        "unready_seconds": 0.0,
        "upstream_calls": 256,
        "prometheus_queries": 16,
        "breaker_reset_seconds": 30.0,
    }
