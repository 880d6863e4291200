"""API keys of a project."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from chassis.errors import Invalid
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from services.gateway.clients.accounts import Accounts
from services.gateway.clients.messages import timestamp
from services.gateway.http_api.bodies import (
    Asking,
    Page,
    Taking,
    answer,
    moment,
    no_content,
    optional_moment,
    path_id,
    shown_once,
)
from services.gateway.http_api.shapes import Asked, Id, Moment, Name, Told
from services.gateway.routes import Audience, Operation, Route

KindName = Literal["publishable", "secret"]
_KINDS: Mapping[KindName, "pb.KeyKind.ValueType"] = {
    "publishable": pb.KEY_KIND_PUBLISHABLE,
    "secret": pb.KEY_KIND_SECRET,
}
_KIND_NAMES = {kind: name for name, kind in _KINDS.items()}

ScopeName = Literal["ingest:write", "query:read", "config:read", "config:write", "audit:read", "usage:read"]


class NewKey(Asked):
    name: Name
    kind: KindName
    #: Of a secret key, one at least.
    scopes: tuple[ScopeName, ...] = ("ingest:write",)
    #: Of a publishable key: origins such as https://shop.example, or *.
    allowed_origins: list[str] = msgspec.field(default_factory=list)
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class KeyChanges(Asked):
    """What is left out stays as it is."""

    name: Name | None = None
    #: Of a publishable key.
    allowed_origins: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None
    #: null: never.
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | msgspec.UnsetType | None = msgspec.UNSET


class Rotation(Asked):
    #: How long the key goes on working beside the new one; 0: not at all.
    grace_seconds: Annotated[int, msgspec.Meta(ge=0, le=2_592_000)]


class Key(Told):
    id: Id
    name: str
    kind: KindName
    scopes: list[str]
    prefix: str
    allowed_origins: list[str]
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    #: Within minutes.
    last_used_at: Moment | None


class NewlyMadeKey(Key):
    #: The key itself, which is shown only here.
    key: str


class Keys(Told):
    items: list[Key]
    next_page_token: str


def _within_calendars(moment: datetime) -> datetime:
    """Raises Invalid where the moment has no place on every clock that it meets on its way."""
    if not 1970 <= moment.year <= 9998:
        raise Invalid.fields({"expiresAt": "must lie in the years 1970 to 9998"})
    return moment


class KeyRoutes:
    """`/api/v1/projects/{projectId}/keys`"""

    title = "API keys"

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def routes(self) -> Sequence[Route]:
        keys = "/api/v1/projects/{projectId}/keys"
        return [
            Route("GET", keys, Asking(Page, self.list), Audience.READ, Operation("List keys", {200: Keys})),
            Route(
                "POST",
                keys,
                Taking(NewKey, self.create),
                Audience.WRITE,
                Operation("Make a key", {201: NewlyMadeKey}, "The key itself is shown only here.", errors=(409,)),
            ),
            Route(
                "PATCH",
                keys + "/{keyId}",
                Taking(KeyChanges, self.change),
                Audience.WRITE,
                Operation("Change a key", {200: Key}, "A dead key can only be renamed.", errors=(409,)),
            ),
            Route(
                "POST",
                keys + "/{keyId}/rotate",
                Taking(Rotation, self.rotate),
                Audience.WRITE,
                Operation(
                    "Rotate a key",
                    {201: NewlyMadeKey},
                    "Makes one with the same rights. The new key itself is shown only here.",
                    errors=(409,),
                ),
            ),
            Route("DELETE", keys + "/{keyId}", self.revoke, Audience.WRITE, Operation("Revoke a key", {204: None})),
        ]

    async def list(self, request: web.Request, page: Page) -> web.Response:
        found = await self._accounts.keys(path_id(request, "projectId"), page.page_size, page.page_token)
        return answer(Keys([Key(**_members(key)) for key in found.keys], found.next_page_token))

    async def create(self, request: web.Request, new: NewKey) -> web.Response:
        if new.kind == "secret" and not new.scopes:
            raise Invalid.fields({"scopes": "a secret key needs one at least; left out, it is ingest:write"})
        made = await self._accounts.create_key(
            path_id(request, "projectId"),
            new.name,
            _KINDS[new.kind],
            new.scopes,
            new.allowed_origins,
            _within_calendars(new.expires_at) if new.expires_at else None,
        )
        return _newly_made(made.key, made.token)

    async def change(self, request: web.Request, new: KeyChanges) -> web.Response:
        wanted = pb.UpdateKeyRequest(
            project_id=path_id(request, "projectId"),
            key_id=path_id(request, "keyId"),
            name=new.name or "",
            allowed_origins=new.allowed_origins or (),
            never_expires=new.expires_at is None,
        )
        if isinstance(new.expires_at, datetime):
            wanted.expires_at.CopyFrom(timestamp(_within_calendars(new.expires_at)))
        return answer(Key(**_members(await self._accounts.change_key(wanted))))

    async def rotate(self, request: web.Request, wanted: Rotation) -> web.Response:
        made = await self._accounts.rotate_key(
            path_id(request, "projectId"), path_id(request, "keyId"), wanted.grace_seconds
        )
        return _newly_made(made.key, made.token)

    async def revoke(self, request: web.Request) -> web.Response:
        await self._accounts.revoke_key(path_id(request, "projectId"), path_id(request, "keyId"))
        return no_content()


def _newly_made(key: pb.Key, text: str) -> web.Response:
    made = answer(NewlyMadeKey(**_members(key), key=text), status=201)
    return shown_once(made) if key.kind == pb.KEY_KIND_SECRET else made


def _members(key: pb.Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "kind": _KIND_NAMES[key.kind],
        "scopes": list(key.scopes),
        "prefix": key.prefix,
        "allowed_origins": list(key.allowed_origins),
        "created_at": moment(key.created_at),
        "expires_at": optional_moment(key, "expires_at"),
        "revoked_at": optional_moment(key, "revoked_at"),
        "last_used_at": optional_moment(key, "last_used_at"),
    }
