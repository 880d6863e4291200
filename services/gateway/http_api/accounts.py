"""Signing up, in and out, and who one is."""

from collections.abc import Sequence

from aiohttp import web

from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from services.gateway.clients.accounts import Accounts
from services.gateway.clients.credentials import SigningKeys
from services.gateway.http_api.bodies import Taking, answer, no_content
from services.gateway.http_api.members import ROLE_NAMES, RoleName, User, render_user
from services.gateway.http_api.shapes import Asked, Email, Id, Name, Told
from services.gateway.limits import Limits
from services.gateway.routes import Audience, Operation, Route


class SignUp(Asked):
    email: Email
    #: 12 to 72 bytes in UTF-8, and none that is known to many.
    password: str
    tenant_name: Name


class SignIn(Asked):
    email: Email
    password: str
    #: A code of the second factor, or a recovery code, where the account has one.
    totp: str = ""


class RefreshToken(Asked):
    refresh_token: str


class Named(Told):
    id: Id
    name: str


class TenantOfMine(Told):
    id: Id
    name: str
    role: RoleName


class Session(Told):
    access_token: str
    refresh_token: str
    #: Seconds for which the access token is valid.
    expires_in: int


class SignedUp(Session, kw_only=True):
    user: User
    tenant: Named
    project: Named


class SignedIn(Session, kw_only=True):
    user: User
    tenants: list[TenantOfMine]


class Me(Told):
    user: User
    tenants: list[TenantOfMine]
    email_verified: bool


class KeySet(Told):
    """A JWK set (RFC 7517)."""

    keys: list[dict[str, str]]


class AccountRoutes:
    """`/api/v1/auth/…` and the public keys of access tokens."""

    title = "Accounts"

    def __init__(self, accounts: Accounts, signing_keys: SigningKeys, limits: Limits) -> None:
        self._accounts = accounts
        self._signing_keys = signing_keys
        self._limits = limits

    def routes(self) -> Sequence[Route]:
        auth = "/api/v1/auth"
        return [
            Route(
                "POST",
                auth + "/signup",
                Taking(SignUp, self.sign_up),
                Audience.SIGN_IN,
                Operation("Sign up", {201: SignedUp}, "Makes a tenant and its first project too.", errors=(409,)),
            ),
            Route(
                "POST",
                auth + "/signin",
                Taking(SignIn, self.sign_in),
                Audience.SIGN_IN,
                Operation("Sign in", {200: SignedIn}, errors=(401,)),
            ),
            Route(
                "POST",
                auth + "/refresh",
                Taking(RefreshToken, self.refresh),
                Audience.SIGN_IN,
                Operation("Refresh a session", {200: Session}, "Both tokens are new.", errors=(401,)),
            ),
            Route(
                "POST",
                auth + "/signout",
                Taking(RefreshToken, self.sign_out),
                Audience.SIGN_IN,
                Operation("Sign out", {204: None}, errors=(401,)),
            ),
            Route("GET", auth + "/me", self.me, Audience.READ, Operation("Who I am", {200: Me})),
            Route(
                "GET",
                "/.well-known/jwks.json",
                self.keys,
                Audience.ANYBODY,
                Operation("Public keys of access tokens", {200: KeySet}),
            ),
        ]

    async def sign_up(self, request: web.Request, new: SignUp) -> web.Response:
        await self._limits.charge_account(request, new.email)
        made = await self._accounts.sign_up(new.email, new.password, new.tenant_name, self._device(request))
        signed_up = SignedUp(
            user=render_user(made.user),
            tenant=Named(made.tenant.id, made.tenant.name),
            project=Named(made.project.id, made.project.name),
            access_token=made.session.access_token,
            refresh_token=made.session.refresh_token,
            expires_in=made.session.expires_in,
        )
        return answer(signed_up, status=201)

    async def sign_in(self, request: web.Request, credentials: SignIn) -> web.Response:
        await self._limits.charge_account(request, credentials.email)
        found = await self._accounts.sign_in(
            credentials.email, credentials.password, credentials.totp, self._device(request)
        )
        return answer(render_signed_in(found.user, found.memberships, found.session))

    async def refresh(self, request: web.Request, token: RefreshToken) -> web.Response:
        session = (await self._accounts.refresh(token.refresh_token, self._device(request))).session
        return answer(Session(session.access_token, session.refresh_token, session.expires_in))

    async def sign_out(self, _request: web.Request, token: RefreshToken) -> web.Response:
        await self._accounts.sign_out(token.refresh_token)
        return no_content()

    async def me(self, _request: web.Request) -> web.Response:
        found = await self._accounts.me()
        return answer(Me(render_user(found.user), _render_tenants(found.memberships), found.email_verified))

    async def keys(self, _request: web.Request) -> web.Response:
        return answer(await self._signing_keys.current(), headers={"Cache-Control": "public, max-age=300"})

    def _device(self, request: web.Request) -> pb.Device:
        return device_of(request, self._limits)


def device_of(request: web.Request, limits: Limits) -> pb.Device:
    """Where a request comes from, for the list of a person's sessions."""
    name = request.headers.get("User-Agent", "").encode("utf-8", "replace").decode()
    return pb.Device(name=name, address=limits.address_of(request))


def render_signed_in(user: pb.User, memberships: Sequence[pb.Membership], session: pb.Session) -> SignedIn:
    return SignedIn(
        user=render_user(user),
        tenants=_render_tenants(memberships),
        access_token=session.access_token,
        refresh_token=session.refresh_token,
        expires_in=session.expires_in,
    )


def _render_tenants(memberships: Sequence[pb.Membership]) -> list[TenantOfMine]:
    return [TenantOfMine(one.tenant.id, one.tenant.name, ROLE_NAMES[one.role]) for one in memberships]
