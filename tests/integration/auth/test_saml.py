"""Single sign-on by SAML 2.0: a real provider is believed, and no browser brings what was meant for another."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from lxml import etree

from chassis.errors import Conflict, Invalid, NotFound, PulsegateError
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from services.auth import saml
from services.auth.saml_documents import NAMES, PERSISTENT
from services.auth.settings import Settings
from tests.forged_saml import EC_KEY, ENTITY_ID, FOREIGN_KEY, KEY, SIGN_IN_URL, asked, pem_of
from tests.integration.auth.client import AuthClient, running_auth
from tests.integration.auth.clocks import MovableClock
from tests.integration.auth.forging_issuer import ForgingIssuer
from tests.integration.auth.saml_sign_ons import (
    add_saml,
    answer_to,
    begin_saml,
    change_saml,
    complete_saml,
    saml_refused,
    us,
)
from tests.integration.auth.sign_ons import ADMIN, EDITOR, add_provider, begin, complete, redeem
from tests.suite_saml_issuer import SamlIssuer

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def metadata_of(auth: AuthClient, provider_id: str) -> bytes:
    request = pb.GetSamlMetadataRequest(provider_id=provider_id, **us(provider_id))
    answer: pb.GetSamlMetadataResponse = await auth.sso("GetSamlMetadata", request)
    return answer.metadata


async def test_somebody_signs_in_at_a_real_provider_and_becomes_a_member(
    auth: AuthClient, saml_issuer: SamlIssuer
) -> None:
    ada = await auth.sign_up()
    provider = await add_saml(
        auth,
        ada,
        {"metadata": await saml_issuer.metadata()},
        role_claim="groups",
        role_mappings=[pb.RoleMapping(value="bosses", role=ADMIN), pb.RoleMapping(value="staff", role=EDITOR)],
        default_role=accounts_pb2.ROLE_UNSPECIFIED,
    )
    await saml_issuer.register(await metadata_of(auth, provider.id))
    users = []
    for name in ("boss-eve", "eve", "eve"):
        begun = await begin_saml(auth, provider)
        address, form = await saml_issuer.sign_in(begun.url, name)
        assert (str(address), form["RelayState"]) == (us(provider.id)["redirect_uri"], begun.state)
        completed = await complete_saml(auth, begun, form["SAMLResponse"])
        signed_in = await redeem(auth, completed.grant)
        users.append(signed_in.user.id)
        assert completed.return_to == "/there"
        assert signed_in.user.email == f"{name}@example.com"
        [membership] = signed_in.memberships
        assert (membership.tenant.id, membership.role) == (ada.tenant_id, ADMIN if name == "boss-eve" else EDITOR)
    assert (users[0] != users[1], users[1]) == (True, users[2])


async def test_the_request_says_who_asks_and_where_to_answer(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    provider = await add_saml(auth, ada)
    begun, other = await begin_saml(auth, provider), await begin_saml(auth, provider)
    request = asked(begun.url)
    [policy] = request.findall("samlp:NameIDPolicy", NAMES)
    assert begun.url.startswith(f"{SIGN_IN_URL}&SAMLRequest=")
    assert request.findtext("saml:Issuer", None, NAMES) == us(provider.id)["entity_id"]
    assert request.get("AssertionConsumerServiceURL") == us(provider.id)["redirect_uri"]
    assert (request.get("Destination"), policy.get("Format")) == (SIGN_IN_URL, PERSISTENT)
    assert request.get("ID") != asked(other.url).get("ID")

    by_attribute = {"entity_id": ENTITY_ID, "sign_in_url": SIGN_IN_URL, "certificates": [pem_of(KEY)]}
    named = await add_saml(auth, ada, {**by_attribute, "subject_attribute": "uid"})
    begun = await begin_saml(auth, named)
    assert asked(begun.url).find("samlp:NameIDPolicy", NAMES) is None
    made = answer_to(begun, attributes={"uid": ["17"], "email": ["eve@example.com"]})
    assert (await complete_saml(auth, begun, made.encoded())).grant


async def test_what_a_provider_is_to_know_of_us_is_public_and_nothing_else_is(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    provider = await add_saml(auth, ada)
    root = etree.fromstring(await metadata_of(auth, provider.id))
    [service] = root.findall("md:SPSSODescriptor/md:AssertionConsumerService", NAMES)
    assert (root.get("entityID"), service.get("Location")) == tuple(
        us(provider.id)[name] for name in ("entity_id", "redirect_uri")
    )
    for provider_id in ((await add_provider(auth, ada, forger.url)).id, "nonsense", ada.tenant_id):
        with pytest.raises(NotFound):
            await metadata_of(auth, provider_id)


@pytest.mark.parametrize("changed", ["state", "browser_secret", "provider_id", "no state"])
async def test_an_answer_is_good_in_the_browser_that_began_the_sign_on_alone(auth: AuthClient, changed: str) -> None:
    """Nor in one that has begun none: nobody is signed in because a provider says so unasked."""
    ada, mallory = await auth.sign_up(), await auth.sign_up()
    provider, foreign = await add_saml(auth, ada), await add_saml(auth, mallory)
    begun, other = await begin_saml(auth, provider), await begin_saml(auth, provider)
    response = answer_to(begun).encoded()
    forged = {
        "state": {"state": other.state},
        "browser_secret": {"browser_secret": other.browser_secret},
        "provider_id": {"provider_id": foreign.id},
        "no state": {"state": "", "browser_secret": ""},
    }[changed]
    assert await saml_refused(auth, begun, response, **forged) == "SSO_STATE_INVALID"
    assert (await complete_saml(auth, begun, response)).grant  # nobody else has used it up


async def test_an_answer_is_good_once_and_for_its_own_request_alone(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    provider = await add_saml(auth, ada)
    begun, other = await begin_saml(auth, provider), await begin_saml(auth, provider)
    response = answer_to(begun).encoded()
    outcomes = await asyncio.gather(*(complete_saml(auth, begun, response) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(outcome, pb.CompleteSamlSignOnResponse) for outcome in outcomes) == 1
    assert await saml_refused(auth, begun, response) == "SSO_STATE_INVALID"
    assert await saml_refused(auth, other, response) == "SSO_FAILED"


async def test_an_answer_of_another_provider_is_not_believed(auth: AuthClient) -> None:
    """Not even one that knows the request and has the same name: each has keys and addresses of its own."""
    ada, mallory = await auth.sign_up(), await auth.sign_up()
    victim = await add_saml(auth, ada)
    theirs = {"entity_id": ENTITY_ID, "sign_in_url": SIGN_IN_URL, "certificates": [pem_of(FOREIGN_KEY)]}
    foreign = await add_saml(auth, mallory, theirs)
    begun = await begin_saml(auth, victim)
    assert await saml_refused(auth, begun, answer_to(begun, key=FOREIGN_KEY).encoded()) == "SSO_FAILED"
    begun, elsewhere = await begin_saml(auth, victim), await begin_saml(auth, foreign)
    for_them = answer_to(replace(begun, provider_id=elsewhere.provider_id)).encoded()
    assert await saml_refused(auth, begun, for_them) == "SSO_FAILED"


async def test_an_answer_of_another_kind_is_not_taken(auth: AuthClient, forger: ForgingIssuer) -> None:
    ada = await auth.sign_up()
    by_saml, by_oidc = await add_saml(auth, ada), await add_provider(auth, ada, forger.url)
    begun = await begin_saml(auth, by_saml)
    with pytest.raises(PulsegateError) as error:
        await complete(auth, begun, "code", forger.url)
    assert error.value.code == "SSO_FAILED"
    begun = await begin(auth, by_oidc)
    assert await saml_refused(auth, begun, "response") == "SSO_FAILED"


async def test_a_sign_on_is_completed_by_any_replica_and_after_a_restart_until_it_is_over(
    settings: Settings, replica_settings: Settings, clock: MovableClock
) -> None:
    async with running_auth(settings, clock) as first:
        ada = await first.sign_up()
        provider = await add_saml(first, ada)
        begun, late = await begin_saml(first, provider), await begin_saml(first, provider)
    async with running_auth(replica_settings, clock) as second:
        completed = await complete_saml(second, begun, answer_to(begun).encoded())
        assert await saml_refused(second, begun, answer_to(begun).encoded()) == "SSO_STATE_INVALID"
        assert (await redeem(second, completed.grant)).user.email == "eve@example.com"
        await clock.advance(timedelta(minutes=10))
        assert await saml_refused(second, late, answer_to(late).encoded()) == "SSO_STATE_INVALID"


async def test_a_provider_may_change_its_keys_but_not_what_it_is(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    provider = await add_saml(auth, ada)
    both = {"entity_id": ENTITY_ID, "sign_in_url": SIGN_IN_URL, "certificates": [pem_of(KEY), pem_of(EC_KEY)]}
    assert (await change_saml(auth, ada, provider, both)).settings.saml.certificates == both["certificates"]
    begun = await begin_saml(auth, provider)
    assert (await complete_saml(auth, begun, answer_to(begun).encoded())).grant
    begun = await begin_saml(auth, provider)
    await change_saml(auth, ada, provider, both | {"certificates": [pem_of(EC_KEY)]})
    assert await saml_refused(auth, begun, answer_to(begun).encoded()) == "SSO_FAILED"
    for other in ({"entity_id": "https://idp.example.org"}, {"subject_attribute": "uid"}):
        with pytest.raises(Conflict):
            await change_saml(auth, ada, provider, {**both, **other})


async def test_who_is_not_to_be_let_in_is_not(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    provider = await add_saml(auth, ada, email_domains=["example.org"])
    begun = await begin_saml(auth, provider)
    assert await saml_refused(auth, begun, answer_to(begun).encoded()) == "SSO_NOT_ALLOWED"
    begun = await begin_saml(auth, provider)
    await change_saml(auth, ada, provider, enabled=False)
    assert await saml_refused(auth, begun, answer_to(begun).encoded()) == "NOT_FOUND"


async def test_more_answers_than_can_be_read_are_turned_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saml, "_MOST_ANSWERS", 0)
    async with running_auth(settings) as busy:
        ada = await busy.sign_up()
        begun = await begin_saml(busy, await add_saml(busy, ada))
        assert await saml_refused(busy, begun, answer_to(begun).encoded()) == "SERVICE_UNAVAILABLE"


OTHER_KEY = f'<ds:X509Certificate xmlns:ds="{NAMES["ds"]}">other</ds:X509Certificate>'
METADATA = f"""<!-- of a provider -->
<md:EntityDescriptor xmlns:md="{NAMES["md"]}" entityID="{ENTITY_ID}"><md:IDPSSODescriptor>
  <md:KeyDescriptor use="encryption">{OTHER_KEY}</md:KeyDescriptor>
  <md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="https://idp.example.com/p"/>
</md:IDPSSODescriptor></md:EntityDescriptor>"""
HONEST: dict[str, Any] = {"entity_id": ENTITY_ID, "sign_in_url": SIGN_IN_URL, "certificates": [pem_of(KEY)]}


@pytest.mark.parametrize(
    ("saml", "faults"),
    [
        ({"metadata": METADATA}, {"saml.signInUrl", "saml.certificates"}),
        ({"metadata": "<html/>"}, {"saml.metadata"}),
        ({"metadata": "<!DOCTYPE a><a/>"}, {"saml.metadata"}),
        ({**HONEST, "entity_id": ""}, {"saml.entityId"}),
        ({**HONEST, "certificates": ["nonsense"]}, {"saml.certificates"}),
        ({**HONEST, "certificates": [pem_of(KEY)] * 11}, {"saml.certificates"}),
        (
            {**HONEST, "email_attribute": "", "subject_attribute": "x" * 256},
            {"saml.emailAttribute", "saml.subjectAttribute"},
        ),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_its_name(
    auth: AuthClient, saml: dict[str, Any], faults: set[str]
) -> None:
    ada = await auth.sign_up()
    with pytest.raises(Invalid) as error:
        await add_saml(auth, ada, saml)
    assert set((error.value.details or {})["fields"]) == faults


@pytest.mark.parametrize("url", ["javascript:alert(1)", "http://idp.example.com/sso", "https://10.0.0.1/sso"])
async def test_nobody_is_sent_where_no_provider_can_be(auth: AuthClient, url: str) -> None:
    ada = await auth.sign_up()
    with pytest.raises(Invalid):
        await add_saml(auth, ada, {**HONEST, "sign_in_url": url})
