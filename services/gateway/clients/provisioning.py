"""What the gateway asks auth on behalf of identity providers."""

from contracts.pulsegate.auth.v1 import provisioning_pb2 as pb
from contracts.pulsegate.auth.v1.provisioning_pb2_grpc import ProvisioningServiceStub
from services.gateway.upstreams import Upstream


class Provisioning:
    """auth's ProvisioningService, for the provider whose principal the call carries."""

    def __init__(self, auth: Upstream) -> None:
        self._auth = auth
        self._stub = ProvisioningServiceStub(auth.channel.grpc_channel)

    async def page(
        self, *, email: str | None, subject: str | None, skipped: int, most: int
    ) -> pb.ListProvisionedAccountsResponse:
        request = pb.ListProvisionedAccountsRequest(email=email, subject=subject, skipped=skipped, most=most)
        return await self._auth.ask_again(self._stub.ListProvisionedAccounts, request)

    async def get(self, user_id: str) -> pb.ProvisionedAccount:
        request = pb.GetProvisionedAccountRequest(user_id=user_id)
        return (await self._auth.ask_again(self._stub.GetProvisionedAccount, request)).account

    async def set_active(self, user_id: str, *, active: bool) -> pb.ProvisionedAccount:
        request = pb.UpdateProvisionedAccountRequest(user_id=user_id, active=active)
        return (await self._auth.ask(self._stub.UpdateProvisionedAccount, request)).account

    async def remove(self, user_id: str) -> None:
        await self._auth.ask(self._stub.RemoveProvisionedAccount, pb.RemoveProvisionedAccountRequest(user_id=user_id))
