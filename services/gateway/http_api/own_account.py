"""A person's passwords, e-mail address and sessions."""

from collections.abc import Sequence

from aiohttp import web

from contracts.pulsegate.auth.v1 import own_account_pb2 as pb
from services.gateway.clients.own_account import OwnAccount
from services.gateway.http_api.bodies import Asking, Page, Taking, answer, moment, no_content, path_id
from services.gateway.http_api.shapes import Asked, Email, Id, Moment, Told
from services.gateway.limits import Limits
from services.gateway.routes import Audience, Operation, Route


class Address(Asked):
    email: Email


class MailedToken(Asked):
    token: str


class NewPasswordByToken(Asked):
    token: str
    #: 12 to 72 bytes in UTF-8, and none that is known to many.
    password: str


class NewPassword(Asked):
    current_password: str
    #: 12 to 72 bytes in UTF-8, and none that is known to many.
    new_password: str


class Nothing(Told):
    """An object without members."""


class OwnSession(Told):
    id: Id
    #: What the client said it is.
    device: str
    address: str
    created_at: Moment
    last_used_at: Moment
    expires_at: Moment
    current: bool


class OwnSessions(Told):
    items: list[OwnSession]
    next_page_token: str


class OwnAccountRoutes:
    """`/api/v1/auth/{password-reset,password,email-verification,sessions}`"""

    title = "Own account"

    def __init__(self, own_account: OwnAccount, limits: Limits) -> None:
        self._own_account = own_account
        self._limits = limits

    def routes(self) -> Sequence[Route]:
        return [*self._password_routes(), *self._email_routes(), *self._session_routes()]

    def _password_routes(self) -> Sequence[Route]:
        reset = "/api/v1/auth/password-reset"
        return [
            Route(
                "POST",
                reset,
                Taking(Address, self.request_reset),
                Audience.SIGN_IN,
                Operation("Ask for a password reset", {202: Nothing}, "The same answer for every address."),
            ),
            Route(
                "POST",
                reset + "/confirm",
                Taking(NewPasswordByToken, self.reset),
                Audience.SIGN_IN,
                Operation("Reset a password", {204: None}, "Ends every session."),
            ),
            Route(
                "PUT",
                "/api/v1/auth/password",
                Taking(NewPassword, self.change_password),
                Audience.PROOF,
                Operation("Change my password", {204: None}, "Ends every other session."),
            ),
        ]

    def _email_routes(self) -> Sequence[Route]:
        verification = "/api/v1/auth/email-verification"
        return [
            Route(
                "POST",
                verification,
                self.request_verification,
                Audience.WRITE,
                Operation("Ask for a verification of my address", {202: Nothing}),
            ),
            Route(
                "POST",
                verification + "/confirm",
                Taking(MailedToken, self.verify),
                Audience.PROOF,
                Operation("Verify my e-mail address", {204: None}, "With the token that was mailed there."),
            ),
        ]

    def _session_routes(self) -> Sequence[Route]:
        sessions = "/api/v1/auth/sessions"
        return [
            Route(
                "GET",
                sessions,
                Asking(Page, self.sessions),
                Audience.READ,
                Operation("List my sessions", {200: OwnSessions}),
            ),
            Route(
                "DELETE", sessions, self.revoke_others, Audience.WRITE, Operation("End my other sessions", {204: None})
            ),
            Route(
                "DELETE",
                sessions + "/{sessionId}",
                self.revoke,
                Audience.WRITE,
                Operation("End a session", {204: None}),
            ),
        ]

    async def request_reset(self, request: web.Request, body: Address) -> web.Response:
        await self._limits.charge_reset(request, body.email)
        await self._own_account.request_password_reset(body.email)
        return answer(Nothing(), status=202)

    async def reset(self, _request: web.Request, body: NewPasswordByToken) -> web.Response:
        await self._own_account.reset_password(body.token, body.password)
        return no_content()

    async def change_password(self, request: web.Request, body: NewPassword) -> web.Response:
        await self._limits.charge_caller(request)
        await self._own_account.change_password(body.current_password, body.new_password)
        return no_content()

    async def request_verification(self, request: web.Request) -> web.Response:
        await self._limits.charge_caller(request)
        await self._own_account.request_email_verification()
        return answer(Nothing(), status=202)

    async def verify(self, request: web.Request, body: MailedToken) -> web.Response:
        await self._limits.charge_caller(request)
        await self._own_account.verify_email(body.token)
        return no_content()

    async def sessions(self, _request: web.Request, page: Page) -> web.Response:
        found = await self._own_account.sessions(page.page_size, page.page_token)
        return answer(OwnSessions([_render(session) for session in found.sessions], found.next_page_token))

    async def revoke(self, request: web.Request) -> web.Response:
        await self._own_account.revoke_session(path_id(request, "sessionId"))
        return no_content()

    async def revoke_others(self, _request: web.Request) -> web.Response:
        await self._own_account.revoke_other_sessions()
        return no_content()


def _render(session: pb.OwnSession) -> OwnSession:
    return OwnSession(
        id=session.id,
        device=session.device,
        address=session.address,
        created_at=moment(session.created_at),
        last_used_at=moment(session.last_used_at),
        expires_at=moment(session.expires_at),
        current=session.current,
    )
