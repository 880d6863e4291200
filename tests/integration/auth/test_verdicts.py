"""What a credential stands for, and what passes for no credential."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import psycopg
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.errors import Malformed, NotFound, PulsegateError, Unauthenticated
from chassis.principals import AUDIENCE, ISSUER, Principal, PrincipalVerifier
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from contracts.pulsegate.auth.v1 import credentials_pb2
from services.auth.settings import Settings
from tests.integration.auth.client import AuthClient, Person, running_auth
from tests.integration.auth.clocks import MovableClock
from tests.integration.auth.locks import until_somebody_waits_for_a_lock
from tests.suite_database import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def timed(settings: Settings, clock: MovableClock) -> AsyncIterator[AuthClient]:
    async with running_auth(settings, clock) as client:
        yield client


async def verified(auth: AuthClient, principal: str) -> Principal:
    """As any other service reads it."""
    return await PrincipalVerifier(auth.signing_keys).verify(principal)


async def code_of(auth: AuthClient, access_token: str) -> str:
    try:
        await auth.authenticate(access_token=access_token)
    except PulsegateError as refused:
        return refused.code
    return "ok"


async def test_a_key_is_a_principal_of_its_project_with_its_scopes(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    key = await auth.create_key(ada, scopes=["query:read", "ingest:write"])

    verdict = await auth.authenticate(key=key.token)
    principal = await verified(auth, verdict.principal)

    assert (principal.subject, principal.kind, principal.session_id) == (key.key.id, "secret", "")
    assert (principal.tenant_id, principal.project_id) == (ada.tenant_id, ada.project_id)
    assert principal.scopes == {"query:read", "ingest:write"}
    assert principal.expires_at == pytest.approx(time.time() + 120, abs=10)
    assert (list(verdict.allowed_origins), verdict.plan) == ([], "enterprise")


@pytest.mark.parametrize(
    ("role", "scopes"),
    [
        (pb.ROLE_VIEWER, "config:read query:read usage:read"),
        (pb.ROLE_EDITOR, "config:read query:read usage:read config:write"),
        (pb.ROLE_ADMIN, "config:read query:read usage:read config:write keys:write members:write audit:read"),
        (
            pb.ROLE_OWNER,
            "config:read query:read usage:read config:write keys:write members:write audit:read tenant:write",
        ),
    ],
)
async def test_a_person_has_the_scopes_of_their_role_in_the_project(
    auth: AuthClient, role: pb.Role.ValueType, scopes: str
) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    request = pb.AddMemberRequest(tenant_id=ada.tenant_id, email=eve.email, role=role)
    await auth.account("AddMember", request, await auth.principal(ada))

    verdict = await auth.authenticate(access_token=eve.access_token, project_id=ada.project_id)
    principal = await verified(auth, verdict.principal)

    assert (principal.subject, principal.kind) == (eve.user_id, "user")
    assert (principal.tenant_id, principal.project_id) == (ada.tenant_id, ada.project_id)
    assert principal.session_id
    assert principal.scopes == set(scopes.split())
    assert verdict.plan == "enterprise"


async def test_a_person_without_a_project_has_only_the_account(auth: AuthClient, module_database: Database) -> None:
    ada = await auth.sign_up()
    with psycopg.connect(module_database.superuser_dsn) as connection:
        connection.execute("UPDATE auth.tenants SET plan = 'basic' WHERE id = %s", (ada.tenant_id,))

    verdict = await auth.authenticate(access_token=ada.access_token)
    principal = await verified(auth, verdict.principal)

    assert (principal.subject, principal.tenant_id, principal.project_id) == (ada.user_id, "", "")
    assert principal.scopes == frozenset()
    assert verdict.plan == "basic"


async def test_a_persons_call_about_a_tenant_counts_by_what_is_set_for_that_tenant(
    auth: AuthClient, module_database: Database
) -> None:
    ada, eve, mallory = await auth.sign_up(), await auth.sign_up(), await auth.sign_up()
    request = pb.AddMemberRequest(tenant_id=ada.tenant_id, email=eve.email, role=pb.ROLE_ADMIN)
    await auth.account("AddMember", request, await auth.principal(ada))
    with psycopg.connect(module_database.superuser_dsn) as connection:
        setting = "UPDATE auth.tenants SET plan = 'free', limits = %s::jsonb WHERE id = %s"
        connection.execute(setting, ('{"expensive_per_hour": 1}', ada.tenant_id))

    async def seen(person: Person, tenant_id: str) -> tuple[str, int, list[str]]:
        verdict = await auth.authenticate(access_token=person.access_token, tenant_id=tenant_id)
        assert (await verified(auth, verdict.principal)).tenant_id == ""
        return verdict.plan, verdict.limits.expensive_per_hour, list(verdict.tenant_ids)

    assert await seen(eve, ada.tenant_id) == ("free", 1, [ada.tenant_id])
    assert await seen(eve, eve.tenant_id) == ("enterprise", 0, [eve.tenant_id])
    assert await seen(eve, "") == ("enterprise", 0, [ada.tenant_id, eve.tenant_id])
    for tenant_id in (ada.tenant_id, "nonsense"):
        assert await seen(mallory, tenant_id) == ("enterprise", 0, [mallory.tenant_id])


async def test_new_tenants_start_on_the_default_plan(settings: Settings) -> None:
    async with running_auth(settings, default_plan="free") as auth:
        ada = await auth.sign_up()

        verdict = await auth.authenticate(access_token=ada.access_token, project_id=ada.project_id)

    assert verdict.plan == "free"


async def test_another_tenants_project_does_not_exist(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()

    for project_id in (ada.project_id, "01a1fc11-be01-79f5-be4a-0f91d8d2d996", "nonsense"):
        with pytest.raises(NotFound):
            await auth.authenticate(access_token=eve.access_token, project_id=project_id)


@pytest.mark.parametrize("key_hash", [b"", b"short", bytes(32), bytes(33)])
async def test_an_unknown_key_is_invalid(auth: AuthClient, key_hash: bytes) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await auth.authenticate_by(credentials_pb2.AuthenticateRequest(api_key_sha256=key_hash))

    assert refused.value.code == "INVALID_API_KEY"


async def test_no_credential_is_a_malformed_question(auth: AuthClient) -> None:
    with pytest.raises(Malformed):
        await auth.authenticate_by(credentials_pb2.AuthenticateRequest())


async def test_an_access_token_expires(timed: AuthClient, clock: MovableClock) -> None:
    ada = await timed.sign_up()

    await clock.advance(timedelta(seconds=890))
    assert await code_of(timed, ada.access_token) == "ok"
    await clock.advance(timedelta(seconds=11))

    assert await code_of(timed, ada.access_token) == "TOKEN_EXPIRED"


async def test_a_principal_ends_with_its_credential(timed: AuthClient, clock: MovableClock) -> None:
    ada = await timed.sign_up()
    expires_at = Timestamp(seconds=clock.now_ms() // 1000 + 30, nanos=950_000_000)
    key = await timed.create_key(ada, expires_at=expires_at)
    of_key = await verified(timed, (await timed.authenticate(key=key.token)).principal)
    await clock.advance(timedelta(seconds=850))
    of_person = await verified(timed, (await timed.authenticate(access_token=ada.access_token)).principal)

    claims = jwt.decode(ada.access_token, options={"verify_signature": False})
    assert of_key.expires_at == expires_at.seconds + 1  # a fraction of a second before the end the key still works
    assert of_person.expires_at == claims["exp"]


async def test_a_verdict_carries_the_revision_of_the_feed(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    kept, revoked = await auth.create_key(ada), await auth.create_key(ada)
    before = (await auth.authenticate(key=kept.token)).revision

    request = pb.RevokeKeyRequest(project_id=ada.project_id, key_id=revoked.key.id)
    await auth.account("RevokeKey", request, await auth.principal(ada))

    assert (await auth.authenticate(key=kept.token)).revision == before + 1
    assert (await auth.authenticate(access_token=ada.access_token)).revision == before + 1


async def test_access_tokens_and_principals_do_not_pass_for_each_other(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    principal = await auth.principal(ada)

    assert await code_of(auth, principal) == "UNAUTHENTICATED"
    with pytest.raises(Unauthenticated):
        await verified(auth, ada.access_token)


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


async def test_forged_access_tokens_are_refused(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    header, payload, signature = ada.access_token.split(".")
    genuine = jwt.get_unverified_header(ada.access_token)
    claims = jwt.decode(ada.access_token, options={"verify_signature": False})
    [public] = [key for key in json.loads(await auth.signing_keys())["keys"] if key["kid"] == genuine["kid"]]
    foreign = Ed25519PrivateKey.generate()

    forgeries = [
        "",
        "a.b.c",
        "é",
        ada.access_token[:-4] + "AAAA",
        f"{header}.{encoded({**claims, 'sub': 'x'})}.{signature}",
        f"{encoded({**genuine, 'alg': 'none'})}.{payload}.",
        f"{encoded({'alg': 'EdDSA'})}.{payload}.{signature}",
        jwt.encode(claims, public["x"] + "=" * 40, algorithm="HS256", headers={"kid": genuine["kid"]}),
        jwt.encode(claims, foreign, algorithm="EdDSA", headers={"kid": genuine["kid"]}),
        jwt.encode(claims, foreign, algorithm="EdDSA", headers={"kid": "foreign"}),
        jwt.encode(
            claims, foreign, algorithm="EdDSA", headers={"kid": "foreign", "jku": "https://evil.example.com/jwks"}
        ),
    ]

    assert [await code_of(auth, forgery) for forgery in forgeries] == ["UNAUTHENTICATED"] * len(forgeries)
    assert await code_of(auth, ada.access_token) == "ok"


async def test_the_audience_of_an_access_token_is_its_own(auth: AuthClient) -> None:
    ada = await auth.sign_up()

    claims = jwt.decode(ada.access_token, options={"verify_signature": False})

    assert (claims["aud"], claims["iss"], claims["sub"]) == ("pulsegate", ISSUER, ada.user_id)
    assert claims["aud"] != AUDIENCE
    assert claims["exp"] - claims["iat"] == 900


async def test_credentials_are_checked_while_all_other_connections_are_held_up(
    settings: Settings, database: Database
) -> None:
    async with running_auth(replace(settings, most_connections=2)) as auth:
        key = await auth.create_key(await auth.sign_up())
        with psycopg.connect(database.superuser_dsn) as migrating:
            migrating.execute("LOCK TABLE auth.projects IN SHARE MODE")  # which only reads
            waiting = [asyncio.create_task(auth.sign_up()) for _ in range(2)]
            await until_somebody_waits_for_a_lock(database, 2)
            async with asyncio.timeout(2):
                assert (await auth.authenticate(key=key.token)).plan == "enterprise"
        await asyncio.gather(*waiting)
