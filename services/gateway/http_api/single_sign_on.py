"""Signing in through a tenant's identity provider: what a browser does, and what its page does then."""

from collections.abc import Sequence
from posixpath import normpath
from typing import Annotated
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from aiohttp import web

from chassis.errors import Invalid, Malformed, UnsupportedMediaType
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from services.gateway.clients.single_sign_on import SingleSignOn
from services.gateway.http_api.accounts import SignedIn, device_of, render_signed_in
from services.gateway.http_api.bodies import Asking, Taking, answer, path_id, read
from services.gateway.http_api.identity_providers import metadata_url, redirect_uri
from services.gateway.http_api.shapes import Asked, read_from_texts
from services.gateway.limits import Limits
from services.gateway.routes import Audience, Media, Operation, Route

_FORM = "application/x-www-form-urlencoded"
_METADATA = "application/samlmetadata+xml"
_MOST_FIELDS = 10
#: As ids are written, so that nothing else below is taken for one.
_PROVIDER = "/api/v1/auth/sso/{providerId:[0-9a-f-]{36}}"
_COOKIE = "pulsegate_sso_"
#: Of the state, so that each sign-on of a browser has a cookie of its own.
_COOKIE_CHARACTERS = 12
_COOKIE_SECONDS = 600
#: One that says nothing.
_NO_FRAGMENT = "#-"


class SignOn(Asked):
    #: SHA-256, in base64url, of a random text that the page keeps: the verifier that redeems the grant (RFC 7636).
    challenge: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{43}$")]
    #: Where to go on then: a path of this gateway not below /api/, or a page of an allowed origin
    #: (PULSEGATE_CORS_ORIGINS).
    return_to: Annotated[str, msgspec.Meta(max_length=1000)] = "/"


class Callback(Asked):
    """What an OpenID provider sends back (RFC 6749, 4.1.2; RFC 9207)."""

    state: Annotated[str, msgspec.Meta(max_length=200)] = ""
    code: Annotated[str, msgspec.Meta(max_length=4000)] = ""
    iss: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    error: Annotated[str, msgspec.Meta(max_length=200)] = ""


class SamlCallback(msgspec.Struct):
    """What the page of a SAML provider sends back (saml-bindings-2.0-os, 3.5)."""

    #: In base64.
    response: Annotated[str, msgspec.Meta(max_length=256 << 10)] = msgspec.field(name="SAMLResponse")
    state: Annotated[str, msgspec.Meta(max_length=200)] = msgspec.field(name="RelayState", default="")


class Grant(Asked):
    #: What followed `#sso=` in the address of the page.
    grant: str
    #: Whose challenge the sign-on was begun with.
    verifier: str


class Password(Asked):
    #: As the directory knows people: what its filter compares with.
    login: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class SignOnRoutes:
    """`/api/v1/auth/sso/…`"""

    title = "Single sign-on"

    def __init__(
        self, single_sign_on: SingleSignOn, limits: Limits, *, endpoint: str, cors_origins: frozenset[str]
    ) -> None:
        self._single_sign_on = single_sign_on
        self._limits = limits
        self._endpoint = endpoint
        self._cors_origins = cors_origins

    def routes(self) -> Sequence[Route]:
        return [*self._routes_of_pages(), *self._routes_of_browsers(), *self._routes_of_saml()]

    def _routes_of_pages(self) -> Sequence[Route]:
        """What a page calls: they answer what a sign-in answers."""
        return [
            Route(
                "POST",
                "/api/v1/auth/sso/session",
                Taking(Grant, self.redeem),
                Audience.SIGN_IN,
                Operation(
                    "Redeem a completed sign-on", {200: SignedIn}, "Once, within a minute.", errors=(401, 403, 404)
                ),
            ),
            Route(
                "POST",
                _PROVIDER + "/password",
                Taking(Password, self.sign_on_with_password),
                Audience.SIGN_IN,
                Operation(
                    "Sign in through a directory",
                    {200: SignedIn},
                    "With the login and the password of a tenant's LDAP directory.",
                    errors=(401, 403, 404),
                ),
            ),
        ]

    def _routes_of_browsers(self) -> Sequence[Route]:
        """Where a browser goes, and where it is sent to."""
        return [
            Route(
                "GET",
                _PROVIDER,
                Asking(SignOn, self.begin),
                # Nothing can be guessed here: what completes a sign-on has 256 random bits.
                Audience.ANYBODY,
                Operation(
                    "Begin a sign-on",
                    {302: None},
                    "Sends the browser to the provider.",
                    answer_headers=("Location",),
                    # 401: a provider may say of itself what cannot be read.
                    errors=(401, 404),
                ),
            ),
            Route(
                "GET",
                _PROVIDER + "/callback",
                Asking(Callback, self.complete),
                Audience.ANYBODY,
                Operation(
                    "Complete a sign-on",
                    {302: None},
                    "The provider sends the browser here, and this to the page, with `#sso=` and a grant.",
                    answer_headers=("Location",),
                    # 400: what a provider sends back may be longer than a request line.
                    errors=(400, 401, 403, 404),
                ),
            ),
        ]

    def _routes_of_saml(self) -> Sequence[Route]:
        """The same for providers that speak SAML, and what one of these reads of this gateway."""
        return [
            Route(
                "POST",
                _PROVIDER + "/callback",
                self.complete_saml,
                Audience.ANYBODY,
                Operation(
                    "Complete a sign-on by SAML",
                    {303: None},
                    "The provider's page sends the browser here, and this to the page, with `#sso=` and a grant.",
                    body=Media((_FORM,), SamlCallback),
                    answer_headers=("Location",),
                    errors=(401, 403, 404),
                ),
            ),
            Route(
                "GET",
                _PROVIDER + "/metadata",
                self.metadata,
                Audience.ANYBODY,
                Operation("What a SAML provider is to know of this gateway", {200: Media((_METADATA,))}, errors=(404,)),
            ),
        ]

    async def begin(self, request: web.Request, sign_on: SignOn) -> web.Response:
        provider_id = path_id(request, "providerId")
        self._require_own(sign_on.return_to)
        begun = await self._single_sign_on.begin(
            provider_id,
            redirect_uri=redirect_uri(self._endpoint, provider_id),
            entity_id=metadata_url(self._endpoint, provider_id),
            return_to=sign_on.return_to,
            challenge=sign_on.challenge,
        )
        # Browsers carry a fragment on to an address that has none (Fetch, 4.4), and another sign-on may have been begun
        # with this address to return to: this provider would read its grant.
        response = _sent_to(begun.authorization_url.partition("#")[0] + _NO_FRAGMENT)
        response.set_cookie(
            _cookie(begun.state),
            begun.browser_secret,
            path="/api/v1/auth/sso/",
            max_age=_COOKIE_SECONDS,
            httponly=True,
            # Browsers send none but this along with a form of another site's page, and take it only where it is
            # `Secure`: over https, or on their own machine.
            secure=begun.posts_back or self._endpoint.startswith("https:"),
            samesite="None" if begun.posts_back else "Lax",
        )
        return response

    async def complete(self, request: web.Request, back: Callback) -> web.Response:
        provider_id = path_id(request, "providerId")
        completed = await self._single_sign_on.complete_oidc(
            pb.CompleteOidcSignOnRequest(
                provider_id=provider_id,
                state=back.state,
                browser_secret=_kept(request, back.state),
                code=back.code,
                issuer=back.iss,
                error=back.error,
                redirect_uri=redirect_uri(self._endpoint, provider_id),
                device=device_of(request, self._limits),
            )
        )
        return _back_to_page(completed, back.state, status=302)

    async def complete_saml(self, request: web.Request) -> web.Response:
        provider_id, back = path_id(request, "providerId"), await _form(request)
        completed = await self._single_sign_on.complete_saml(
            pb.CompleteSamlSignOnRequest(
                provider_id=provider_id,
                state=back.state,
                browser_secret=_kept(request, back.state),
                response=back.response,
                redirect_uri=redirect_uri(self._endpoint, provider_id),
                entity_id=metadata_url(self._endpoint, provider_id),
                device=device_of(request, self._limits),
            )
        )
        # Not with the form: a browser goes on by GET.
        return _back_to_page(completed, back.state, status=303)

    async def metadata(self, request: web.Request) -> web.Response:
        provider_id = path_id(request, "providerId")
        document = await self._single_sign_on.saml_metadata(
            provider_id,
            redirect_uri=redirect_uri(self._endpoint, provider_id),
            entity_id=metadata_url(self._endpoint, provider_id),
        )
        return web.Response(body=document, content_type=_METADATA)

    async def sign_on_with_password(self, request: web.Request, body: Password) -> web.Response:
        provider_id = path_id(request, "providerId")
        await self._limits.charge_login(request, provider_id, body.login)
        device = device_of(request, self._limits)
        return _signed_in(
            await self._single_sign_on.sign_on_with_password(provider_id, body.login, body.password, device)
        )

    async def redeem(self, request: web.Request, body: Grant) -> web.Response:
        found = await self._single_sign_on.redeem(body.grant, body.verifier, device_of(request, self._limits))
        return _signed_in(found)

    def _require_own(self, return_to: str) -> None:
        """Nobody is sent anywhere else from here. Raises Invalid."""
        if not _leads_to(return_to, self._cors_origins):
            fault = "must be a path of this gateway, not below /api/, or a page of an allowed origin"
            raise Invalid.fields({"returnTo": fault})


def _leads_to(return_to: str, origins: frozenset[str]) -> bool:
    """Whether browsers, which read more into an address than its grammar, find in it a page of ours or of an origin."""
    if not return_to.isascii() or not return_to.isprintable() or set(return_to) & set("\\# "):
        return False
    try:
        parts = urlsplit(return_to)
    except ValueError:
        return False
    # The router reads %61 as a, and browsers go up at %2e%2e: what is meant is judged, not what is written.
    if normpath(unquote(parts.path)).startswith("/api/"):
        return False
    if return_to.startswith("/"):
        return not return_to.startswith("//")
    return f"{parts.scheme}://{parts.netloc}".lower() in origins


async def _form(request: web.Request) -> SamlCallback:
    """Raises UnsupportedMediaType, TooLarge, Malformed, Invalid."""
    if request.content_type != _FORM:
        raise UnsupportedMediaType(f"Send this as {_FORM}.")
    try:
        fields = parse_qsl((await read(request)).decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise Malformed("The body is no form.") from error
    back, faults = read_from_texts(dict(fields), SamlCallback)
    if faults:
        raise Invalid.fields(faults)
    return back


def _back_to_page(
    completed: pb.CompleteOidcSignOnResponse | pb.CompleteSamlSignOnResponse, state: str, *, status: int
) -> web.Response:
    response = _sent_to(f"{completed.return_to}#sso={completed.grant}", status=status)
    response.del_cookie(_cookie(state), path="/api/v1/auth/sso/")
    return response


def _signed_in(found: pb.RedeemSignOnResponse | pb.SignOnWithPasswordResponse) -> web.Response:
    return answer(render_signed_in(found.user, found.memberships, found.session))


def _sent_to(address: str, *, status: int = 302) -> web.Response:
    return web.Response(status=status, headers={"Location": address})


def _kept(request: web.Request, state: str) -> str:
    """What the browser that began a sign-on keeps; empty where what it sends is none that we gave."""
    kept = request.cookies.get(_cookie(state), "")
    return kept if kept.isascii() else ""


def _cookie(state: str) -> str:
    """Its name: of characters that names may have."""
    return _COOKIE + "".join(filter(str.isalnum, state[:_COOKIE_CHARACTERS]))
