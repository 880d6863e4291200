"""The schema keeps tenants apart by itself, whatever the code above it does."""

import shutil
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from chassis import postgres
from chassis.migrations import migrate
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from services.config.app import MIGRATIONS
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
    counted_anew(database)
    with psycopg.connect(database.dsn("config")) as connection:
        assert connection.execute("SELECT * FROM tenant_bytes").fetchall() == []
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", (person.tenant_id,))
        [(seen,)] = connection.execute("SELECT tenant_id FROM tenant_bytes").fetchall()
        assert str(seen) == person.tenant_id


def counted_anew(database: Database) -> None:
    """What is known of each tenant's definitions, and of all, living and deleted, is what they are."""
    with psycopg.connect(database.superuser_dsn) as connection:
        taken = connection.execute(
            """
            SELECT tenant_id, coalesce(sum(bytes) FILTER (WHERE deleted_at IS NULL), 0),
                   coalesce(sum(bytes) FILTER (WHERE deleted_at IS NOT NULL), 0)
              FROM config.metrics GROUP BY tenant_id ORDER BY tenant_id
            """
        ).fetchall()
        known = "SELECT tenant_id, bytes, deleted_bytes FROM config.tenant_bytes ORDER BY tenant_id"
        assert connection.execute(known).fetchall() == taken
        [feed] = connection.execute("SELECT bytes, deleted_bytes FROM config.feed").fetchall()
    assert feed == (sum(living for _, living, _ in taken), sum(deleted for _, _, deleted in taken))
    assert min(feed) > 0


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
    counted_anew(database)


async def test_tombstones_are_forgotten_so_many_at_a_time(
    config: Config, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.config.storage._MOST_FORGOTTEN", 2)
    person = config.person()
    for number in range(3):
        await person.delete((await person.create(counter(f"a{number}_total"))).id)
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("UPDATE config.metrics SET deleted_at = now() - interval '8 days 1 second'")
    forgotten = []
    async with postgres.connected(database.dsn("config")) as pool:
        for _ in range(3):
            async with pool.transaction(role="config_feed") as connection:
                forgotten.append(await DefinitionStorage().purge_tombstones(connection))
    assert forgotten == [2, 1, 0]


async def test_tombstones_that_were_there_before_they_were_counted_are_made_small_and_counted(
    unmigrated_database: Database, tmp_path: Path
) -> None:
    database, before = unmigrated_database, tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, before, ignore=lambda _, names: [name for name in names if name >= "0009"])
    await migrate("config", before, database.owner_dsn("config"))
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute(
            """
            INSERT INTO config.metrics (tenant_id, project_id, id, name, type, unit, help, labels, buckets, objectives,
                                        version, revision, deleted_at)
            SELECT md5((n % 3)::text)::uuid, uuidv7(), uuidv7(), 'a_total', 'counter', '', repeat('A', 1000), '[]',
                   '{1, 2}', '{0.5}', 1, n, CASE WHEN n % 3 > 0 THEN now() END
              FROM generate_series(1, 10) AS n
            """
        )
        connection.execute("DELETE FROM config.tenant_bytes WHERE tenant_id = md5('1')::uuid")  # as of before 0007
    await migrate("config", MIGRATIONS, database.owner_dsn("config"))
    counted_anew(database)
    with psycopg.connect(database.superuser_dsn) as connection:
        sizes = "SELECT help = '', cardinality(buckets), max(bytes) > 300 FROM config.metrics GROUP BY 1, 2 ORDER BY 1"
        assert connection.execute(sizes).fetchall() == [(False, 2, True), (True, 0, False)]


async def test_the_door_of_the_feed_changes_nothing_and_reads_no_history(config: Config, database: Database) -> None:
    async with postgres.connected(database.dsn("config")) as pool:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with pool.transaction(role="config_feed") as connection:
                await connection.execute("UPDATE metrics SET help = 'x'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with pool.transaction(role="config_feed") as connection:
                await connection.execute("SELECT * FROM metric_versions")
