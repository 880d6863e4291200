"""What a forging OpenID provider, or a forging browser, tries: each is refused, with its code."""

import asyncio
import base64
import gc
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web
from jwt import algorithms

from chassis.clock import SystemClock
from chassis.errors import PulsegateError, Unauthenticated, Unavailable
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from services.auth import discovery, oidc
from services.auth.discovery import Discovery
from services.auth.errors import ProviderAway
from services.auth.outbound import Outbounds, reaching
from tests.integration.auth.client import AuthClient
from tests.integration.auth.clocks import MovableClock
from tests.integration.auth.forging_issuer import FOREIGN_KEY, ForgingIssuer, forging_issuer
from tests.integration.auth.sign_ons import (
    ADMIN,
    add_provider,
    begin,
    complete,
    redeem,
    refused,
    sign_on,
)
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


def _part(of_token: str) -> str:
    return base64.urlsafe_b64encode(of_token.encode()).decode().rstrip("=")


@pytest.mark.parametrize("verified", [False, None, "false", "True", "1", 1, ["true"]])
async def test_an_address_that_is_not_verified_is_not_believed(
    auth: AuthClient, forger: ForgingIssuer, verified: object
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    assert await refused(auth, forger, provider, email_verified=verified) == "SSO_NOT_ALLOWED"


@pytest.mark.parametrize(
    "forged",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": "\ud800"},
        {"aud": "another"},
        {"aud": ["pulsegate", "another"]},
        {"aud": ["pulsegate", "another"], "azp": "another"},
        {"azp": "another"},
        {"iss": "https://issuer.example.com"},
        {"exp": 1},
        {"exp": "soon"},
        {"exp": None},
        {"iat": 10**11},
        {"nbf": 10**11},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
    ],
)
async def test_an_id_token_that_says_anything_else_is_refused(
    auth: AuthClient, forger: ForgingIssuer, forged: dict[str, Any]
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    assert await refused(auth, forger, provider, **forged) == "SSO_FAILED"


async def test_an_id_token_for_several_clients_is_taken_where_it_was_issued_to_us(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    assert await sign_on(auth, forger, provider, aud=["pulsegate", "another"], azp="pulsegate")


@pytest.mark.parametrize("attack", ["none", "HS256", "foreign key", "unknown kid", "wrong type", "garbage"])
async def test_an_id_token_that_the_provider_did_not_sign_is_refused(
    auth: AuthClient, forger: ForgingIssuer, attack: str
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    if attack == "none":
        forger.algorithm, forger.signing_key = "none", None
    elif attack == "HS256":  # signed with what everybody can read
        forger.algorithm, forger.signing_key = "HS256", forger.keys[0]["n"].encode()
        forger.keys.append({"kty": "oct", "k": forger.keys[0]["n"], "kid": "shared", "alg": "HS256"})
        forger.header = {"kid": "shared"}
    elif attack == "foreign key":
        forger.signing_key = FOREIGN_KEY
    elif attack == "unknown kid":
        forger.header = {"kid": "2", "jku": f"{forger.url}/other-keys"}
    elif attack == "wrong type":
        forger.algorithm, forger.signing_key = "ES256", forger.ec_key
    else:
        forger.answer = web.json_response({"id_token": "a.b.c"})
    assert await refused(auth, forger, provider) == "SSO_FAILED"
    assert not forger.requests("/other-keys")


async def test_a_shared_key_among_those_that_a_provider_publishes_is_passed_over(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    forger.keys.insert(0, {"kty": "oct", "k": "c2VjcmV0", "kid": "shared", "alg": "HS256"})
    ada = await auth.sign_up()
    assert await sign_on(auth, forger, await add_provider(auth, ada, forger.url))


async def test_a_private_key_among_those_that_a_provider_publishes_is_not_computed_with(
    auth: AuthClient, forger: ForgingIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its factors would be looked for, which takes as long as the provider likes."""
    factored: list[int] = []

    def factor(n: int, _e: int, _d: int) -> tuple[int, int]:
        factored.append(n)
        raise ValueError("no factors")

    monkeypatch.setattr(algorithms, "rsa_recover_prime_factors", factor)
    [key] = forger.keys
    forger.keys = [{**key, "d": key["n"]}]
    ada = await auth.sign_up()
    assert await sign_on(auth, forger, await add_provider(auth, ada, forger.url))
    assert factored == []


async def test_keys_that_cannot_be_used_are_passed_over_and_too_many_are_not_read(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada, [key] = await auth.sign_up(), forger.keys
    unusable: list[Any] = [{**key, "n": "A" * 1401}, {**key, "e": 3}, {**key, "e": "Ag"}, {**key, "n": "\ud800"}, "key"]
    forger.keys = [*unusable, key]
    assert await sign_on(auth, forger, await add_provider(auth, ada, forger.url))
    async with forging_issuer() as other:
        provider = await add_provider(auth, ada, other.url)
        other.keys = [key] * 101
        assert await refused(auth, other, provider) == "SERVICE_UNAVAILABLE"
        other.keys = unusable
        assert await refused(auth, other, provider) == "SERVICE_UNAVAILABLE"


async def test_a_provider_may_replace_its_keys_and_have_one_without_a_name(
    moving_auth: AuthClient, forger: ForgingIssuer, clock: MovableClock
) -> None:
    forger.now = clock.now_ms
    ada = await moving_auth.sign_up()
    provider = await add_provider(moving_auth, ada, forger.url)
    clock.stop()
    assert await sign_on(moving_auth, forger, provider)
    forger.keys = [forger.jwk(forger.ec_key, "2")]
    forger.algorithm, forger.signing_key, forger.header = "ES256", forger.ec_key, {"kid": "2"}
    assert await refused(moving_auth, forger, provider) == "SSO_FAILED"  # read a moment ago
    await clock.advance(timedelta(seconds=11))
    assert await sign_on(moving_auth, forger, provider)
    forger.header = {}
    assert await sign_on(moving_auth, forger, provider)
    assert len(forger.requests("/keys")) == 2
    await clock.advance(timedelta(minutes=11))
    assert await refused(moving_auth, forger, provider, exp=1) == "SSO_FAILED"
    assert (len(forger.requests("/keys")), len(forger.requests("/.well-known/openid-configuration"))) == (3, 2)


@pytest.mark.parametrize("changed", ["state", "browser_secret", "provider_id", "nonsense"])
async def test_a_sign_on_is_completed_by_the_browser_that_began_it_alone(
    auth: AuthClient, forger: ForgingIssuer, changed: str
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    other_provider, other = await add_provider(auth, ada, forger.url), await begin(auth, provider)
    begun = await begin(auth, provider)
    code = forger.send(begun.url)
    foreign = {
        "state": {"state": other.state},
        "browser_secret": {"browser_secret": other.browser_secret},
        "provider_id": {"provider_id": other_provider.id},
        "nonsense": {"provider_id": "nonsense"},
    }[changed]
    with pytest.raises(Unauthenticated) as error:
        await complete(auth, begun, code, forger.url, **foreign)
    assert error.value.code == "SSO_STATE_INVALID"
    assert not forger.requests("/token")
    assert await complete(auth, begun, code, forger.url)  # nobody else has used it up


async def test_state_and_grant_are_good_once_and_for_a_while(
    moving_auth: AuthClient, forger: ForgingIssuer, clock: MovableClock
) -> None:
    forger.now = clock.now_ms
    ada = await moving_auth.sign_up()
    provider = await add_provider(moving_auth, ada, forger.url)
    begun, late = await begin(moving_auth, provider), await begin(moving_auth, provider)
    attempts = [complete(moving_auth, begun, forger.send(begun.url), forger.url) for _ in range(4)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    [completed] = [outcome for outcome in outcomes if isinstance(outcome, pb.CompleteOidcSignOnResponse)]
    with pytest.raises(Unauthenticated):  # a grant of somebody else, in the address of a page
        await redeem(moving_auth, completed.grant, verifier="what another page keeps")
    redeemed = await asyncio.gather(*(redeem(moving_auth, completed.grant) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(outcome, pb.RedeemSignOnResponse) for outcome in redeemed) == 1

    begun = await begin(moving_auth, provider)
    expiring = await complete(moving_auth, begun, forger.send(begun.url), forger.url)
    await clock.advance(timedelta(minutes=1))
    with pytest.raises(Unauthenticated):
        await redeem(moving_auth, expiring.grant)
    await clock.advance(timedelta(minutes=9))
    with pytest.raises(Unauthenticated) as error:
        await complete(moving_auth, late, forger.send(late.url), forger.url)
    assert error.value.code == "SSO_STATE_INVALID"


@pytest.mark.parametrize("token", ["\ud800.a.b", "a.b.\ud800", f"{_part('[' * 100_000)}.e30.AA"])
async def test_a_token_that_is_no_text_or_too_deep_is_refused(
    auth: AuthClient, forger: ForgingIssuer, token: str
) -> None:
    provider = await add_provider(auth, await auth.sign_up(), forger.url)
    forger.answer = web.json_response({"id_token": token})
    assert await refused(auth, forger, provider) == "SSO_FAILED"


async def test_groups_that_are_not_all_read_sign_nobody_in(auth: AuthClient, forger: ForgingIssuer) -> None:
    mapped: dict[str, Any] = {"role_claim": "groups", "role_mappings": [pb.RoleMapping(value="ops", role=ADMIN)]}
    provider = await add_provider(auth, await auth.sign_up(), forger.url, **mapped)
    assert await sign_on(auth, forger, provider, groups=["ops"] * 1000)
    assert await refused(auth, forger, provider, groups=["ops"] * 1001) == "SSO_FAILED"
    assert await refused(auth, forger, provider, groups=None, _claim_names={"groups": "src1"}) == "SSO_FAILED"
    assert await sign_on(auth, forger, provider, _claim_names={"others": "src1"})


async def test_an_answer_of_another_issuer_is_not_taken_to_this_one(auth: AuthClient, forger: ForgingIssuer) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    for issuer_url in ("https://attacker.example.com", ""):
        begun = await begin(auth, provider)
        with pytest.raises(Unauthenticated) as error:
            await complete(auth, begun, forger.send(begun.url), issuer_url)
        assert error.value.code == "SSO_FAILED"
    assert not forger.requests("/token")


async def test_a_provider_that_does_not_name_itself_need_not(auth: AuthClient, forger: ForgingIssuer) -> None:
    forger.discovery = {"authorization_response_iss_parameter_supported": None}
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    begun = await begin(auth, provider)
    assert await complete(auth, begun, forger.send(begun.url), "")


@pytest.mark.parametrize("secret", ["client secret / only: for tests", None])
async def test_the_client_shows_its_secret_as_the_provider_asks(
    auth: AuthClient, forger: ForgingIssuer, secret: str | None
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url, secret)
    await sign_on(auth, forger, provider)
    [form] = forger.requests("/token")
    assert (forger.authorization.startswith("Basic "), form.get("client_id")) == (
        (True, None) if secret else (False, "pulsegate")
    )
    assert len(form["code_verifier"]) == 43


async def test_a_provider_that_takes_no_basic_authentication_gets_the_secret_in_the_form(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    forger.discovery = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    ada = await auth.sign_up()
    await sign_on(auth, forger, await add_provider(auth, ada, forger.url))
    [form] = forger.requests("/token")
    assert (forger.authorization, form["client_secret"]) == ("", "client secret / only: for tests")


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://issuer.example.com"},
        {"token_endpoint": None},
        {"token_endpoint": "https://\ud800/"},
        {"jwks_uri": "http://169.254.169.254/latest/meta-data/"},
        {"token_endpoint": "http://10.0.0.1/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": f"https://login.example.com/{'x' * 2000}"},
        {"jwks_uri": "https://login.example.com/schlüssel"},
    ],
)
async def test_discovery_that_leads_elsewhere_is_not_followed(
    auth: AuthClient, forger: ForgingIssuer, said: dict[str, Any]
) -> None:
    forger.discovery = said
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    with pytest.raises(PulsegateError) as error:
        await begin(auth, provider)
    assert (error.value.code, "http" in error.value.message) == ("SERVICE_UNAVAILABLE", False)


async def test_an_endpoint_that_answers_what_it_must_not_is_not_waited_for(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    for number, endpoint in enumerate(
        ({"jwks_uri": "/missing"}, {"jwks_uri": "/elsewhere"}, {"jwks_uri": "/large"}, {"token_endpoint": "/large"})
    ):
        async with forging_issuer() as other:
            other.discovery = {name: other.url + path for name, path in endpoint.items()}
            provider = await add_provider(auth, ada, other.url, name=f"Other {number}")
            assert await refused(auth, other, provider) == "SERVICE_UNAVAILABLE"
            other.keys = [{"kty": "RSA"}]
            other.answer = web.Response(text="<html>")
            assert await refused(auth, other, provider) in ("SERVICE_UNAVAILABLE", "SSO_FAILED")
    forger.answer = web.json_response(["a list"])
    provider = await add_provider(auth, ada, forger.url)
    assert await refused(auth, forger, provider) == "SERVICE_UNAVAILABLE"
    forger.answer, forger.keys = None, [{"kty": "nonsense"}]
    assert await refused(auth, forger, provider) == "SERVICE_UNAVAILABLE"


async def test_a_provider_is_asked_by_one_at_a_time_and_not_at_once_again_where_it_says_nothing(
    moving_auth: AuthClient, forger: ForgingIssuer, clock: MovableClock
) -> None:
    ada = await moving_auth.sign_up()
    provider = await add_provider(moving_auth, ada, forger.url)
    forger.discovery = {"jwks_uri": None}
    discovered = "/.well-known/openid-configuration"
    for _ in range(2):
        outcomes = await asyncio.gather(*(begin(moving_auth, provider) for _ in range(5)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert len(forger.requests(discovered)) == 1
    forger.discovery = {}
    await clock.advance(timedelta(seconds=31))
    await asyncio.gather(*(begin(moving_auth, provider) for _ in range(5)))
    assert len(forger.requests(discovered)) == 2


async def test_what_a_public_issuer_says_leads_nowhere_inside(forger: ForgingIssuer) -> None:
    here, inside = ip_network("127.0.0.1"), ip_network("127.0.0.0/8")
    forger.discovery = {"token_endpoint": "http://127.0.0.2/token"}
    async with reaching((here,)) as as_if_public, reaching((inside,)) as outbounds:
        # The forging issuer stands for a public one, the rest of this machine for what is inside.
        mixed = Outbounds(public=as_if_public.inside, inside=outbounds.inside)
        with pytest.raises(ProviderAway) as error:
            await Discovery(mixed, SystemClock()).of(forger.url)
        assert "token_endpoint" in error.value.cause
        assert (await Discovery(outbounds, SystemClock()).of(forger.url)).outbound is outbounds.inside
        forger.discovery = {}
        assert (await Discovery(mixed, SystemClock()).of(forger.url)).outbound is as_if_public.inside


async def test_what_is_remembered_of_providers_is_bounded(
    auth: AuthClient, forger: ForgingIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_MOST_CACHED", 1)
    ada = await auth.sign_up()
    async with forging_issuer() as other:
        for issuer in (forger, other, forger):
            assert await begin(auth, await add_provider(auth, ada, issuer.url))
    assert len(forger.requests("/.well-known/openid-configuration")) == 2


async def test_what_is_kept_of_a_provider_is_forgotten_when_it_is_past_its_time(
    forger: ForgingIssuer, clock: MovableClock
) -> None:
    async with reaching((ip_network("127.0.0.0/8"),)) as outbounds, forging_issuer() as other:
        discovered = Discovery(outbounds, clock)
        await discovered.of(forger.url)
        await clock.advance(timedelta(minutes=11))
        await discovered.of(other.url)
        assert list(discovered._metadata) == [other.url]


async def test_keys_that_are_remembered_are_bounded_over_all_providers(
    auth: AuthClient, forger: ForgingIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "_MOST_KEYS_CACHED", 3)
    ada = await auth.sign_up()
    async with forging_issuer() as other:
        for issuer in (forger, other, forger):
            issuer.keys = [issuer.jwk(issuer.rsa_key, "1"), issuer.jwk(issuer.ec_key, "2")]
            assert await sign_on(auth, issuer, await add_provider(auth, ada, issuer.url))
    assert len(forger.requests("/keys")) == 2


@pytest.fixture
def traced() -> Iterator[None]:
    """Memory is counted."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


def _bytes_held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.usefixtures("traced")
async def test_of_what_discovery_says_no_more_is_kept_than_is_used(forger: ForgingIssuer) -> None:
    async with reaching((ip_network("127.0.0.0/8"),)) as outbounds, forging_issuer() as large:
        discovered = Discovery(outbounds, SystemClock())
        await discovered.of(forger.url)
        large.discovery = {"token_endpoint_auth_methods_supported": [[{}]] * 40_000, "issuer": large.url}
        before = _bytes_held()
        await discovered.of(large.url)

        async def little_is_held() -> bool:
            return _bytes_held() - before < 64 << 10

        await eventually(little_is_held, within_seconds=5, what="the provider here has let go of what it sent, too")


@pytest.mark.usefixtures("traced")
async def test_of_an_id_token_little_is_kept_while_its_key_is_read(auth: AuthClient, forger: ForgingIssuer) -> None:
    held: list[int] = []

    async def measured() -> None:
        held.append(_bytes_held())

    forger.before_token = forger.before_keys = measured
    forger.header = {"kid": "1", "x": [[{}]] * 30_000}
    assert await sign_on(auth, forger, await add_provider(auth, await auth.sign_up(), forger.url))
    before, meanwhile = held
    assert meanwhile - before < 1 << 20


async def test_an_id_token_that_names_its_key_at_length_is_refused_before_keys_are_read(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    provider = await add_provider(auth, await auth.sign_up(), forger.url)
    forger.header = {"kid": "1" * 1401}
    assert await refused(auth, forger, provider) == "SSO_FAILED"
    assert not forger.requests("/keys")
