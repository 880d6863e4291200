"""Deleted definitions leave the state once nothing can change them: never too early, and by the lane's owner alone."""

import asyncio
import dataclasses

import pytest
from psycopg.sql import SQL, Identifier

from services.ingest.domain import REMEMBERED_MS
from services.ingest.errors import LaneLostError
from services.ingest.pruning import Pruning
from tests.integration.ingest.test_checkpoints import COUNTER, HISTOGRAM, SESSIONS, SUMMARY, StoredLane, opened
from tests.suite_database import Database
from tests.unit.ingest.ingestion import NOW_MS, delta, ended, record, renamed
from tests.unit.ingest.lane_store import each_of

HOUR_MS = 3_600_000
TABLES = ("series", "gauge_levels", "summary_sketches", "ended_definitions")


async def prune(lane: StoredLane, reached_ms: int) -> None:
    await Pruning(lane.owned(0), 1, lane.state, lane.checkpoints, asyncio.Lock()).prune(reached_ms)


async def sizes(lane: StoredLane) -> tuple[int, ...]:
    """How many rows each of TABLES has."""
    counted = []
    async with lane.database.transaction(role="ingest_aggregator") as connection:
        for table in TABLES:
            cursor = await connection.execute(SQL("SELECT 1 FROM {}").format(Identifier(table)))
            counted.append(cursor.rowcount)
    return tuple(counted)


async def end_delivered(lane: StoredLane) -> None:
    """Commits, and every sink has it."""
    lane.state.delivered((await lane.commit()).commit_ms)
    lane.state.delivered((await lane.commit()).commit_ms)


async def test_what_is_left_of_a_deleted_definition_goes_an_hour_after_its_end_is_delivered(database: Database) -> None:
    async with opened(database) as lane:
        await lane.fold(record(delta(COUNTER), delta(HISTOGRAM), delta(SESSIONS, 4.0, NOW_MS), delta(SUMMARY, 2.0)))
        await lane.commit()
        await lane.fold(ended(COUNTER), ended(SESSIONS), ended(SUMMARY))
        ended_ms = (await lane.commit()).commit_ms
        await prune(lane, ended_ms + 2 * HOUR_MS)
        assert await sizes(lane) == (4, 1, 1, 3), "a sink may lack the end"
        lane.state.delivered(ended_ms)
        await prune(lane, ended_ms + HOUR_MS)
        assert await sizes(lane) == (4, 1, 1, 3), "late data may come"
        await lane.restart()
        await prune(lane, ended_ms + HOUR_MS + 1)
        assert await sizes(lane) == (1, 0, 0, 3)
        assert [family.name for family in lane.table.families] == ["load_seconds"]
        await prune(lane, ended_ms + REMEMBERED_MS)
        assert (await sizes(lane))[-1] == 3
        await lane.restart()
        await prune(lane, ended_ms + REMEMBERED_MS + 1)
        assert await sizes(lane) == (1, 0, 0, 0)
        await prune(lane, ended_ms + REMEMBERED_MS + 1)
        await lane.fold(record(delta(HISTOGRAM)))
        assert len((await lane.commit()).changed) == 1


async def test_late_data_keeps_its_series_until_that_is_delivered_too(database: Database) -> None:
    batch = record(delta(COUNTER, 5.0), producer=b"A" * 16, sequence=1)
    late = record(delta(COUNTER, 2.0), producer=b"A" * 16, sequence=2)
    async with opened(database) as lane:
        await lane.fold(batch)
        await lane.fold(ended(COUNTER))
        await end_delivered(lane)
        lane.now_ms += HOUR_MS
        await lane.fold(late)
        await prune(lane, lane.now_ms)
        assert [sample.value for sample in each_of((await lane.commit()).samples) if not sample.stale] == [7.0]
        await prune(lane, lane.now_ms + 2 * HOUR_MS)
        await lane.restart()
        await lane.fold(batch, late)  # again
        await end_delivered(lane)
        assert (await sizes(lane))[0] == 1
        await prune(lane, lane.now_ms + HOUR_MS)
        assert (await sizes(lane))[0] == 0


async def test_data_that_is_later_still_counts_and_ends_at_once(database: Database) -> None:
    heir = renamed(COUNTER, b"2" * 16)
    async with opened(database) as lane:
        await lane.fold(record(delta(COUNTER, 5.0)), ended(COUNTER))
        await end_delivered(lane)
        await prune(lane, lane.now_ms + HOUR_MS)
        assert (await sizes(lane))[0] == 0
        await lane.fold(record(delta(COUNTER, 2.0)))
        samples = each_of((await lane.commit()).samples)
        assert [(sample.value, sample.stale) for sample in samples] == [(0.0, False), (2.0, False), (0.0, True)]
        await end_delivered(lane)
        await prune(lane, lane.now_ms + HOUR_MS)
        assert (await sizes(lane))[0] == 0, "it goes once more"
        await lane.fold(record(delta(heir, 1.0)))
        await lane.fold(record(delta(COUNTER, 3.0)))
        assert [sample.value for sample in each_of((await lane.commit()).samples)][-1] == 4.0


async def test_an_owner_that_has_lost_its_lane_deletes_nothing(database: Database) -> None:
    async with opened(database) as lane:
        await lane.fold(record(delta(COUNTER)), ended(COUNTER))
        await end_delivered(lane)
        async with opened(database) as later:
            with pytest.raises(LaneLostError):
                await prune(lane, lane.now_ms + 2 * HOUR_MS)
            assert (await sizes(later))[0] == 1
            await prune(later, lane.now_ms + 2 * HOUR_MS)
            assert (await sizes(later))[0] == 0


async def test_many_series_go_in_parts(database: Database) -> None:
    async with opened(database) as lane:
        free = dataclasses.replace(COUNTER, labels={})
        for first in range(0, 12_000, 100):
            await lane.fold(record(*(delta(free, 1.0, plan=str(n)) for n in range(first, first + 100))))
        await lane.fold(ended(free))
        await end_delivered(lane)
        await prune(lane, lane.now_ms + 2 * HOUR_MS)
        assert await sizes(lane) == (0, 0, 0, 1)
