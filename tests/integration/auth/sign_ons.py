"""Identity providers of tenants, and people who sign in through them, as the gateway's calls."""

from dataclasses import dataclass
from typing import Any

import pytest
from yarl import URL

from chassis.errors import PulsegateError
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from services.auth.sign_on_secrets import challenge_of
from tests.integration.auth.client import AuthClient, Person
from tests.integration.auth.forging_issuer import CLIENT_ID, ForgingIssuer

SECRET = "client secret / only: for tests"
REDIRECT_URI = "https://metrics.example.com/api/v1/auth/sso/callback"
VERIFIER = "what the page keeps"
VIEWER, EDITOR = accounts_pb2.ROLE_VIEWER, accounts_pb2.ROLE_EDITOR
ADMIN, OWNER = accounts_pb2.ROLE_ADMIN, accounts_pb2.ROLE_OWNER


def settings_of(issuer_url: str, **changed: Any) -> pb.ProviderSettings:
    oidc = {"issuer": issuer_url, "client_id": CLIENT_ID, **changed.pop("oidc", {})}
    wanted = {"name": "Corporate", "enabled": True, "default_role": VIEWER, **changed}
    return pb.ProviderSettings(**wanted, oidc=pb.OidcSettings(**oidc))


async def add_provider(
    auth: AuthClient, owner: Person, issuer_url: str, secret: str | None = SECRET, **changed: Any
) -> pb.IdentityProvider:
    request = pb.CreateIdentityProviderRequest(
        tenant_id=owner.tenant_id, settings=settings_of(issuer_url, **changed), secret=secret
    )
    answer: pb.CreateIdentityProviderResponse = await auth.sso(
        "CreateIdentityProvider", request, await auth.principal(owner)
    )
    return answer.provider


async def change_provider(
    auth: AuthClient, owner: Person, provider: pb.IdentityProvider, issuer_url: str, **changed: Any
) -> pb.IdentityProvider:
    request = pb.UpdateIdentityProviderRequest(
        tenant_id=owner.tenant_id,
        provider_id=provider.id,
        secret=changed.pop("secret", None),
        settings=settings_of(issuer_url, **changed),
    )
    answer: pb.UpdateIdentityProviderResponse = await auth.sso(
        "UpdateIdentityProvider", request, await auth.principal(owner)
    )
    return answer.provider


@dataclass(frozen=True)
class Begun:
    """A sign-on under way."""

    provider_id: str
    url: str
    state: str
    browser_secret: str


async def begin(auth: AuthClient, provider: pb.IdentityProvider) -> Begun:
    request = pb.BeginSignOnRequest(
        provider_id=provider.id, redirect_uri=REDIRECT_URI, return_to="/there", challenge=challenge_of(VERIFIER)
    )
    answer: pb.BeginSignOnResponse = await auth.sso("BeginSignOn", request)
    asked = URL(answer.authorization_url).query
    assert asked["state"] == answer.state
    return Begun(provider.id, answer.authorization_url, answer.state, answer.browser_secret)


async def complete(
    auth: AuthClient, begun: Begun, code: str, issuer_url: str, **changed: str
) -> pb.CompleteOidcSignOnResponse:
    wanted: dict[str, Any] = {
        "provider_id": begun.provider_id,
        "state": begun.state,
        "browser_secret": begun.browser_secret,
        "code": code,
        "issuer": issuer_url,
        "redirect_uri": REDIRECT_URI,
        **changed,
    }
    answer: pb.CompleteOidcSignOnResponse = await auth.sso("CompleteOidcSignOn", pb.CompleteOidcSignOnRequest(**wanted))
    return answer


async def redeem(auth: AuthClient, grant: str, verifier: str = VERIFIER) -> pb.RedeemSignOnResponse:
    request = pb.RedeemSignOnRequest(grant=grant, verifier=verifier, device=accounts_pb2.Device(name="Firefox"))
    answer: pb.RedeemSignOnResponse = await auth.sso("RedeemSignOn", request)
    return answer


async def sign_on(
    auth: AuthClient, issuer: ForgingIssuer, provider: pb.IdentityProvider, **claims: Any
) -> pb.RedeemSignOnResponse:
    """Somebody signs in through the forging issuer, which says these claims."""
    begun = await begin(auth, provider)
    completed = await complete(auth, begun, issuer.send(begun.url, **claims), issuer.url)
    return await redeem(auth, completed.grant)


def person_of(signed_in: pb.RedeemSignOnResponse | pb.SignOnWithPasswordResponse, owner: Person) -> Person:
    """Who has signed in, in the tenant of the provider's owner."""
    return Person(
        email=signed_in.user.email,
        user_id=signed_in.user.id,
        tenant_id=owner.tenant_id,
        project_id=owner.project_id,
        access_token=signed_in.session.access_token,
        refresh_token=signed_in.session.refresh_token,
    )


async def refused(auth: AuthClient, forger: ForgingIssuer, provider: pb.IdentityProvider, **claims: Any) -> str:
    """With which code a sign-on is refused."""
    with pytest.raises(PulsegateError) as error:
        await sign_on(auth, forger, provider, **claims)
    return error.value.code
