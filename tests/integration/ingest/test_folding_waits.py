"""Folding waits for a commit that has the only copy of values, and for the next one where much is to be stored."""

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

import aiohttp
import msgspec
import pytest

from chassis import postgres
from chassis.clock import SystemClock
from services.ingest import fetches, log, producers, records
from services.ingest.fleet import Fleet
from services.ingest.lane import Lane
from services.ingest.loading import Found, Missing
from services.ingest.log import Log
from services.ingest.log_reader import LogReader
from services.ingest.records import Record
from services.ingest.sealing import Checkpoint
from services.ingest.sinks.backlog import Backlog
from services.ingest.sinks.remote_write import RemoteWrite
from services.ingest.storage.checkpoints import Owned, PostgresCheckpoints
from services.ingest.storage.leases import Leases
from tests.integration.ingest.pipeline import PATIENCE_SECONDS, Pipeline
from tests.unit.ingest.ingestion import definition, delta, ended, record
from tests.waiting import eventually

ORDERS = definition("orders_total")


class HeldCheckpoints(PostgresCheckpoints):
    """Postgres, in which a commit that has the only copy of values takes until it is let go."""

    def __init__(self, database: postgres.Database) -> None:
        super().__init__(database)
        self.leases = Leases(database)
        self.begun, self.let_go = asyncio.Event(), asyncio.Event()
        self.asked_meanwhile: list[Missing] = []
        #: How many numbers the windows in each commit had.
        self.numbers: list[int] = []

    async def commit(self, owned: Owned, checkpoint: Checkpoint, watermarks: Mapping[str, int]) -> None:
        self.numbers.append(sum(len(row.ranges) for row in checkpoint.producers))
        if checkpoint.forgotten:
            self.begun.set()
            await self.let_go.wait()
        await super().commit(owned, checkpoint, watermarks)

    async def load_missing(self, missing: Missing) -> Found:
        if self.begun.is_set() and not self.let_go.is_set():
            self.asked_meanwhile.append(missing)
        return await super().load_missing(missing)


@asynccontextmanager
async def worked_on(pipeline: Pipeline, stream: Log, checkpoints: HeldCheckpoints) -> AsyncIterator[list[LogReader]]:
    """A lane, and the readers that it makes of the log."""
    settings, clock, readers = pipeline.aggregator_settings, SystemClock(), list[LogReader]()

    def make_reader(of: Log, lane: int, position: int, made_at: datetime | None) -> LogReader:
        readers.append(LogReader(of, lane, position, made_at))
        return readers[-1]

    async with aiohttp.ClientSession() as session:
        sink = RemoteWrite(session, lambda: f"{pipeline.prometheus_url}/api/v1/write")
        fleet = Fleet(checkpoints.leases, clock, lanes=settings.lanes, lease_seconds=settings.lease_seconds)
        backlog = Backlog(settings.sink_most_pending_bytes)
        lane = Lane(0, settings, stream, checkpoints, checkpoints.leases, fleet, [sink], backlog, clock, make_reader)
        working = asyncio.create_task(lane.run())
        try:
            yield readers
        finally:
            working.cancel()
            await asyncio.wait([working])


@asynccontextmanager
async def written_to(
    pipeline: Pipeline,
) -> AsyncIterator[tuple[Callable[..., Awaitable[int]], Log, postgres.Database]]:
    """What writes a frame with records of the pipeline's project to its log, that log, and the database."""
    settings = pipeline.aggregator_settings

    async def connected() -> bool:
        return stream.client.is_connected

    async def write(*together: Record) -> int:
        tenant_id, project_id = uuid.UUID(pipeline.tenant_id).bytes, uuid.UUID(pipeline.project_id).bytes
        of_project = [msgspec.structs.replace(each, tenant_id=tenant_id, project_id=project_id) for each in together]
        frame = records.encode_frame([records.encode(each) for each in of_project])
        return (await stream.jetstream.publish(stream.subject(0), frame)).seq

    async with log.connected(settings, "held lane") as stream, postgres.connected(settings.dsn) as database:
        await eventually(connected, within_seconds=PATIENCE_SECONDS)
        await stream.ensure()
        yield write, stream, database


async def test_folding_waits_while_values_are_in_a_commit_alone(pipeline: Pipeline) -> None:
    async def stored() -> list[float]:
        async with database.transaction(role="ingest_aggregator") as connection:
            cursor = await connection.execute("SELECT value FROM series")
            return [row["value"] async for row in cursor]

    async with written_to(pipeline) as (write, stream, database):
        checkpoints = HeldCheckpoints(database)
        async with worked_on(pipeline, stream, checkpoints) as readers:
            await write(record(delta(ORDERS, 10.0)))
            await pipeline.expect("orders_total{$project}", 10)
            await write(record(delta(ORDERS, 5.0)), ended(ORDERS))
            await asyncio.wait_for(checkpoints.begun.wait(), PATIENCE_SECONDS)
            late = await write(record(delta(ORDERS, 1.0)))  # of a receiver that has not heard of the deletion

            async def read() -> bool:
                return readers[-1].position == late

            await eventually(read, within_seconds=PATIENCE_SECONDS)
            assert await stored() == [10.0]
            assert checkpoints.asked_meanwhile == []
            checkpoints.let_go.set()

            async def counted() -> bool:
                return await stored() == [16.0]

            await eventually(counted, within_seconds=PATIENCE_SECONDS)
            assert len(readers) == 1, "the lane never began anew"


async def test_folding_waits_for_the_next_commit_where_windows_with_many_gaps_are_to_be_stored(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with windows_with_gaps_folded(pipeline, monkeypatch) as checkpoints:
        await pipeline.expect("orders_total{$project}", 40)
        assert max(checkpoints.numbers) == 12, "six windows with one gap each, and all others later"


async def test_the_commit_that_folding_waits_for_comes_at_once(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others of the lane wait too: for as long as the commit takes, not for the rest of the interval."""
    pipeline.aggregator_settings = dataclasses.replace(pipeline.aggregator_settings, commit_interval_seconds=60.0)
    async with windows_with_gaps_folded(pipeline, monkeypatch):
        await pipeline.expect("orders_total{$project} > bool 34", 1)  # those behind the last six wait their turn


@asynccontextmanager
async def windows_with_gaps_folded(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[HeldCheckpoints]:
    """A lane that folds the batches of 40 producers, each of whose windows has one gap; six are too many for it."""
    monkeypatch.setattr(producers, "_MOST_DIRTY_NUMBERS", 10)
    monkeypatch.setattr(fetches, "_RECORDS_AT_ONCE", 1)
    async with written_to(pipeline) as (write, stream, database):
        for number in range(1, 41):
            await write(record(delta(ORDERS, 1.0), producer=bytes([number]) * 16, sequence=2))
        checkpoints = HeldCheckpoints(database)
        async with worked_on(pipeline, stream, checkpoints):
            yield checkpoints
