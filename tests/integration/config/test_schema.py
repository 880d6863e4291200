"""The schema keeps tenants apart by itself, whatever the code above it does."""

import psycopg
import pytest
from psycopg.rows import dict_row

from chassis import postgres
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from services.config.storage import DefinitionStorage
from tests.integration.config.service import Config, counter
from tests.suite_database import Database


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


async def test_a_definition_has_no_fewer_bytes_than_its_message(config: Config, database: Database) -> None:
    person = config.person()
    labels = [
        pb.Label(name="x" * 64, values=["é" * 100, "\U0001f600" * 50, "\x01", '"', "\\", "a"], max_distinct=10_000),
        *(pb.Label(name=f"l{number}", pattern="[a-zé]+", required=True) for number in range(15)),
    ]
    large = pb.MetricSpec(
        name="a_seconds",
        type=pb.METRIC_TYPE_HISTOGRAM,
        unit="seconds",
        help="é" * 1000,
        labels=labels,
        buckets=[number + 0.1 for number in range(100)],
    )
    small = [counter("a_total"), counter("x" * 194 + "_total", labels=[pb.Label(name="a")])]
    made = [await person.create(spec) for spec in (*small, large)]
    with psycopg.connect(database.superuser_dsn) as connection:
        rows = connection.execute("SELECT bytes FROM config.metrics ORDER BY id").fetchall()
    assert all(metric.ByteSize() <= taken for metric, (taken,) in zip(made, rows, strict=True))


async def test_what_a_tenants_definitions_take_is_known_and_only_to_it(config: Config, database: Database) -> None:
    person, other = config.person(), config.person()
    gone, kept = await person.create(counter("gone_total")), await person.create(counter())
    await other.create(counter(labels=[pb.Label(name="plan", values=["free", "pro"])]))
    await person.update(kept.id, counter(help="A longer text than before, by a few bytes."), 1)
    await person.delete(gone.id)
    living = "SELECT tenant_id, sum(bytes) FROM config.metrics WHERE deleted_at IS NULL GROUP BY tenant_id"
    with psycopg.connect(database.superuser_dsn) as connection:
        taken: dict[object, int] = dict(connection.execute(living).fetchall())
        assert dict(connection.execute("SELECT tenant_id, bytes FROM config.tenant_bytes").fetchall()) == taken
        assert connection.execute("SELECT bytes FROM config.feed").fetchall() == [(sum(taken.values()),)]
    with psycopg.connect(database.dsn("config")) as connection:
        assert connection.execute("SELECT * FROM tenant_bytes").fetchall() == []
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", (person.tenant_id,))
        [(seen, _)] = connection.execute("SELECT * FROM tenant_bytes").fetchall()
        assert str(seen) == person.tenant_id


async def test_the_door_of_the_feed_only_reads_and_forgets_old_tombstones_with_their_history(
    config: Config, database: Database
) -> None:
    person = config.person()
    fresh, old, kept = [await person.create(counter(f"{name}_total")) for name in ("fresh", "old", "kept")]
    for gone in (fresh, old):
        await person.delete(gone.id)
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute(
            "UPDATE config.metrics SET deleted_at = now() - interval '8 days 1 second' WHERE id = %s", (old.id,)
        )
    async with postgres.connected(database.dsn("config")) as pool:
        storage = DefinitionStorage()
        async with pool.transaction(role="config_feed") as connection:
            assert await storage.purge_tombstones(connection) == 1
            assert await storage.purge_tombstones(connection) == 0
            left = (await storage.feed_page(connection, 0, most_metrics=100, most_bytes=1 << 20)).metrics
            assert {metric.id for metric in left} == {fresh.id, kept.id}
            assert (await storage.feed_head(connection)).purged_revision == 5
    with psycopg.connect(database.superuser_dsn) as superuser:
        remembered = superuser.execute("SELECT DISTINCT metric_id::text FROM config.metric_versions").fetchall()
    assert {metric_id for (metric_id,) in remembered} == {fresh.id, kept.id}


async def test_the_door_of_the_feed_changes_nothing_and_reads_no_history(config: Config, database: Database) -> None:
    async with postgres.connected(database.dsn("config")) as pool:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with pool.transaction(role="config_feed") as connection:
                await connection.execute("UPDATE metrics SET help = 'x'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with pool.transaction(role="config_feed") as connection:
                await connection.execute("SELECT * FROM metric_versions")
