"""Fresh databases in the session's Postgres, with every schema migrated.

Fixtures: `database` (a new one for each test), `module_database` (one for all tests of a file) and
`unmigrated_database` (without tables), each a `Database`:

    database.dsn("auth")            address for the runtime role, bound by row-level security
    database.owner_dsn("auth")      address for the owner role, which migrations use
    database.superuser_dsn          address that sees everything, for checks

A new database is a copy of a migrated template, so it costs some ten milliseconds. A service whose migrations fail
fails the tests that ask for its addresses, with what the migration said, and no others.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from deploy.local.bootstrap import SCHEMAS, SIGN_IN_ROLES, MigrationFailed, bootstrap, migrate
from deploy.local.layout import CHECKOUT
from deploy.local.servers import Postgres
from tests.suite_servers import RunningServer

_TEMPLATE = "pulsegate_template"
_PASSWORDS = {role: f"{role}-only-for-tests" for role in SIGN_IN_ROLES}

NewDatabase = Callable[[], AbstractContextManager["Database"]]


@dataclass(frozen=True, kw_only=True)
class Database:
    """One database with every schema."""

    name: str
    server: Postgres
    #: what went wrong with a schema's migrations
    faults: Mapping[str, str]

    def dsn(self, service: str) -> str:
        """For the runtime role of auth, config, codegen or ingest."""
        return self._dsn(service, service)

    def owner_dsn(self, service: str) -> str:
        """For the role that owns the service's schema."""
        return self._dsn(service, f"{service}_owner")

    @property
    def superuser_dsn(self) -> str:
        return self.server.dsn(self.name)

    def _dsn(self, service: str, role: str) -> str:
        if fault := self.faults.get(service):
            pytest.fail(fault)
        return self.server.dsn(self.name, user=role, password=_PASSWORDS[role])


@pytest.fixture(scope="session")
def new_database(postgres_server: RunningServer[Postgres], data_folder: Path) -> NewDatabase:
    """A function that gives a context manager of a fresh `Database`."""
    server = postgres_server.server
    bootstrap(server, _TEMPLATE, _PASSWORDS)
    faults = _migrate_each(server, data_folder)
    numbers = itertools.count(1)

    @contextmanager
    def new() -> Iterator[Database]:
        name = f"test_{next(numbers)}"
        _execute(server, "CREATE DATABASE {} TEMPLATE {}", name, _TEMPLATE)
        yield Database(name=name, server=server, faults=faults)
        _execute(server, "DROP DATABASE {} WITH (FORCE)", name)

    return new


@pytest.fixture
def database(new_database: NewDatabase) -> Iterator[Database]:
    with new_database() as database:
        yield database


@pytest.fixture
def unmigrated_database(new_database: NewDatabase, postgres_server: RunningServer[Postgres]) -> Iterator[Database]:
    """One as `deploy/postgres/bootstrap.sql` leaves it; the roles have their passwords from `new_database`."""
    server, name = postgres_server.server, "test_unmigrated"
    bootstrap(server, name, {})
    yield Database(name=name, server=server, faults={})
    _execute(server, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture(scope="module")
def module_database(new_database: NewDatabase) -> Iterator[Database]:
    with new_database() as database:
        yield database


def _migrate_each(server: Postgres, folder: Path) -> dict[str, str]:
    faults = {}
    for schema in SCHEMAS:
        if not (CHECKOUT / "services" / schema / "migrations").is_dir():
            faults[schema] = f"services/{schema} has no migrations"
            continue
        owner = f"{schema}_owner"
        dsn_file = folder / f"{owner}_dsn"
        dsn_file.write_text(server.dsn(_TEMPLATE, user=owner, password=_PASSWORDS[owner]))
        try:
            migrate({schema: dsn_file}, os.environ)
        except MigrationFailed as failed:
            faults[schema] = str(failed)
    return faults


def _execute(server: Postgres, statement: str, *names: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
