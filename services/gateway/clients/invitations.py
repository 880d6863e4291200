"""What the gateway asks auth about invitations."""

from contracts.pulsegate.auth.v1 import accounts_pb2 as accounts
from contracts.pulsegate.auth.v1 import invitations_pb2 as pb
from contracts.pulsegate.auth.v1.invitations_pb2_grpc import InvitationServiceStub
from services.gateway.upstreams import Upstream


class Invitations:
    """auth's InvitationService, for the person whose principal the call carries."""

    def __init__(self, auth: Upstream) -> None:
        self._auth = auth
        self._stub = InvitationServiceStub(auth.channel.grpc_channel)

    async def create(self, tenant_id: str, email: str, role: "accounts.Role.ValueType") -> pb.Invitation:
        request = pb.CreateInvitationRequest(tenant_id=tenant_id, email=email, role=role)
        return (await self._auth.ask(self._stub.CreateInvitation, request)).invitation

    async def page(self, tenant_id: str, page_size: int, page_token: str) -> pb.ListInvitationsResponse:
        request = pb.ListInvitationsRequest(tenant_id=tenant_id, page_size=page_size, page_token=page_token)
        return await self._auth.ask_again(self._stub.ListInvitations, request)

    async def revoke(self, tenant_id: str, invitation_id: str) -> None:
        request = pb.RevokeInvitationRequest(tenant_id=tenant_id, invitation_id=invitation_id)
        await self._auth.ask(self._stub.RevokeInvitation, request)

    async def accept(self, token: str) -> accounts.Membership:
        return (await self._auth.ask(self._stub.AcceptInvitation, pb.AcceptInvitationRequest(token=token))).membership
