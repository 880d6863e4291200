"""What goes with a row is found by an index: deleting thousands of rows ends within the database's time limits."""

import psycopg

from deploy.local.bootstrap import SCHEMAS
from tests.suite_database import Database

CASCADES = """
    SELECT conrelid, conname, conkey FROM pg_constraint
     WHERE contype = 'f' AND confdeltype = 'c' AND connamespace = ANY(%s::regnamespace[])
"""
INDEXED = """
    SELECT conrelid, conname, conkey FROM pg_constraint JOIN pg_index ON indrelid = conrelid
     WHERE indpred IS NULL AND indkey[0] = ANY(conkey)
"""


def test_each_key_that_cascades_has_an_index(database: Database) -> None:
    with psycopg.connect(database.superuser_dsn) as connection:
        schemas = (list(SCHEMAS),)
        assert len(connection.execute(CASCADES, schemas).fetchall()) > 15
        assert connection.execute(f"{CASCADES} EXCEPT {INDEXED}", schemas).fetchall() == []
