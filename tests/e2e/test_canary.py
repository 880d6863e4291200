"""The canary on the running suite: right through kills and its own restart, and loud when it is lied to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from chassis.http_server import serving
from chassis.ids import uuid7
from deploy.local.layout import Ports
from services.canary.app import running
from services.canary.clients import METRIC
from services.canary.operations import Canary
from services.canary.settings import Settings
from tests.e2e.api import Project
from tests.suite_running import Suite
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def port(port_blocks: Callable[[], Ports]) -> int:
    return port_blocks().public


def _settings(project: Project, state: Path, port: int, url: str = "") -> Settings:
    return Settings(
        operations_port=port,
        gateway_url=url or project.api.base_url,
        key=project.secret_key,
        state=state,
        interval_seconds=0.05,
        patience_seconds=2.0 if url else 60.0,
    )


async def _all_seen(canary: Canary, at_least: int) -> None:
    async def seen() -> bool:
        verdict = canary.verdict
        assert verdict is None or not (verdict.lost or verdict.double), verdict
        return verdict is not None and canary.book.accepted >= at_least

    await eventually(seen, within_seconds=60, what=f"{at_least} units are accepted")


async def test_it_finds_nothing_wrong_while_processes_are_killed_and_it_is_restarted(
    suite: Suite, project: Project, tmp_path: Path, port: int
) -> None:
    await project.define(METRIC, labels=[{"name": "run", "required": True}])
    settings = _settings(project, tmp_path / "canary.json", port)
    async with running(settings) as canary:
        await _all_seen(canary, 20)
        for name in ("aggregator", "receiver", "gateway"):
            pid = suite.kill(name)
            await asyncio.to_thread(suite.wait_restarted, name, pid, within_seconds=60)
        await _all_seen(canary, canary.book.accepted + 20)
        before = canary.book
    async with running(settings) as canary:
        assert canary.book.run == before.run
        await _all_seen(canary, before.accepted + 20)
    await project.shows(METRIC, float(canary.book.accepted + canary.book.pending))


@asynccontextmanager
async def _lying(project: Project, port: int, *, repeat: bool) -> AsyncIterator[str]:
    """A gateway that says 202 to every batch, and passes every third one on not at all, or twice under another name."""
    async with ClientSession() as session:
        taken = 0

        async def metrics(request: web.Request) -> web.Response:
            nonlocal taken
            taken += 1
            batch = await request.json()
            producers = [batch["producer"]]
            if taken % 3 == 0:
                producers = [batch["producer"], str(uuid7())] if repeat else []
            for producer in producers:
                sent = await project.send(*batch["metrics"], producer=producer, sequence=batch["sequence"])
                assert sent.status == 202, sent.text
            return web.json_response({"accepted": 1}, status=202)

        async def query(request: web.Request) -> web.Response:
            headers = {"Authorization": request.headers["Authorization"]}
            address = f"{project.api.base_url}/prometheus/api/v1/query"
            async with session.get(address, params=request.query, headers=headers) as answer:
                return web.Response(status=answer.status, body=await answer.read())

        app = web.Application()
        app.add_routes([web.post("/api/v1/metrics", metrics), web.get("/prometheus/api/v1/query", query)])
        async with serving(app, "127.0.0.1", port):
            yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("repeat", [False, True], ids=["lost", "double"])
async def test_it_notices_what_is_lost_and_what_is_double(
    suite: Suite, project: Project, tmp_path: Path, port: int, repeat: bool
) -> None:
    await project.define(METRIC, labels=[{"name": "run", "required": True}])
    async with (
        _lying(project, port, repeat=repeat) as url,
        running(_settings(project, tmp_path / "canary.json", port + 1, url)) as canary,
    ):

        async def noticed() -> bool:
            verdict = canary.verdict
            return verdict is not None and bool(verdict.double if repeat else verdict.lost)

        await eventually(noticed, within_seconds=40, what="the canary notices")
        assert canary.verdict is not None
        assert not (canary.verdict.lost if repeat else canary.verdict.double)
