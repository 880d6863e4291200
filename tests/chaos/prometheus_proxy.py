"""A Prometheus that fails for a while: requests go through to the real one, or are answered as a test says."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum

import aiohttp
from aiohttp import web


class Says(IntEnum):
    """What the proxy does with a request; any other number is a status that it answers."""

    #: Breaks the connection off.
    NOTHING = 0
    #: Takes the request and keeps silent.
    SILENCE = 1
    #: Passes the request and its answer on.
    WHAT_PROMETHEUS_SAYS = 2


class PrometheusProxy:
    """In front of one address of remote write."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._answer: int = Says.WHAT_PROMETHEUS_SAYS
        self._changed = asyncio.Event()
        self.url = ""
        #: Requests by what was answered.
        self.answered: Counter[int] = Counter()

    def answer(self, what: int) -> None:
        """From now on; who waits for an answer loses the connection."""
        self._answer = what
        self._changed.set()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        application = web.Application(client_max_size=64 << 20)
        application.router.add_post("/api/v1/write", self._serve)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        async with aiohttp.ClientSession() as self._session:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1/write"
            try:
                yield
            finally:
                await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        body, answer = await request.read(), self._answer
        self.answered[answer] += 1
        if answer == Says.WHAT_PROMETHEUS_SAYS:
            async with self._session.post(self._upstream, data=body, headers=request.headers) as response:
                return web.Response(status=response.status, body=await response.read())
        if answer == Says.SILENCE:
            await self._changed.wait()
        if answer in (Says.SILENCE, Says.NOTHING):
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        return web.Response(status=answer, text="as the test says")
