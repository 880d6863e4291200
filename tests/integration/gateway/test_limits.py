"""Rate limits through the real door, decided by a real Valkey."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest
from prometheus_client import REGISTRY

from chassis.errors import Invalid
from chassis.ids import uuid7
from contracts.pulsegate.auth.v1 import accounts_pb2, operators_pb2, own_account_pb2
from contracts.pulsegate.auth.v1.limits_pb2 import Limits
from contracts.pulsegate.codegen.v1 import codegen_pb2
from contracts.pulsegate.config.v1 import definitions_pb2
from deploy.local.servers import Valkey
from tests.integration.gateway.fakes import OTHER_PROJECT, PROJECT, TENANT, USER
from tests.integration.gateway.running import Answer, Gateway, StartGateway
from tests.suite_servers import RunningServer
from tests.waiting import eventually

PROXIED: dict[str, Any] = {"trusted_proxies": (ip_network("127.0.0.0/8"),)}


def address() -> str:
    """An address that no other test uses."""
    return f"2001:db8:{uuid7().hex[-8:-4]}:{uuid7().hex[-4:]}::1"


async def test_ingestion_of_a_secret_key_is_limited_by_the_minute(start_gateway: StartGateway) -> None:
    async with start_gateway(ingest_requests_per_minute=5) as gateway:
        key, other = gateway.auth.new_key("secret"), gateway.auth.new_key("secret")
        answers = [await gateway.ingest_one(key) for _ in range(7)]
        assert [answer.status for answer in answers] == [202] * 5 + [429] * 2
        assert answers[0].headers["RateLimit-Policy"] == '"ingestion";q=5;w=60'
        assert answers[0].headers["RateLimit"] == '"ingestion";r=4;t=12'
        refused = answers[5]
        assert (refused.code, refused.json["error"]["details"]) == ("RATE_LIMIT_EXCEEDED", {"limit": "ingestion"})
        assert 1 <= int(refused.headers["Retry-After"]) <= 12
        wait = f"The rate limit ingestion is used up; wait {refused.headers['Retry-After']} s."
        assert refused.json["error"]["message"] == wait
        assert "r=0" in refused.headers["RateLimit"]
        assert (await gateway.ingest_one(other)).status == 202
        assert len(gateway.ingest.seen) == 6


async def test_a_publishable_key_is_limited_by_address_and_in_all(start_gateway: StartGateway) -> None:
    async with start_gateway(ingest_requests_per_minute=2, **PROXIED) as gateway:
        key = gateway.auth.new_key()

        async def send(source: str) -> Answer:
            return await gateway.ingest_one(key, **{"X-Forwarded-For": source})

        noisy = address()
        assert [(await send(noisy)).status for _ in range(3)] == [202, 202, 429]
        assert (await send(noisy.replace("::1", "::2"))).status == 429  # the same network
        answers = [await send(address()) for _ in range(19)]
        assert [answer.status for answer in answers] == [202] * 18 + [429]
        assert answers[-1].json["error"]["details"] == {"limit": "ingestion-key"}


async def test_signing_in_is_limited_by_address_and_by_account(start_gateway: StartGateway) -> None:
    async with start_gateway(auth_requests_per_minute=5, **PROXIED) as gateway:
        gateway.auth.answers["SignIn"] = accounts_pb2.SignInResponse(user=accounts_pb2.User(id=USER))

        async def sign_in(source: str, email: str) -> int:
            body = {"email": email, "password": "x"}
            headers = {"X-Forwarded-For": source}
            return (await gateway.call("POST", "/api/v1/auth/signin", json=body, headers=headers)).status

        source, email = address(), f"v{uuid7()}@example.com"
        assert [await sign_in(source, f"{uuid7()}@example.com") for _ in range(6)] == [200] * 5 + [429]
        spellings = [email, email.upper(), f" {email}", email.replace("v", "\uff56"), email, email]
        assert [await sign_in(address(), spelling) for spelling in spellings] == [200] * 5 + [429]


async def test_refreshing_a_session_counts_by_address_as_signing_in_and_spends_no_token_where_it_is_refused(
    start_gateway: StartGateway,
) -> None:
    async with start_gateway(auth_requests_per_minute=2, **PROXIED) as gateway:
        gateway.auth.answers["SignIn"] = accounts_pb2.SignInResponse(user=accounts_pb2.User(id=USER))
        gateway.auth.answers["Refresh"] = accounts_pb2.RefreshResponse()
        office = {"X-Forwarded-For": address()}
        credentials = {"email": f"{uuid7()}@example.com", "password": "x"}

        async def refresh(headers: dict[str, str]) -> Answer:
            return await gateway.call("POST", "/api/v1/auth/refresh", json={"refreshToken": "rt_x"}, headers=headers)

        signed_in = await gateway.call("POST", "/api/v1/auth/signin", json=credentials, headers=office)
        refreshed = [await refresh(office) for _ in range(2)]
        assert [signed_in.status, *(answer.status for answer in refreshed)] == [200, 200, 429]
        assert refreshed[1].json["error"]["details"] == {"limit": "sign-in"}
        assert int(refreshed[1].headers["Retry-After"]) <= 30
        assert len(gateway.auth.requests("Refresh")) == 1
        assert (await refresh({"X-Forwarded-For": address()})).status == 200


@pytest.mark.parametrize(
    ("path", "asked", "body"),
    [
        ("signup", "SignUp", {"password": "x", "tenantName": "Shop"}),
        ("signin", "SignIn", {"password": "x"}),
        ("password-reset", "RequestPasswordReset", {}),
    ],
)
async def test_what_names_an_account_is_limited_by_account(
    start_gateway: StartGateway, path: str, asked: str, body: dict[str, str]
) -> None:
    async with start_gateway(auth_requests_per_minute=2, **PROXIED) as gateway:
        gateway.auth.answers[asked] = Invalid("We do not get further than this.")

        async def attempt(email: str) -> int:
            sent, headers = body | {"email": email}, {"X-Forwarded-For": address()}
            return (await gateway.call("POST", f"/api/v1/auth/{path}", json=sent, headers=headers)).status

        email = f"{uuid7()}@example.com"
        assert [await attempt(email) for _ in range(4)] == [422, 422, 429, 429]
        assert await attempt(f"{uuid7()}@example.com") == 422
        assert len(gateway.auth.requests(asked)) == 3


@pytest.mark.parametrize(
    ("method", "path", "asked", "body"),
    [
        ("PUT", "auth/password", "ChangePassword", {"currentPassword": "x", "newPassword": "y"}),
        ("POST", "auth/totp", "BeginTotp", {"password": "x"}),
        ("POST", "auth/totp/confirm", "ConfirmTotp", {"code": "123456"}),
        ("POST", "auth/totp/recovery-codes", "RenewRecoveryCodes", {"password": "x"}),
        ("POST", "auth/totp/disable", "DisableTotp", {"password": "x"}),
        ("POST", "auth/email-verification/confirm", "VerifyEmail", {"token": "mt_x"}),
        ("POST", "invitations/accept", "AcceptInvitation", {"token": "mt_x"}),
    ],
)
async def test_passwords_codes_and_tokens_of_an_account_are_limited_by_account(
    start_gateway: StartGateway, method: str, path: str, asked: str, body: dict[str, str]
) -> None:
    async with start_gateway(auth_requests_per_minute=2, **PROXIED) as gateway:
        gateway.auth.answers[asked] = Invalid("We do not get further than this.")

        async def attempt(user: str) -> int:
            session, headers = gateway.auth.new_session(user), {"X-Forwarded-For": address()}
            answer = await gateway.call(method, f"/api/v1/{path}", credential=session, json=body, headers=headers)
            return answer.status

        user = str(uuid7())
        assert [await attempt(user) for _ in range(4)] == [422, 422, 429, 429]
        assert await attempt(str(uuid7())) == 422
        assert len(gateway.auth.requests(asked)) == 3


async def test_mails_that_verify_an_address_are_limited_by_account(start_gateway: StartGateway) -> None:
    async with start_gateway(auth_requests_per_minute=2) as gateway:
        gateway.auth.answers["RequestEmailVerification"] = own_account_pb2.RequestEmailVerificationResponse()
        session = gateway.auth.new_session(str(uuid7()))
        path = "/api/v1/auth/email-verification"
        answers = [await gateway.call("POST", path, credential=session) for _ in range(3)]
        assert [answer.status for answer in answers] == [202, 202, 429]


async def test_what_is_typed_as_an_address_uses_up_nobody_elses_limit(start_gateway: StartGateway) -> None:
    async with start_gateway(auth_requests_per_minute=3, **PROXIED) as gateway:
        gateway.auth.answers["SignIn"] = accounts_pb2.SignInResponse(user=accounts_pb2.User(id=USER))
        gateway.auth.answers["RequestEmailVerification"] = own_account_pb2.RequestEmailVerificationResponse()

        async def sign_in(source: str, email: str) -> int:
            body, headers = {"email": email, "password": "x"}, {"X-Forwarded-For": source}
            return (await gateway.call("POST", "/api/v1/auth/signin", json=body, headers=headers)).status

        victim = address()
        network = str(ip_network((victim, 64), strict=False))
        for name in (network, USER):
            assert [await sign_in(address(), name) for _ in range(4)] == [200] * 3 + [429]
        assert await sign_in(victim, "ada@example.com") == 200
        session = gateway.auth.new_session()
        asked = await gateway.call("POST", "/api/v1/auth/email-verification", credential=session)
        assert asked.status == 202


@pytest.mark.parametrize("path", ["signin", "signup", "password-reset"])
async def test_a_text_that_is_too_long_for_an_address_costs_nothing(gateway: Gateway, path: str) -> None:
    body = {"email": "a" + "\u0301\u0316" * 30_000 + "@example.com", "password": "x", "tenantName": "Shop"}
    wanted = {name: body[name] for name in body if path != "password-reset" or name == "email"}
    data = json.dumps(wanted, ensure_ascii=False).encode()
    began = time.monotonic()
    refused = await gateway.call(
        "POST", f"/api/v1/auth/{path}", data=data, headers={"Content-Type": "application/json"}
    )
    assert time.monotonic() - began < 1
    assert refused.status == 422
    assert "email" in refused.json["error"]["details"]["fields"]


async def test_calls_without_a_credential_are_limited_by_address(start_gateway: StartGateway) -> None:
    async with start_gateway(address_requests_per_15_minutes=4, **PROXIED) as gateway:
        headers = {"X-Forwarded-For": address()}
        known, unknown = gateway.auth.new_key(), gateway.auth.new_key()
        gateway.auth.revoke(unknown)
        assert (await gateway.ingest_one(known, **headers)).status == 202
        assert (await gateway.call("GET", "/api/v1/auth/me", headers=headers)).status == 401
        assert (await gateway.ingest_one(unknown, **headers)).status == 401
        assert (await gateway.call("GET", f"/sdk/v1/{unknown}.js", headers=headers)).status == 401
        assert (await gateway.call("GET", "/.well-known/jwks.json", headers=headers)).status == 200
        refused = await gateway.call("GET", "/prometheus/api/v1/query?query=up", headers=headers)
        assert (refused.status, refused.json["errorType"]) == (429, "too_many_requests")
        # Who is known to have a valid credential is not held up by others at the same address.
        assert (await gateway.ingest_one(known, **headers)).status == 202


async def test_anonymous_calls_hold_up_no_good_credential_of_their_address(start_gateway: StartGateway) -> None:
    async with start_gateway(address_requests_per_15_minutes=2, **PROXIED) as gateway:
        headers = {"X-Forwarded-For": address()}
        anonymous = [(await gateway.call("GET", "/.well-known/jwks.json", headers=headers)).status for _ in range(4)]
        assert anonymous == [200, 200, 429, 429]
        assert (await gateway.ingest_one(gateway.auth.new_key(), **headers)).status == 202


async def test_past_its_limit_an_address_guesses_no_more_credentials(start_gateway: StartGateway) -> None:
    async with start_gateway(address_requests_per_15_minutes=3, **PROXIED) as gateway:
        here, elsewhere = {"X-Forwarded-For": address()}, {"X-Forwarded-For": address()}

        def guess(kind: str = "secret") -> str:
            guessed = gateway.auth.new_key(kind)
            gateway.auth.revoke(guessed)
            return guessed

        known, good = gateway.auth.new_key("secret"), gateway.auth.new_key("secret")
        assert (await gateway.ingest_one(known, **here)).status == 202
        assert [(await gateway.ingest_one(guess(), **here)).status for _ in range(4)] == [401] * 3 + [429]
        asked = gateway.auth.asked
        for answer in [
            await gateway.ingest_one(guess(), **here),
            await gateway.ingest_one(good, **here),
            await gateway.call("GET", "/api/v1/auth/me", credential="x", headers=here),
            await gateway.call("GET", f"/sdk/v1/{guess('publishable')}.js", headers=here),
        ]:
            assert (answer.status, answer.code) == (429, "RATE_LIMIT_EXCEEDED")
            assert answer.json["error"]["details"] == {"limit": "address"}
            assert 1 <= int(answer.headers["Retry-After"]) <= 300
            assert answer.headers["RateLimit-Policy"] == '"address";q=3;w=900'
            assert answer.headers["RateLimit"].startswith('"address";r=0;t=')
        assert gateway.auth.asked == asked
        assert (await gateway.ingest_one(known, **here)).status == 202
        # One that is found good elsewhere is known to this gateway from then on.
        assert (await gateway.ingest_one(good, **elsewhere)).status == 202
        assert (await gateway.ingest_one(good, **here)).status == 202


async def test_a_gateway_whose_clock_is_far_ahead_calls_no_credential_wrong(start_gateway: StartGateway) -> None:
    async with start_gateway(address_requests_per_15_minutes=1, **PROXIED) as gateway:
        here = {"X-Forwarded-For": address()}
        keys = [gateway.auth.new_key("secret") for _ in range(3)]
        gateway.auth.principal_seconds = 120 - 150
        for key in keys:
            answer = await gateway.ingest_one(key, **here)
            assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "SERVICE_UNAVAILABLE", "1")
            assert answer.json["error"]["details"] == {"waitingFor": "clock"}
        gateway.auth.principal_seconds = 120
        assert [(await gateway.ingest_one(key, **here)).status for key in keys] == [202] * 3


async def test_an_address_that_guesses_leaves_others_places_at_auth(start_gateway: StartGateway) -> None:
    """Of eight look-ups at a time two are of one address."""
    async with start_gateway(upstream_calls=2, **PROXIED) as gateway:
        here, elsewhere = {"X-Forwarded-For": address()}, {"X-Forwarded-For": address()}
        gateway.auth.answering.clear()
        before = gateway.auth.asked

        async def asked(times: int) -> bool:
            return gateway.auth.asked == before + times

        def shown(headers: dict[str, str]) -> Coroutine[Any, Any, Answer]:
            return gateway.ingest_one(gateway.auth.new_key("secret"), **headers)

        under_way = [asyncio.create_task(shown(here)) for _ in range(2)]
        await eventually(partial(asked, 2), what="auth is asked about two")
        refused = await shown(here)
        assert (refused.status, refused.code) == (503, "SERVICE_UNAVAILABLE")
        under_way.append(asyncio.create_task(shown(elsewhere)))
        await eventually(partial(asked, 3), what="auth is asked on behalf of another address")
        gateway.auth.answering.set()
        assert {(await call).status for call in under_way} == {202}


async def test_nobody_chooses_an_address_without_a_trusted_proxy(start_gateway: StartGateway) -> None:
    async with start_gateway(address_requests_per_15_minutes=3, host="127.0.0.1") as gateway:
        spoofed = [
            await gateway.call("GET", "/api/v1/auth/me", headers={"X-Forwarded-For": address()}) for _ in range(5)
        ]
        # Other tests have asked from this address before.
        assert spoofed[-1].status == 429


@pytest.mark.parametrize(
    ("plan", "writes", "reads", "expensive"),
    [("free", 100, 1_000, 10), ("basic", 1_000, 10_000, 100), ("enterprise", 10_000, 100_000, 10_000)],
)
async def test_a_plan_says_how_much(gateway: Gateway, plan: str, writes: int, reads: int, expensive: int) -> None:
    gateway.auth.plan = plan
    gateway.auth.answers["ListKeys"] = accounts_pb2.ListKeysResponse()
    gateway.auth.answers["UpdateProject"] = accounts_pb2.UpdateProjectResponse(
        project=accounts_pb2.Project(id=PROJECT, tenant_id=TENANT)
    )
    gateway.codegen.answers["GenerateClient"] = codegen_pb2.GenerateClientResponse(content_type="text/x-python")
    key = gateway.auth.new_key("secret", scopes=["config:read"])
    path = f"/api/v1/projects/{PROJECT}"
    read = await gateway.call("GET", f"{path}/keys", credential=key)
    written = await gateway.call("PATCH", path, credential=key, json={"name": "x"})
    generated = await gateway.call("GET", f"{path}/client?language=python", credential=key)
    policies = [answer.headers["RateLimit-Policy"] for answer in (read, written, generated)]
    assert policies == [f'"reads";q={reads};w=3600', f'"api";q={writes};w=3600', f'"expensive";q={expensive};w=3600']


async def test_generation_on_the_free_plan_ends_after_ten(gateway: Gateway) -> None:
    gateway.auth.plan = "free"
    gateway.codegen.answers["GenerateClient"] = codegen_pb2.GenerateClientResponse(content_type="text/x-python")
    key = gateway.auth.new_key("secret", scopes=["config:read"])
    path = f"/api/v1/projects/{PROJECT}/client?language=python"
    statuses = [(await gateway.call("GET", path, credential=key)).status for _ in range(11)]
    assert statuses == [200] * 10 + [429]


async def test_what_is_exempt_counts_nothing(start_gateway: StartGateway) -> None:
    async with start_gateway(address_requests_per_15_minutes=1, **PROXIED) as gateway:
        gateway.codegen.answers["GenerateClient"] = codegen_pb2.GenerateClientResponse(content_type="text/javascript")
        key = gateway.auth.new_key()
        headers = {"X-Forwarded-For": address(), "Origin": "https://shop.example"}
        preflight = {**headers, "Access-Control-Request-Method": "POST"}
        for _ in range(5):
            assert (await gateway.call("GET", "/", headers=headers)).status == 200
            assert (await gateway.call("GET", "/health/ready", headers=headers)).status == 200
            assert (await gateway.call("GET", f"/sdk/v1/{key}.js", headers=headers)).status == 200
            assert (await gateway.call("OPTIONS", "/api/v1/metrics", headers=preflight)).status == 204


@pytest.mark.parametrize(("limit", "asked", "decided_by"), [(10, 60, "redis"), (1_200, 1_700, "share")])
async def test_limits_hold_over_three_replicas(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, limit: int, asked: int, decided_by: str
) -> None:
    """Small ones, decided call by call, and large ones, of which each replica leases shares."""
    # Where Redis seems away, each replica decides by itself.
    monkeypatch.setattr("services.gateway.redis_limits._STEPS", 400)
    async with AsyncExitStack() as stack:
        settings = {"ingest_requests_per_minute": limit, "replicas": 3}
        replicas = [await stack.enter_async_context(start_gateway(**settings)) for _ in range(3)]
        key = replicas[0].auth.new_key("secret")
        for replica in replicas[1:]:
            replica.auth._known.update(replicas[0].auth._known)
        before = decisions(decided_by)
        began = time.monotonic()

        async def send(caller: int) -> int:
            answers = [await replicas[i % 3].ingest_one(key) for i in range(caller, asked, 30)]
            return sum(answer.status == 202 for answer in answers)

        allowed = sum(await asyncio.gather(*(send(caller) for caller in range(30))))
        refilled = (time.monotonic() - began) * limit / 60
        assert limit <= allowed <= limit + refilled
        assert decisions(decided_by) > before


def decisions(decided_by: str) -> float:
    """Calls that were let on so far, by who decided."""
    sample = {"quota": "ingestion", "decided_by": decided_by, "outcome": "allowed"}
    return REGISTRY.get_sample_value("pulsegate_gateway_limit_decisions_total", sample) or 0.0


async def test_what_an_operator_has_set_for_a_tenant_goes_before_its_plan(start_gateway: StartGateway) -> None:
    async with start_gateway(ingest_requests_per_minute=7) as gateway:
        gateway.auth.plan = "free"
        gateway.auth.limits = Limits(reads_per_hour=12, ingestion_per_minute=9)
        gateway.auth.answers["ListKeys"] = accounts_pb2.ListKeysResponse()
        key = gateway.auth.new_key("secret", scopes=["usage:read", "ingest:write"])
        read = await gateway.call("GET", f"/api/v1/projects/{PROJECT}/keys", credential=key)
        assert read.headers["RateLimit-Policy"] == '"reads";q=12;w=3600'
        assert (await gateway.ingest_one(key)).headers["RateLimit-Policy"] == '"ingestion";q=9;w=60'
        limits = await gateway.call("GET", f"/api/v1/tenants/{TENANT}/limits", credential=key)
        assert {limit["name"]: (limit["limit"], limit["periodSeconds"]) for limit in limits.json["limits"]} == {
            "api": (100, 3600),
            "reads": (12, 3600),
            "expensive": (10, 3600),
            "idempotency": (200, 86_400),
            "ingestion": (9, 60),
            "ingestion-key": (90, 60),
        }
        elsewhere = await gateway.call("GET", f"/api/v1/tenants/{OTHER_PROJECT}/limits", credential=key)
        assert (elsewhere.status, elsewhere.code) == (404, "NOT_FOUND")
        for writer in (gateway.auth.new_key(), gateway.auth.new_key("secret", scopes=["ingest:write"])):
            refused = await gateway.call("GET", f"/api/v1/tenants/{TENANT}/limits", credential=writer)
            assert (refused.status, refused.code) == (403, "INSUFFICIENT_SCOPE")


async def test_what_is_set_for_a_tenant_holds_on_its_own_routes_within_a_second(gateway: Gateway) -> None:
    gateway.auth.answers["ListMembers"] = accounts_pb2.ListMembersResponse()
    gateway.auth.answers["ListSessions"] = own_account_pb2.ListSessionsResponse()
    session = gateway.auth.new_session(str(uuid7()))

    async def policy(path: str) -> str:
        answer = await gateway.call("GET", f"/api/v1/{path}", credential=session)
        assert answer.status == 200
        return answer.headers["RateLimit-Policy"]

    of_tenant, of_account, of_another = f"tenants/{TENANT}/members", "auth/sessions", f"tenants/{PROJECT}/members"
    assert await policy(of_tenant) == await policy(of_account) == '"reads";q=100000;w=3600'
    for plan, limits, reads in (("free", Limits(reads_per_hour=12), 1_000), ("basic", Limits(), 10_000)):
        gateway.auth.plan, gateway.auth.limits = plan, limits
        gateway.auth.announce(TENANT)
        changed = time.monotonic()
        wanted = f'"reads";q={limits.reads_per_hour or reads};w=3600'
        while (await policy(of_tenant), await policy(of_account)) != (wanted, f'"reads";q={reads};w=3600'):
            assert time.monotonic() - changed < 1, "the limits of before count a second after the change"
            await asyncio.sleep(0.02)
        asked = gateway.auth.asked
        assert await policy(of_tenant) == wanted
        assert gateway.auth.asked == asked, "what auth has said is kept"
        assert await policy(of_another) == f'"reads";q={reads};w=3600'


async def test_projects_that_are_not_the_callers_are_looked_for_within_their_limit(gateway: Gateway) -> None:
    gateway.auth.plan = "free"
    session = gateway.auth.new_session(str(uuid7()))

    async def look() -> Answer:
        return await gateway.call("GET", f"/api/v1/projects/{uuid7()}/keys", credential=session)

    first = await look()
    assert (first.status, first.code) == (404, "NOT_FOUND")
    assert first.headers["RateLimit-Policy"] == '"reads";q=1000;w=3600'
    while (await asyncio.gather(*(look() for _ in range(25))))[-1].status == 404:
        assert gateway.auth.asked < 1_100
    asked = gateway.auth.asked
    assert asked > 1_000
    refused = await look()
    assert (refused.status, refused.code) == (429, "RATE_LIMIT_EXCEEDED")
    assert gateway.auth.asked == asked


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/v1/metrics"), ("GET", "/prometheus/api/v1/query?query=up"), ("GET", "/api/v1/projects")],
)
async def test_what_comes_from_pages_of_others_counts_for_its_address_and_uses_up_nothing_of_the_keys_own_pages(
    start_gateway: StartGateway, method: str, path: str
) -> None:
    async with start_gateway(**PROXIED) as gateway:
        gateway.auth.limits = Limits(reads_per_hour=2, ingestion_per_minute=4)
        key, office = gateway.auth.new_key(origins=("https://shop.example",)), address()

        async def call(source: str) -> Answer:
            headers = {"X-Forwarded-For": source, "Origin": "https://evil.test"}
            return await gateway.call(method, path, credential=key, headers=headers)

        async def send(source: str) -> int:
            headers = {"X-Forwarded-For": source, "Origin": "https://shop.example"}
            return (await gateway.ingest_one(key, **headers)).status

        answers = [await call(office) for _ in range(4)]
        assert [answer.status for answer in answers] == [403, 403, 429, 429]
        assert answers[0].headers["RateLimit"] == '"reads";r=1;t=1800'
        for _ in range(50):
            assert (await call(address())).status == 403
        assert [await send(office) for _ in range(5)] == [202] * 4 + [429]


@pytest.mark.parametrize(
    ("scope", "method", "path", "status"),
    [
        ("query:read", "POST", "/api/v1/metrics", 403),
        ("ingest:write", "POST", f"/api/v1/metrics?projectId={OTHER_PROJECT}", 404),
        ("ingest:write", "GET", "/prometheus/api/v1/query?query=up", 403),
        ("query:read", "GET", f"/prometheus/api/v1/query?query=up&projectId={OTHER_PROJECT}", 404),
        ("config:read", "GET", f"/api/v1/projects/{OTHER_PROJECT}/keys", 404),
    ],
)
async def test_what_a_key_may_not_counts_as_reads_wherever_it_comes_from(
    start_gateway: StartGateway, scope: str, method: str, path: str, status: int
) -> None:
    async with start_gateway(**PROXIED) as gateway:
        gateway.auth.limits = Limits(reads_per_hour=2)
        key = gateway.auth.new_key("secret", scopes=[scope])

        async def call() -> int:
            headers = {"X-Forwarded-For": address()}
            return (await gateway.call(method, path, credential=key, headers=headers)).status

        assert [await call() for _ in range(4)] == [status] * 2 + [429] * 2


async def test_what_a_key_may_not_uses_up_nothing_of_what_it_reads(gateway: Gateway) -> None:
    gateway.auth.limits = Limits(reads_per_hour=2)
    gateway.config.answers["ListMetrics"] = definitions_pb2.ListMetricsResponse()
    key = gateway.auth.new_key("secret", scopes=["config:read"])
    sent = [(await gateway.ingest_one(key)).status for _ in range(3)]
    assert sent == [403, 403, 429]
    read = [(await gateway.call("GET", f"/api/v1/projects/{PROJECT}/metrics", credential=key)).status for _ in range(3)]
    assert read == [200, 200, 429]


async def test_people_see_the_limits_of_their_tenants_before_they_meet_them(gateway: Gateway) -> None:
    tenant = accounts_pb2.Tenant(id=TENANT, name="Shop")
    membership = accounts_pb2.Membership(
        tenant=tenant, role=accounts_pb2.ROLE_OWNER, plan="basic", limits=Limits(expensive_per_hour=3)
    )
    gateway.auth.answers["GetMe"] = accounts_pb2.GetMeResponse(memberships=[membership])
    session = gateway.auth.new_session()
    limits = await gateway.call("GET", f"/api/v1/tenants/{TENANT}/limits", credential=session)
    assert limits.json["plan"] == "basic"
    assert limits.json["limits"][:3] == [
        {"name": "api", "limit": 1_000, "periodSeconds": 3600, "countedFor": "user or key"},
        {"name": "reads", "limit": 10_000, "periodSeconds": 3600, "countedFor": "user or key"},
        {"name": "expensive", "limit": 3, "periodSeconds": 3600, "countedFor": "user or key"},
    ]
    assert (await gateway.call("GET", f"/api/v1/tenants/{PROJECT}/limits", credential=session)).status == 404
    membership.suspended = True
    gateway.auth.answers["GetMe"] = accounts_pb2.GetMeResponse(memberships=[membership])
    refused = await gateway.call("GET", f"/api/v1/tenants/{TENANT}/limits", credential=session)
    assert (refused.status, refused.code) == (403, "TENANT_SUSPENDED")


async def test_an_operator_sets_a_tenants_limits(gateway: Gateway) -> None:
    limits = Limits(reads_per_hour=20, ingestion_per_minute=9)
    gateway.auth.answers["UpdateTenant"] = operators_pb2.UpdateTenantResponse(
        tenant=operators_pb2.OperatedTenant(id=TENANT, plan="basic", limits=limits)
    )
    path, session = f"/api/v1/tenants/{TENANT}/limits", gateway.auth.new_session()
    wanted = {"readsPerHour": 20, "ingestionPerMinute": 9}
    changed = await gateway.call("PUT", path, credential=session, json=wanted)
    assert (changed.status, changed.json["plan"]) == (200, "basic")
    assert [one["limit"] for one in changed.json["limits"]] == [1_000, 20, 100, 2_000, 9, 90]
    (request,) = gateway.auth.requests("UpdateTenant")
    assert request == operators_pb2.UpdateTenantRequest(tenant_id=TENANT, limits=limits)
    refused = await gateway.call("PUT", path, credential=session, json={"readsPerHour": -1, "burst": 3})
    assert (refused.status, set(refused.json["error"]["details"]["fields"])) == (422, {"readsPerHour", "burst"})


async def test_an_operator_sees_what_was_set_for_each_tenant_as_it_may_be_set_again(gateway: Gateway) -> None:
    session = gateway.auth.new_session()
    limits = Limits(reads_per_hour=20, ingestion_per_minute=9)
    bounded = operators_pb2.OperatedTenant(id=TENANT, name="Shop", plan="basic", limits=limits)
    other = operators_pb2.OperatedTenant(id=PROJECT, name="Other", plan="free")
    gateway.auth.answers["ListTenants"] = operators_pb2.ListTenantsResponse(tenants=[bounded, other])
    gateway.auth.answers["UpdateTenant"] = operators_pb2.UpdateTenantResponse(tenant=bounded)
    seen, unset = (await gateway.call("GET", "/api/v1/operator/tenants", credential=session)).json["items"]
    none = {"writesPerHour": 0, "readsPerHour": 0, "expensivePerHour": 0, "ingestionPerMinute": 0}
    assert (seen["limits"], unset["limits"]) == ({**none, "readsPerHour": 20, "ingestionPerMinute": 9}, none)
    path = f"/api/v1/tenants/{TENANT}/limits"
    again = await gateway.call("PUT", path, credential=session, json={**seen["limits"], "expensivePerHour": 5})
    assert again.status == 200
    wanted = Limits(reads_per_hour=20, expensive_per_hour=5, ingestion_per_minute=9)
    assert gateway.auth.requests("UpdateTenant") == [operators_pb2.UpdateTenantRequest(tenant_id=TENANT, limits=wanted)]


async def test_pages_may_read_the_limits_of_each_answer(start_gateway: StartGateway) -> None:
    async with start_gateway(ingest_requests_per_minute=1) as gateway:
        key = gateway.auth.new_key()
        for status in (202, 429):
            answer = await gateway.ingest_one(key, Origin="https://shop.example")
            assert answer.status == status
            exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
            assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(exposed)
            assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_without_redis_each_replica_keeps_its_share(
    start_gateway: StartGateway,
    valkey_server: RunningServer[Valkey],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with start_gateway(ingest_requests_per_minute=20, replicas=2) as gateway:
        key = gateway.auth.new_key("secret")
        with valkey_server.away():
            before = decisions("local")
            statuses = [(await gateway.ingest_one(key)).status for _ in range(15)]
        assert statuses == [202] * 10 + [429] * 5
        assert decisions("local") - before == 10
        logged = capsys.readouterr().out + caplog.text  # whichever an earlier test's configuration left in use
        assert "rate limit decided without Redis" in logged


async def test_a_redis_that_hangs_is_no_outage(gateway: Gateway, valkey_server: RunningServer[Valkey]) -> None:
    key = gateway.auth.new_key("secret")
    with valkey_server.paused():
        answers = await asyncio.gather(*(gateway.ingest_one(key) for _ in range(50)))
    assert {answer.status for answer in answers} == {202}


async def test_reads_that_wait_for_redis_keep_no_limit_and_no_keyed_request_waiting(
    start_gateway: StartGateway, valkey_server: RunningServer[Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.read_cache._MOST_BYTES_OF_ONE", -1)  # each read looks into Redis
    async with _slow_reads(valkey_server.server) as redis_url, start_gateway(redis_url=redis_url) as gateway:
        gateway.codegen.answers["GenerateClient"] = codegen_pb2.GenerateClientResponse(content_type="text/javascript")
        project = accounts_pb2.Project(id=PROJECT, tenant_id=TENANT, name="shop")
        gateway.auth.answers["CreateProject"] = accounts_pb2.CreateProjectResponse(project=project)
        gateway.config.speaking.set()
        script, key = f"/sdk/v1/{gateway.auth.new_key()}.js", gateway.auth.new_key("secret")

        async def is_looked_for() -> bool:
            await gateway.call("GET", script)
            return await gateway.shown(missed) > missed_before

        async def read_on() -> None:
            while True:
                assert (await gateway.call("GET", script)).status == 200

        async def post(session: str) -> int:
            body, headers = {"name": "shop"}, {"Idempotency-Key": str(uuid7())}
            return (
                await gateway.call("POST", "/api/v1/projects", credential=session, json=body, headers=headers)
            ).status

        missed = 'pulsegate_gateway_cached_reads_total{outcome="missed"}'
        missed_before = await gateway.shown(missed)
        await eventually(is_looked_for, what="the feed speaks")
        before, session = decisions("local"), gateway.auth.new_session(str(uuid7()))
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(read_on()) for _ in range(12)]
            for _ in range(20):
                assert (await gateway.ingest_one(key)).status == 202
                assert await post(session) == 201
            for reader in readers:
                reader.cancel()
        assert decisions("local") == before


@asynccontextmanager
async def _slow_reads(valkey: Valkey) -> AsyncIterator[str]:
    """An address where what cached reads ask is answered late, and everything else at once."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await reader.read(1 << 16):
            if b"MGET" in sent and b"changed:" in sent:
                await asyncio.sleep(0.05)  # the way to Redis, and not what is waited for
            writer.write(sent)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", valkey.port)
        await asyncio.gather(pass_on(reader, questions), pass_on(answers, writer))

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
        yield valkey.url.replace(f":{valkey.port}/", f":{server.sockets[0].getsockname()[1]}/")
