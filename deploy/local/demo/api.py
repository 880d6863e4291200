"""Calls of the public HTTP interface, as any client of it makes them."""

import json
from collections.abc import Mapping
from http import HTTPMethod
from typing import Any

import aiohttp

_TIMEOUT = aiohttp.ClientTimeout(total=30)


class ApiError(Exception):
    """A call was answered with an error."""

    def __init__(self, call: str, status: int, body: str) -> None:
        super().__init__(f"{call} answered {status}: {body}")
        self.status = status


class Api:
    """One gateway, called with one bearer token, or none."""

    def __init__(self, session: aiohttp.ClientSession, address: str, token: str | None = None) -> None:
        self._session = session
        self._address = address
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def with_token(self, token: str) -> "Api":
        """The same gateway, called with an access token or a secret key."""
        return Api(self._session, self._address, token)

    async def get(self, path: str, **query: str) -> Any:
        """The decoded JSON of the answer. Raises ApiError."""
        return json.loads(await self.get_text(path, **query))

    async def get_text(self, path: str, **query: str) -> str:
        """The text of the answer. Raises ApiError."""
        return await self._call(HTTPMethod.GET, path, params=query)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The decoded JSON of the answer. Raises ApiError."""
        return json.loads(await self._call(HTTPMethod.POST, path, json=body))

    async def _call(self, method: HTTPMethod, path: str, **content: Any) -> str:
        request = self._session.request(
            method, self._address + path, headers=self._headers, timeout=_TIMEOUT, **content
        )
        async with request as response:
            text = await response.text()
            if not response.ok:
                raise ApiError(f"{method} {path}", response.status, text)
            return text
