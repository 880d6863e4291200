"""A receiver of remote write that a test scripts: what it answers, and what it took."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.unit.ingest.remote_write_schema import read

Samples = list[tuple[dict[str, str], float, int]]


@dataclass
class HttpSink:
    """Answers each request by `answer`; 0 breaks the connection off. While `held` is cleared it answers nothing."""

    url: str = ""
    answer: Callable[[Samples], int] = lambda _: 204
    answered: list[int] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    #: Values and Unix milliseconds by metric name, as they came.
    taken: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def latest(self, name: str) -> float | None:
        """The value with the newest time."""
        return max(self.taken[name])[1] if name in self.taken else None

    async def serve(self, request: web.Request) -> web.Response:
        samples = read(await request.read())
        self.headers.append(request.headers)
        await self.held.wait()
        status = self.answer(samples)
        self.answered.append(status)
        if status == 0 and request.transport is not None:
            request.transport.close()
        if status == 204:
            for labels, value, at_ms in samples:
                self.taken.setdefault(labels["__name__"], []).append((at_ms, value))
        return web.Response(status=status or 500, text=f"answer {status}")


@asynccontextmanager
async def listening() -> AsyncIterator[HttpSink]:
    sink = HttpSink()
    sink.held.set()
    application = web.Application(client_max_size=64 << 20)
    application.router.add_post("/write", sink.serve)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sink.url = f"http://127.0.0.1:{runner.addresses[0][1]}/write"
    try:
        yield sink
    finally:
        await runner.cleanup()
