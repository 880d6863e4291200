"""What a lane's owner clears away, and when: by the time that the lane has reached, not by the clock."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from chassis import postgres
from chassis.clock import SystemClock
from chassis.errors import Unavailable
from services.ingest import log
from services.ingest.domain import OTHER, REMEMBERED_MS, LanePlace
from services.ingest.housekeeping import Housekeeping
from services.ingest.pruning import Pruning
from services.ingest.records import Record
from services.ingest.storage import full_projects
from services.ingest.storage.checkpoints import PostgresCheckpoints
from services.ingest.storage.full_projects import FullProjects, ProjectLimits
from tests.integration.ingest.pipeline import Pipeline
from tests.integration.ingest.test_checkpoints import COUNTER, StoredLane, opened
from tests.unit.ingest.ingestion import DAY_MS, NOW_MS, PROJECT, Told, delta, label, record, totals
from tests.waiting import eventually

_ROUNDS = 60


class SweepingClock(SystemClock):
    """Its seconds pass at once, until the state was swept."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._rounds = 0
        self.swept = asyncio.Event()

    def now_ms(self) -> int:
        return self._now_ms

    async def sleep(self, seconds: float) -> None:
        if self._rounds == _ROUNDS:
            self.swept.set()
            await asyncio.Event().wait()
        self._rounds += 1
        await super().sleep(0)


class TimedCheckpoints(PostgresCheckpoints):
    """Postgres, whose clock says this."""

    def __init__(self, database: postgres.Database, now_ms: int) -> None:
        super().__init__(database)
        self._now_ms = now_ms

    async def now_ms(self) -> int:
        return self._now_ms


@asynccontextmanager
async def kept(pipeline: Pipeline) -> AsyncIterator[tuple[StoredLane, log.Log]]:
    async with (
        log.connected(pipeline.aggregator_settings, "housekeeping") as stream,
        opened(pipeline.database) as lane,
    ):

        async def connected() -> bool:
            return stream.client.is_connected

        await eventually(connected, within_seconds=10.0)
        yield lane, stream


async def sweep(
    pipeline: Pipeline,
    lane: StoredLane,
    stream: log.Log,
    *,
    now_ms: int,
    reached_ms: int,
    postgres_ms: int = 0,
    **changes: Any,
) -> None:
    """Ten minutes of housekeeping after a commit; then the lane begins anew. `postgres_ms`: its clock, where that is
    another time."""
    clock, checkpoints = SweepingClock(now_ms), TimedCheckpoints(lane.database, postgres_ms or now_ms)
    settings = dataclasses.replace(pipeline.aggregator_settings, **changes)
    pruning = Pruning(lane.owned(0), 1, lane.state, checkpoints, asyncio.Lock())
    housekeeping = Housekeeping(0, settings, stream, checkpoints, pruning, lane.state.label_sets, clock)
    housekeeping.committed(await lane.commit(), reached_ms, (await stream.extent()).made_at)
    working = asyncio.create_task(housekeeping.run())
    await asyncio.wait_for(clock.swept.wait(), 20.0)
    working.cancel()
    await asyncio.wait([working])
    await lane.restart()


def batch(received_ms: int) -> Record:
    return record(delta(COUNTER, 5.0), producer=b"A" * 16, sequence=1, received_ms=received_ms)


def told(received_ms: int) -> Record:
    return totals(Told(COUNTER, "a", 1, 5.0), received_ms=received_ms)


@pytest.mark.parametrize("make", [batch, told], ids=["a retried batch", "a repeated total"])
async def test_a_backlog_of_days_is_judged_by_what_was_known_when_it_was_sent(
    pipeline: Pipeline, make: Callable[[int], Record]
) -> None:
    after_outage_ms = NOW_MS + 9 * DAY_MS
    async with kept(pipeline) as (lane, stream):
        await lane.fold(make(NOW_MS))
        await sweep(pipeline, lane, stream, now_ms=after_outage_ms, reached_ms=NOW_MS)
        await lane.fold(make(NOW_MS + 7 * DAY_MS))  # was in the log all the time
        checkpoint = await lane.commit()
        assert (len(checkpoint.made), len(checkpoint.changed)) == (0, 0)


async def test_a_retry_on_the_last_day_meets_its_window_and_one_long_after_does_not(pipeline: Pipeline) -> None:
    async with kept(pipeline) as (lane, stream):
        await lane.fold(batch(NOW_MS))
        last_ms = NOW_MS + 8 * DAY_MS
        await sweep(pipeline, lane, stream, now_ms=last_ms + 1, reached_ms=last_ms + 1)
        await lane.fold(batch(last_ms))
        assert not len((await lane.commit()).changed)
        forgotten_ms = last_ms + REMEMBERED_MS + 1
        await sweep(pipeline, lane, stream, now_ms=forgotten_ms, reached_ms=forgotten_ms)
        await lane.fold(batch(forgotten_ms))
        assert len((await lane.commit()).changed) == 1


@pytest.mark.parametrize("make", [batch, told], ids=["a retried batch", "a repeated total"])
@pytest.mark.parametrize("right", ["this machine", "Postgres"])
async def test_a_clock_that_is_far_ahead_has_nothing_forgotten(
    pipeline: Pipeline, make: Callable[[int], Record], right: str
) -> None:
    ahead_ms = NOW_MS + 200 * DAY_MS
    async with kept(pipeline) as (lane, stream):
        await lane.fold(make(NOW_MS))
        now_ms, postgres_ms = (NOW_MS, ahead_ms) if right == "this machine" else (ahead_ms, NOW_MS)
        await sweep(pipeline, lane, stream, now_ms=now_ms, reached_ms=ahead_ms, postgres_ms=postgres_ms)
        async with lane.database.transaction(role="ingest_aggregator") as connection:
            assert (await connection.execute("SELECT FROM ledger")).rowcount == 1
        await lane.fold(make(NOW_MS + DAY_MS))
        checkpoint = await lane.commit()
        assert (len(checkpoint.made), len(checkpoint.changed)) == (0, 0)


@pytest.mark.parametrize("make", [batch, told], ids=["a retried batch", "a repeated total"])
async def test_what_a_receiver_took_whose_clock_is_far_behind_is_remembered_as_long(
    pipeline: Pipeline, make: Callable[[int], Record]
) -> None:
    async with kept(pipeline) as (lane, stream):
        await lane.fold(make(NOW_MS - 20 * DAY_MS))
        await sweep(pipeline, lane, stream, now_ms=NOW_MS, reached_ms=NOW_MS)
        await lane.fold(make(NOW_MS))
        checkpoint = await lane.commit()
        assert (len(checkpoint.made), len(checkpoint.changed)) == (0, 0)


async def test_nothing_is_swept_before_the_lane_knows_how_far_it_is(pipeline: Pipeline) -> None:
    async with kept(pipeline) as (lane, stream):
        await lane.fold(batch(NOW_MS))
        await sweep(pipeline, lane, stream, now_ms=NOW_MS + 20 * DAY_MS, reached_ms=0)
        await lane.fold(batch(NOW_MS))
        assert not len((await lane.commit()).changed)


async def test_positions_of_a_log_that_was_lost_clear_nothing_away_from_the_one_that_was_made_anew(
    pipeline: Pipeline,
) -> None:
    async with kept(pipeline) as (_, stream):
        made_at = (await stream.extent()).made_at
        await stream.jetstream.publish(stream.subject(0), b"acknowledged")
        with pytest.raises(Unavailable):
            await stream.purge(0, 2, made_at - timedelta(seconds=1))
        assert await stream.held() == {LanePlace(1, 0): 1}
        await stream.purge(0, 2, made_at)
        assert await stream.held() == {}


async def test_commits_whose_time_is_the_futures_leave_the_log_as_others_do(pipeline: Pipeline) -> None:
    """As all do once a clock was ahead."""
    async with kept(pipeline) as (lane, stream):
        await stream.ensure()
        for number in (1, 2):
            await stream.jetstream.publish(stream.subject(0), b"a frame")
            await lane.fold(record(delta(COUNTER, float(number))))
        lane.now_ms += 30 * DAY_MS
        await sweep(pipeline, lane, stream, now_ms=NOW_MS, reached_ms=NOW_MS, log_keep_seconds=600.0)
        assert await stream.has(1)
        await sweep(pipeline, lane, stream, now_ms=NOW_MS, reached_ms=NOW_MS, log_keep_seconds=0.0)
        assert [await stream.has(position) for position in (1, 2)] == [False, True]


async def full(lane: StoredLane) -> FullProjects:
    async with lane.database.transaction(full_projects="all") as connection:
        return await full_projects.read(connection)


async def test_a_project_is_full_while_it_has_as_many_producers_and_sources_as_it_may(pipeline: Pipeline) -> None:
    async with kept(pipeline) as (lane, stream):
        await lane.fold(batch(NOW_MS), told(NOW_MS))
        none = {
            "most_producers_per_project": 1,
            "most_sources_per_project": 1,
            "most_stored_series_per_project": 1,
        }
        await sweep(pipeline, lane, stream, now_ms=NOW_MS, reached_ms=NOW_MS, most_producers_per_project=4)
        assert await full(lane) == FullProjects()
        only = frozenset({PROJECT})
        await sweep(pipeline, lane, stream, now_ms=NOW_MS, reached_ms=NOW_MS, most_producers_per_project=2)
        assert await full(lane) == FullProjects(publishable_producers=only)
        await sweep(pipeline, lane, stream, now_ms=NOW_MS, reached_ms=NOW_MS, most_sources_per_project=2)
        assert await full(lane) == FullProjects(publishable_sources=only)
        await sweep(pipeline, lane, stream, now_ms=NOW_MS, reached_ms=NOW_MS, **none)
        all_of_them = {"producers": only, "publishable_producers": only, "sources": only, "publishable_sources": only}
        assert await full(lane) == FullProjects(**all_of_them, series=only)
        async with lane.database.transaction() as connection:
            assert await full_projects.read(connection) == FullProjects(), "without its setting the door is closed"
        forgotten_ms = lane.now_ms + REMEMBERED_MS + 1
        await sweep(pipeline, lane, stream, now_ms=forgotten_ms, reached_ms=forgotten_ms, **none)
        assert await full(lane) == FullProjects(series=only)


async def test_limits_that_an_older_schema_does_not_know_wait_for_it(pipeline: Pipeline) -> None:
    async with kept(pipeline) as (lane, _):
        await lane.fold(told(NOW_MS))
        await lane.commit()
        with psycopg.connect(pipeline.database.owner_dsn("ingest"), autocommit=True) as owner:
            owner.execute("ALTER TABLE full_projects ADD CONSTRAINT older CHECK (what IN ('producers', 'series'))")
            try:
                with pytest.raises(Unavailable):
                    await lane.checkpoints.note_full(0, 1, ProjectLimits(producers=9, sources=2, series=9))
            finally:
                owner.execute("ALTER TABLE full_projects DROP CONSTRAINT older")


async def test_new_label_sets_of_a_project_full_of_series_are_folded_and_quiet_ones_wake_up(pipeline: Pipeline) -> None:
    free = dataclasses.replace(COUNTER, labels={"user": label()})

    async def sent(user: str) -> list[float]:
        await lane.fold(record(delta(free, 1.0, user=user)))
        changed: list[float] = (await lane.commit()).changed.value.tolist()
        return changed

    async with kept(pipeline) as (lane, stream):
        await sent("a")
        await sent("b")
        lane.now_ms += DAY_MS + 60_000  # both are quiet from now on
        await lane.commit()
        full_of = {"most_stored_series_per_project": 2}
        await sweep(pipeline, lane, stream, now_ms=lane.now_ms, reached_ms=lane.now_ms, **full_of)  # and another owner
        for user, changed in (("a", [2.0]), ("c", []), ("d", [2.0]), ("b", [2.0]), ("c", [3.0])):
            assert await sent(user) == changed, user
        labels = {lane.table.label_pairs(row) for row in lane.table.of_family(free.id).tolist()}
        assert labels == {("user", "a"), ("user", "b"), ("user", OTHER)}
        await sweep(pipeline, lane, stream, now_ms=lane.now_ms, reached_ms=lane.now_ms)
        await sent("e")
        assert len(lane.table.of_family(free.id)) == 4
