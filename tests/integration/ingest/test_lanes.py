"""Several lanes side by side; a lane whose log cannot be read; readers that lose their place."""

import asyncio
import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import nats
import psycopg
import pytest
from prometheus_client import REGISTRY

from chassis import postgres
from chassis.errors import Unavailable
from chassis.ids import uuid7
from chassis.postgres import Connection
from deploy.local.servers import Nats
from services.ingest import records
from services.ingest.domain import lane_of, partition_of
from services.ingest.errors import UnreadableLogError
from services.ingest.log import Extent, Log, connected
from services.ingest.log_reader import LogReader
from services.ingest.settings import LogSettings
from services.ingest.storage import ended
from tests.forwarder import Forwarder
from tests.integration.ingest.pipeline import PATIENCE_SECONDS, Load, Pipeline
from tests.suite_servers import RunningServer
from tests.waiting import eventually


def of_lane(lane: int, lanes: int) -> str:
    """A new project that the lane carries."""
    while True:
        project = uuid7()
        if lane_of(partition_of(project.bytes), lanes) == lane:
            return str(project)


async def test_four_lanes_carry_their_own_projects(pipeline: Pipeline) -> None:
    pipeline.receiver_settings = dataclasses.replace(pipeline.receiver_settings, lanes=4)
    pipeline.aggregator_settings = dataclasses.replace(pipeline.aggregator_settings, lanes=4)
    projects = [dataclasses.replace(pipeline, project_id=of_lane(lane, 4)) for lane in (0, 1, 2, 3, 3)]
    for project in projects:
        project.define("orders_total")
    for round_number in (1, 2):
        async with pipeline.running():
            for number, project in enumerate(projects):
                await project.send({"name": "orders_total", "value": number + 1})
            for number, project in enumerate(projects):
                await project.expect("orders_total{$project}", round_number * (number + 1))


async def test_a_frame_that_cannot_be_read_halts_the_lane_loudly_and_loses_nothing(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with pipeline.running():
        await pipeline.send({"name": "orders_total", "value": 1})
        await pipeline.expect("orders_total{$project}", 1)
        client = await nats.connect(list(pipeline.receiver_settings.nats_urls))
        try:
            log = client.jetstream()
            stream = pipeline.receiver_settings.stream
            await pipeline.expect_readiness("aggregator", "ready")
            poison = await log.publish(f"{stream}.lane.0", bytes((records.VERSION,)) + b"not a frame")
            await pipeline.expect_readiness("aggregator", "unready")
            await pipeline.send({"name": "orders_total", "value": 10})
            assert (await pipeline.readiness("receiver"))["status"] == "ready"
            checks = (await pipeline.readiness("aggregator"))["checks"]
            assert "cannot be read" in checks["lane 0"]["reason"]
            assert await pipeline.value("orders_total{$project}") == 1
            await log.delete_msg(stream, poison.seq)
        finally:
            await client.close()
        await pipeline.expect("orders_total{$project}", 11)
        await pipeline.expect_readiness("aggregator", "ready")


async def test_lanes_that_take_long_to_load_wait_for_each_other_and_none_is_given_up(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More lanes than there are connections, and longer than one is waited for."""
    lanes, load = 12, ended.load

    async def load_long(connection: Connection, partitions: tuple[int, int]) -> dict[bytes, int]:
        await connection.execute("SELECT pg_sleep(4)")
        return await load(connection, partitions)

    monkeypatch.setattr(ended, "load", load_long)
    given_up = [_given_up(lane) for lane in range(lanes)]
    async with pipeline.receiver(lanes=lanes), pipeline.aggregator(lanes=lanes):
        await pipeline.expect_readiness("aggregator", "ready")
    assert [_given_up(lane) for lane in range(lanes)] == given_up


def _given_up(lane: int) -> float:
    return REGISTRY.get_sample_value("pulsegate_lanes_lost_total", {"lane": str(lane)}) or 0.0


async def _says_that_the_log_was_made_anew(pipeline: Pipeline) -> None:
    await _says(pipeline, "the log was made anew")


async def _says(pipeline: Pipeline, reason: str) -> None:
    async def halted() -> bool:
        checks = (await pipeline.readiness("aggregator")).get("checks", {})
        return reason in checks.get("lane 0", {}).get("reason", "")

    await eventually(halted, within_seconds=PATIENCE_SECONDS, what=f"the lane is halted: {reason}")


async def _lose_the_log(pipeline: Pipeline) -> None:
    client = await nats.connect(list(pipeline.receiver_settings.nats_urls))
    try:
        await client.jetstream().delete_stream(pipeline.receiver_settings.stream)
    finally:
        await client.close()


async def sent_one_by_one(pipeline: Pipeline, times: int) -> None:
    for _ in range(times):
        await pipeline.send({"name": "orders_total", "value": 1})


@pytest.mark.parametrize("more", [-2, 3], ids=["shorter", "longer"])
async def test_a_log_that_was_made_anew_halts_the_lane_however_long_it_is(pipeline: Pipeline, more: int) -> None:
    pipeline.define("orders_total")
    async with pipeline.running():
        await sent_one_by_one(pipeline, 5)
        await pipeline.expect("orders_total{$project}", 5)
    await _lose_the_log(pipeline)
    async with pipeline.receiver():
        await sent_one_by_one(pipeline, 5 + more)
        for _ in range(2):  # it is not forgotten by starting anew
            async with pipeline.aggregator():
                await _says_that_the_log_was_made_anew(pipeline)
                assert await pipeline.value("orders_total{$project}") == 5


async def test_a_log_that_is_lost_under_running_processes_is_made_anew_and_halts_the_lane(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with pipeline.receiver():
        async with pipeline.aggregator():
            await sent_one_by_one(pipeline, 2)
            await pipeline.expect("orders_total{$project}", 2)
            await _lose_the_log(pipeline)

            async def taken() -> bool:
                with suppress(Unavailable):
                    await pipeline.send({"name": "orders_total", "value": 1})
                    return True
                return False

            await eventually(taken, within_seconds=PATIENCE_SECONDS, what="the log takes batches again")
            await sent_one_by_one(pipeline, 3)
            await _says_that_the_log_was_made_anew(pipeline)
            assert await pipeline.value("orders_total{$project}") == 2
        async with await psycopg.AsyncConnection.connect(pipeline.database.superuser_dsn) as connection:
            await connection.execute("UPDATE ingest.lanes SET position = 0, log_made_at = NULL")
        async with pipeline.aggregator():
            await pipeline.expect("orders_total{$project}", 2 + 1 + 3)


async def test_a_state_that_is_behind_what_the_log_has_deleted_halts_the_lane(pipeline: Pipeline) -> None:
    """As when Postgres fails over to a standby that lacks the last commits."""
    pipeline.define("orders_total")
    async with pipeline.receiver(), connected(pipeline.aggregator_settings, "owner") as stream:
        async with pipeline.aggregator():
            await sent_one_by_one(pipeline, 3)
            await pipeline.expect("orders_total{$project}", 3)
        made_at, last = await stream.extent()
        await stream.purge(0, last, made_at)
        await _set_back(pipeline, last)
        async with pipeline.aggregator():
            await sent_one_by_one(pipeline, 1)
            await pipeline.expect("orders_total{$project}", 4)
        await _set_back(pipeline, last - 1)
        async with pipeline.aggregator():
            await _says(pipeline, f"no frame at the committed position {last - 1}")
            assert await pipeline.value("orders_total{$project}") == 4
        await _set_back(pipeline, 0)  # as operations.md says
        async with pipeline.aggregator():
            await pipeline.expect("orders_total{$project}", 4 + 2)


async def _set_back(pipeline: Pipeline, position: int) -> None:
    async with await psycopg.AsyncConnection.connect(pipeline.database.superuser_dsn) as connection:
        await connection.execute("UPDATE ingest.lanes SET position = %s", (position,))


class TellingFirst(Log):
    """A log that is told of wrongly at first, then as it is."""

    def __init__(self, stream: Log, settings: LogSettings, told: Sequence[Extent]) -> None:
        super().__init__(stream.client, settings)
        self._told = iter(told)

    async def extent(self) -> Extent:
        return next(self._told, None) or await super().extent()


async def test_an_answer_that_is_not_of_the_present_log_halts_no_lane(pipeline: Pipeline) -> None:
    """As a server gives it that was cut off from the others of its cluster a moment ago."""
    pipeline.define("orders_total")
    settings = pipeline.aggregator_settings
    async with pipeline.receiver(), connected(settings, "reader") as stream:
        await sent_one_by_one(pipeline, 3)
        made_at, last = await stream.extent()
        stale = [Extent(made_at, 1), Extent(made_at - timedelta(days=1), last)]
        reader = LogReader(TellingFirst(stream, settings, stale), 0, last - 1, made_at)
        for _ in stale:
            with pytest.raises(Unavailable, match="asked again"):
                await reader.fetch(10, 1.0)
        assert [position for position, _ in await reader.fetch(10, 5.0)] == [last]


async def test_a_lane_whose_frame_is_missing_leaves_the_connection_to_the_others(pipeline: Pipeline) -> None:
    settings = pipeline.aggregator_settings
    of_cluster = dataclasses.replace(settings, nats_urls=settings.nats_urls * 2)
    async with connected(of_cluster, "reader") as stream:
        await _connected(stream)
        await stream.ensure()
        for _ in range(3):
            await stream.jetstream.publish(stream.subject(0), b"frame")
        made_at, last = await stream.extent()
        await stream.purge(0, last, made_at)
        reader = LogReader(stream, 0, last - 2, made_at)
        for error in (Unavailable, Unavailable, UnreadableLogError):
            with pytest.raises(error, match="no frame at the committed position"):
                await reader.fetch(10, 1.0)
        assert stream.connection == 0


async def test_a_lane_that_an_earlier_version_left_takes_the_log_that_is_there(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with pipeline.running():
        await sent_one_by_one(pipeline, 2)
        await pipeline.expect("orders_total{$project}", 2)
    async with postgres.connected(pipeline.aggregator_settings.dsn) as database:
        async with database.transaction(role="ingest_aggregator") as connection:
            await connection.execute("UPDATE lanes SET log_made_at = NULL")
        async with pipeline.running():
            await sent_one_by_one(pipeline, 2)
            await pipeline.expect("orders_total{$project}", 4)
        async with database.transaction(role="ingest_aggregator") as connection:
            cursor = await connection.execute("SELECT count(*) AS known FROM lanes WHERE log_made_at IS NOT NULL")
            assert await cursor.fetchone() == {"known": 1}


@pytest.mark.parametrize("times", [3])
async def test_a_reader_whose_consumer_is_lost_reads_on_where_it_was(pipeline: Pipeline, times: int) -> None:
    pipeline.define("orders_total")
    load = Load(pipeline, "orders_total")
    client = await nats.connect(list(pipeline.receiver_settings.nats_urls))
    try:
        log, stream = client.jetstream(), pipeline.receiver_settings.stream
        async with pipeline.running(), load.running():
            for _ in range(times):
                await load.acknowledges(100)
                for consumer in await log.consumers_info(stream):
                    await log.delete_consumer(stream, consumer.name)
        async with pipeline.aggregator():
            await pipeline.expect("orders_total{$project}", load.acknowledged)
    finally:
        await client.close()


async def _connected(*streams: Log) -> None:
    async def are() -> bool:
        return all(stream.client.is_connected for stream in streams)

    await eventually(are, what="the log is connected")


async def _sent_by_the_consumer(stream: Log, frames: int, *, waiting: int) -> None:
    """Waits until the only consumer has sent so many frames, and so many requests for more wait with it."""

    async def sent() -> bool:
        consumers = await stream.jetstream.consumers_info(stream.stream)
        return [(each.delivered.consumer_seq, each.num_waiting) for each in consumers if each.delivered] == [
            (frames, waiting)
        ]

    await eventually(sent, what=f"{frames} frames are sent")


async def test_the_last_frames_are_read_again_where_they_were_lost_with_a_connection(
    pipeline: Pipeline, nats_server: RunningServer[Nats]
) -> None:
    """The server sends each once, and nothing comes after them whose number would tell."""
    settings, server = pipeline.aggregator_settings, nats_server.server
    way = Forwarder(server.port)
    async with way.forwarding(), connected(settings, "writer") as writing:
        away = dataclasses.replace(settings, nats_urls=(server.url.replace(str(server.port), str(way.listens)),))
        async with connected(away, "reader") as reading:
            await _connected(writing, reading)
            await writing.ensure()
            await writing.jetstream.publish(writing.subject(0), b"one")
            reader = LogReader(reading, 0, 0, None)
            assert await reader.fetch(10, 5.0) == [(1, b"one")]
            fetching = asyncio.create_task(reader.fetch(10, 2.0))
            await _sent_by_the_consumer(writing, 1, waiting=1)
            way.fall_silent()
            await writing.jetstream.publish(writing.subject(0), b"two")
            await _sent_by_the_consumer(writing, 2, waiting=0)
            way.cut()
            way.mend()
            read: list[tuple[int, bytes]] = []
            with suppress(Unavailable):
                read += await fetching

            async def reads_on() -> bool:
                with suppress(Unavailable):
                    read.extend(await reader.fetch(10, 0.5))
                return reader.position == 2

            await eventually(reads_on, within_seconds=PATIENCE_SECONDS, what="the frame that was lost is read")
            assert read == [(2, b"two")]
