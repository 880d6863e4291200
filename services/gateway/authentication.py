"""Who calls: from a request's credential to the verdict on it, by the rules of the public contract."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from multidict import istr

from chassis import api_keys, context
from chassis.errors import Forbidden, Malformed, NotFound, Unauthenticated
from chassis.ids import is_uuid
from services.gateway import errors
from services.gateway.domain import Credential, Verdict
from services.gateway.limits import Limits
from services.gateway.routes import CALLER
from services.gateway.shares import HOLDERS
from services.gateway.verdicts import Verdicts

#: Access tokens are JWTs of a few hundred bytes.
_LONGEST_TOKEN = 4096

_AUTHORIZATION = istr("Authorization")
_API_KEY = istr("X-API-Key")
_ORIGIN = istr("Origin")
_BEARER = "Bearer "


def _lone_key(request: web.Request) -> str:
    """What looks like a key and is the only credential of the request, in a header; else "": `credential_of` tells."""
    if request.rel_url.raw_query_string:
        return ""
    shown = request.headers.getall(_API_KEY, [])
    for bearer in request.headers.getall(_AUTHORIZATION, ()):
        shown.append(bearer[len(_BEARER) :] if bearer.startswith(_BEARER + api_keys.SECRET_PREFIX) else "")
    return shown[0] if len(shown) == 1 and shown[0].isascii() else ""


def credential_of(request: web.Request, *, basic: bool = False) -> Credential:
    """What the request shows; `basic`: a key may also stand as the password of basic authentication (RFC 7617).

    Raises Malformed where it shows more than one credential, Unauthenticated where it shows none or a wrong one.
    """
    shown = _shown(request)
    if shown is None:
        raise Unauthenticated("Send an access token or an API key.")
    place, text = shown
    if place == "Authorization":
        key = _basic_password(text) if basic else None
        return _bearer(text) if key is None else _key(key)
    if place == "key" and text.startswith(api_keys.SECRET_PREFIX):
        raise errors.invalid_api_key("Only a publishable key may stand in an address.")
    return _key(text)


def _shown(request: web.Request) -> tuple[str, str] | None:
    """The one credential of the request and where it stands. Raises Malformed where there are several."""
    shown = [
        *(("Authorization", value) for value in request.headers.getall(_AUTHORIZATION, ())),
        *(("X-API-Key", value) for value in request.headers.getall(_API_KEY, ())),
        *(("key", value) for value in request.query.getall("key", ())),
    ]
    if len(shown) > 1:
        raise Malformed("Send one credential, not several.")
    return shown[0] if shown else None


def _key(text: str) -> Credential:
    kind = api_keys.kind_of(text)
    if kind is None:
        raise errors.invalid_api_key("This is no API key.")
    return Credential(text=text, kind=kind)


def _basic_password(header: str) -> str | None:
    """The password in an Authorization header; None where it is of another scheme or cannot be read."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode().partition(":")[2]
    except ValueError:
        return None


def _bearer(header: str) -> Credential:
    scheme, _, text = header.partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or not text or len(text) > _LONGEST_TOKEN or not text.isascii():
        raise Unauthenticated("Send the access token or secret key as Authorization: Bearer.")
    if text.startswith(api_keys.PUBLISHABLE_PREFIX):
        raise errors.invalid_api_key("Send a publishable key as X-API-Key.")
    if text.startswith(api_keys.PROVISIONING_PREFIX):
        raise Unauthenticated("A provisioning token is good below /scim/ alone.")
    if not text.startswith(api_keys.SECRET_PREFIX):
        return Credential(text=text, kind="user")
    if api_keys.kind_of(text) is None:
        raise errors.invalid_api_key("This is no API key.")
    return Credential(text=text, kind="secret")


def provisioning_token_of(request: web.Request) -> Credential:
    """Raises Malformed where the request shows more than one credential, Unauthenticated where it is anything but what
    looks like a provisioning token."""
    place, header = _shown(request) or ("", "")
    scheme, _, text = header.partition(" ")
    text = text.strip()
    if (
        place != "Authorization"
        or scheme.lower() != "bearer"
        or not text.startswith(api_keys.PROVISIONING_PREFIX)
        or not api_keys.is_sound(text)
    ):
        raise Unauthenticated("Send the identity provider's provisioning token as Authorization: Bearer.")
    return Credential(text=text, kind="provisioner")


def _let_in(request: web.Request, verdict: Verdict) -> None:
    request[CALLER] = verdict
    context.PRINCIPAL_TOKEN.set(verdict.token)
    principal = verdict.principal
    tenant = (principal.tenant_id,) if principal.tenant_id else ()
    HOLDERS.set((principal.subject, *tenant) if principal.kind == "user" else tenant)


def _check_origin(request: web.Request, verdict: Verdict) -> None:
    origin = request.headers.get(_ORIGIN)
    if not verdict.allows_origin(origin):
        raise errors.origin_not_allowed(origin)


def _named_project(request: web.Request) -> str:
    """The project in `?projectId=`, "" where there is none. Raises Malformed where it is empty or there are several."""
    named = request.query.getall("projectId", [""])
    if len(named) > 1 or ("projectId" in request.query and not named[0]):
        raise Malformed("Name the project exactly once, as ?projectId=.")
    return named[0]


class Authentication:
    """Says who calls: afterwards `request[CALLER]` is the verdict, and its principal goes with each call."""

    def __init__(self, verdicts: Verdicts, limits: Limits) -> None:
        self._verdicts = verdicts
        self._limits = limits

    async def of_anybody(self, request: web.Request) -> None:
        """A person or a key, about the project or the tenant in the path or about their own account."""
        project_id, tenant_id = (request.match_info.get(name, "") for name in ("projectId", "tenantId"))
        async with self._charging(request):
            await self._admit(request, credential_of(request), project_id, tenant_id)

    async def of_readers(self, request: web.Request) -> None:
        """A key with `query:read`, or a person with `?projectId=` exactly once."""
        async with self._charging(request):
            credential, project_id = credential_of(request), _named_project(request)
            if credential.kind == "user" and not project_id:
                raise Malformed("Name the project exactly once, as ?projectId=.")
            verdict = await self._admit(request, credential, project_id)
            verdict.principal.require("query:read")

    async def of_writers(self, request: web.Request) -> None:
        """A key with `ingest:write`."""
        if (
            (text := _lone_key(request))
            and (verdict := self._verdicts.of_known_key(text))
            and verdict.allows_origin(request.headers.get(_ORIGIN))
            and "ingest:write" in verdict.principal.scopes
        ):
            _let_in(request, verdict)
            return
        async with self._charging(request):
            credential = credential_of(request, basic=True)
            if credential.kind == "user":
                raise Unauthenticated("Ingestion takes API keys only.")
            verdict = await self._admit(request, credential, _named_project(request), writes=True)
            verdict.principal.require("ingest:write")

    async def of_providers(self, request: web.Request) -> None:
        """An identity provider, about the accounts that it has made."""
        async with self._charging(request):
            await self._enter(request, provisioning_token_of(request), "")

    async def of_key(self, request: web.Request, text: str) -> Verdict:
        """A publishable key that stands in a path. A script tag sends no origin: it is not asked for."""
        async with self._charging(request):
            if api_keys.kind_of(text) != "publishable":
                raise errors.invalid_api_key()
            return await self._enter(request, Credential(text=text, kind="publishable"), "")

    @asynccontextmanager
    async def _charging(self, request: web.Request) -> AsyncIterator[None]:
        """Whoever is refused within the block pays for it: without a valid credential by their address."""
        try:
            yield
        except Unauthenticated:
            await self._limits.charge_address(request)
            raise
        except (Forbidden, NotFound):
            if CALLER in request:
                await self._limits.charge_refused(request)
            raise

    async def _admit(
        self,
        request: web.Request,
        credential: Credential,
        project_id: str,
        tenant_id: str = "",
        *,
        writes: bool = False,
    ) -> Verdict:
        """`tenant_id` says by whose limits a person's call counts; what they may do there the services look up."""
        if project_id and not is_uuid(project_id):
            raise errors.not_found()
        about = project_id, tenant_id if is_uuid(tenant_id) else ""
        verdict = await self._enter(request, credential, *about, writes=writes)
        if project_id and verdict.principal.project_id != project_id:
            raise errors.not_found()
        _check_origin(request, verdict)
        return verdict

    async def _enter(
        self,
        request: web.Request,
        credential: Credential,
        project_id: str,
        tenant_id: str = "",
        *,
        writes: bool = False,
    ) -> Verdict:
        self._limits.admit(request, known=self._verdicts.knows(credential))
        if project_id and credential.kind == "user" and not self._verdicts.has(credential, project_id):
            verdict = await self._seek(request, credential, project_id)
        else:
            verdict = await self._verdicts.of(credential, project_id, tenant_id, writes=writes)
        _let_in(request, verdict)
        return verdict

    async def _seek(self, request: web.Request, credential: Credential, project_id: str) -> Verdict:
        """The verdict on a person about a project that may not be theirs: then the call counts, and past their limit
        auth is not asked."""
        _let_in(request, await self._verdicts.of(credential))
        self._limits.admit_seeking(request)
        return await self._verdicts.of(credential, project_id)
