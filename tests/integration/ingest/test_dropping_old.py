"""What was not used for long is deleted from the state, beside commits that use some of it again."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from chassis import postgres
from chassis.postgres import Connection
from services.ingest.records import Record
from services.ingest.storage import producers, recent, sources
from tests.integration.ingest.test_checkpoints import COUNTER, SESSIONS, LookedAtCheckpoints, StoredLane, opened
from tests.suite_database import Database
from tests.unit.ingest.ingestion import DAY_MS, NOW_MS, Told, delta, record, totals
from tests.waiting import eventually

DropOld = Callable[[Connection, tuple[int, int], int], Awaitable[bool]]

LATER_MS = NOW_MS + 9 * DAY_MS


def used(sequence: int, at_ms: int) -> list[Record]:
    """What a producer reports and a source tells at that time."""
    reported = record(delta(SESSIONS, 4.0, at_ms), producer=b"A" * 16, sequence=sequence, received_ms=at_ms)
    return [reported, totals(Told(COUNTER, "a", sequence, 5.0 * sequence), received_ms=at_ms)]


class HeldCommit:
    """A commit that has executed its statements, until it may go on."""

    def __init__(self) -> None:
        self.executed = asyncio.Event()
        self.go_on = asyncio.Event()

    async def look(self, connection: Connection) -> None:
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        self.executed.set()
        await self.go_on.wait()


async def dropped(database: postgres.Database, drop_old: DropOld) -> None:
    async with database.transaction(role="ingest_aggregator") as connection:
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute("SET LOCAL lock_timeout = 0")
        await drop_old(connection, (0, 255), LATER_MS)


async def used_at(lane: StoredLane, column: str, table: str) -> list[int]:
    async with lane.database.transaction(role="ingest_aggregator") as connection:
        cursor = await connection.execute(f"SELECT {column} AS used_ms FROM {table}")  # noqa: S608 - the test's own
        return [row["used_ms"] async for row in cursor]


@pytest.mark.parametrize(
    ("drop_old", "column", "table"),
    [
        (recent.drop_old, "as_of_ms", "gauge_levels"),
        (producers.drop_old, "used_ms", "producers"),
        (sources.drop_old, "used_ms", "sources"),
    ],
    ids=["levels", "producers", "sources"],
)
async def test_what_a_commit_uses_again_meanwhile_stays(
    database: Database, drop_old: DropOld, column: str, table: str
) -> None:
    held = HeldCommit()
    async with opened(database) as lane, postgres.connected(database.dsn("ingest"), most_connections=2) as others:
        await lane.fold(*used(1, NOW_MS))
        await lane.commit()
        lane.now_ms = LATER_MS - 1000  # a commit is a second later
        await lane.fold(*used(2, LATER_MS))
        lane.checkpoints = LookedAtCheckpoints(lane.database, held.look)
        committing = asyncio.create_task(lane.commit())
        await held.executed.wait()
        dropping = asyncio.create_task(dropped(others, drop_old))

        async def waits() -> bool:
            async with others.transaction() as connection:
                cursor = await connection.execute(
                    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                return cursor.rowcount > 0

        await eventually(waits, within_seconds=30.0, what="deleting waits for the commit")
        held.go_on.set()
        await committing
        await dropping
        assert await used_at(lane, column, table) == [LATER_MS]
        await dropped(others, drop_old)
        assert await used_at(lane, column, table) == [LATER_MS]
