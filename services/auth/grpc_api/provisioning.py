# ruff: noqa: N802 - the contract names the methods
"""ProvisioningService: what an identity provider says of the accounts that it has made."""

from typing import Any

import grpc

from chassis.errors import Invalid
from chassis.principals import current
from contracts.pulsegate.auth.v1 import provisioning_pb2 as pb
from contracts.pulsegate.auth.v1 import provisioning_pb2_grpc
from services.auth.domain import UserId
from services.auth.grpc_api import messages
from services.auth.identity_providers import ProvisionedAccount, Sought
from services.auth.operations.provisioning import Provisioning

Call = grpc.aio.ServicerContext[Any, Any]

_MOST_ACCOUNTS = 100


class ProvisioningServicer(provisioning_pb2_grpc.ProvisioningServiceServicer):
    """One method a call; the principal comes with the call (`chassis.principals`)."""

    def __init__(self, provisioning: Provisioning) -> None:
        self._provisioning = provisioning

    async def ListProvisionedAccounts(
        self, request: pb.ListProvisionedAccountsRequest, _call: Call
    ) -> pb.ListProvisionedAccountsResponse:
        if not 0 <= request.most <= _MOST_ACCOUNTS or request.skipped < 0:
            raise Invalid(f"At most {_MOST_ACCOUNTS} accounts come at a time.")
        sought = Sought(
            email=request.email if request.HasField("email") else None,
            subject=request.subject if request.HasField("subject") else None,
        )
        found = await self._provisioning.find(current(), sought, skipped=request.skipped, most=request.most)
        return pb.ListProvisionedAccountsResponse(accounts=map(_account, found.accounts), total=found.total)

    async def GetProvisionedAccount(
        self, request: pb.GetProvisionedAccountRequest, _call: Call
    ) -> pb.GetProvisionedAccountResponse:
        found = await self._provisioning.get(current(), UserId(request.user_id))
        return pb.GetProvisionedAccountResponse(account=_account(found))

    async def UpdateProvisionedAccount(
        self, request: pb.UpdateProvisionedAccountRequest, _call: Call
    ) -> pb.UpdateProvisionedAccountResponse:
        changed = await self._provisioning.set_active(current(), UserId(request.user_id), active=request.active)
        return pb.UpdateProvisionedAccountResponse(account=_account(changed))

    async def RemoveProvisionedAccount(
        self, request: pb.RemoveProvisionedAccountRequest, _call: Call
    ) -> pb.RemoveProvisionedAccountResponse:
        await self._provisioning.remove(current(), UserId(request.user_id))
        return pb.RemoveProvisionedAccountResponse()


def _account(value: ProvisionedAccount) -> pb.ProvisionedAccount:
    return pb.ProvisionedAccount(
        user=messages.user(value.user),
        subject=value.subject,
        active=value.active,
        created_at=messages.timestamp(value.created_at),
    )
