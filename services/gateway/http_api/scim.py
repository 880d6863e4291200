"""SCIM 2.0 (RFC 7643, 7644), as far as an identity provider needs it to say who has left."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from chassis.errors import Invalid, UnsupportedMediaType
from contracts.pulsegate.auth.v1 import provisioning_pb2 as pb
from services.gateway import errors
from services.gateway.clients.provisioning import Provisioning
from services.gateway.http_api.bodies import MOST_OBJECT_BYTES, moment, no_content, path_id, read
from services.gateway.http_api.json_objects import json_object
from services.gateway.http_api.scim_requests import (
    MOST_NUMBER,
    MOST_OPERATIONS,
    MOST_RESOURCES,
    search_of,
    wanted_activity,
    wanted_state,
)
from services.gateway.http_api.shapes import Id, Moment, Told
from services.gateway.routes import Audience, Media, Operation, Route

_USERS = "/scim/v2/Users"
_USER_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:User"
_LIST_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
_CONTENT_TYPES = (errors.SCIM, "application/json")


class ScimMeta(Told):
    resource_type: str
    created: Moment
    location: str


class ScimEmail(Told):
    value: str
    primary: bool


class ScimUser(Told):
    schemas: list[str]
    id: Id
    #: The provider's lasting name for them, as at sign-on.
    external_id: str
    #: Their address, as the provider has said it at the last sign-on.
    user_name: str
    active: bool
    emails: list[ScimEmail]
    meta: ScimMeta


class ScimUsers(msgspec.Struct):
    schemas: list[str]
    total_results: int = msgspec.field(name="totalResults")
    start_index: int = msgspec.field(name="startIndex")
    items_per_page: int = msgspec.field(name="itemsPerPage")
    resources: list[ScimUser] = msgspec.field(name="Resources")


class ScimSearch(msgspec.Struct):
    #: userName eq "…" or externalId eq "…".
    filter: str = ""
    #: From 1.
    start_index: Annotated[int, msgspec.Meta(ge=1, le=MOST_NUMBER)] = msgspec.field(name="startIndex", default=1)
    #: More than 100 are 100.
    count: Annotated[int, msgspec.Meta(ge=0, le=MOST_NUMBER)] = MOST_RESOURCES


class ScimOperation(msgspec.Struct):
    #: Whatever its capitals.
    op: Literal["add", "remove", "replace"]
    path: str = ""
    value: Any = None


class ScimPatch(msgspec.Struct):
    operations: Annotated[list[ScimOperation], msgspec.Meta(min_length=1, max_length=MOST_OPERATIONS)] = msgspec.field(
        name="Operations"
    )
    schemas: list[str] = msgspec.field(default_factory=list)


class ScimState(msgspec.Struct):
    #: Left out: as it is.
    active: bool | msgspec.UnsetType = msgspec.UNSET


class ScimRoutes:
    """`/scim/v2/Users`"""

    title = "Provisioning (SCIM 2.0)"

    def __init__(self, provisioning: Provisioning, *, endpoint: str) -> None:
        self._provisioning = provisioning
        self._endpoint = endpoint

    def routes(self) -> Sequence[Route]:
        user, shown = _USERS + "/{userId}", Media((errors.SCIM,), ScimUser)
        return [*self._routes_that_read(user, shown), *self._routes_that_change(user, shown)]

    def _routes_that_read(self, user: str, shown: Media) -> Sequence[Route]:
        return [
            Route(
                "GET",
                _USERS,
                self.find,
                Audience.PROVISIONING,
                Operation(
                    "Find provisioned users",
                    {200: Media((errors.SCIM,), ScimUsers)},
                    "Those whom the identity provider has brought.",
                    query=ScimSearch,
                ),
            ),
            Route("GET", user, self.get, Audience.PROVISIONING, Operation("Show a provisioned user", {200: shown})),
        ]

    def _routes_that_change(self, user: str, shown: Media) -> Sequence[Route]:
        return [
            Route(
                "PATCH",
                user,
                self.change,
                Audience.PROVISIONING,
                Operation(
                    "Deactivate or reactivate a provisioned user",
                    {200: shown},
                    "Sets `active`; what is said of other attributes changes nothing.",
                    body=Media(_CONTENT_TYPES, ScimPatch),
                    errors=(409,),
                ),
            ),
            Route(
                "PUT",
                user,
                self.replace,
                Audience.PROVISIONING,
                Operation(
                    "Replace a provisioned user",
                    {200: shown},
                    "Sets `active`, where it is there; other attributes are not looked at.",
                    body=Media(_CONTENT_TYPES, ScimState),
                    errors=(409,),
                ),
            ),
            Route(
                "DELETE",
                user,
                self.remove,
                Audience.PROVISIONING,
                Operation(
                    "Remove a provisioned user", {204: None}, "Until an admin lets them in again.", errors=(409,)
                ),
            ),
        ]

    async def find(self, request: web.Request) -> web.Response:
        search = search_of(request.query)
        found = await self._provisioning.page(
            email=search.user_name, subject=search.external_id, skipped=search.start - 1, most=search.most
        )
        listed = ScimUsers(
            schemas=[_LIST_SCHEMA],
            total_results=found.total,
            start_index=search.start,
            items_per_page=len(found.accounts),
            resources=[self._render(account) for account in found.accounts],
        )
        return _answer(listed)

    async def get(self, request: web.Request) -> web.Response:
        return _answer(self._render(await self._provisioning.get(path_id(request, "userId"))))

    async def change(self, request: web.Request) -> web.Response:
        return await self._become(path_id(request, "userId"), wanted_activity(await _body_of(request)))

    async def replace(self, request: web.Request) -> web.Response:
        return await self._become(path_id(request, "userId"), wanted_state(await _body_of(request)))

    async def remove(self, request: web.Request) -> web.Response:
        await self._provisioning.remove(path_id(request, "userId"))
        return no_content()

    async def _become(self, user_id: str, active: bool | None) -> web.Response:
        """None: they stay as they are."""
        if active is None:
            return _answer(self._render(await self._provisioning.get(user_id)))
        return _answer(self._render(await self._provisioning.set_active(user_id, active=active)))

    def _render(self, account: pb.ProvisionedAccount) -> ScimUser:
        user = account.user
        return ScimUser(
            schemas=[_USER_SCHEMA],
            id=user.id,
            external_id=account.subject,
            user_name=user.email,
            active=account.active,
            emails=[ScimEmail(value=user.email, primary=True)],
            meta=ScimMeta(
                resource_type="User",
                created=moment(account.created_at),
                location=f"{self._endpoint}{_USERS}/{user.id}",
            ),
        )


async def _body_of(request: web.Request) -> dict[str, Any]:
    """Raises UnsupportedMediaType, TooLarge, Malformed."""
    if request.content_type not in _CONTENT_TYPES:
        raise UnsupportedMediaType(f"Send this as {errors.SCIM}.")
    try:
        return json_object(await read(request, MOST_OBJECT_BYTES))
    except Invalid as error:
        raise errors.scim_fault("invalidSyntax", error.message) from error


def _answer(body: ScimUser | ScimUsers) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type=errors.SCIM)
