"""Counted exactly once: repeated, restarted, killed, cut off at each point of the way."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from chassis import postgres
from chassis.clock import SystemClock
from chassis.ids import uuid7
from services.ingest import log
from services.ingest.fleet import Fleet
from services.ingest.lane import Lane
from services.ingest.sealing import Checkpoint
from services.ingest.sinks.attempts import Answer
from services.ingest.sinks.backlog import Backlog
from services.ingest.sinks.remote_write import RemoteWrite
from services.ingest.storage.checkpoints import Owned, PostgresCheckpoints
from services.ingest.storage.leases import Leases
from tests.integration.ingest.pipeline import Load, Pipeline, increments


async def test_the_same_batch_fifty_times_at_once_and_after_restarts(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    batch = {"producer": str(uuid7()), "sequence": 4, "floor": 1}

    async def send_fifty_times() -> None:
        async with pipeline.client() as send:
            answers = await asyncio.gather(*(send({"name": "orders_total", "value": 3}, **batch) for _ in range(50)))
        assert all(answer.accepted == 1 for answer in answers)

    async with pipeline.running():
        await send_fifty_times()
        await pipeline.expect("orders_total{$project}", 3)
        await send_fifty_times()
    async with pipeline.running():
        await send_fifty_times()
        await pipeline.send({"name": "orders_total", "value": 1}, producer=batch["producer"], sequence=5, floor=5)
        await pipeline.expect("orders_total{$project}", 4)
    async with pipeline.running():
        await send_fifty_times()
        await pipeline.send({"name": "orders_total", "value": 1})
        await pipeline.expect("orders_total{$project}", 5)


async def test_batches_without_a_producer_count_once_each_from_the_acknowledgement_on(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with pipeline.receiver():
        async with pipeline.client() as send:
            await asyncio.gather(*(send({"name": "orders_total", "value": 1}) for _ in range(200)))
        for _ in range(2):
            async with pipeline.aggregator():
                await pipeline.expect("orders_total{$project}", 200)


class Cut:
    """A point of the way at which a lane stops for ever, as if it were killed there."""

    def __init__(self, point: str) -> None:
        self._point = point
        self.reached = asyncio.Event()

    async def pass_by(self, point: str) -> None:
        if point == self._point:
            self.reached.set()
            await asyncio.Event().wait()


class CutCheckpoints(PostgresCheckpoints):
    """Postgres, around whose commits a lane may be cut off."""

    def __init__(self, database: postgres.Database, cut: Cut) -> None:
        super().__init__(database)
        self._cut = cut

    async def commit(self, owned: Owned, checkpoint: Checkpoint, watermarks: Mapping[str, int]) -> None:
        if checkpoint.position > owned.position:
            await self._cut.pass_by("before the commit")
        await super().commit(owned, checkpoint, watermarks)
        if checkpoint.position > owned.position:
            await self._cut.pass_by("after the commit")


class CutSink(RemoteWrite):
    """Prometheus, after whose answers a lane may be cut off."""

    def __init__(self, session: aiohttp.ClientSession, url: str, cut: Cut) -> None:
        super().__init__(session, lambda: url)
        self._cut = cut

    async def send(self, body: bytes) -> Answer:
        answer = await super().send(body)
        await self._cut.pass_by("after the write")
        return answer


@asynccontextmanager
async def cut_lane(pipeline: Pipeline, cut: Cut) -> AsyncIterator[None]:
    """A lane that works until the cut, and is gone at the end without a last commit."""
    settings = pipeline.aggregator_settings
    async with (
        log.connected(settings, "cut lane") as stream,
        postgres.connected(settings.dsn) as database,
        aiohttp.ClientSession() as session,
    ):
        sink = CutSink(session, f"{pipeline.prometheus_url}/api/v1/write", cut)
        checkpoints, leases, clock = CutCheckpoints(database, cut), Leases(database), SystemClock()
        fleet = Fleet(leases, clock, lanes=settings.lanes, lease_seconds=settings.lease_seconds)
        backlog = Backlog(settings.sink_most_pending_bytes)
        lane = Lane(0, settings, stream, checkpoints, leases, fleet, [sink], backlog, clock)
        working = asyncio.create_task(lane.run())
        try:
            yield
        finally:
            working.cancel()
            await asyncio.wait([working])


@pytest.mark.parametrize("point", ["before the commit", "after the commit", "after the write"])
async def test_a_lane_cut_off_at_any_point_is_continued_exactly(pipeline: Pipeline, point: str) -> None:
    pipeline.define("orders_total")
    pipeline.define("load_seconds", "histogram", buckets=[1, 10])
    pipeline.define("wait_seconds", "histogram", native_histogram=True)
    producer = str(uuid7())

    async def send(sequence: int) -> None:
        metrics: list[dict[str, Any]] = [
            {"name": "orders_total", "value": 5},
            {"name": "load_seconds", "value": [0.5, 5, 50]},
            {"name": "wait_seconds", "value": [0.5, 5, 50]},
        ]
        await pipeline.send(*metrics, producer=producer, sequence=sequence)

    async with pipeline.receiver():
        cut = Cut(point)
        async with cut_lane(pipeline, cut):
            await send(1)
            await asyncio.wait_for(cut.reached.wait(), 20.0)
            await send(2)  # meets the lane while it is being cut off
    async with pipeline.receiver(), pipeline.aggregator():
        for sequence in (1, 2, 3):
            await send(sequence)
        await pipeline.expect("orders_total{$project}", 15)
        await pipeline.expect("load_seconds_count{$project}", 9)
        assert await pipeline.value('load_seconds_bucket{le="1.0", $project}') == 3
        assert await pipeline.value("load_seconds_sum{$project}") == 166.5
        await pipeline.expect("histogram_count(wait_seconds{$project})", 9)
        assert await pipeline.value("histogram_sum(wait_seconds{$project})") == 166.5
        assert await pipeline.value("resets(wait_seconds{$project}[1h])") == 0
        increase = await pipeline.value("histogram_count(increase(wait_seconds{$project}[1h]))")
        assert increase is not None
        assert increase >= 9
        samples = await pipeline.samples("orders_total{$project}")
        assert samples[0][1] == 0.0
        assert increments(samples)


async def test_processes_killed_in_mid_load_lose_and_double_nothing(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    load = Load(pipeline, "orders_total")
    with pipeline.process("receiver") as receiver, pipeline.process("aggregator") as aggregator:
        await pipeline.expect_readiness("receiver", "ready")
        async with load.running():
            for _ in range(3):
                await load.acknowledges(100)
                aggregator.kill()
                aggregator.start()
                await load.acknowledges(100)
                receiver.kill()
                receiver.start()
        assert load.refused > 0, "the receiver was away for a while"
        await pipeline.expect("orders_total{$project}", load.acknowledged)
    assert increments(await pipeline.samples("orders_total{$project}"))


async def test_processes_that_are_asked_to_stop_finish_their_work(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    load = Load(pipeline, "orders_total")
    with pipeline.process("receiver") as receiver, pipeline.process("aggregator") as aggregator:
        await pipeline.expect_readiness("receiver", "ready")
        await pipeline.expect_readiness("aggregator", "ready")
        async with load.running():
            await load.acknowledges(100)
            receiver.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(receiver.ends) == 0
            receiver.start()
            await load.acknowledges(100)
        aggregator.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(aggregator.ends) == 0
    assert await pipeline.value("orders_total{$project}") is not None
    async with pipeline.aggregator(lease_seconds=300):  # the lane was given back: nobody waits for its lease
        await pipeline.expect("orders_total{$project}", load.acknowledged)
