"""Makes the database ready: the database itself, roles, schemas and passwords, then each service's migrations."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from deploy.local.layout import CHECKOUT
from deploy.local.servers import Postgres

DATABASE = "pulsegate"

#: The services that own a schema; each has a runtime role of its name and an owner role `<name>_owner`.
SCHEMAS = ("auth", "config", "codegen", "ingest")

#: Every role that signs in, so has a password.
SIGN_IN_ROLES = tuple(role for schema in SCHEMAS for role in (schema, f"{schema}_owner"))

_BOOTSTRAP = CHECKOUT / "deploy" / "postgres" / "bootstrap.sql"
_MIGRATION_SECONDS = 120.0


class MigrationFailed(Exception):
    """A service could not bring its schema up to date."""


def bootstrap(server: Postgres, database: str, passwords: Mapping[str, str]) -> None:
    """Makes the database with its schemas and roles; changes nothing where they are there, but sets the passwords."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        found = connection.execute("SELECT FROM pg_database WHERE datname = %s", (database,)).fetchone()
        if found is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    with psycopg.connect(server.dsn(database)) as connection:
        connection.execute(_BOOTSTRAP.read_bytes())
        for role, password in passwords.items():
            connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password)))


def migrate(owner_dsn_files: Mapping[str, Path], environment: Mapping[str, str]) -> None:
    """Runs the migrations of the given schemas side by side. Raises MigrationFailed with what the service said."""
    running = {
        schema: subprocess.Popen(
            [sys.executable, "-m", f"services.{schema}", "migrate"],
            cwd=CHECKOUT,
            env={**environment, "PULSEGATE_POSTGRES_OWNER_DSN_FILE": str(dsn_file)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        for schema, dsn_file in owner_dsn_files.items()
    }
    failures = [failure for schema, process in running.items() if (failure := _outcome(schema, process))]
    if failures:
        raise MigrationFailed("\n".join(failures))


def _outcome(schema: str, process: "subprocess.Popen[bytes]") -> str:
    """Waits for one migration; what went wrong, or nothing."""
    try:
        output, _ = process.communicate(timeout=_MIGRATION_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    if process.returncode == 0:
        return ""
    said = output.decode(errors="replace").strip()
    return f"services.{schema} migrate ended with status {process.returncode}:\n{said}"
