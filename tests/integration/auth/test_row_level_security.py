"""What the runtime role can see and do, whatever SQL it may be made to run."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from chassis import api_keys
from chassis.emails import email_key
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from services.auth.tokens import RefreshTokens
from tests.integration.auth.client import AuthClient, Person
from tests.suite_database import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")

Connection = psycopg.Connection[tuple[Any, ...]]

TABLES = (
    "users",
    "passwords",
    "tenants",
    "memberships",
    "projects",
    "deleted_projects",
    "keys",
    "sessions",
    "refresh_tokens",
    "mailed_tokens",
    "live_tokens",
    "second_factors",
    "invitations",
    "invitation_mails",
    "leak_mails",
    "recovery_codes",
    "mails",
    "identity_providers",
    "identities",
    "sign_ons",
    "sign_on_grants",
    "audit_heads",
    "audit_entries",
    "audit_signed_heads",
    "audit_anchors",
    "signing_keys",
    "feed",
    "changes",
)


@pytest.fixture
def runtime(module_database: Database) -> Iterator[Connection]:
    """A connection as the service's own role; what a test does is undone."""
    with psycopg.connect(module_database.dsn("auth")) as connection:
        yield connection
        connection.rollback()


def shown(connection: Connection, **settings: str) -> dict[str, int]:
    """How many rows each table shows by these settings."""
    counts = {}
    with connection.transaction(force_rollback=True):
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, true)", (f"app.{name}", value))
        for table in TABLES:
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            try:
                with connection.transaction():
                    [(counts[table],)] = connection.execute(query).fetchall()
            except psycopg.errors.InsufficientPrivilege:
                counts[table] = 0
    return {table: count for table, count in counts.items() if count}


async def two_people(auth: AuthClient) -> tuple[Person, Person]:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    for person in (ada, eve):
        key = await auth.create_key(person)
        request = pb.RevokeKeyRequest(project_id=person.project_id, key_id=key.key.id)
        await auth.account("RevokeKey", request, await auth.principal(person))
    return ada, eve


async def test_without_a_setting_nothing_is_seen(auth: AuthClient, runtime: Connection) -> None:
    await two_people(auth)

    assert shown(runtime) == {}
    assert shown(runtime, user_id="", tenant_id="", email="", key_hash="", refresh_hash="", door="") == {}


async def test_every_table_is_bound_by_policies_that_its_owner_cannot_pass_either(module_database: Database) -> None:
    with psycopg.connect(module_database.superuser_dsn) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'auth'::regnamespace AND relkind = 'r'"
            " AND relrowsecurity AND relforcerowsecurity ORDER BY relname"
        ).fetchall()
        unbound = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'auth'::regnamespace AND relkind = 'r'"
            " AND NOT (relrowsecurity AND relforcerowsecurity)"
        ).fetchall()

    assert [name for (name,) in tables] == sorted(TABLES)
    assert unbound == [("schema_migrations",)]


async def test_a_tenants_id_shows_that_tenant_alone(auth: AuthClient, runtime: Connection) -> None:
    ada, eve = await two_people(auth)

    assert shown(runtime, tenant_id=ada.tenant_id) == {
        "users": 1,
        "tenants": 1,
        "memberships": 1,
        "projects": 1,
        "keys": 1,
        "feed": 1,
        "audit_heads": 1,
        "audit_entries": 5,
    }
    runtime.execute("SELECT set_config('app.tenant_id', %s, true)", (ada.tenant_id,))
    for table, column, value in (
        ("tenants", "id", eve.tenant_id),
        ("memberships", "tenant_id", eve.tenant_id),
        ("projects", "tenant_id", eve.tenant_id),
        ("keys", "tenant_id", eve.tenant_id),
        ("users", "id", eve.user_id),
    ):
        query = sql.SQL("SELECT FROM {} WHERE {} = %s").format(sql.Identifier(table), sql.Identifier(column))
        assert runtime.execute(query, (value,)).fetchall() == []


async def test_a_tenants_id_does_not_let_another_tenants_rows_be_written(auth: AuthClient, runtime: Connection) -> None:
    ada, eve = await two_people(auth)
    runtime.execute("SELECT set_config('app.tenant_id', %s, true)", (ada.tenant_id,))

    assert runtime.execute("UPDATE projects SET name = 'x' WHERE id = %s", (eve.project_id,)).rowcount == 0
    assert runtime.execute("DELETE FROM keys WHERE tenant_id = %s", (eve.tenant_id,)).rowcount == 0
    for statement in (
        "INSERT INTO projects (id, tenant_id, name, created_at) VALUES (gen_random_uuid(), %s, 'x', now())",
        "UPDATE projects SET tenant_id = %s",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), runtime.transaction():
            runtime.execute(statement.encode(), (eve.tenant_id,))


async def test_a_persons_id_shows_the_account_and_its_tenants(auth: AuthClient, runtime: Connection) -> None:
    ada, _ = await two_people(auth)

    assert shown(runtime, user_id=ada.user_id) == {
        "users": 1,
        "passwords": 1,
        "tenants": 1,
        "memberships": 1,
        "projects": 1,
        "sessions": 1,
        "refresh_tokens": 1,
        "feed": 1,
    }


async def test_a_person_cannot_make_themselves_a_member(auth: AuthClient, runtime: Connection) -> None:
    ada, eve = await two_people(auth)
    runtime.execute("SELECT set_config('app.user_id', %s, true)", (eve.user_id,))

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        runtime.execute(
            "INSERT INTO memberships (tenant_id, user_id, role, created_at) VALUES (%s, %s, 'owner', now())",
            (ada.tenant_id, eve.user_id),
        )


async def test_narrow_settings_show_one_thing_each(auth: AuthClient, runtime: Connection) -> None:
    ada, _ = await two_people(auth)
    key = await auth.create_key(ada)

    assert shown(runtime, email=email_key(ada.email)) == {
        "users": 1,
        "passwords": 1,
        "mailed_tokens": 1,
        "live_tokens": 1,
    }
    assert shown(runtime, refresh_hash=RefreshTokens.digest(ada.refresh_token).hex()) == {"refresh_tokens": 1}
    assert shown(runtime, key_hash=api_keys.digest(key.token).hex()) == {
        "keys": 1,
        "projects": 1,
        "tenants": 1,
        "feed": 1,
    }
    assert shown(runtime, door="signing_keys") == {"signing_keys": 1}


async def test_the_feeds_role_reads_changes_and_no_credentials(auth: AuthClient, runtime: Connection) -> None:
    await two_people(auth)
    runtime.execute("SET LOCAL ROLE auth_feed")

    assert set(shown(runtime)) == {"feed", "changes"}
    for statement in (b"UPDATE feed SET revision = 1", b"DELETE FROM changes", b"INSERT INTO changes VALUES (0, '{}')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), runtime.transaction():
            runtime.execute(statement)


async def test_the_cleaners_role_deletes_nothing_that_lives(auth: AuthClient, runtime: Connection) -> None:
    await two_people(auth)
    runtime.execute("SET LOCAL ROLE auth_cleaner")

    assert shown(runtime) == {}
    for statement in (
        b"DELETE FROM sessions",
        b"DELETE FROM refresh_tokens",
        b"DELETE FROM changes",
        b"DELETE FROM keys",
    ):
        assert runtime.execute(statement).rowcount == 0


async def test_neither_the_service_nor_one_of_its_roles_shortens_the_audit_log(
    auth: AuthClient, runtime: Connection
) -> None:
    ada, _ = await two_people(auth)
    for role in (None, b"SET LOCAL ROLE auth_auditor", b"SET LOCAL ROLE auth_operator"):
        with runtime.transaction(force_rollback=True):
            runtime.execute("SELECT set_config('app.tenant_id', %s, true)", (ada.tenant_id,))
            if role is not None:
                runtime.execute(role)
            for statement in (
                b"DELETE FROM audit_entries",
                b"DELETE FROM audit_signed_heads",
                b"INSERT INTO audit_anchors VALUES (gen_random_uuid(), 1, '')",
                b"SET LOCAL ROLE auth_audit_pruner",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege), runtime.transaction():
                    runtime.execute(statement)


async def test_the_pruners_role_takes_nothing_beyond_its_anchor(auth: AuthClient, module_database: Database) -> None:
    ada, _ = await two_people(auth)
    with psycopg.connect(module_database.owner_dsn("auth")) as owner:
        owner.execute("SET LOCAL ROLE auth_audit_pruner")
        assert owner.execute("DELETE FROM audit_entries").rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege), owner.transaction():
            owner.execute("INSERT INTO audit_anchors VALUES (%s, 2, '')", (ada.tenant_id,))
        for statement in (b"UPDATE audit_entries SET document = ''", b"DELETE FROM audit_heads"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), owner.transaction():
                owner.execute(statement)
        owner.rollback()


async def test_the_role_itself_neither_reads_nor_rewrites_what_was_announced(
    auth: AuthClient, runtime: Connection
) -> None:
    ada, _ = await two_people(auth)
    runtime.execute("SELECT set_config('app.tenant_id', %s, true)", (ada.tenant_id,))

    for statement in (b"SELECT FROM changes", b"UPDATE changes SET changed_ids = '{}'", b"DELETE FROM changes"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), runtime.transaction():
            runtime.execute(statement)
    for statement in (b"TRUNCATE users", b"ALTER TABLE users DISABLE ROW LEVEL SECURITY", b"SET ROLE auth_owner"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), runtime.transaction():
            runtime.execute(statement)
