"""Fixture `schema`: an empty schema of a new database, with its owner and its runtime role, for tests to fill."""

from dataclasses import dataclass

import psycopg
import pytest

from tests.suite_database import Database


@dataclass(frozen=True)
class Schema:
    """A schema that no service's migrations have touched; it stands in for any service's."""

    name: str
    #: for the runtime role
    dsn: str
    owner_dsn: str
    superuser_dsn: str


@pytest.fixture
def schema(database: Database) -> Schema:
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("DROP SCHEMA config CASCADE")
        connection.execute("CREATE SCHEMA config AUTHORIZATION config_owner")
        connection.execute("GRANT USAGE ON SCHEMA config TO config, config_feed")
    return Schema("config", database.dsn("config"), database.owner_dsn("config"), database.superuser_dsn)
