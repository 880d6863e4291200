"""The watch feed: order, heartbeats, resuming, and silence while auth cannot vouch for anything."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from chassis import postgres
from chassis.errors import Unavailable
from chassis.ids import uuid7
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from contracts.pulsegate.auth.v1.credentials_pb2 import WatchCredentialsResponse
from services.auth.app import running
from services.auth.feed import Beat, CredentialFeed
from services.auth.settings import Settings
from services.auth.storage.feed import CLEANER_ROLE, FeedStorage
from tests.integration.auth.client import AuthClient, Person, connected_to, running_auth
from tests.suite_database import Database
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

Stream = AsyncIterator[WatchCredentialsResponse]


async def revoke(auth: AuthClient, person: Person, key: pb.CreateKeyResponse) -> None:
    request = pb.RevokeKeyRequest(project_id=person.project_id, key_id=key.key.id)
    await auth.account("RevokeKey", request, await auth.principal(person))


async def changes(stream: Stream, count: int) -> list[WatchCredentialsResponse]:
    """The next messages that are no heartbeats."""
    found: list[WatchCredentialsResponse] = []
    async with asyncio.timeout(60):
        async for message in stream:
            if message.changed_ids:
                found.append(message)
            if len(found) == count:
                break
    return found


async def test_a_stream_that_has_seen_nothing_begins_with_a_reset(auth: AuthClient) -> None:
    first = await anext(auth.watch())

    assert first.reset
    assert first.revision >= 1
    assert list(first.changed_ids) == []


@pytest.mark.alone
async def test_heartbeats_come_at_least_four_times_a_second(auth: AuthClient) -> None:
    stream = auth.watch()
    await anext(stream)
    gaps = []
    for _ in range(12):
        began = time.monotonic()
        message = await anext(stream)
        gaps.append(time.monotonic() - began)
        assert not message.changed_ids
        assert not message.reset

    assert sorted(gaps)[len(gaps) // 2] <= 0.25


@pytest.mark.alone
async def test_a_change_reaches_the_stream_of_another_replica_within_a_second(
    settings: Settings, replica_settings: Settings
) -> None:
    async with running_auth(settings) as auth, running_auth(replica_settings) as replica:
        ada = await auth.sign_up()
        key = await auth.create_key(ada)
        stream = replica.watch()
        await anext(stream)

        began = time.monotonic()
        await revoke(auth, ada, key)
        [message] = await changes(stream, 1)
        took_seconds = time.monotonic() - began

    assert list(message.changed_ids) == [key.key.id]
    assert took_seconds < 1


async def test_a_stream_resumes_with_what_it_missed(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    keys = [await auth.create_key(ada) for _ in range(3)]
    await revoke(auth, ada, keys[0])
    [seen] = await changes(auth.watch((await anext(auth.watch())).revision - 1), 1)
    for key in keys[1:]:
        await revoke(auth, ada, key)

    missed = await changes(auth.watch(seen.revision), 2)

    assert [list(message.changed_ids) for message in missed] == [[key.key.id] for key in keys[1:]]
    assert [message.revision for message in missed] == [seen.revision + 1, seen.revision + 2]


async def test_very_many_ids_are_announced_in_several_changes(auth: AuthClient, module_database: Database) -> None:
    ada = await auth.sign_up()
    ended = [str(uuid7()) for _ in range(25_000)]
    stream = auth.watch()
    start = (await anext(stream)).revision
    async with (
        postgres.connected(module_database.dsn("auth")) as database,
        database.transaction(user_id=ada.user_id) as connection,
    ):
        await FeedStorage().announce(connection, ended)

    told = await changes(stream, 3)

    assert [(message.revision - start, len(message.changed_ids)) for message in told] == [
        (1, 10_000),
        (2, 10_000),
        (3, 5_000),
    ]
    assert [changed_id for message in told for changed_id in message.changed_ids] == ended


async def test_a_stream_from_a_future_that_never_was_is_reset(auth: AuthClient) -> None:
    assert (await anext(auth.watch(10**15))).reset


async def test_revisions_become_visible_in_their_order_under_concurrent_changes(
    settings: Settings, replica_settings: Settings
) -> None:
    async with running_auth(settings) as auth, running_auth(replica_settings) as replica:
        people = [await auth.sign_up() for _ in range(4)]
        keys = [(person, await auth.create_key(person)) for person in people for _ in range(10)]
        stream = replica.watch()
        start = (await anext(stream)).revision
        seeing = asyncio.create_task(changes(stream, len(keys)))

        await asyncio.gather(*(revoke((auth, replica)[n % 2], person, key) for n, (person, key) in enumerate(keys)))
        seen = await seeing

    assert [message.revision for message in seen] == [start + step for step in range(1, len(keys) + 1)]
    assert {key_id for message in seen for key_id in message.changed_ids} == {key.key.id for _, key in keys}


@contextmanager
def locked_feed(database: Database) -> Iterator[None]:
    """The feed's row cannot be read meanwhile, as if the database hung."""
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("LOCK auth.feed IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


async def test_there_is_no_heartbeat_while_the_database_does_not_answer(settings: Settings, database: Database) -> None:
    async with running_auth(settings) as auth:
        stream = auth.watch()
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))

        async def silent() -> bool:
            nonlocal waiting
            done, _ = await asyncio.wait([waiting], timeout=1.0)
            waiting = asyncio.ensure_future(anext(stream)) if done else waiting
            return not done

        with locked_feed(database):
            await eventually(silent, what="the last heartbeats from before have arrived")

        assert not (await waiting).reset


async def test_streams_end_when_the_service_stops(settings: Settings) -> None:
    settings = replace(settings, drain_seconds=60.0)
    async with connected_to(settings) as auth:
        async with running(settings):
            await eventually(auth.is_up)
            stream = auth.watch()
            await anext(stream)
            began = time.monotonic()
        took_seconds = time.monotonic() - began

        assert took_seconds < 30
        assert [message async for message in stream if message.changed_ids] == []


async def test_what_has_expired_is_deleted_and_nothing_else(auth: AuthClient, module_database: Database) -> None:
    ada = await auth.sign_up()
    old, young = datetime.now(UTC) - timedelta(hours=2), datetime.now(UTC) - timedelta(minutes=30)
    with psycopg.connect(module_database.superuser_dsn) as connection:
        for revision, created_at in ((-2, old), (-1, young)):
            connection.execute(
                "INSERT INTO auth.changes (revision, changed_ids, created_at) VALUES (%s, '{}', %s)",
                (revision, created_at),
            )
        for expires_at in (old, young):
            connection.execute(
                "INSERT INTO auth.sessions (id, user_id, created_at, expires_at)"
                " VALUES (gen_random_uuid(), %s, now(), %s)",
                (ada.user_id, expires_at),
            )
        connection.commit()
        async with postgres.connected(module_database.dsn("auth")) as database:
            await CredentialFeed(database, FeedStorage()).clean()

        revisions = connection.execute("SELECT revision FROM auth.changes WHERE revision < 0").fetchall()
        sessions = connection.execute(
            "SELECT expires_at FROM auth.sessions WHERE user_id = %s ORDER BY expires_at", (ada.user_id,)
        ).fetchall()

    assert revisions == [(-1,)]
    assert [expires_at == young for (expires_at,) in sessions] == [True, False]


@pytest.mark.parametrize("ended", ["revoked_at", "expires_at"])
async def test_keys_that_are_dead_for_ninety_days_are_deleted(
    auth: AuthClient, module_database: Database, ended: str
) -> None:
    ada = await auth.sign_up()
    long_dead, dead, living = [(await auth.create_key(ada)).key.id for _ in range(3)]
    with psycopg.connect(module_database.superuser_dsn) as connection:
        for key_id, days in ((long_dead, 91), (dead, 89)):
            ended_at = datetime.now(UTC) - timedelta(days=days)
            end = SQL("UPDATE auth.keys SET {} = %s WHERE id = %s").format(Identifier(ended))
            connection.execute(end, (ended_at, key_id))
        connection.commit()
        async with postgres.connected(module_database.dsn("auth")) as database:
            await CredentialFeed(database, FeedStorage()).clean()
    page = await auth.account("ListKeys", pb.ListKeysRequest(project_id=ada.project_id), await auth.principal(ada))
    assert [key.id for key in page.keys] == [dead, living]


OLD_CHANGES = (
    "INSERT INTO auth.changes (revision, changed_ids, created_at)"
    " SELECT -number, '{}', now() - interval '2 hours' - number * interval '1 s' FROM generate_series(1, %s) AS number"
)
OLD_CHANGES_LEFT = "SELECT count(*) FROM auth.changes WHERE revision < 0"


async def test_a_backlog_is_deleted_in_steps_within_the_databases_time_limits(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.storage.feed.MOST_DELETED", 2)
    monkeypatch.setattr("services.auth.feed.MOST_DELETED", 2)
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        connection.execute(OLD_CHANGES, (5,))
        async with postgres.connected(database.dsn("auth")) as connected:
            async with connected.transaction(role=CLEANER_ROLE) as cleaning:
                assert await FeedStorage().delete_expired(cleaning, "changes") == 2
            oldest_left = connection.execute("SELECT min(revision) FROM auth.changes").fetchone()

            await CredentialFeed(connected, FeedStorage()).clean()

        assert oldest_left == (-3,)
        assert connection.execute(OLD_CHANGES_LEFT).fetchone() == (0,)


async def test_cleaning_waits_for_its_migration_with_what_needs_it_alone(database: Database) -> None:
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        connection.execute(OLD_CHANGES, (1,))
        connection.execute("INSERT INTO auth.users VALUES (gen_random_uuid(), 'ada', 'ada', now())")
        connection.execute(
            "INSERT INTO auth.sessions (id, user_id, created_at, expires_at)"
            " SELECT gen_random_uuid(), id, now(), now() - interval '2 hours' FROM auth.users"
        )
        connection.execute("ALTER TABLE auth.keys DROP COLUMN ends_at CASCADE")
        connection.execute("REVOKE DELETE ON auth.keys FROM auth_cleaner")
        async with postgres.connected(database.dsn("auth")) as connected:
            with pytest.raises(Unavailable, match="older than this code"):
                await CredentialFeed(connected, FeedStorage()).clean()

        assert connection.execute(OLD_CHANGES_LEFT).fetchone() == (0,)
        assert connection.execute("SELECT FROM auth.sessions").fetchall() == []


async def test_a_feed_that_slept_through_deleted_changes_resets_its_streams(
    auth: AuthClient, module_database: Database
) -> None:
    ada = await auth.sign_up()
    for _ in range(2):
        await revoke(auth, ada, await auth.create_key(ada))
    async with postgres.connected(module_database.dsn("auth")) as database:
        feed = CredentialFeed(database, FeedStorage())
        await feed.read()
        with psycopg.connect(module_database.superuser_dsn) as connection:
            before = newest(connection)
            connection.execute("UPDATE auth.feed SET revision = revision + 5")
        beats = feed.watch(before)
        reading = asyncio.ensure_future(anext(beats))
        await asyncio.sleep(0)
        await feed.read()

        assert await reading == Beat(revision=before + 5, reset=True)


async def test_what_is_read_while_a_stream_sends_is_sent_too(auth: AuthClient, module_database: Database) -> None:
    ada = await auth.sign_up()
    first, second = await auth.create_key(ada), await auth.create_key(ada)
    async with postgres.connected(module_database.dsn("auth")) as database:
        feed = CredentialFeed(database, FeedStorage())
        await feed.read()
        with psycopg.connect(module_database.superuser_dsn) as connection:
            beats = feed.watch(newest(connection))
        await revoke(auth, ada, first)
        sending = asyncio.ensure_future(anext(beats))
        await asyncio.sleep(0)
        await feed.read()
        sent = [await sending]
        await revoke(auth, ada, second)
        await feed.read()

        resuming = asyncio.ensure_future(anext(beats))
        await asyncio.sleep(0)
        await feed.read()
        sent.append(await resuming)

    assert [beat.changed_ids for beat in sent] == [(first.key.id,), (second.key.id,)]


def newest(connection: "psycopg.Connection[tuple[int]]") -> int:
    [(revision,)] = connection.execute("SELECT revision FROM auth.feed").fetchall()
    return revision
