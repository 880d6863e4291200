"""Signing up, in and out, and who one is."""

from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from services.gateway.clients import Accounts, SigningKeys
from services.gateway.http_api.bodies import answer, no_content, parse
from services.gateway.http_api.members import ROLE_NAMES
from services.gateway.limits import Limits
from services.gateway.routes import Door, Route


class SignUp(msgspec.Struct):
    email: str
    password: str
    tenant_name: str = msgspec.field(name="tenantName")


class SignIn(msgspec.Struct):
    email: str
    password: str


class RefreshToken(msgspec.Struct):
    refresh_token: str = msgspec.field(name="refreshToken")


class AccountRoutes:
    """`/api/v1/auth/…` and the public keys of access tokens."""

    def __init__(self, accounts: Accounts, signing_keys: SigningKeys, limits: Limits) -> None:
        self._accounts = accounts
        self._signing_keys = signing_keys
        self._limits = limits

    def routes(self) -> Sequence[Route]:
        return [
            Route("POST", "/api/v1/auth/signup", self.sign_up, Door.SIGN_IN),
            Route("POST", "/api/v1/auth/signin", self.sign_in, Door.SIGN_IN),
            Route("POST", "/api/v1/auth/refresh", self.refresh, Door.SIGN_IN),
            Route("POST", "/api/v1/auth/signout", self.sign_out, Door.SIGN_IN),
            Route("GET", "/api/v1/auth/me", self.me, Door.READ),
            Route("GET", "/.well-known/jwks.json", self.keys, Door.ANYBODY),
        ]

    async def sign_up(self, request: web.Request) -> web.Response:
        body = await parse(request, SignUp)
        await self._limits.charge_account(request, body.email)
        made = await self._accounts.sign_up(body.email, body.password, body.tenant_name)
        return answer(
            {
                "user": render_user(made.user),
                "tenant": {"id": made.tenant.id, "name": made.tenant.name},
                "project": {"id": made.project.id, "name": made.project.name},
                **_render_session(made.session),
            },
            status=201,
        )

    async def sign_in(self, request: web.Request) -> web.Response:
        body = await parse(request, SignIn)
        await self._limits.charge_account(request, body.email)
        found = await self._accounts.sign_in(body.email, body.password)
        return answer(
            {
                "user": render_user(found.user),
                "tenants": _render_tenants(found.memberships),
                **_render_session(found.session),
            }
        )

    async def refresh(self, request: web.Request) -> web.Response:
        body = await parse(request, RefreshToken)
        return answer(_render_session((await self._accounts.refresh(body.refresh_token)).session))

    async def sign_out(self, request: web.Request) -> web.Response:
        body = await parse(request, RefreshToken)
        await self._accounts.sign_out(body.refresh_token)
        return no_content()

    async def me(self, _request: web.Request) -> web.Response:
        found = await self._accounts.me()
        return answer({"user": render_user(found.user), "tenants": _render_tenants(found.memberships)})

    async def keys(self, _request: web.Request) -> web.Response:
        return answer(await self._signing_keys.current(), headers={"Cache-Control": "public, max-age=300"})


def render_user(user: pb.User) -> dict[str, Any]:
    return {"id": user.id, "email": user.email}


def _render_tenants(memberships: Sequence[pb.Membership]) -> list[dict[str, Any]]:
    return [{"id": one.tenant.id, "name": one.tenant.name, "role": ROLE_NAMES.get(one.role, "")} for one in memberships]


def _render_session(session: pb.Session) -> dict[str, Any]:
    return {
        "accessToken": session.access_token,
        "refreshToken": session.refresh_token,
        "expiresIn": session.expires_in,
    }
