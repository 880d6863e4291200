"""SAML providers of tenants, and people who sign in through them, as the gateway's calls."""

from typing import Any

import pytest

from chassis.errors import PulsegateError
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from services.auth.sign_on_secrets import challenge_of
from tests.forged_saml import ENTITY_ID, KEY, SIGN_IN_URL, Answer, asked, pem_of
from tests.integration.auth.client import AuthClient, Person
from tests.integration.auth.sign_ons import VERIFIER, VIEWER, Begun

AT = "https://metrics.example.com/api/v1/auth/sso"


def saml_settings(saml: dict[str, Any] | None = None, **changed: Any) -> pb.ProviderSettings:
    honest = {"entity_id": ENTITY_ID, "sign_in_url": SIGN_IN_URL, "certificates": [pem_of(KEY)]}
    said = pb.SamlSettings(**({"email_attribute": "email"} | (honest if saml is None else saml)))
    return pb.ProviderSettings(**{"name": "Corporate", "enabled": True, "default_role": VIEWER, **changed}, saml=said)


async def add_saml(
    auth: AuthClient, owner: Person, saml: dict[str, Any] | None = None, **changed: Any
) -> pb.IdentityProvider:
    request = pb.CreateIdentityProviderRequest(tenant_id=owner.tenant_id, settings=saml_settings(saml, **changed))
    answer: pb.CreateIdentityProviderResponse = await auth.sso(
        "CreateIdentityProvider", request, await auth.principal(owner)
    )
    return answer.provider


async def change_saml(
    auth: AuthClient, owner: Person, provider: pb.IdentityProvider, saml: dict[str, Any] | None = None, **changed: Any
) -> pb.IdentityProvider:
    request = pb.UpdateIdentityProviderRequest(
        tenant_id=owner.tenant_id, provider_id=provider.id, settings=saml_settings(saml, **changed)
    )
    answer: pb.UpdateIdentityProviderResponse = await auth.sso(
        "UpdateIdentityProvider", request, await auth.principal(owner)
    )
    return answer.provider


def us(provider_id: str) -> dict[str, str]:
    """Who we are to a provider."""
    return {"redirect_uri": f"{AT}/{provider_id}/callback", "entity_id": f"{AT}/{provider_id}/metadata"}


async def begin_saml(auth: AuthClient, provider: pb.IdentityProvider) -> Begun:
    request = pb.BeginSignOnRequest(
        provider_id=provider.id, return_to="/there", challenge=challenge_of(VERIFIER), **us(provider.id)
    )
    answer: pb.BeginSignOnResponse = await auth.sso("BeginSignOn", request)
    assert answer.posts_back
    return Begun(provider.id, answer.authorization_url, answer.state, answer.browser_secret)


def answer_to(begun: Begun, **changed: Any) -> Answer:
    """What an honest provider would answer."""
    here = us(begun.provider_id)
    request_id = asked(begun.url).get("ID", "")
    return Answer(acs_url=here["redirect_uri"], audience=here["entity_id"], request_id=request_id, **changed)


async def complete_saml(auth: AuthClient, begun: Begun, response: str, **changed: str) -> pb.CompleteSamlSignOnResponse:
    wanted: dict[str, Any] = {
        "provider_id": begun.provider_id,
        "state": begun.state,
        "browser_secret": begun.browser_secret,
        "response": response,
        "device": accounts_pb2.Device(name="Firefox"),
        **us(begun.provider_id),
        **changed,
    }
    answer: pb.CompleteSamlSignOnResponse = await auth.sso("CompleteSamlSignOn", pb.CompleteSamlSignOnRequest(**wanted))
    return answer


async def saml_refused(auth: AuthClient, begun: Begun, response: str, **changed: str) -> str:
    """With which code an answer is refused."""
    with pytest.raises(PulsegateError) as error:
        await complete_saml(auth, begun, response, **changed)
    return str(error.value.code)
