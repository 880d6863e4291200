"""Who belongs to a tenant, and as what."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from aiohttp import web

from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from services.gateway.clients import Accounts
from services.gateway.http_api.bodies import answer, listed, moment, no_content, page, parse, path_id
from services.gateway.routes import Door, Route

RoleName = Literal["viewer", "editor", "admin", "owner"]

_ROLES: Mapping[RoleName, "pb.Role.ValueType"] = {
    "viewer": pb.ROLE_VIEWER,
    "editor": pb.ROLE_EDITOR,
    "admin": pb.ROLE_ADMIN,
    "owner": pb.ROLE_OWNER,
}
ROLE_NAMES: Mapping["pb.Role.ValueType", RoleName] = {role: name for name, role in _ROLES.items()}


class NewMember(msgspec.Struct):
    email: str
    role: RoleName


class NewRole(msgspec.Struct):
    role: RoleName


class MemberRoutes:
    """`/api/v1/tenants/{tenantId}/members`"""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def routes(self) -> Sequence[Route]:
        members = "/api/v1/tenants/{tenantId}/members"
        return [
            Route("GET", members, self.list, Door.READ),
            Route("POST", members, self.add, Door.WRITE),
            Route("PATCH", members + "/{userId}", self.change, Door.WRITE),
            Route("DELETE", members + "/{userId}", self.remove, Door.WRITE),
        ]

    async def list(self, request: web.Request) -> web.Response:
        found = await self._accounts.members(path_id(request, "tenantId"), *page(request))
        return listed([_render(member) for member in found.members], found.next_page_token)

    async def add(self, request: web.Request) -> web.Response:
        tenant_id = path_id(request, "tenantId")
        body = await parse(request, NewMember)
        return answer(_render(await self._accounts.add_member(tenant_id, body.email, _ROLES[body.role])), status=201)

    async def change(self, request: web.Request) -> web.Response:
        tenant_id, user_id = path_id(request, "tenantId"), path_id(request, "userId")
        body = await parse(request, NewRole)
        return answer(_render(await self._accounts.change_role(tenant_id, user_id, _ROLES[body.role])))

    async def remove(self, request: web.Request) -> web.Response:
        await self._accounts.remove_member(path_id(request, "tenantId"), path_id(request, "userId"))
        return no_content()


def _render(member: pb.Member) -> dict[str, Any]:
    return {
        "user": {"id": member.user.id, "email": member.user.email},
        "role": ROLE_NAMES.get(member.role, ""),
        "createdAt": moment(member.created_at),
    }
