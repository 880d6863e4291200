"""Attacks on a gateway that go on beside its healthy traffic, from a process of their own.

`python -m tests.security.attacks URL KEY OTHER` (the key of another tenant) says `attacking` once it does, goes on
until its input ends, and then prints what became of each attack, in JSON: by attack how often each status came, with
the code of an error (`413 BODY_TOO_LARGE`), `cut` where the connection was ended instead, `late` where nothing came in
time.
"""

import asyncio
import gzip
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

import zstandard

from chassis import open_files

_IDLE = 10_000
_SLOW = 100
_BODY_BYTES = 10 << 20
_PAUSE_SECONDS = 0.25
#: More than a gateway waits for headers, and for a body.
_PATIENCE_SECONDS = 15.0
#: A good one of another tenant, as large as they may be.
_LARGE_BODY = json.dumps(
    {"metrics": [{"name": "render_seconds", "value": [0.25] * 1_000, "labels": {"n": str(n)}} for n in range(100)]}
).encode()
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n(?s:.*)\r\n\r\n", re.IGNORECASE)
_CODE = re.compile(rb'"code": *"([A-Z_]+)"')
_BOMB = b'{"metrics": [' + b" " * (50 << 20) + b"]}"


@dataclass
class Attacks:
    """All that goes on against one address."""

    host: str
    port: int
    key: str
    key_of_another: str
    tally: dict[str, Counter[str]] = field(default_factory=dict)

    async def go_on(self) -> None:
        """Until it is cancelled."""
        bodies = {
            "ten mebibytes": self._request(b" " * _BODY_BYTES),
            "gzip bomb": self._chunked(gzip.compress(_BOMB, 1), "gzip"),
            "zstd bomb": self._chunked(zstandard.compress(_BOMB), "zstd"),
            "large bodies of another tenant": self._request(_LARGE_BODY, self.key_of_another),
            "deep JSON": self._request(b'{"metrics": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
        }
        async with asyncio.TaskGroup() as group:
            for name, request in bodies.items():
                group.create_task(self._again_and_again(name, partial(self._answer, request)))
            for _ in range(_SLOW):
                group.create_task(self._again_and_again("slow headers", self._slow_headers))
                group.create_task(self._again_and_again("slow body", self._slow_body))

    def _head(self, *lines: str, key: str = "") -> bytes:
        head = ("POST /api/v1/metrics HTTP/1.1", "Host: x", f"X-API-Key: {key or self.key}")
        return "\r\n".join([*head, "Content-Type: application/json", *lines, "", ""]).encode()

    def _request(self, body: bytes, key: str = "") -> bytes:
        return self._head(f"Content-Length: {len(body)}", "Connection: close", key=key) + body

    def _chunked(self, body: bytes, encoding: str) -> bytes:
        head = self._head("Transfer-Encoding: chunked", f"Content-Encoding: {encoding}", "Connection: close")
        return head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"

    async def _again_and_again(self, name: str, attack: Callable[[], Awaitable[str]]) -> None:
        counts = self.tally.setdefault(name, Counter())
        while True:
            try:
                counts[await attack()] += 1
            except TimeoutError:
                counts["late"] += 1
            except (OSError, EOFError):
                counts["cut"] += 1
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _answer(self, request: bytes) -> str:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection(self.host, self.port)
            # It may be refused before all of it was read: the answer must be read before the end of the connection is.
            answer = asyncio.ensure_future(_outcome(reader))
            try:
                with suppress(ConnectionError):
                    writer.write(request)
                    await writer.drain()
                return await answer
            finally:
                answer.cancel()
                writer.close()

    async def _slow_headers(self) -> str:
        return await self._trickled(b"GET /health/live HTTP/1.1\r\nX-Slow: ")

    async def _slow_body(self) -> str:
        return await self._trickled(self._head("Content-Length: 100000") + b"{")

    async def _trickled(self, beginning: bytes) -> str:
        """Never whole: a byte a second."""
        async with asyncio.timeout(_PATIENCE_SECONDS + 10):
            reader, writer = await asyncio.open_connection(self.host, self.port)
            try:
                writer.write(beginning)
                answer = asyncio.ensure_future(_outcome(reader))
                while not answer.done():
                    writer.write(b"x")
                    await asyncio.wait([answer], timeout=1)
                return answer.result()
            finally:
                writer.close()

    async def hold_idle_ones(self) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connections that were answered once and ask nothing more."""
        held: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        while len(held) < _IDLE:
            opened = await asyncio.gather(*(asyncio.open_connection(self.host, self.port) for _ in range(100)))
            for _, writer in opened:
                writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.gather(*(_outcome(reader) for reader, _ in opened))
            held += opened
        return held


async def _outcome(reader: asyncio.StreamReader) -> str:
    """Status and code of one answer. Raises EOFError where the connection ends before it does, and OSError."""
    told = await reader.read(1 << 16)
    while (length := _CONTENT_LENGTH.search(told)) is None:
        told += await _more(reader)
    head, _, body = told.partition(b"\r\n\r\n")
    while len(body) < int(length[1]):
        body += await _more(reader)
    code = _CODE.search(body)
    return " ".join(part.decode() for part in (head.split(b" ")[1], *(code.groups() if code else ())))


def _is_open(reader: asyncio.StreamReader) -> bool:
    """Of a connection all of whose answers were read: neither ended nor reset by the other side."""
    return not reader.at_eof() and reader.exception() is None


async def _more(reader: asyncio.StreamReader) -> bytes:
    if found := await reader.read(1 << 16):
        return found
    raise EOFError


async def _main(url: str, key: str, key_of_another: str) -> None:
    open_files.allow_all()
    address = urlsplit(url)
    attacks = Attacks(address.hostname or "", address.port or 0, key, key_of_another)
    held = await attacks.hold_idle_ones()
    going_on = asyncio.create_task(attacks.go_on())
    print("attacking", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    attacks.tally["idle"] = Counter(held=sum(_is_open(reader) for reader, _ in held))
    going_on.cancel()
    with suppress(asyncio.CancelledError):
        await going_on
    print(json.dumps(attacks.tally), flush=True)
    os._exit(0)  # what is open is nobody's business any more


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
