"""The schema keeps tenants apart by itself, whatever the code above it does."""

import psycopg
import pytest
from psycopg.rows import dict_row

from chassis import postgres
from services.config.storage import PostgresDefinitionStore
from tests.integration.config.service import Config, counter
from tests.suite_database import Database

pytestmark = pytest.mark.integration


async def test_row_level_security_is_forced_on_every_table_of_tenants(database: Database) -> None:
    with psycopg.connect(database.superuser_dsn) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'config'::regnamespace AND relkind = 'r'"
            " AND NOT (relrowsecurity AND relforcerowsecurity)"
        ).fetchall()
    assert {name for (name,) in rows} == {"feed", "schema_migrations"}  # hold nobody's data


async def test_without_a_tenant_or_with_another_nothing_is_seen_or_changed(config: Config, database: Database) -> None:
    person = config.person()
    created = await person.create(counter())
    with psycopg.connect(database.dsn("config"), row_factory=dict_row) as connection:
        for tenant in ("", config.person().tenant_id):
            connection.execute("SELECT set_config('app.tenant_id', %s, false)", (tenant,))
            assert connection.execute("SELECT * FROM metrics").fetchall() == []
            assert connection.execute("SELECT * FROM metric_versions").fetchall() == []
            assert connection.execute("UPDATE metrics SET help = 'x'").rowcount == 0
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", (person.tenant_id,))
        found = connection.execute("SELECT id FROM metrics").fetchall()
        assert [str(row["id"]) for row in found] == [created.id]


async def test_rows_of_another_tenant_cannot_be_written(config: Config, database: Database) -> None:
    person = config.person()
    await person.create(counter())
    with psycopg.connect(database.dsn("config")) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", (person.tenant_id,))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE metrics SET tenant_id = gen_random_uuid()")


async def test_the_door_of_the_feed_only_reads_and_forgets_old_tombstones(config: Config, database: Database) -> None:
    person = config.person()
    fresh, old, kept = [await person.create(counter(f"{name}_total")) for name in ("fresh", "old", "kept")]
    for gone in (fresh, old):
        await person.delete(gone.id)
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute(
            "UPDATE config.metrics SET deleted_at = now() - interval '8 days 1 second' WHERE id = %s", (old.id,)
        )
    async with postgres.connected(database.dsn("config")) as pool:
        store = PostgresDefinitionStore()
        async with pool.transaction(role="config_feed") as connection:
            assert await store.purge_tombstones(connection) == 1
            assert await store.purge_tombstones(connection) == 0
            left = (await store.feed_page(connection, 0, 100)).metrics
            assert {metric.id for metric in left} == {fresh.id, kept.id}
            assert (await store.feed_head(connection)).purged_revision == 5
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with pool.transaction(role="config_feed") as connection:
                await connection.execute("UPDATE metrics SET help = 'x'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with pool.transaction(role="config_feed") as connection:
                await connection.execute("SELECT * FROM metric_versions")
