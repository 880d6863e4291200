"""Who belongs to a tenant, and as what."""

from collections.abc import Mapping, Sequence
from typing import Literal

from aiohttp import web

from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from services.gateway.clients.accounts import Accounts
from services.gateway.http_api.bodies import Asking, Page, Taking, answer, moment, no_content, path_id
from services.gateway.http_api.shapes import Asked, Email, Id, Moment, Told
from services.gateway.routes import Audience, Operation, Route

RoleName = Literal["viewer", "editor", "admin", "owner"]

ROLES: Mapping[RoleName, "pb.Role.ValueType"] = {
    "viewer": pb.ROLE_VIEWER,
    "editor": pb.ROLE_EDITOR,
    "admin": pb.ROLE_ADMIN,
    "owner": pb.ROLE_OWNER,
}
ROLE_NAMES: Mapping["pb.Role.ValueType", RoleName] = {role: name for name, role in ROLES.items()}


class NewMember(Asked):
    email: Email
    role: RoleName


class NewRole(Asked):
    role: RoleName


class User(Told):
    id: Id
    email: str


class Member(Told):
    user: User
    role: RoleName
    created_at: Moment
    #: Whether the person has shown that they read mail at their address.
    email_verified: bool


class Members(Told):
    items: list[Member]
    next_page_token: str


class MemberRoutes:
    """`/api/v1/tenants/{tenantId}/members`"""

    title = "Members"

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def routes(self) -> Sequence[Route]:
        members = "/api/v1/tenants/{tenantId}/members"
        member = members + "/{userId}"
        return [
            Route("GET", members, Asking(Page, self.list), Audience.READ, Operation("List members", {200: Members})),
            Route(
                "POST",
                members,
                Taking(NewMember, self.add),
                Audience.WRITE,
                Operation("Add a member", {201: Member}, "Somebody who has signed up.", errors=(409,)),
            ),
            Route(
                "PATCH",
                member,
                Taking(NewRole, self.change),
                Audience.WRITE,
                Operation("Change a member's role", {200: Member}, errors=(409,)),
            ),
            Route(
                "DELETE", member, self.remove, Audience.WRITE, Operation("Remove a member", {204: None}, errors=(409,))
            ),
        ]

    async def list(self, request: web.Request, page: Page) -> web.Response:
        found = await self._accounts.members(path_id(request, "tenantId"), page.page_size, page.page_token)
        return answer(Members([_render(member) for member in found.members], found.next_page_token))

    async def add(self, request: web.Request, new: NewMember) -> web.Response:
        added = await self._accounts.add_member(path_id(request, "tenantId"), new.email, ROLES[new.role])
        return answer(_render(added), status=201)

    async def change(self, request: web.Request, new: NewRole) -> web.Response:
        tenant_id, user_id = path_id(request, "tenantId"), path_id(request, "userId")
        return answer(_render(await self._accounts.change_role(tenant_id, user_id, ROLES[new.role])))

    async def remove(self, request: web.Request) -> web.Response:
        await self._accounts.remove_member(path_id(request, "tenantId"), path_id(request, "userId"))
        return no_content()


def render_user(user: pb.User) -> User:
    return User(id=user.id, email=user.email)


def _render(member: pb.Member) -> Member:
    return Member(
        user=render_user(member.user),
        role=ROLE_NAMES[member.role],
        created_at=moment(member.created_at),
        email_verified=member.email_verified,
    )
