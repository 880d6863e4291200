"""API keys of a project."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from chassis.errors import Invalid
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from services.gateway.clients import Accounts
from services.gateway.http_api.bodies import (
    answer,
    listed,
    moment,
    no_content,
    optional_moment,
    page,
    parse,
    path_id,
)
from services.gateway.routes import Door, Route

_KINDS = {"publishable": pb.KEY_KIND_PUBLISHABLE, "secret": pb.KEY_KIND_SECRET}
_KIND_NAMES = {kind: name for name, kind in _KINDS.items()}


class NewKey(msgspec.Struct):
    name: str
    kind: Literal["publishable", "secret"]
    scopes: list[str] = []
    allowed_origins: list[str] = msgspec.field(name="allowedOrigins", default_factory=list)
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = msgspec.field(name="expiresAt", default=None)


class KeyName(msgspec.Struct):
    name: str


def _expiry(moment: datetime | None) -> datetime | None:
    """Raises Invalid where the moment has no place on every clock that it meets on its way."""
    if moment is not None and not 1970 <= moment.year <= 9998:
        raise Invalid.fields({"expiresAt": "must lie in the years 1970 to 9998"})
    return moment


class KeyRoutes:
    """`/api/v1/projects/{projectId}/keys`"""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def routes(self) -> Sequence[Route]:
        keys = "/api/v1/projects/{projectId}/keys"
        return [
            Route("GET", keys, self.list, Door.READ),
            Route("POST", keys, self.create, Door.WRITE),
            Route("PATCH", keys + "/{keyId}", self.rename, Door.WRITE),
            Route("DELETE", keys + "/{keyId}", self.revoke, Door.WRITE),
        ]

    async def list(self, request: web.Request) -> web.Response:
        found = await self._accounts.keys(path_id(request, "projectId"), *page(request))
        return listed([_render(key) for key in found.keys], found.next_page_token)

    async def create(self, request: web.Request) -> web.Response:
        body = await parse(request, NewKey)
        made = await self._accounts.create_key(
            path_id(request, "projectId"),
            body.name,
            _KINDS[body.kind],
            body.scopes,
            body.allowed_origins,
            _expiry(body.expires_at),
        )
        return answer({**_render(made.key), "key": made.token}, status=201)

    async def rename(self, request: web.Request) -> web.Response:
        body = await parse(request, KeyName)
        key = await self._accounts.rename_key(path_id(request, "projectId"), path_id(request, "keyId"), body.name)
        return answer(_render(key))

    async def revoke(self, request: web.Request) -> web.Response:
        await self._accounts.revoke_key(path_id(request, "projectId"), path_id(request, "keyId"))
        return no_content()


def _render(key: pb.Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "kind": _KIND_NAMES.get(key.kind, ""),
        "scopes": list(key.scopes),
        "prefix": key.prefix,
        "allowedOrigins": list(key.allowed_origins),
        "createdAt": moment(key.created_at),
        "expiresAt": optional_moment(key, "expires_at"),
        "revokedAt": optional_moment(key, "revoked_at"),
    }
