"""Who is asked to become a member of a tenant."""

from collections.abc import Sequence

from aiohttp import web

from contracts.pulsegate.auth.v1 import invitations_pb2 as pb
from services.gateway.clients.invitations import Invitations
from services.gateway.http_api.accounts import TenantOfMine
from services.gateway.http_api.bodies import Asking, Page, Taking, answer, moment, no_content, path_id
from services.gateway.http_api.members import ROLE_NAMES, ROLES, NewMember, RoleName
from services.gateway.http_api.own_account import MailedToken
from services.gateway.http_api.shapes import Id, Moment, Told
from services.gateway.limits import Limits
from services.gateway.routes import Audience, Operation, Route


class Invitation(Told):
    id: Id
    email: str
    role: RoleName
    created_at: Moment
    expires_at: Moment


class OpenInvitations(Told):
    items: list[Invitation]
    next_page_token: str


class Joined(Told):
    tenant: TenantOfMine


class InvitationRoutes:
    """`/api/v1/tenants/{tenantId}/invitations` and `/api/v1/invitations/accept`"""

    title = "Invitations"

    def __init__(self, invitations: Invitations, limits: Limits) -> None:
        self._invitations = invitations
        self._limits = limits

    def routes(self) -> Sequence[Route]:
        invitations = "/api/v1/tenants/{tenantId}/invitations"
        return [
            Route(
                "GET",
                invitations,
                Asking(Page, self.list),
                Audience.READ,
                Operation("List invitations", {200: OpenInvitations}, "Those that are open."),
            ),
            Route(
                "POST",
                invitations,
                Taking(NewMember, self.create),
                # Each sends a mail to somebody who may not know the sender.
                Audience.EXPENSIVE,
                Operation("Invite somebody", {201: Invitation}, "By e-mail, for seven days.", errors=(409,)),
            ),
            Route(
                "DELETE",
                invitations + "/{invitationId}",
                self.revoke,
                Audience.WRITE,
                Operation("Revoke an invitation", {204: None}),
            ),
            Route(
                "POST",
                "/api/v1/invitations/accept",
                Taking(MailedToken, self.accept),
                Audience.PROOF,
                Operation(
                    "Accept an invitation",
                    {200: Joined},
                    "With the account whose address it was mailed to.",
                    errors=(409,),
                ),
            ),
        ]

    async def list(self, request: web.Request, page: Page) -> web.Response:
        found = await self._invitations.page(path_id(request, "tenantId"), page.page_size, page.page_token)
        return answer(OpenInvitations([_render(one) for one in found.invitations], found.next_page_token))

    async def create(self, request: web.Request, new: NewMember) -> web.Response:
        made = await self._invitations.create(path_id(request, "tenantId"), new.email, ROLES[new.role])
        return answer(_render(made), status=201)

    async def revoke(self, request: web.Request) -> web.Response:
        await self._invitations.revoke(path_id(request, "tenantId"), path_id(request, "invitationId"))
        return no_content()

    async def accept(self, request: web.Request, body: MailedToken) -> web.Response:
        await self._limits.charge_caller(request)
        joined = await self._invitations.accept(body.token)
        return answer(Joined(TenantOfMine(joined.tenant.id, joined.tenant.name, ROLE_NAMES[joined.role])))


def _render(invitation: pb.Invitation) -> Invitation:
    return Invitation(
        id=invitation.id,
        email=invitation.email,
        role=ROLE_NAMES[invitation.role],
        created_at=moment(invitation.created_at),
        expires_at=moment(invitation.expires_at),
    )
