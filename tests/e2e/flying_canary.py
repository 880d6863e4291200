"""Canaries that fly: as a process of their own, with what they say, or within a test, where they may be lied to."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from aiohttp import ClientSession, web

from chassis.http_server import serving
from chassis.ids import uuid7
from pulsegate.canary import new_key
from pulsegate.observation import fetched
from services.canary.settings import Settings
from tests.e2e.api import PASSWORD, Project
from tests.kubelet import Cluster, RunningPod
from tests.waiting import eventually


def sees_everything_once(operations: str) -> bool:
    """Whether it has seen what it has sent; fails where something is lost or double."""
    status, told = fetched(f"{operations}/metrics")
    if status != 200:
        return False
    assert "pulsegate_canary_lost 0.0" in told, told
    assert "pulsegate_canary_double 0.0" in told, told
    return "pulsegate_canary_seen 0.0" not in told


async def finds_everything_once(cluster: Cluster, gateway: RunningPod, *, secret: str, key: str) -> None:
    """Makes its key where a gateway runs, puts it into a Secret, and lets it fly for a while."""
    door = f"http://{gateway.address}:{gateway.port('public')}"
    made = await asyncio.to_thread(new_key, door, "canary@example.com", PASSWORD)
    cluster.secrets[secret] = {**cluster.secrets.get(secret, {}), key: made}
    (canary,) = cluster.place([pod for pod in cluster.rendered.services() if pod.component == "canary"])
    canary.start()
    await asyncio.to_thread(canary.wait_ready)
    operations = f"http://{canary.address}:{canary.port('operations')}"

    async def seen() -> bool:
        return await asyncio.to_thread(sees_everything_once, operations)

    await eventually(seen, within_seconds=60, what="the canary sees what it has sent")
    assert canary.stop() == 0


def settings_for(project: Project, state: Path, port: int, url: str = "") -> Settings:
    """Of a canary within a test, with its operations port; at the gateway itself, or at `url`, with little patience."""
    return Settings(
        operations_port=port,
        gateway_url=url or project.api.base_url,
        key=project.secret_key,
        state=state,
        interval_seconds=0.05,
        patience_seconds=2.0 if url else 60.0,
    )


@contextmanager
def in_process_of_its_own(project: Project, folder: Path, port: int) -> Iterator[None]:
    """One that is scraped as it is, at the gateway itself. The project must have its definition."""
    told = {
        "PULSEGATE_OPS_PORT": str(port),
        "PULSEGATE_CANARY_URL": project.api.base_url,
        "PULSEGATE_CANARY_KEY": project.secret_key,
        "PULSEGATE_CANARY_STATE": str(folder / "canary.json"),
        "PULSEGATE_CANARY_INTERVAL_SECONDS": "0.5",
    }
    command = [sys.executable, "-m", "services.canary"]
    with (folder / "canary.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **told}, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


@asynccontextmanager
async def lying(project: Project, port: int, *, repeat: bool) -> AsyncIterator[str]:
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
