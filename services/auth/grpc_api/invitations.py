# ruff: noqa: N802 - the contract names the methods
"""InvitationService: who is asked to become a member."""

from typing import Any

import grpc

from chassis.principals import current
from contracts.pulsegate.auth.v1 import invitations_pb2 as pb
from contracts.pulsegate.auth.v1 import invitations_pb2_grpc
from services.auth.domain import InvitationId, PageRequest, TenantId
from services.auth.grpc_api import messages
from services.auth.operations.invitations import Invitations

Call = grpc.aio.ServicerContext[Any, Any]


class InvitationServicer(invitations_pb2_grpc.InvitationServiceServicer):
    """One method a call; the principal comes with the call (`chassis.principals`)."""

    def __init__(self, invitations: Invitations) -> None:
        self._invitations = invitations

    async def CreateInvitation(self, request: pb.CreateInvitationRequest, _call: Call) -> pb.CreateInvitationResponse:
        role = messages.read_role(request.role)
        made = await self._invitations.create(current(), TenantId(request.tenant_id), request.email, role)
        return pb.CreateInvitationResponse(invitation=messages.invitation(made))

    async def ListInvitations(self, request: pb.ListInvitationsRequest, _call: Call) -> pb.ListInvitationsResponse:
        wanted = PageRequest.parse(request.page_size, request.page_token)
        page = await self._invitations.page(current(), TenantId(request.tenant_id), wanted)
        return pb.ListInvitationsResponse(
            invitations=map(messages.invitation, page.items), next_page_token=page.next_token
        )

    async def RevokeInvitation(self, request: pb.RevokeInvitationRequest, _call: Call) -> pb.RevokeInvitationResponse:
        await self._invitations.revoke(current(), TenantId(request.tenant_id), InvitationId(request.invitation_id))
        return pb.RevokeInvitationResponse()

    async def AcceptInvitation(self, request: pb.AcceptInvitationRequest, _call: Call) -> pb.AcceptInvitationResponse:
        membership = await self._invitations.accept(current(), request.token)
        return pb.AcceptInvitationResponse(membership=messages.membership(membership))
