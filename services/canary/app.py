"""Puts the canary together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp

from chassis import http_server
from chassis.clock import SystemClock
from chassis.health import Health
from chassis.tasks import in_background
from services.canary.clients import Gateway
from services.canary.operations import Canary
from services.canary.settings import Settings
from services.canary.storage import BookFile

_TIMEOUT = aiohttp.ClientTimeout(total=15)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Canary]:
    """The canary flies inside the block."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=_TIMEOUT))
        canary = Canary(
            Gateway(session, settings.gateway_url, settings.following("key")),
            BookFile(settings.state),
            SystemClock(),
            interval_seconds=settings.interval_seconds,
            patience_seconds=settings.patience_seconds,
        )
        health = Health()
        # Soft: restarting the canary mends nothing.
        health.add("ingestion", canary.probe_sending, hard=False)
        health.add("queries", canary.probe_comparing, hard=False)
        await stack.enter_async_context(http_server.serving_operations(settings.host, settings.operations_port, health))
        await stack.enter_async_context(health.watching())
        await stack.enter_async_context(in_background(canary.send_for_ever(), canary.compare_for_ever()))
        yield canary
