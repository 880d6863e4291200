"""Row-level security of the schema `ingest`."""

import time

import psycopg
import pytest

from chassis.ids import uuid7
from contracts.pulsegate.config.v1 import definitions_pb2
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from tests.integration.ingest.pipeline import Pipeline
from tests.integration.ingest.test_doors import totals_of

TABLES = ("series", "producers", "sources", "ended_definitions", "ledger", "gauge_levels", "summary_sketches")


async def fill(pipeline: Pipeline) -> None:
    """A row in each table of tenants, for the pipeline's tenant."""
    orders, visits = pipeline.define("orders_total"), pipeline.define("visits_total")
    pipeline.define("sessions", "gauge", gauge_merge=definitions_pb2.GAUGE_MERGE_SUM)
    pipeline.define("size_bytes", "summary", objectives=[0.5])
    async with pipeline.running():
        await pipeline.send(
            {"name": "orders_total", "value": 1},
            {"name": "visits_total", "value": 1},
            {"name": "sessions", "value": 1},
            {"name": "size_bytes", "value": 1},
            producer=str(uuid7()),
            sequence=1,
        )
        await pipeline.send_bytes(totals_of("a", 1, int(time.time() * 1000)), door=pb.DOOR_OTLP_PROTOBUF)
        await pipeline.expect("orders_total{$project}", 2)
        pipeline.upstreams.config.delete(orders)
        await pipeline.expect("orders_total{$project}", None)
        assert visits.id


async def counts(dsn: str, tenant_id: str | None) -> dict[str, int]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        if tenant_id is not None:
            await connection.execute("SELECT set_config('app.tenant_id', %s, true)", (tenant_id,))
        return {table: await _count(connection, table) for table in TABLES}


async def _count(connection: psycopg.AsyncConnection[tuple[int]], table: str) -> int:
    statement = psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(table))
    row = await (await connection.execute(statement)).fetchone()
    assert row is not None
    return row[0]


async def test_the_runtime_role_sees_the_rows_of_the_tenant_that_is_set_and_no_others(pipeline: Pipeline) -> None:
    await fill(pipeline)
    dsn = pipeline.database.dsn("ingest")
    assert await counts(dsn, pipeline.tenant_id) == {
        "series": 4,
        "producers": 1,
        "sources": 1,
        "ended_definitions": 1,
        "ledger": 4,
        "gauge_levels": 1,
        "summary_sketches": 1,
    }
    for other in (None, "", str(uuid7())):
        assert await counts(dsn, other) == dict.fromkeys(TABLES, 0)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM lanes",
        "UPDATE sink_watermarks SET delivered_ms = 0",
        "UPDATE series SET value = 0",
        "DELETE FROM producers",
        "DELETE FROM full_projects",
        "UPDATE sources SET taken_ns = 0",
        "UPDATE ledger SET committed = 0",
        "DELETE FROM rejections",
        "UPDATE gauge_levels SET level = 0",
        "DELETE FROM summary_sketches",
        "INSERT INTO ended_definitions VALUES (0, gen_random_uuid(), gen_random_uuid(), 0)",
        "ALTER TABLE series DISABLE ROW LEVEL SECURITY",
        "SET ROLE ingest_owner",
    ],
)
async def test_the_runtime_role_can_do_nothing_else(pipeline: Pipeline, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(pipeline.database.dsn("ingest")) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(statement.encode())
