"""A gateway in this process, in front of played services."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from chassis import api_keys
from deploy.local.layout import Ports
from tests.integration.gateway.fakes import Played, PlayedAuth, PlayedConfig, PlayedReceiver, PlayedServer
from tests.openapi_conformance import Conformance


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    #: None where it is no JSON.
    json: Any

    @property
    def code(self) -> str:
        """The code of an error."""
        return str(self.json["error"]["code"])


@dataclass(frozen=True)
class Gateway:
    """The gateway under test and what stands behind it."""

    session: aiohttp.ClientSession
    ports: Ports
    auth: PlayedAuth
    config: PlayedConfig
    codegen: Played
    ingest: PlayedReceiver
    servers: Mapping[str, PlayedServer]
    #: What its answers are held to; None until it is ready.
    conformance: Conformance | None = None

    @property
    def public_port(self) -> int:
        return self.ports.public

    async def call(
        self, method: str, path: str, *, credential: str = "", headers: Mapping[str, str] | None = None, **body: Any
    ) -> Answer:
        """One request. `credential` goes where the contract says that it belongs."""
        sent = dict(headers or {})
        if credential and api_keys.kind_of(credential):
            sent["X-API-Key"] = credential
        elif credential:
            sent["Authorization"] = f"Bearer {credential}"
        async with self.session.request(method, path, headers=sent, allow_redirects=False, **body) as response:
            content = await response.read()
            if self.conformance is not None:
                self.conformance.check(method, path, response.status, response.headers, content)
            is_json = response.content_type in ("application/json", "application/scim+json") and content
            decoded = await response.json(content_type=None) if is_json else None
            return Answer(response.status, response.headers, content, decoded)

    async def shown(self, sample: str) -> float:
        """What its metrics say of one; 0 where they do not name it."""
        operations = f"http://127.0.0.1:{self.ports.operations('gateway')}/metrics"
        exposition = (await self.call("GET", operations)).body.decode()
        return next((float(line.split()[-1]) for line in exposition.splitlines() if line.startswith(f"{sample} ")), 0.0)

    @asynccontextmanager
    async def not_reading(self, path: str, credential: str, accept: str = "*/*") -> AsyncIterator[None]:
        """A client that has asked with a key and does not read what it is told."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.public_port, limit=1)
        headers = f"Host: x\r\nX-API-Key: {credential}\r\nAccept: {accept}\r\n"
        writer.write(f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode())
        yield
        writer.transport.abort()

    async def ingest_one(self, key: str, **headers: str) -> Answer:
        """One small batch."""
        return await self.call("POST", "/api/v1/metrics", credential=key, json={"metrics": []}, headers=headers)


class StartGateway(Protocol):
    """Starts a gateway with some settings changed."""

    def __call__(self, **changes: Any) -> AbstractAsyncContextManager[Gateway]: ...
