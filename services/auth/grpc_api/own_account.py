# ruff: noqa: N802 - the contract names the methods
"""OwnAccountService: what a person does about their own account."""

from typing import Any

import grpc

from chassis.principals import current
from contracts.pulsegate.auth.v1 import own_account_pb2 as pb
from contracts.pulsegate.auth.v1 import own_account_pb2_grpc
from services.auth.domain import PageRequest, SessionId
from services.auth.grpc_api import messages
from services.auth.operations.recovery import Recovery
from services.auth.operations.second_factors import SecondFactors
from services.auth.operations.sessions import Sessions

Call = grpc.aio.ServicerContext[Any, Any]


class OwnAccountServicer(own_account_pb2_grpc.OwnAccountServiceServicer):
    """One method a call; the principal comes with the call (`chassis.principals`)."""

    def __init__(self, recovery: Recovery, second_factors: SecondFactors, sessions: Sessions) -> None:
        self._recovery = recovery
        self._second_factors = second_factors
        self._sessions = sessions

    async def RequestPasswordReset(
        self, request: pb.RequestPasswordResetRequest, _call: Call
    ) -> pb.RequestPasswordResetResponse:
        await self._recovery.request_reset(request.email)
        return pb.RequestPasswordResetResponse()

    async def ResetPassword(self, request: pb.ResetPasswordRequest, _call: Call) -> pb.ResetPasswordResponse:
        await self._recovery.reset(request.token, request.password)
        return pb.ResetPasswordResponse()

    async def ChangePassword(self, request: pb.ChangePasswordRequest, _call: Call) -> pb.ChangePasswordResponse:
        await self._recovery.change_password(current(), request.current_password, request.new_password)
        return pb.ChangePasswordResponse()

    async def RequestEmailVerification(
        self, _request: pb.RequestEmailVerificationRequest, _call: Call
    ) -> pb.RequestEmailVerificationResponse:
        await self._recovery.request_verification(current())
        return pb.RequestEmailVerificationResponse()

    async def VerifyEmail(self, request: pb.VerifyEmailRequest, _call: Call) -> pb.VerifyEmailResponse:
        await self._recovery.verify(current(), request.token)
        return pb.VerifyEmailResponse()

    async def GetTotp(self, _request: pb.GetTotpRequest, _call: Call) -> pb.GetTotpResponse:
        state = await self._second_factors.state(current())
        return pb.GetTotpResponse(enabled=state.enabled, recovery_codes_left=state.recovery_codes_left)

    async def BeginTotp(self, request: pb.BeginTotpRequest, _call: Call) -> pb.BeginTotpResponse:
        made = await self._second_factors.begin(current(), request.password)
        return pb.BeginTotpResponse(secret=made.secret, uri=made.uri)

    async def ConfirmTotp(self, request: pb.ConfirmTotpRequest, _call: Call) -> pb.ConfirmTotpResponse:
        return pb.ConfirmTotpResponse(recovery_codes=await self._second_factors.confirm(current(), request.code))

    async def RenewRecoveryCodes(
        self, request: pb.RenewRecoveryCodesRequest, _call: Call
    ) -> pb.RenewRecoveryCodesResponse:
        codes = await self._second_factors.renew_codes(current(), request.password, request.totp)
        return pb.RenewRecoveryCodesResponse(recovery_codes=codes)

    async def DisableTotp(self, request: pb.DisableTotpRequest, _call: Call) -> pb.DisableTotpResponse:
        await self._second_factors.disable(current(), request.password, request.totp)
        return pb.DisableTotpResponse()

    async def ListSessions(self, request: pb.ListSessionsRequest, _call: Call) -> pb.ListSessionsResponse:
        principal = current()
        page = await self._sessions.page(principal, PageRequest.parse(request.page_size, request.page_token))
        return pb.ListSessionsResponse(
            sessions=[messages.own_session(session, principal.session_id) for session in page.items],
            next_page_token=page.next_token,
        )

    async def RevokeSession(self, request: pb.RevokeSessionRequest, _call: Call) -> pb.RevokeSessionResponse:
        await self._sessions.revoke_one(current(), SessionId(request.session_id))
        return pb.RevokeSessionResponse()

    async def RevokeOtherSessions(
        self, _request: pb.RevokeOtherSessionsRequest, _call: Call
    ) -> pb.RevokeOtherSessionsResponse:
        await self._sessions.revoke_others(current())
        return pb.RevokeOtherSessionsResponse()
