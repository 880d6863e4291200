"""Forward-only migrations of one schema: `services/<name>/migrations/NNNN_<what>.sql`, each in its own transaction.

They run as the schema's owner under an advisory lock, with `lock_timeout`, and with `row_security = off`, so that a
statement which row-level security would narrow fails loudly instead of touching no rows. A migration must tolerate the
code of the version before it.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import tenacity
from psycopg.rows import tuple_row

from chassis import logs, metrics
from chassis.errors import Unavailable
from chassis.postgres import Database

log = logs.get(__name__)

#: How long a server may take to answer: one that is started beside this, on a slow disk, or that is just taken over.
PATIENCE_SECONDS = 120.0
_PAUSE_SECONDS = 1.0
_ATTEMPT_SECONDS = 5

_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class MigrationError(Exception):
    """The migrations on disk do not fit what the schema says was applied."""


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file."""

    number: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        return sha256(self.sql.encode()).hexdigest()


def read(folder: Path) -> Sequence[Migration]:
    """The migrations of a folder in their order. Raises MigrationError where they are not named 0001_…, 0002_…, …"""
    found = [_read_one(path) for path in sorted(folder.glob("*.sql"))]
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"the migrations in {folder.name} are not numbered 1, 2, 3, …")
    return found


def _read_one(path: Path) -> Migration:
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
        raise MigrationError(f"{path.name} is not named like 0001_what_it_does.sql")
    return Migration(number=int(match[1]), name=path.name, sql=path.read_text(encoding="utf-8"))


async def migrate(schema: str, folder: Path, owner_dsn: str, *, patience_seconds: float = PATIENCE_SECONDS) -> int:
    """Applies what is missing to the schema; returns how many were applied. Safe to run side by side.

    Waits for a server that does not answer yet. Raises psycopg.OperationalError after that, or at once where a
    password is refused.
    """
    migrations = read(folder)
    async with await _connected(owner_dsn, time.monotonic() + patience_seconds) as connection:
        await connection.execute("SET lock_timeout = '5s'")
        await connection.execute("SET row_security = off")
        await connection.execute("SELECT set_config('search_path', %s, false)", (schema,))
        await connection.execute("SET lock_timeout = '60s'")
        await connection.execute("SELECT pg_advisory_lock(hashtext(%s))", (f"pulsegate.migrations.{schema}",))
        await connection.execute("SET lock_timeout = '5s'")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            " number integer PRIMARY KEY, name text NOT NULL, digest text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        await connection.execute(
            psycopg.sql.SQL("GRANT SELECT ON schema_migrations TO {}").format(psycopg.sql.Identifier(schema))
        )
        pending = await _pending(connection, migrations)
        for migration in pending:
            await _apply(connection, migration)
            log.info("migration applied", schema=schema, migration=migration.name)
        return len(pending)


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(psycopg.errors.DeadlockDetected),
    stop=tenacity.stop_after_attempt(5),
    reraise=True,
)
async def _apply(connection: "psycopg.AsyncConnection[tuple[Any, ...]]", migration: Migration) -> None:
    """Postgres may end it where it and a service that runs wait for each other's locks: then it is tried again."""
    async with connection.transaction():
        await connection.execute(migration.sql.encode())
        await connection.execute(
            "INSERT INTO schema_migrations (number, name, digest) VALUES (%s, %s, %s)",
            (migration.number, migration.name, migration.digest),
        )


async def _connected(owner_dsn: str, deadline: float) -> "psycopg.AsyncConnection[tuple[Any, ...]]":
    while True:
        try:
            return await psycopg.AsyncConnection.connect(
                owner_dsn, autocommit=True, row_factory=tuple_row, connect_timeout=_ATTEMPT_SECONDS
            )
        except psycopg.OperationalError as error:
            # Who was asked for a password will not be believed later either.
            if (error.pgconn is not None and error.pgconn.used_password) or time.monotonic() >= deadline:
                raise
            log.warning("Postgres does not answer yet", reason=str(error).strip())
        await asyncio.sleep(_PAUSE_SECONDS)


async def _pending(
    connection: "psycopg.AsyncConnection[tuple[Any, ...]]", migrations: Sequence[Migration]
) -> list[Migration]:
    rows = await (await connection.execute("SELECT number, digest FROM schema_migrations")).fetchall()
    applied = {number: digest for number, digest in rows}  # noqa: C416 - typed rows
    for migration in migrations:
        if migration.number in applied and applied[migration.number] != migration.digest:
            raise MigrationError(f"{migration.name} was changed after it had been applied")
    return [migration for migration in migrations if migration.number not in applied]


def schema_probe(database: Database, folder: Path) -> "SchemaProbe":
    """A hard health check: the database answers and its schema is at least as new as this code."""
    return SchemaProbe(database, len(read(folder)))


class SchemaProbe:
    """See `schema_probe`."""

    def __init__(self, database: Database, wanted: int) -> None:
        self._database = database
        self._wanted = wanted
        self._current = 0

    async def __call__(self) -> None:
        await self._database.probe()
        if self._current >= self._wanted:
            return
        async with self._database.transaction() as connection:
            exists = await connection.execute("SELECT to_regclass('schema_migrations') IS NOT NULL AS found")
            row = await exists.fetchone()
            if row is not None and row["found"]:
                newest = await connection.execute("SELECT coalesce(max(number), 0) AS newest FROM schema_migrations")
                self._current = (await newest.fetchone() or {})["newest"]
        metrics.SCHEMA_VERSION.set(self._current)
        if self._current < self._wanted:
            raise Unavailable(f"the schema is at migration {self._current}, this code needs {self._wanted}")
