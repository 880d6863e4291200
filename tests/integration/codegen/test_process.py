"""`python -m services.codegen` as the deployer runs it."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import aiohttp

from deploy.local.layout import Ports
from tests.integration.codegen.service import start
from tests.suite_database import Database
from tests.waiting import eventually


async def test_it_starts_before_the_services_it_calls_and_ends_on_sigterm(
    database: Database, port_blocks: Callable[[], Ports]
) -> None:
    ports = port_blocks()
    url = f"http://127.0.0.1:{ports.operations('codegen')}/health/ready"

    async def report() -> dict[str, Any]:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.get(url) as response:
                    body: dict[str, Any] = await response.json()
            except aiohttp.ClientConnectionError:
                return {}
        down = body["checks"]["config"]["status"] == "down"
        return body if down and body["status"] == "degraded" else {}

    process = await start(
        PULSEGATE_OPS_PORT=str(ports.operations("codegen")),
        PULSEGATE_GRPC_PORT=str(ports.grpc("codegen")),
        PULSEGATE_SERVICE_TOKEN="token-only-for-tests",
        PULSEGATE_POSTGRES_DSN=database.dsn("codegen"),
        PULSEGATE_AUTH_ADDRESS=f"127.0.0.1:{ports.grpc('auth')}",
        PULSEGATE_CONFIG_ADDRESS=f"127.0.0.1:{ports.grpc('config')}",
    )
    try:
        checks = (await eventually(report, within_seconds=60, what="degraded without config"))["checks"]
        assert {name for name, check in checks.items() if check["hard"]} == {"postgres"}
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, errors.decode()


async def test_it_names_every_setting_at_fault_and_migrates_as_the_owner(database: Database) -> None:
    process = await start()
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 78
    for name in ("OPS_PORT", "SERVICE_TOKEN", "GRPC_PORT", "POSTGRES_DSN", "AUTH_ADDRESS", "CONFIG_ADDRESS"):
        assert f"PULSEGATE_{name}: is required" in errors.decode()

    process = await start("migrate", PULSEGATE_POSTGRES_OWNER_DSN=database.owner_dsn("codegen"))
    assert await asyncio.wait_for(process.wait(), 30) == 0
    process = await start("migrat")
    assert await asyncio.wait_for(process.wait(), 30) == 1
