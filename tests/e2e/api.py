"""The public HTTP interface as a client written from its contract sees it; knows nothing of the code behind it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from chassis.ids import uuid7

PASSWORD = "correct horse battery staple"

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Json:
        parsed: Json = json.loads(self.text)
        return parsed

    @property
    def code(self) -> str:
        """The stable code of an error."""
        return str(self.json["error"]["code"])


class UnavailableError(Exception):
    """Something behind the gateway is away."""


class Api:
    """Calls to one address."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self.base_url = base_url

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        credential: str = "",
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        params: Mapping[str, str] | None = None,
        timeout_seconds: float = 15.0,
    ) -> Answer:
        """One request; `credential` goes into the Authorization header."""
        sent = dict(headers or {})
        if credential:
            sent["Authorization"] = f"Bearer {credential}"
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self._session.request(
            method,
            self.base_url + path,
            data=data,
            headers=sent,
            params=params,
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        ) as response:
            return Answer(response.status, response.headers, await response.text())

    async def expect(self, status: int, method: str, path: str, body: Any = None, **options: Any) -> Json:
        """A call that must answer this status; its JSON."""
        answer = await self.call(method, path, body, **options)
        assert answer.status == status, f"{method} {path}: {answer.status} {answer.text}"
        return answer.json if answer.text else {}


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project with its owner's token and a key of each kind."""

    api: Api
    tenant_id: str
    id: str
    email: str
    token: str
    refresh_token: str
    secret_key: str
    secret_key_id: str
    publishable_key: str
    publishable_key_id: str

    async def define(self, name: str, kind: str = "counter", **spec: Any) -> Json:
        return await self.api.expect(
            201,
            "POST",
            f"/api/v1/projects/{self.id}/metrics",
            {"name": name, "type": kind, "help": f"What {name} counts.", **spec},
            credential=self.token,
        )

    async def create_key(self, kind: str, **options: Any) -> Json:
        return await self.api.expect(
            201,
            "POST",
            f"/api/v1/projects/{self.id}/keys",
            {"name": f"a {kind} key", "kind": kind, **options},
            credential=self.token,
        )

    async def send(self, *metrics: Json, key: str = "", **batch: Any) -> Answer:
        return await self.api.call(
            "POST", "/api/v1/metrics", {**batch, "metrics": metrics}, credential=key or self.secret_key
        )

    async def query(self, expression: str) -> list[Json]:
        """The series that a PromQL expression answers now, through the gateway."""
        answer = await self.api.call(
            "GET", "/prometheus/api/v1/query", credential=self.secret_key, params={"query": expression}
        )
        if answer.status == 503:
            raise UnavailableError(answer.text)
        assert answer.status == 200, f"{expression}: {answer.status} {answer.text}"
        result: list[Json] = answer.json["data"]["result"]
        return result

    async def value(self, expression: str) -> float | None:
        """The only value that an expression answers; None where there is none."""
        result = await self.query(expression)
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    async def shows(self, expression: str, *values: float | None, within_seconds: float = 60.0) -> None:
        """Waits until the expression answers one of the values; what is away for a moment (503) is asked again."""

        async def seen() -> float | str | None:
            try:
                return await self.value(expression)
            except UnavailableError as away:
                return str(away)

        deadline = time.monotonic() + within_seconds
        while True:
            asked = time.monotonic()
            if (last := await seen()) in values:
                return
            assert asked < deadline, f"{expression} answers {last}, not one of {values}"
            await asyncio.sleep(0.1)


@asynccontextmanager
async def connected(base_url: str) -> AsyncIterator[Api]:
    """An `Api` with a connection pool of its own."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as session:
        yield Api(session, base_url)


async def sign_up(api: Api, *, origins: list[str] | None = None) -> Project:
    """A new tenant, its first project and a key of each kind."""
    email = f"{uuid7()}@example.com"
    account = await api.expect(
        201,
        "POST",
        "/api/v1/auth/signup",
        {"email": email, "password": PASSWORD, "tenantName": "Analytical Engines"},
    )
    token, project_id = account["accessToken"], account["project"]["id"]

    async def key(kind: str, **options: Any) -> Json:
        path = f"/api/v1/projects/{project_id}/keys"
        return await api.expect(201, "POST", path, {"name": kind, "kind": kind, **options}, credential=token)

    secret = await key("secret", scopes=["ingest:write", "query:read"])
    publishable = await key("publishable", allowedOrigins=origins or ["*"])
    return Project(
        api=api,
        tenant_id=account["tenant"]["id"],
        id=project_id,
        email=email,
        token=token,
        refresh_token=account["refreshToken"],
        secret_key=secret["key"],
        secret_key_id=secret["id"],
        publishable_key=publishable["key"],
        publishable_key_id=publishable["id"],
    )
