"""Whom a tenant's admins have removed or its identity providers have put out, and no sign-on brings back."""

from collections.abc import Sequence

from aiohttp import web

from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from services.gateway.clients.single_sign_on import SingleSignOn
from services.gateway.http_api.bodies import Asking, Page, answer, no_content, optional_moment, path_id
from services.gateway.http_api.members import User, render_user
from services.gateway.http_api.shapes import Id, Moment, Told
from services.gateway.routes import Audience, Operation, Route


class RemovedMember(Told):
    user: User
    #: The identity provider that has made the account.
    provider_id: Id
    #: By an admin, or by the provider for good.
    removed_at: Moment | None
    #: By the provider, which may take it back.
    deactivated_at: Moment | None


class RemovedMembers(Told):
    items: list[RemovedMember]
    next_page_token: str


class RemovedMemberRoutes:
    """`/api/v1/tenants/{tenantId}/removed-members`"""

    title = "Removed members"

    def __init__(self, single_sign_on: SingleSignOn) -> None:
        self._single_sign_on = single_sign_on

    def routes(self) -> Sequence[Route]:
        removed = "/api/v1/tenants/{tenantId}/removed-members"
        return [
            Route(
                "GET",
                removed,
                Asking(Page, self.list),
                Audience.READ,
                Operation(
                    "List removed members",
                    {200: RemovedMembers},
                    "Whom a provider has brought, and it or an admin has put out.",
                ),
            ),
            Route(
                "DELETE",
                removed + "/{userId}",
                self.readmit,
                Audience.WRITE,
                Operation("Let a removed member in again", {204: None}, "They are a member again once they sign in."),
            ),
        ]

    async def list(self, request: web.Request, page: Page) -> web.Response:
        found = await self._single_sign_on.removed_members(
            path_id(request, "tenantId"), page.page_size, page.page_token
        )
        return answer(RemovedMembers([_render(member) for member in found.members], found.next_page_token))

    async def readmit(self, request: web.Request) -> web.Response:
        await self._single_sign_on.readmit(path_id(request, "tenantId"), path_id(request, "userId"))
        return no_content()


def _render(member: pb.RemovedMember) -> RemovedMember:
    return RemovedMember(
        user=render_user(member.user),
        provider_id=member.provider_id,
        removed_at=optional_moment(member, "removed_at"),
        deactivated_at=optional_moment(member, "deactivated_at"),
    )
