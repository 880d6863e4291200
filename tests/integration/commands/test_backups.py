"""What `pulsegate backup` and `restore` ask of a real Postgres, and what they tell its programs."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from deploy.local.servers import postgres_programs
from pulsegate import backups
from pulsegate.frames import LogError
from pulsegate.installation import Installation
from tests.suite_database import Database
from tests.waiting import wait_for

ADDRESS = "postgresql://postgres:hidden%20word@db.example:5433/pulsegate?sslmode=verify-full&sslrootcert=/ca.pem"


def installation(database: str, programs: Path | None = None) -> Installation:
    return Installation(processes={}, database=database, owners={}, nats="", prometheus="", postgres_programs=programs)


def backup_of(folder: Path, dump: bytes) -> Path:
    """A backup file with a dump like this, and no frames."""
    parts = {
        "manifest.json": json.dumps({"format": 1, "made_at": 1.0, "positions": {}, "frames": 0}).encode(),
        "database.dump": dump,
        "frames": b"",
    }
    path = folder / "pulsegate.backup"
    with tarfile.open(path, "w") as archive:
        for name, content in parts.items():
            (folder / name).write_bytes(content)
            archive.add(folder / name, name)
    return path


def dump_of(database: Database, folder: Path) -> bytes:
    programs = postgres_programs()
    backups._dump(installation(database.superuser_dsn, programs), folder / "dump")
    return (folder / "dump").read_bytes()


def still_has_its_tables(database: Database) -> bool:
    with psycopg.connect(database.superuser_dsn) as connection:
        [(tables,)] = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname IN ('auth', 'config', 'codegen', 'ingest')"
        ).fetchall()
    return bool(tables)


@pytest.mark.parametrize("whole", [0.0, 0.5, 0.95])
def test_nothing_is_dropped_for_a_dump_that_cannot_be_read_to_its_end(
    database: Database, tmp_path: Path, whole: float
) -> None:
    dump = dump_of(database, tmp_path)
    path = backup_of(tmp_path, dump[: int(len(dump) * whole)])
    with pytest.raises(backups.BackupError, match="pg_restore failed"):
        backups.restore(installation(database.superuser_dsn, postgres_programs()), path)
    assert still_has_its_tables(database)


def test_nothing_is_dropped_for_a_file_that_cannot_be_read_to_its_end(database: Database, tmp_path: Path) -> None:
    path = backup_of(tmp_path, dump_of(database, tmp_path))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(backups.BackupError, match="is no backup of Pulsegate: unexpected end"):
        backups.restore(installation(database.superuser_dsn, postgres_programs()), path)
    assert still_has_its_tables(database)


def test_nothing_is_dropped_for_a_file_that_would_be_written_elsewhere(database: Database, tmp_path: Path) -> None:
    path = backup_of(tmp_path, dump_of(database, tmp_path))
    with tarfile.open(path, "a") as archive:
        archive.add(tmp_path / "dump", "../elsewhere")
    with pytest.raises(backups.BackupError, match=r"is no backup of Pulsegate: .*elsewhere"):
        backups.restore(installation(database.superuser_dsn, postgres_programs()), path)
    assert still_has_its_tables(database)


def test_nothing_is_dropped_while_the_log_does_not_answer(database: Database, tmp_path: Path) -> None:
    path = backup_of(tmp_path, dump_of(database, tmp_path))
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("CREATE TABLE auth.made_since ()")
    restored = replace(installation(database.superuser_dsn, postgres_programs()), nats="nats://127.0.0.1:9")
    with pytest.raises(LogError, match="does not answer"):
        backups.restore(restored, path)
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("DROP TABLE auth.made_since")


def test_a_service_that_nobody_has_named_is_seen_by_its_session(database: Database, tmp_path: Path) -> None:
    path = backup_of(tmp_path, b"")
    restored = installation(database.superuser_dsn, postgres_programs())
    with (
        psycopg.connect(database.dsn("ingest")),
        pytest.raises(backups.BackupError, match="still signed in to the database: ingest"),
    ):
        backups.restore(restored, path)
    assert still_has_its_tables(database)

    def gets_further() -> bool:
        with pytest.raises(backups.BackupError) as refused:
            backups.restore(restored, path)
        return "pg_restore failed" in str(refused.value)

    wait_for(gets_further, within_seconds=30, what="the session has ended")


def test_programs_connect_as_the_address_says_and_show_nobody_its_password(tmp_path: Path) -> None:
    program = tmp_path / "pg_dump"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/told\necho "$PGPASSWORD" > {tmp_path}/password\n')
    program.chmod(0o700)
    told = installation(ADDRESS, tmp_path)
    backups._program(told, "pg_dump", backups._address(told))
    arguments = (tmp_path / "told").read_text()
    assert all(part in arguments for part in ("host=db.example", "port=5433", "sslmode=verify-full", "/ca.pem"))
    assert "hidden" not in arguments
    assert (tmp_path / "password").read_text() == "hidden word\n"
