"""What the gateway asks auth about a person's own account."""

from collections.abc import Sequence

from contracts.pulsegate.auth.v1 import own_account_pb2 as pb
from contracts.pulsegate.auth.v1.own_account_pb2_grpc import OwnAccountServiceStub
from services.gateway.upstreams import Upstream


class OwnAccount:
    """auth's OwnAccountService, for the person whose principal the call carries."""

    def __init__(self, auth: Upstream) -> None:
        self._auth = auth
        self._stub = OwnAccountServiceStub(auth.channel.grpc_channel)

    async def request_password_reset(self, email: str) -> None:
        await self._auth.ask(self._stub.RequestPasswordReset, pb.RequestPasswordResetRequest(email=email))

    async def reset_password(self, token: str, password: str) -> None:
        request = pb.ResetPasswordRequest(token=token, password=password)
        await self._auth.ask(self._stub.ResetPassword, request)

    async def change_password(self, current: str, new: str) -> None:
        request = pb.ChangePasswordRequest(current_password=current, new_password=new)
        await self._auth.ask(self._stub.ChangePassword, request)

    async def request_email_verification(self) -> None:
        await self._auth.ask(self._stub.RequestEmailVerification, pb.RequestEmailVerificationRequest())

    async def verify_email(self, token: str) -> None:
        await self._auth.ask(self._stub.VerifyEmail, pb.VerifyEmailRequest(token=token))

    async def totp(self) -> pb.GetTotpResponse:
        return await self._auth.ask_again(self._stub.GetTotp, pb.GetTotpRequest())

    async def begin_totp(self, password: str) -> pb.BeginTotpResponse:
        return await self._auth.ask(self._stub.BeginTotp, pb.BeginTotpRequest(password=password))

    async def confirm_totp(self, code: str) -> Sequence[str]:
        """The recovery codes."""
        return (await self._auth.ask(self._stub.ConfirmTotp, pb.ConfirmTotpRequest(code=code))).recovery_codes

    async def renew_recovery_codes(self, password: str, totp: str) -> Sequence[str]:
        request = pb.RenewRecoveryCodesRequest(password=password, totp=totp)
        return (await self._auth.ask(self._stub.RenewRecoveryCodes, request)).recovery_codes

    async def disable_totp(self, password: str, totp: str) -> None:
        await self._auth.ask(self._stub.DisableTotp, pb.DisableTotpRequest(password=password, totp=totp))

    async def sessions(self, page_size: int, page_token: str) -> pb.ListSessionsResponse:
        request = pb.ListSessionsRequest(page_size=page_size, page_token=page_token)
        return await self._auth.ask_again(self._stub.ListSessions, request)

    async def revoke_session(self, session_id: str) -> None:
        await self._auth.ask(self._stub.RevokeSession, pb.RevokeSessionRequest(session_id=session_id))

    async def revoke_other_sessions(self) -> None:
        await self._auth.ask(self._stub.RevokeOtherSessions, pb.RevokeOtherSessionsRequest())
