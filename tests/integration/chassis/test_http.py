"""HTTP servers of the chassis: the operations port, and a graceful end."""

import asyncio
import time
from collections.abc import Callable

import pytest
from aiohttp import ClientConnectionError, ClientSession, web

from chassis.health import Health
from chassis.http_server import serving, serving_operations
from deploy.local.layout import Ports


class Work:
    """A request that takes until it is released."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.release = asyncio.Event()

    def application(self) -> web.Application:
        async def work(_request: web.Request) -> web.Response:
            self.begun.set()
            await self.release.wait()
            return web.Response(text="finished")

        app = web.Application()
        app.add_routes([web.get("/work", work)])
        return app


async def get(port: int, path: str) -> tuple[int, str]:
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def test_health_is_told_by_status_codes(port_blocks: Callable[[], Ports]) -> None:
    fault: list[Exception] = []

    async def probe() -> None:
        for error in fault:
            raise error

    health, port = Health(), port_blocks().public
    health.add("postgres", probe, hard=True)
    async with serving_operations("127.0.0.1", port, health):

        async def codes() -> list[int]:
            return [(await get(port, f"/health/{path}"))[0] for path in ("live", "ready", "startup")]

        assert await codes() == [200, 503, 503]
        await health.refresh()
        assert await codes() == [200, 200, 200]
        fault.append(OSError("refused"))
        await health.refresh()
        assert await codes() == [200, 503, 200]
        _, body = await get(port, "/health/ready")
        assert '"postgres": {"status": "down", "hard": true' in body


async def test_metrics_are_exposed(port_blocks: Callable[[], Ports]) -> None:
    port = port_blocks().public
    async with serving_operations("127.0.0.1", port, Health()):
        status, body = await get(port, "/metrics")
    assert status == 200
    assert "# TYPE pulsegate_grpc_server_duration_seconds histogram" in body


async def test_requests_under_way_are_finished_before_the_end_and_new_ones_refused(
    port_blocks: Callable[[], Ports],
) -> None:
    port, work = port_blocks().public, Work()
    async with serving(work.application(), "127.0.0.1", port):
        request = asyncio.create_task(get(port, "/work"))
        await work.begun.wait()
        asyncio.get_running_loop().call_later(0.3, work.release.set)
    assert await request == (200, "finished")
    with pytest.raises(ClientConnectionError):
        await get(port, "/work")


async def test_requests_that_do_not_finish_are_cut_off_after_the_grace(port_blocks: Callable[[], Ports]) -> None:
    port, work = port_blocks().public, Work()
    async with serving(work.application(), "127.0.0.1", port, drain_seconds=0.2):
        request = asyncio.create_task(get(port, "/work"))
        await work.begun.wait()
        began = time.monotonic()
    assert time.monotonic() - began < 8  # without a grace of its own it would be given ten
    with pytest.raises(ClientConnectionError):
        await request


async def test_idle_connections_do_not_keep_it_from_ending(port_blocks: Callable[[], Ports]) -> None:
    port, health = port_blocks().public, Health()
    async with ClientSession() as session:
        async with serving_operations("127.0.0.1", port, health):
            async with session.get(f"http://127.0.0.1:{port}/health/live") as response:
                assert response.status == 200
            began = time.monotonic()
        assert time.monotonic() - began < 8  # requests under way would be given ten


async def test_a_port_that_is_taken_is_an_error(port_blocks: Callable[[], Ports]) -> None:
    port = port_blocks().public
    async with serving_operations("127.0.0.1", port, Health()):
        with pytest.raises(OSError, match="address already in use"):
            async with serving_operations("127.0.0.1", port, Health()):
                pass
