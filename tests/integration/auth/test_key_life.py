"""The life of a key: changed, rotated with an overlap, seen in use, found in public."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import api_keys, postgres
from chassis.clock import SystemClock
from chassis.errors import Forbidden, Invalid, NotFound, Unauthenticated
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from services.auth.domain import KeyId, TenantId
from services.auth.key_usage import KeyUsage
from services.auth.settings import Settings
from services.auth.storage.keys import KeyStorage, KeyUsageStorage
from tests.integration.auth.client import AuthClient, Person, running_auth
from tests.integration.auth.clocks import MovableClock
from tests.suite_database import Database
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def works(auth: AuthClient, key: str) -> bool:
    try:
        await auth.authenticate(key=key)
    except Unauthenticated:
        return False
    return True


async def rotate(auth: AuthClient, person: Person, key_id: str, grace_seconds: int) -> pb.RotateKeyResponse:
    request = pb.RotateKeyRequest(project_id=person.project_id, key_id=key_id, grace_seconds=grace_seconds)
    answer: pb.RotateKeyResponse = await auth.account("RotateKey", request, await auth.principal(person))
    return answer


async def elsewhere(auth: AuthClient, person: Person) -> Person:
    """The same person in another project of their tenant."""
    making = pb.CreateProjectRequest(name="another")
    made = await auth.account("CreateProject", making, await auth.principal(person))
    return replace(person, project_id=made.project.id)


async def keys_of(auth: AuthClient, person: Person, principal: str = "") -> list[pb.Key]:
    request = pb.ListKeysRequest(project_id=person.project_id)
    return list((await auth.account("ListKeys", request, principal or await auth.principal(person))).keys)


async def report(auth: AuthClient, *keys: str, place: str = "https://code.example/a") -> list[bool]:
    leaked = [pb.LeakedKey(api_key_sha256=api_keys.digest(key), place=place) for key in keys]
    return list((await auth.account("ReportLeakedKeys", pb.ReportLeakedKeysRequest(keys=leaked))).revoked)


def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.superuser_dsn) as connection:
        return connection.execute(query.encode()).fetchall()


async def test_a_rotated_key_works_beside_its_successor_until_the_grace_is_over(
    settings: Settings, clock: MovableClock
) -> None:
    async with running_auth(settings, clock) as auth:
        ada = await auth.sign_up()
        old = await auth.create_key(ada, name="shop", scopes=["query:read", "ingest:write"])
        principal, feed = await auth.principal(ada), auth.watch()
        await anext(feed)

        new = await rotate(auth, ada, old.key.id, 60)
        told = await eventually_named(feed, old.key.id)
        both = [await works(auth, old.token), await works(auth, new.token)]
        await clock.advance(timedelta(seconds=61))
        later = [await works(auth, old.token), await works(auth, new.token)]
        listed = await keys_of(auth, ada, principal)

    assert told
    assert (both, later) == ([True, True], [False, True])
    assert (new.key.name, list(new.key.scopes)) == ("shop", ["ingest:write", "query:read"])
    assert [key.id for key in listed] == [old.key.id, new.key.id]
    assert listed[0].HasField("expires_at")
    assert not listed[1].HasField("expires_at")


@pytest.mark.parametrize("expires_at", [None, Timestamp(seconds=4_000_000_000)])
async def test_a_key_that_is_rotated_again_leaves_its_end_to_its_successor_and_not_its_grace(
    auth: AuthClient, expires_at: Timestamp | None
) -> None:
    ada = await auth.sign_up()
    made = await auth.create_key(ada, expires_at=expires_at)

    first = await rotate(auth, ada, made.key.id, 3600)
    ending, _ = await keys_of(auth, ada)
    second = await rotate(auth, ada, made.key.id, 7200)

    still_ending, *successors = await keys_of(auth, ada)
    assert still_ending == ending
    assert ending.expires_at != made.key.expires_at
    assert successors == [first.key, second.key]
    assert [key.expires_at for key in successors] == 2 * [made.key.expires_at]


async def eventually_named(feed: Any, key_id: str) -> bool:
    """Whether the feed of credentials tells of a key, so that nobody goes on with an older verdict."""
    async with asyncio.timeout(30):
        while key_id not in (await anext(feed)).changed_ids:
            pass
    return True


async def test_without_a_grace_the_old_key_ends_at_once_and_a_publishable_one_is_replaced_too(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    old = await auth.create_key(ada, kind=pb.KEY_KIND_PUBLISHABLE, allowed_origins=["https://a.example"])
    new = await rotate(auth, ada, old.key.id, 0)
    asked = pb.GetPublishableKeyRequest(project_id=ada.project_id, key_id=new.key.id)

    assert [await works(auth, old.token), await works(auth, new.token)] == [False, True]
    assert list(new.key.allowed_origins) == ["https://a.example"]
    assert (await auth.account("GetPublishableKey", asked, await auth.principal(ada))).token == new.token


async def test_a_tenant_has_as_many_live_keys_as_its_plan_allows_also_when_everybody_asks_at_once(
    settings: Settings, clock: MovableClock, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.operations.keys.MOST_KEYS", {"enterprise": 3, "free": 2})
    async with running_auth(settings, clock) as auth:
        ada, eve = await auth.sign_up(), await auth.sign_up()
        makers = [ada, await elsewhere(auth, ada)] * 3

        outcomes = await asyncio.gather(*(auth.create_key(maker) for maker in makers), return_exceptions=True)

        refused = [error for error in outcomes if isinstance(error, Invalid)]
        assert [(error.code, error.details) for error in refused] == 3 * [("KEY_LIMIT_REACHED", {"limit": 3})]
        await auth.create_key(eve)
        taken = zip(makers, outcomes, strict=True)
        first, second, third = [(maker, made) for maker, made in taken if isinstance(made, pb.CreateKeyResponse)]
        with pytest.raises(Invalid):
            await rotate(auth, first[0], first[1].key.id, 60)
        assert await works(auth, first[1].token), "what was refused changes nothing"
        await rotate(auth, first[0], first[1].key.id, 0)
        revoking = pb.RevokeKeyRequest(project_id=second[0].project_id, key_id=second[1].key.id)
        await auth.account("RevokeKey", revoking, await auth.principal(ada))
        await rotate(auth, third[0], third[1].key.id, 60)
        with pytest.raises(Invalid):
            await auth.create_key(ada)
        await clock.advance(timedelta(seconds=61))
        last = await auth.create_key(ada)
        with pytest.raises(Invalid):
            await auth.create_key(ada)
        with psycopg.connect(database.superuser_dsn) as operator:
            operator.execute("UPDATE auth.tenants SET plan = 'free' WHERE id = %s", (ada.tenant_id,))
        with pytest.raises(Invalid, match="already has 2 keys"):
            await rotate(auth, ada, last.key.id, 60)
        assert await works(auth, last.token), "what is there stays"
        assert await works(auth, (await rotate(auth, ada, last.key.id, 0)).token)


async def test_a_tenants_living_keys_are_counted_without_reading_all_that_are_dead(
    auth: AuthClient, module_database: Database
) -> None:
    ada = await auth.sign_up()
    made = await auth.create_key(ada)
    with psycopg.connect(module_database.superuser_dsn, autocommit=True) as operator:
        operator.execute(
            "INSERT INTO auth.keys (id, tenant_id, project_id, name, kind, scopes, allowed_origins, prefix, key_hash,"
            " created_at, expires_at, revoked_at) SELECT gen_random_uuid(), tenant_id, project_id, name, kind, scopes,"
            " allowed_origins, prefix, sha256(key_hash || n::text::bytea), created_at,"
            " CASE n %% 2 WHEN 0 THEN now() END, CASE n %% 2 WHEN 1 THEN now() END"
            " FROM auth.keys, generate_series(1, 20000) AS n WHERE id = %s",
            (made.key.id,),
        )
        operator.execute("ANALYZE auth.keys")

    async with (
        postgres.connected(module_database.dsn("auth")) as runtime,
        runtime.transaction(tenant_id=ada.tenant_id) as connection,
    ):
        alive = await KeyStorage().count_alive(connection, TenantId(ada.tenant_id), datetime.now(UTC), 1000)
        cursor = await connection.execute(
            "SELECT seq_tup_read + idx_tup_fetch AS read FROM pg_stat_xact_user_tables WHERE relname = 'keys'"
        )
        [row] = await cursor.fetchall()

    assert (alive, row["read"]) == (1, 1000)


async def test_a_tenant_keeps_so_many_keys_and_of_its_dead_ones_the_latest(
    auth: AuthClient, module_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.operations.keys.MOST_KEYS", {"enterprise": 2})
    monkeypatch.setattr("services.auth.storage.keys._MOST_DELETED", 2)
    ada, eve = await auth.sign_up(), await auth.sign_up()
    living, other = await auth.create_key(await elsewhere(auth, ada)), await auth.create_key(eve)
    chain = [(await auth.create_key(ada)).key]
    for _ in range(2):
        chain.append((await rotate(auth, ada, chain[-1].id, 0)).key)
    renaming = pb.UpdateKeyRequest(project_id=ada.project_id, key_id=chain[0].id, name="old")

    with psycopg.connect(module_database.superuser_dsn) as renamer:
        renamer.execute("SELECT FROM auth.keys WHERE id = %s FOR UPDATE", (chain[0].id,))
        chain.append((await rotate(auth, ada, chain[-1].id, 0)).key)
        assert [key.id for key in await keys_of(auth, ada)] == [key.id for key in chain]
    await auth.account("UpdateKey", renaming, await auth.principal(ada))
    chain.append((await rotate(auth, ada, chain[-1].id, 0)).key)

    assert [key.id for key in await keys_of(auth, ada)] == [key.id for key in chain[-3:]]
    assert [key.id for key in await keys_of(auth, eve)] == [other.key.id]
    assert await works(auth, living.token)


async def test_a_tenant_that_has_more_living_keys_than_its_plan_allows_keeps_no_more_dead_ones(
    auth: AuthClient, module_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.operations.keys.MOST_KEYS", {"enterprise": 6, "free": 2})
    monkeypatch.setattr("services.auth.storage.keys._MOST_DELETED", 2)
    ada = await auth.sign_up()
    *living, last = [(await auth.create_key(ada)).key for _ in range(6)]
    with psycopg.connect(module_database.superuser_dsn) as operator:
        operator.execute("UPDATE auth.tenants SET plan = 'free' WHERE id = %s", (ada.tenant_id,))

    chain = [last]
    for _ in range(4):
        chain.append((await rotate(auth, ada, chain[-1].id, 0)).key)

    assert [key.id for key in await keys_of(auth, ada)] == [key.id for key in [*living, *chain[-3:]]]


async def test_only_admins_rotate_and_change_and_only_keys_of_their_own(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    made = await auth.create_key(ada)
    with pytest.raises(NotFound):
        await rotate(auth, eve, made.key.id, 0)
    adding = pb.AddMemberRequest(tenant_id=ada.tenant_id, email=eve.email, role=pb.ROLE_EDITOR)
    await auth.account("AddMember", adding, await auth.principal(ada))
    for method, request in (
        ("RotateKey", pb.RotateKeyRequest(project_id=ada.project_id, key_id=made.key.id)),
        ("UpdateKey", pb.UpdateKeyRequest(project_id=ada.project_id, key_id=made.key.id, never_expires=True)),
    ):
        with pytest.raises(Forbidden):
            await auth.account(method, request, await auth.principal(eve))
    with pytest.raises(Invalid):
        await rotate(auth, ada, made.key.id, -1)


async def test_origins_and_end_of_a_key_are_changed_at_once(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    made = await auth.create_key(ada, kind=pb.KEY_KIND_PUBLISHABLE, allowed_origins=["https://a.example"])
    feed = auth.watch()
    await anext(feed)
    expires_at = Timestamp()
    expires_at.FromDatetime(datetime(2099, 1, 1, tzinfo=UTC))
    request = pb.UpdateKeyRequest(
        project_id=ada.project_id, key_id=made.key.id, allowed_origins=["https://b.example"], expires_at=expires_at
    )

    changed = (await auth.account("UpdateKey", request, await auth.principal(ada))).key

    assert (list(changed.allowed_origins), changed.expires_at) == (["https://b.example"], expires_at)
    assert await eventually_named(feed, made.key.id)
    assert list((await auth.authenticate(key=made.token)).allowed_origins) == ["https://b.example"]
    assert await keys_of(auth, ada) == [changed]
    again = (await auth.account("UpdateKey", request, await auth.principal(ada))).key
    assert again == changed


async def test_the_last_use_of_a_key_is_noted_soon_and_at_the_end(
    settings: Settings, clock: MovableClock, database: Database
) -> None:
    def used_at() -> list[datetime | None]:
        return [at for (at,) in rows(database, "SELECT last_used_at FROM auth.keys ORDER BY id")]

    async with running_auth(settings, clock) as auth:
        ada = await auth.sign_up()
        used, idle = await auth.create_key(ada), await auth.create_key(ada)
        await works(auth, used.token)

        async def noted() -> bool:
            await clock.advance(timedelta(seconds=10))
            return used_at()[0] is not None

        await eventually(noted)
        listed = await keys_of(auth, ada)
        first = used_at()[0]
        await works(auth, used.token)

    assert [(key.id, key.HasField("last_used_at")) for key in listed] == [(used.key.id, True), (idle.key.id, False)]
    assert (first < used_at()[0], used_at()[1]) == (True, None)  # type: ignore[operator]


async def test_uses_that_cannot_be_noted_are_noted_later(settings: Settings, database: Database) -> None:
    async with running_auth(settings) as auth:
        made = await auth.create_key(await auth.sign_up())
    async with postgres.connected(settings.dsn) as runtime:
        usage = KeyUsage(runtime, KeyUsageStorage(), SystemClock())
        usage.used(KeyId(made.key.id))
        with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
            connection.execute("ALTER TABLE auth.keys RENAME TO away")
            async with usage.noting():
                pass
            connection.execute("ALTER TABLE auth.away RENAME TO keys")
        async with usage.noting():
            pass

    assert rows(database, "SELECT last_used_at IS NOT NULL FROM auth.keys") == [(True,)]


async def test_the_role_that_notes_uses_sees_and_changes_nothing_else(module_database: Database) -> None:
    for statement in ("SELECT name FROM keys", "UPDATE keys SET revoked_at = NULL", "SELECT FROM users"):
        with psycopg.connect(module_database.dsn("auth")) as connection:
            connection.execute("SET LOCAL ROLE auth_key_usage")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


async def test_a_secret_key_that_was_found_is_revoked_and_its_admins_are_told(
    auth: AuthClient, module_database: Database
) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    adding = pb.AddMemberRequest(tenant_id=ada.tenant_id, email=eve.email, role=pb.ROLE_EDITOR)
    await auth.account("AddMember", adding, await auth.principal(ada))
    made = await auth.create_key(ada, name="shop")

    answers = [await report(auth, made.token, place="https://code.example/a\n\x00"), await report(auth, made.token)]

    assert answers == [[True], [True]]  # of which the first may not have been heard
    assert not await works(auth, made.token)
    mails = rows(module_database, "SELECT recipient, details FROM auth.mails WHERE purpose = 'key_leaked'")
    assert mails == [(ada.email, {"key": "shop", "prefix": made.key.prefix, "found": "https://code.example/a"})]
    everything = rows(module_database, "SELECT document::json FROM auth.audit_entries ORDER BY sequence")
    [*_, document] = [document for (document,) in everything if document["tenantId"] == ada.tenant_id]
    assert (document["action"], document["target"]["id"], document["actor"]["kind"]) == (
        "key.leaked",
        made.key.id,
        "reporter",
    )
    assert made.token not in str(document)


def mailed(database: Database) -> list[str]:
    """To whom, in their order."""
    found = rows(database, "SELECT recipient FROM auth.mails WHERE purpose = 'key_leaked' ORDER BY id")
    return [recipient for (recipient,) in found]


async def test_where_addresses_can_be_verified_admins_who_did_and_who_consented_are_told(
    mailing_settings: Settings, database: Database
) -> None:
    async with running_auth(mailing_settings) as auth:
        ada, eve = await auth.sign_up(), await auth.sign_up()
        await report(auth, (await auth.create_key(ada)).token)
        before = mailed(database)
        with psycopg.connect(database.superuser_dsn) as connection:
            connection.execute("UPDATE auth.users SET email_verified_at = now()")
        adding = pb.AddMemberRequest(tenant_id=ada.tenant_id, email=eve.email, role=pb.ROLE_ADMIN)
        await auth.account("AddMember", adding, await auth.principal(ada))

        await report(auth, (await auth.create_key(ada)).token)

    assert (before, mailed(database)) == ([], [ada.email])


async def test_of_so_many_leaked_keys_a_day_and_no_more_a_tenants_admins_are_told_by_mail(
    settings: Settings, clock: MovableClock, database: Database
) -> None:
    async with running_auth(settings, clock, access_token_seconds=2 * 86_400) as auth:
        ada, eve = await auth.sign_up(), await auth.sign_up()
        keys = [(await auth.create_key(ada)).token for _ in range(12)]

        answers = await asyncio.gather(*(report(auth, key) for key in keys))
        await report(auth, (await auth.create_key(eve)).token)
        told = mailed(database)
        await clock.advance(timedelta(days=1))
        await report(auth, (await auth.create_key(ada)).token)

    assert answers == [[True]] * 12
    assert sorted(told) == [ada.email] * 10 + [eve.email]
    assert mailed(database)[-1:] == [ada.email]


async def test_what_is_no_live_secret_key_is_left_alone(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    public = await auth.create_key(ada, kind=pb.KEY_KIND_PUBLISHABLE, allowed_origins=["*"])

    revoked = await auth.create_key(ada)
    revoking = pb.RevokeKeyRequest(project_id=ada.project_id, key_id=revoked.key.id)
    await auth.account("RevokeKey", revoking, await auth.principal(ada))

    assert await report(auth, public.token, "sk_unknown", revoked.token) == [False] * 3
    assert await works(auth, public.token)
    with pytest.raises(Invalid):
        await auth.account("ReportLeakedKeys", pb.ReportLeakedKeysRequest(keys=[pb.LeakedKey(api_key_sha256=b"x")]))


async def test_a_key_that_is_reported_many_times_at_once_is_revoked_once(
    auth: AuthClient, module_database: Database
) -> None:
    made = await auth.create_key(await auth.sign_up())

    answers = await asyncio.gather(*(report(auth, made.token) for _ in range(5)))

    assert answers == [[True]] * 5
    documents = [document for (document,) in rows(module_database, "SELECT document::json FROM auth.audit_entries")]
    told = [document["action"] for document in documents if document["target"]["id"] == made.key.id]
    assert sorted(told) == ["key.created", "key.leaked"]
