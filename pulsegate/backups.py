"""A backup is the database as of one moment, and of the log what was acknowledged and not committed then.

Both together are everything that was answered 202 before the backup ended: the database says up to which frame of the
log it has counted, and what it has counted of each producer. So frames can be put into another log and read anew, and
clients may send again what they have no answer for; nothing counts twice.
"""

import asyncio
import json
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from pulsegate import frames
from pulsegate.installation import SCHEMAS, Installation
from pulsegate.new_files import new_file
from pulsegate.observation import fetched

_BOOTSTRAP = Path(__file__).resolve().parents[1] / "deploy" / "postgres" / "bootstrap.sql"
_MANIFEST, _DATABASE, _FRAMES = "manifest.json", "database.dump", "frames"
_FORMAT = 1
#: As whom services sign in.
_ROLES = [role for schema in SCHEMAS for role in (schema, f"{schema}_owner")]


class BackupError(Exception):
    """It cannot be made or restored; the message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a backup holds."""

    #: when it was made, Unix seconds
    made_at: float
    #: the position of each lane
    positions: dict[int, int]
    frames: int


def make(installation: Installation, path: Path) -> Contents:
    """Makes one while everything runs. Raises BackupError, and LogError where the log does not answer."""
    began = time.time()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".backup-") as folder:
        unfinished = Path(folder)
        positions = _dump(installation, unfinished / _DATABASE)
        taken = asyncio.run(_take(installation, positions, unfinished / _FRAMES))
        contents = Contents(made_at=began, positions=positions, frames=taken)
        manifest = {"format": _FORMAT, "made_at": began, "positions": positions, "frames": taken}
        (unfinished / _MANIFEST).write_text(json.dumps(manifest))
        _pack(unfinished, path)
    return contents


def _pack(folder: Path, path: Path) -> None:
    with new_file(path) as file, tarfile.open(fileobj=file, mode="w") as archive:
        for name in (_MANIFEST, _DATABASE, _FRAMES):
            archive.add(folder / name, name)


def _dump(installation: Installation, path: Path) -> dict[int, int]:
    """Dumps the schemas; returns the positions of the same moment."""
    with _connected(installation) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        positions = _positions(connection)
        ((snapshot,),) = connection.execute("SELECT pg_export_snapshot()").fetchall()
        schemas = [f"--schema={schema}" for schema in SCHEMAS]
        options = ("--format=custom", f"--snapshot={snapshot}", f"--file={path}", *schemas)
        _program(installation, "pg_dump", _address(installation), *options)
    return positions


def _positions(connection: psycopg.Connection) -> dict[int, int]:
    return dict(connection.execute("SELECT lane, position FROM ingest.lanes").fetchall())


@contextmanager
def _connected(installation: Installation) -> Iterator[psycopg.Connection]:
    """A transaction. Raises BackupError where the database does not answer, or refuses something."""
    try:
        with psycopg.connect(installation.database) as connection:
            yield connection
    except psycopg.Error as error:
        raise BackupError(f"the database says: {error}") from error


async def _take(installation: Installation, positions: dict[int, int], path: Path) -> int:
    """Takes what is not in the dump. Raises BackupError where the log has dropped some of that meanwhile."""
    async with frames.connected(installation.nats) as log:
        taken = await frames.take(log, installation.stream, positions, path)
        with _connected(installation) as connection:
            now = _positions(connection)
        for lane in sorted(positions.keys() | now.keys()):
            position = positions.get(lane, 0)
            # Only what is committed is ever dropped: where nothing was committed nothing is gone.
            if now.get(lane) != position and not await frames.still_has(log, installation.stream, lane, position):
                raise BackupError(
                    f"the log has dropped frames of lane {lane} that were committed after the backup began: make it "
                    "again, with a higher PULSEGATE_LOG_KEEP_SECONDS on the aggregators where it takes longer than "
                    "that, and when the log is less than half full"
                )
    return taken


def contents(path: Path) -> Contents:
    """What is in a backup. Raises BackupError where it is none."""
    try:
        with tarfile.open(path) as archive:
            file = archive.extractfile(_MANIFEST)
            told = json.load(file) if file else {}
        if told["format"] != _FORMAT:
            raise BackupError(f"{path} was made by another version")
        positions = {int(lane): position for lane, position in told["positions"].items()}
        return Contents(made_at=told["made_at"], positions=positions, frames=told["frames"])
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise BackupError(f"{path} is no backup of Pulsegate: {error}") from error


def restore(installation: Installation, path: Path) -> Contents:
    """Replaces database and log by what is in the backup. Every process of the services must be stopped.

    Raises BackupError, and LogError where the log does not answer.
    """
    held = contents(path)
    _require_stopped(installation)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".restore-") as folder:
        _unpack(path, folder)
        # All of it is read, and the log asked, because what is there now is dropped for it.
        _program(installation, "pg_restore", f"--file={os.devnull}", str(Path(folder) / _DATABASE))
        asyncio.run(_ask_log(installation))
        _load(installation, Path(folder) / _DATABASE)
        try:
            put = asyncio.run(_put_back(installation, Path(folder) / _FRAMES))
        except frames.LogError as error:
            raise BackupError(
                f"{error}; the database is restored and the log is not: restore again before anything starts"
            ) from error
    if put != held.frames:
        raise BackupError(f"{put} of {held.frames} frames are in the log: restore again")
    return held


def _unpack(path: Path, folder: str) -> None:
    try:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise BackupError(f"{path} is no backup of Pulsegate: {error}") from error


def _require_stopped(installation: Installation) -> None:
    """Asks the processes that are known, and Postgres, which sees the others too."""
    alive = [name for name, address in installation.processes.items() if fetched(f"{address}/health/live")[0]]
    if alive:
        raise BackupError(f"still running: {', '.join(alive)}. Stop every process of the services first.")
    with _connected(installation) as connection:
        rows = connection.execute(
            "SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = current_database() AND usename = ANY(%s)"
            " ORDER BY usename",
            (_ROLES,),
        ).fetchall()
    if rows:
        roles = ", ".join(role for (role,) in rows)
        raise BackupError(f"still signed in to the database: {roles}. Stop every process of the services first.")


async def _ask_log(installation: Installation) -> None:
    async with frames.connected(installation.nats) as log:
        await log.account_info()


async def _put_back(installation: Installation, path: Path) -> int:
    async with frames.connected(installation.nats) as log:
        return await frames.put_back(log, installation.stream, path)


def _load(installation: Installation, path: Path) -> None:
    with _connected(installation) as connection:
        # For the roles, which are not in the dump.
        connection.execute(_BOOTSTRAP.read_bytes())
        for schema in SCHEMAS:
            connection.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(schema)))
    _program(installation, "pg_restore", _address(installation), "--single-transaction", "--exit-on-error", str(path))
    with _connected(installation) as connection:
        # The log is another one, and begins with the first frame that is not counted.
        connection.execute("UPDATE ingest.lanes SET position = 0, log_made_at = NULL")
        # Sinks have seen what came after the backup: they are given every live series anew, as new ones are.
        connection.execute("DELETE FROM ingest.sink_watermarks")


def _address(installation: Installation) -> str:
    """All that the address says, such as `sslmode`, but the password: other users of the machine see arguments."""
    told = conninfo_to_dict(installation.database)
    told.pop("password", None)
    return f"--dbname={make_conninfo('', **told)}"


def _program(installation: Installation, name: str, *arguments: str) -> None:
    program = str(installation.postgres_programs / name) if installation.postgres_programs else name
    password = conninfo_to_dict(installation.database).get("password")
    environment = {**os.environ, **({} if password is None else {"PGPASSWORD": str(password)})}
    try:
        ran = subprocess.run([program, *arguments], check=False, capture_output=True, text=True, env=environment)  # noqa: S603
    except FileNotFoundError as error:
        raise BackupError(f"{name} was not found: install PostgreSQL's client programs") from error
    if ran.returncode != 0:
        raise BackupError(f"{name} failed: {ran.stderr.strip()[:2000]}")
