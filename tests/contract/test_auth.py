"""What auth answers to other services: the real one, the one that is played behind the gateway, and the stand-in.

All are called over gRPC; a principal counts when the verifier that every service uses takes it.
"""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import pytest

from chassis import grpc_client
from chassis.errors import NotFound, Unauthenticated
from chassis.ids import uuid7
from chassis.principals import Principal, PrincipalVerifier
from contracts.pulsegate.auth.v1 import accounts_pb2, credentials_pb2
from contracts.pulsegate.auth.v1.credentials_pb2_grpc import add_CredentialServiceServicer_to_server
from deploy.local.layout import Ports
from services.auth.settings import Settings
from tests.integration.auth.client import AuthClient, Person, running_auth
from tests.integration.gateway import fakes
from tests.integration.gateway.fakes import PlayedAuth, PlayedServer
from tests.stand_in_auth import StandInAuth
from tests.suite_database import Database
from tests.waiting import eventually

#: Signs a principal of a key of this kind, with these scopes.
Sign = Callable[[str, list[str]], Awaitable[str]]


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Whoever signs principals."""

    client: AuthClient
    sign: Sign
    tenant_id: str
    project_id: str


@dataclass(frozen=True, kw_only=True)
class Authority:
    """Whoever answers what a credential stands for."""

    client: AuthClient
    tenant_id: str
    project_id: str
    user_id: str
    access_token: str
    new_key: Callable[[str, Sequence[str]], Awaitable[str]]
    revoke_key: Callable[[str], Awaitable[None]]
    end_session: Callable[[], Awaitable[None]]

    async def verified(self, principal: str) -> Principal:
        return await PrincipalVerifier(self.client.signing_keys).verify(principal)


async def _real_auth(stack: AsyncExitStack, database: Database, ports: Ports) -> tuple[AuthClient, Person]:
    settings = Settings(
        host="127.0.0.1",
        operations_port=ports.operations("auth"),
        grpc_port=ports.grpc("auth"),
        service_token=fakes.SERVICE_TOKEN,
        log_level="info",
        otlp_endpoint=None,
        drain_seconds=5.0,
        dsn=database.dsn("auth"),
        master_key=bytes(range(32)),
        default_plan="enterprise",
        access_token_seconds=900,
        principal_seconds=120,
        refresh_token_days=7,
        signing_key_days=30,
        bcrypt_cost=4,
        bcrypt_threads=2,
        bcrypt_queue=100,
        most_connections=10,
    )
    client = await stack.enter_async_context(running_auth(settings))
    return client, await client.sign_up()


async def _real_key(client: AuthClient, person: Person, kind: str, allowed: Sequence[str]) -> Any:
    """`allowed` are the scopes of a secret key, the origins of a publishable one."""
    member = "scopes" if kind == "secret" else "allowed_origins"
    return await client.create_key(
        person, kind=accounts_pb2.KeyKind.Value(f"KEY_KIND_{kind.upper()}"), **{member: allowed}
    )


async def _stand_in(stack: AsyncExitStack, auth: StandInAuth) -> AuthClient:
    server = grpc.aio.server()
    add_CredentialServiceServicer_to_server(auth, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, 0)
    address = f"127.0.0.1:{port}"
    return AuthClient(await stack.enter_async_context(grpc_client.connected("auth", address, fakes.SERVICE_TOKEN)))


@pytest.fixture(params=["real", "stand-in"])
async def signer(
    request: pytest.FixtureRequest, database: Database, port_blocks: Callable[[], Ports]
) -> AsyncIterator[Signer]:
    async with AsyncExitStack() as stack:
        if request.param == "real":
            client, person = await _real_auth(stack, database, port_blocks())

            async def sign(kind: str, scopes: list[str]) -> str:
                key = await _real_key(client, person, kind, scopes if kind == "secret" else ["*"])
                return (await client.authenticate(key=key.token)).principal

            yield Signer(client=client, sign=sign, tenant_id=person.tenant_id, project_id=person.project_id)
            return
        auth = StandInAuth()  # type: ignore[abstract]
        tenant_id, project_id = str(uuid7()), str(uuid7())

        async def stand_in(kind: str, scopes: list[str]) -> str:
            return auth.principal(tenant_id, project_id, kind=kind, scopes=scopes)

        yield Signer(client=await _stand_in(stack, auth), sign=stand_in, tenant_id=tenant_id, project_id=project_id)


@pytest.mark.parametrize(
    ("kind", "scopes"), [("secret", ["config:read", "query:read"]), ("publishable", ["ingest:write"])]
)
async def test_a_principal_is_verified_with_the_published_keys(signer: Signer, kind: str, scopes: list[str]) -> None:
    principal = await PrincipalVerifier(signer.client.signing_keys).verify(await signer.sign(kind, scopes))
    assert (principal.kind, set(principal.scopes)) == (kind, set(scopes))
    assert (principal.tenant_id, principal.project_id) == (signer.tenant_id, signer.project_id)
    assert principal.subject
    assert principal.session_id == ""
    assert principal.expires_at == pytest.approx(time.time() + 120, abs=10)


async def test_the_published_keys_are_a_jwk_set_of_named_ed25519_keys(signer: Signer) -> None:
    keys = json.loads(await signer.client.signing_keys())["keys"]
    assert {(key["kty"], key["crv"]) for key in keys} == {("OKP", "Ed25519")}
    assert all(key["kid"] and "d" not in key for key in keys)


async def test_a_principal_that_was_changed_is_refused(signer: Signer) -> None:
    head, claims, signature = (await signer.sign("secret", ["query:read"])).split(".")
    other_signature = (await signer.sign("secret", ["config:read"])).split(".")[2]
    assert signature != other_signature
    with pytest.raises(Unauthenticated):
        await PrincipalVerifier(signer.client.signing_keys).verify(f"{head}.{claims}.{other_signature}")


async def _real_authority(stack: AsyncExitStack, database: Database, ports: Ports) -> Authority:
    client, person = await _real_auth(stack, database, ports)
    ids: dict[str, str] = {}

    async def new_key(kind: str, allowed: Sequence[str]) -> str:
        made = await _real_key(client, person, kind, allowed)
        ids[made.token] = made.key.id
        return str(made.token)

    async def revoke_key(key: str) -> None:
        request = accounts_pb2.RevokeKeyRequest(project_id=person.project_id, key_id=ids[key])
        await client.account("RevokeKey", request, await client.principal(person))

    async def end_session() -> None:
        await client.account("SignOut", accounts_pb2.SignOutRequest(refresh_token=person.refresh_token))

    return Authority(
        client=client,
        tenant_id=person.tenant_id,
        project_id=person.project_id,
        user_id=person.user_id,
        access_token=person.access_token,
        new_key=new_key,
        revoke_key=revoke_key,
        end_session=end_session,
    )


async def _played_authority(stack: AsyncExitStack, ports: Ports) -> Authority:
    auth = PlayedAuth()
    server = PlayedServer(
        ports.grpc("auth"), [lambda server: add_CredentialServiceServicer_to_server(auth, server)], auth
    )
    await server.start()
    stack.push_async_callback(server.stop)
    address = f"127.0.0.1:{ports.grpc('auth')}"
    channel = await stack.enter_async_context(grpc_client.connected("auth", address, fakes.SERVICE_TOKEN))
    access_token = auth.new_session()

    async def new_key(kind: str, allowed: Sequence[str]) -> str:
        if kind == "secret":
            return auth.new_key(kind, scopes=list(allowed))
        return auth.new_key(kind, origins=tuple(allowed))

    async def revoke(credential: str) -> None:
        auth.revoke(credential)

    return Authority(
        client=AuthClient(channel),
        tenant_id=fakes.TENANT,
        project_id=fakes.PROJECT,
        user_id=fakes.USER,
        access_token=access_token,
        new_key=new_key,
        revoke_key=revoke,
        end_session=partial(revoke, access_token),
    )


@pytest.fixture(params=["real", "played"])
async def authority(
    request: pytest.FixtureRequest, database: Database, port_blocks: Callable[[], Ports]
) -> AsyncIterator[Authority]:
    async with AsyncExitStack() as stack:
        if request.param == "real":
            made = await _real_authority(stack, database, port_blocks())
        else:
            made = await _played_authority(stack, port_blocks())
        await eventually(made.client.is_up, what="auth answers")
        yield made


async def test_a_secret_key_has_the_scopes_it_was_given_and_no_origins(authority: Authority) -> None:
    key = await authority.new_key("secret", ["query:read", "ingest:write"])
    verdict = await authority.client.authenticate(key=key)
    principal = await authority.verified(verdict.principal)
    assert (principal.kind, set(principal.scopes)) == ("secret", {"query:read", "ingest:write"})
    assert (principal.project_id, principal.session_id) == (authority.project_id, "")
    assert (list(verdict.allowed_origins), verdict.plan) == ([], "enterprise")


async def test_a_publishable_key_may_write_from_its_origins(authority: Authority) -> None:
    key = await authority.new_key("publishable", ["https://shop.example.com"])
    verdict = await authority.client.authenticate(key=key)
    principal = await authority.verified(verdict.principal)
    assert (principal.kind, set(principal.scopes)) == ("publishable", {"ingest:write"})
    assert list(verdict.allowed_origins) == ["https://shop.example.com"]


@pytest.mark.parametrize("about_project", [True, False])
async def test_a_person_acts_in_a_project_or_on_their_own_account(authority: Authority, about_project: bool) -> None:
    project_id = authority.project_id if about_project else ""
    verdict = await authority.client.authenticate(access_token=authority.access_token, project_id=project_id)
    principal = await authority.verified(verdict.principal)
    assert (principal.kind, principal.subject) == ("user", authority.user_id)
    assert (principal.project_id, bool(principal.tenant_id)) == (project_id, about_project)
    assert principal.session_id
    assert verdict.plan == "enterprise"


async def test_what_is_no_credential_is_refused_by_its_kind(authority: Authority) -> None:
    with pytest.raises(Unauthenticated) as no_key:
        await authority.client.authenticate(key="sk_" + "0" * 38)
    with pytest.raises(Unauthenticated) as no_token:
        await authority.client.authenticate(access_token="e30.e30.e30")
    assert (no_key.value.code, no_token.value.code) == ("INVALID_API_KEY", "UNAUTHENTICATED")


async def test_a_project_of_somebody_else_is_not_found(authority: Authority) -> None:
    with pytest.raises(NotFound):
        await authority.client.authenticate(access_token=authority.access_token, project_id=str(uuid7()))


async def _told_after(authority: Authority, revision: int, changed_id: str) -> credentials_pb2.WatchCredentialsResponse:
    """The feed's message about a change after a revision at which it resumes."""
    async for message in authority.client.watch(revision):
        assert not message.reset
        assert message.revision >= revision
        if changed_id in message.changed_ids:
            return message
    raise AssertionError("the feed ended")


async def test_a_revoked_key_is_refused_and_the_feed_tells_its_id(authority: Authority) -> None:
    key = await authority.new_key("secret", ["ingest:write"])
    verdict = await authority.client.authenticate(key=key)
    await _beats(authority, verdict.revision)
    await authority.revoke_key(key)
    told = await _told_after(authority, verdict.revision, (await authority.verified(verdict.principal)).subject)
    assert told.revision > verdict.revision
    with pytest.raises(Unauthenticated) as refused:
        await authority.client.authenticate(key=key)
    assert refused.value.code == "INVALID_API_KEY"


async def test_a_session_that_ended_is_refused_and_the_feed_tells_its_id(authority: Authority) -> None:
    verdict = await authority.client.authenticate(access_token=authority.access_token)
    await _beats(authority, verdict.revision)
    await authority.end_session()
    await _told_after(authority, verdict.revision, (await authority.verified(verdict.principal)).session_id)
    with pytest.raises(Unauthenticated) as refused:
        await authority.client.authenticate(access_token=authority.access_token)
    assert refused.value.code == "UNAUTHENTICATED"


async def test_a_verdict_on_a_person_names_the_tenants_whose_limits_count(authority: Authority) -> None:
    for about in ("", authority.tenant_id, str(uuid7())):
        verdict = await authority.client.authenticate(access_token=authority.access_token, tenant_id=about)
        assert list(verdict.tenant_ids) == [authority.tenant_id]
        assert (await authority.verified(verdict.principal)).tenant_id == ""
    of_project = await authority.client.authenticate(
        access_token=authority.access_token, project_id=authority.project_id
    )
    assert list(of_project.tenant_ids) == []


async def _beats(authority: Authority, least_revision: int) -> None:
    """The feed sends heartbeats, at this revision or a later one."""
    beats, began = 0, time.monotonic()
    async for message in authority.client.watch(least_revision):
        if message.revision >= least_revision and not message.changed_ids:
            beats += 1
        if beats == 3:
            break
    assert time.monotonic() - began < 5


async def test_the_feed_beats_while_nothing_changes(authority: Authority) -> None:
    verdict = await authority.client.authenticate(access_token=authority.access_token)
    await _beats(authority, verdict.revision)
