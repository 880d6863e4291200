"""Clients that ask for much and read little: cut, while those that merely read slowly get everything."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from deploy.local.layout import Ports
from services.gateway import connections
from services.gateway.http_api import Api
from services.gateway.middlewares import Pipeline
from services.gateway.request_rules import RequestRules
from services.gateway.routes import Audience, Operation, Route
from services.gateway.shares import HeldBytes
from tests.waiting import eventually

_PATIENCE_SECONDS = 0.3
#: More than kernels keep of what was not read.
_MOST_BYTES = 32 << 20
_REQUEST = b"GET /much HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Much:
    """A resource with one large answer."""

    title = "Much"

    def routes(self) -> Sequence[Route]:
        return [Route("GET", "/much", self.get, Audience.OPEN, Operation("Much", {200: None}))]

    async def get(self, _request: web.Request) -> web.Response:
        return web.Response(body=bytes(_MOST_BYTES))


@pytest.fixture
async def port(port_blocks: Callable[[], Ports]) -> AsyncIterator[int]:
    pipeline = Pipeline(
        RequestRules("off"),
        HeldBytes("answers", 2 * _MOST_BYTES),
        timeout_seconds=10,
        slow_client_seconds=_PATIENCE_SECONDS,
        cors_origins=frozenset(),
    )
    port = port_blocks().public
    async with connections.serving(
        Api([Much()], {Audience.OPEN: []}, pipeline),
        "127.0.0.1",
        port,
        certificate=None,
        patience_seconds=_PATIENCE_SECONDS,
        drain_seconds=1,
    ):
        yield port


async def asking(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has asked for much, and whose kernel takes little of it."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    narrow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=narrow)
    writer.write(_REQUEST)
    return reader, writer


def cut() -> float:
    """Clients cut so far for not reading."""
    return REGISTRY.get_sample_value("pulsegate_gateway_slow_clients_total", {"part": "answer"}) or 0.0


async def read(reader: asyncio.StreamReader, *, pause_seconds: float) -> int:
    """Bytes until the connection ends, a quarter of a mebibyte or less between two pauses."""
    taken = 0
    try:
        while chunk := await reader.read(1 << 18):
            taken += len(chunk)
            await asyncio.sleep(pause_seconds)
    except ConnectionResetError:
        pass
    return taken


async def test_a_client_that_does_not_read_is_cut(port: int) -> None:
    before = cut()
    reader, writer = await asking(port)

    async def is_cut() -> bool:
        return cut() == before + 1

    await eventually(is_cut, what="the connection is cut")
    assert await read(reader, pause_seconds=0) < _MOST_BYTES
    writer.close()


async def test_a_client_that_reads_slowly_gets_everything(port: int) -> None:
    before = cut()
    reader, writer = await asking(port)
    assert await read(reader, pause_seconds=0.005) > _MOST_BYTES
    assert cut() == before
    writer.close()
