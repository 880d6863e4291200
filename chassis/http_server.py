"""aiohttp servers: the operations port that every service has, and the running of any aiohttp application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from chassis.health import Health


def health_routes(health: Health, *, public: bool = False) -> list[web.RouteDef]:
    """`/health/live`, `/health/ready` and `/health/startup`. In public they do not say why something is down."""

    async def live(_request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def ready(_request: web.Request) -> web.Response:
        status = 503 if health.status == "unready" else 200
        return web.json_response(health.report(with_reasons=not public), status=status)

    async def startup(_request: web.Request) -> web.Response:
        status = "started" if health.started else "starting"
        return web.json_response({"status": status}, status=200 if health.started else 503)

    return [
        web.get("/health/live", live),
        web.get("/health/ready", ready),
        web.get("/health/startup", startup),
    ]


class _Exposition:
    """`/metrics`, written beside the event loop, since many series take a tenth of a second; one at a time."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def answer(self, request: web.Request) -> web.Response:
        """As OpenMetrics, with exemplars, for those who ask for it, as Prometheus does."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        async with self._turn:
            body = await asyncio.to_thread(encode, REGISTRY)
        return web.Response(body=body, headers={"Content-Type": content_type})


@asynccontextmanager
async def serving_operations(host: str, port: int, health: Health) -> AsyncIterator[None]:
    """Health and metrics on the operations port while open."""
    app = web.Application()
    app.add_routes([*health_routes(health), web.get("/metrics", _Exposition().answer)])
    async with serving(app, host, port):
        yield


@asynccontextmanager
async def serving(
    app: web.Application,
    host: str,
    port: int,
    *,
    backlog: int = 128,
    drain_seconds: float = 10.0,
    keepalive_seconds: float = 75.0,
) -> AsyncIterator[None]:
    """Serves the application while open, then lets the requests under way finish for up to `drain_seconds`.

    Raises OSError where the port is taken.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=drain_seconds,
        keepalive_timeout=keepalive_seconds,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=backlog).start()
        yield
    finally:
        await runner.cleanup()
