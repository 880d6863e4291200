"""Migrations of a schema, on real Postgres."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from chassis import migrations, postgres
from chassis.errors import Unavailable
from chassis.migrations import MigrationError, migrate, read, schema_probe
from deploy.local.layout import Ports
from tests.captured_logs import logged_by
from tests.forwarder import Forwarder
from tests.integration.chassis.conftest import Schema
from tests.waiting import eventually


def write(folder: Path, *statements: str) -> Path:
    """A folder with one migration a statement."""
    for number, statement in enumerate(statements, start=1):
        (folder / f"{number:04}_step.sql").write_text(statement)
    return folder


FIRST = "CREATE TABLE things (n integer); INSERT INTO things VALUES (1); GRANT SELECT ON things TO config;"
SECOND = "ALTER TABLE things ADD COLUMN m integer"


async def test_what_is_missing_is_applied_in_order_and_once(schema: Schema, tmp_path: Path) -> None:
    assert await migrate(schema.name, write(tmp_path, FIRST), schema.owner_dsn) == 1
    assert await migrate(schema.name, tmp_path, schema.owner_dsn) == 0
    assert await migrate(schema.name, write(tmp_path, FIRST, SECOND), schema.owner_dsn) == 1
    with psycopg.connect(schema.dsn) as connection:
        assert connection.execute("SELECT n, m FROM things").fetchall() == [(1, None)]


async def test_a_server_that_comes_late_is_waited_for(
    schema: Schema, tmp_path: Path, port_blocks: Callable[[], Ports]
) -> None:
    port = port_blocks().server("postgres")
    late = make_conninfo(schema.owner_dsn, host="127.0.0.1", port=port)
    with logged_by(migrations) as lines:
        migrated = asyncio.create_task(migrate(schema.name, write(tmp_path, FIRST), late))

        async def was_refused() -> bool:
            return any(line["event"] == "Postgres does not answer yet" for line in lines)

        await eventually(was_refused, what="one attempt has failed")
    there = int(str(conninfo_to_dict(schema.owner_dsn)["port"]))
    async with Forwarder(listens=port, leads_to=there).forwarding():
        assert await migrated == 1


async def test_a_server_that_never_comes_or_refuses_is_told(
    schema: Schema, tmp_path: Path, port_blocks: Callable[[], Ports]
) -> None:
    write(tmp_path, FIRST)
    nowhere = make_conninfo(schema.owner_dsn, host="127.0.0.1", port=port_blocks().server("postgres"))
    with pytest.raises(psycopg.OperationalError, match="refused"):
        await migrate(schema.name, tmp_path, nowhere, patience_seconds=0)
    async with asyncio.timeout(30):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await migrate(schema.name, tmp_path, make_conninfo(schema.owner_dsn, password="not the one"))


async def test_several_at_once_apply_each_migration_once(schema: Schema, tmp_path: Path) -> None:
    write(tmp_path, f"SELECT pg_sleep(0.2); {FIRST}", SECOND)
    applied = await asyncio.gather(*(migrate(schema.name, tmp_path, schema.owner_dsn) for _ in range(6)))
    assert sorted(applied) == [0, 0, 0, 0, 0, 2]


async def test_a_file_that_was_changed_afterwards_is_refused(schema: Schema, tmp_path: Path) -> None:
    await migrate(schema.name, write(tmp_path, FIRST), schema.owner_dsn)
    write(tmp_path, f"{FIRST} -- changed", SECOND)
    with pytest.raises(MigrationError, match=r"0001_step\.sql was changed"):
        await migrate(schema.name, tmp_path, schema.owner_dsn)
    with psycopg.connect(schema.dsn) as connection:
        assert connection.execute("SELECT * FROM things").fetchall() == [(1,)]


async def test_a_migration_that_fails_leaves_nothing_of_itself(schema: Schema, tmp_path: Path) -> None:
    write(tmp_path, FIRST, "CREATE TABLE half (n integer); SELECT 1/0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await migrate(schema.name, tmp_path, schema.owner_dsn)
    with psycopg.connect(schema.owner_dsn) as connection:
        assert connection.execute("SELECT to_regclass('half'), to_regclass('things')").fetchone() == (None, "things")
    write(tmp_path, FIRST, "CREATE TABLE half (n integer)")
    assert await migrate(schema.name, tmp_path, schema.owner_dsn) == 1


async def test_a_table_in_use_is_not_waited_for_long(schema: Schema, tmp_path: Path) -> None:
    await migrate(schema.name, write(tmp_path, FIRST), schema.owner_dsn)
    write(tmp_path, FIRST, SECOND)
    with psycopg.connect(schema.superuser_dsn) as busy:
        busy.execute("LOCK TABLE config.things IN ACCESS SHARE MODE")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            async with asyncio.timeout(15):
                await migrate(schema.name, tmp_path, schema.owner_dsn)
    assert await migrate(schema.name, tmp_path, schema.owner_dsn) == 1


async def test_a_migration_that_ends_a_deadlock_is_tried_again(schema: Schema, tmp_path: Path) -> None:
    await migrate(schema.name, write(tmp_path, FIRST + "CREATE TABLE others (n integer);"), schema.owner_dsn)
    write(tmp_path, FIRST + "CREATE TABLE others (n integer);", f"{SECOND}; ALTER TABLE others ADD COLUMN m integer")
    async with await psycopg.AsyncConnection.connect(schema.superuser_dsn) as running:
        await running.execute("LOCK TABLE config.others IN ACCESS SHARE MODE")
        migrating = asyncio.create_task(migrate(schema.name, tmp_path, schema.owner_dsn))

        async def waits() -> bool:
            locks = await running.execute(
                "SELECT FROM pg_locks WHERE relation = 'config.others'::regclass AND NOT granted"
            )
            return locks.rowcount > 0

        await eventually(waits, what="the migration waits for the service")
        await running.execute("LOCK TABLE config.things IN ACCESS SHARE MODE")
    assert await migrating == 1


async def test_a_statement_that_row_level_security_would_narrow_fails_loudly(schema: Schema, tmp_path: Path) -> None:
    protect = "ALTER TABLE things ENABLE ROW LEVEL SECURITY; ALTER TABLE things FORCE ROW LEVEL SECURITY;"
    write(tmp_path, FIRST + protect, "UPDATE things SET n = 2")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        await migrate(schema.name, tmp_path, schema.owner_dsn)


@pytest.mark.parametrize("names", [["0002_a.sql"], ["0001_a.sql", "0003_b.sql"], ["0001_a.sql", "0001_b.sql"]])
def test_numbers_have_no_gaps(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(MigrationError):
        read(tmp_path)


def test_a_file_with_a_name_of_another_form_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("SELECT 1")
    (tmp_path / "2_Forgotten.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match="2_Forgotten"):
        read(tmp_path)


async def test_readiness_waits_for_the_schema_and_names_what_is_missing(schema: Schema, tmp_path: Path) -> None:
    write(tmp_path, FIRST)
    async with postgres.connected(schema.dsn) as database:
        probe = schema_probe(database, write(tmp_path, FIRST, SECOND))
        with pytest.raises(Unavailable, match="at migration 0, this code needs 2"):
            await probe()
        (tmp_path / "0002_step.sql").unlink()
        await migrate(schema.name, tmp_path, schema.owner_dsn)
        with pytest.raises(Unavailable, match="at migration 1, this code needs 2"):
            await probe()
        await migrate(schema.name, write(tmp_path, FIRST, SECOND), schema.owner_dsn)
        await probe()
        await probe()


async def test_a_schema_newer_than_the_code_is_fine(schema: Schema, tmp_path: Path) -> None:
    old_code, new_code = tmp_path / "old", tmp_path / "new"
    for folder in (old_code, new_code):
        folder.mkdir()
    await migrate(schema.name, write(new_code, FIRST, SECOND), schema.owner_dsn)
    assert await migrate(schema.name, write(old_code, FIRST), schema.owner_dsn) == 0
    async with postgres.connected(schema.dsn) as database:
        await schema_probe(database, old_code)()
