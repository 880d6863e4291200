"""A log of three servers: its leader killed, paused, cut off under load. Clients go on; nothing is lost or doubled."""

import dataclasses
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import pytest
from nats.errors import Error as NatsError

from chassis.errors import Unavailable
from deploy.local.layout import Ports
from services.ingest import log
from services.ingest.log_reader import LogReader
from tests.chaos import log_cluster, plan
from tests.chaos.log_cluster import LogCluster
from tests.integration.ingest.pipeline import Load, Pipeline, increments
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

_ELECTION_SECONDS = 60.0
#: How often the leader is lost.
_ROUNDS = 1 + plan.chosen().most_kills // 50

Fault = Callable[[LogCluster, str], AbstractContextManager[None]]


@pytest.fixture
async def cluster(data_folder: Path, port_blocks: Callable[[], Ports]) -> AsyncIterator[LogCluster]:
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=data_folder))
    async with log_cluster.running(folder, port_blocks()) as cluster:
        yield cluster


@pytest.fixture
def replicated(pipeline: Pipeline, cluster: LogCluster) -> Pipeline:
    """A pipeline whose log has three copies."""
    changes = {"nats_urls": cluster.urls, "log_replicas": 3}
    pipeline.receiver_settings = dataclasses.replace(pipeline.receiver_settings, **changes)  # type: ignore[arg-type]
    pipeline.aggregator_settings = dataclasses.replace(pipeline.aggregator_settings, **changes)  # type: ignore[arg-type]
    return pipeline


async def _leader(stream: log.Log) -> str:
    """The name of the server that leads the log now."""

    async def leader() -> str:
        try:
            info = await stream.jetstream.stream_info(stream.stream)
        except (NatsError, TimeoutError):
            return ""
        return info.cluster.leader or "" if info.cluster else ""

    return await eventually(leader, within_seconds=_ELECTION_SECONDS, what="the log has a leader")


async def _shows_at_least(pipeline: Pipeline, count: int) -> None:
    async def shows() -> bool:
        return (await pipeline.value("orders_total{$project}") or 0) >= count

    await eventually(shows, within_seconds=_ELECTION_SECONDS, what=f"Prometheus shows {count}")


async def _connect_to(stream: log.Log, cluster: LogCluster, name: str) -> None:
    async def is_there() -> bool:
        url = stream.client.connected_url
        if url is not None and url.port == cluster.servers[name].server.port:
            return True
        await stream.client.force_reconnect()
        return False

    await eventually(is_there, within_seconds=_ELECTION_SECONDS, what=f"the client is connected to {name}")


async def _appends(stream: log.Log) -> None:
    """One message, however long the log takes to have a leader."""

    async def appended() -> bool:
        try:
            await stream.ensure()
            with stream.asking():
                await stream.jetstream.publish(stream.subject(0), b"a frame", timeout=2)
        except Unavailable:
            return False
        return True

    await eventually(appended, within_seconds=_ELECTION_SECONDS, what="the log takes a frame")


async def test_a_reader_leaves_a_server_that_is_cut_off_from_the_log(replicated: Pipeline, cluster: LogCluster) -> None:
    settings = replicated.receiver_settings
    async with log.connected(settings, "writer") as writing, log.connected(settings, "reader") as reading:
        await _appends(writing)
        leader = await _leader(writing)
        await _connect_to(reading, cluster, leader)
        reader = LogReader(reading, 0, 0, None)

        async def reads(count: int) -> None:
            async def read() -> bool:
                with suppress(Unavailable):
                    await reader.fetch(10, 0.2)
                return reader.position >= count

            await eventually(read, within_seconds=_ELECTION_SECONDS, what=f"{count} frames are read")

        await reads(1)
        with cluster.cut_off(leader):
            await _appends(writing)
            await reads(2)


async def test_a_reader_is_not_halted_by_a_server_that_was_cut_off_a_moment_ago(
    replicated: Pipeline, cluster: LogCluster
) -> None:
    """Between making the consumer and telling of the log, which by then has frames that this server lacks."""
    settings = replicated.receiver_settings
    async with log.connected(settings, "writer") as writing, log.connected(settings, "reader") as reading:
        await _appends(writing)
        leader = await _leader(writing)
        await _connect_to(reading, cluster, leader)
        told, present = list[int](), reading.extent
        with ExitStack() as cut:

            async def extent_once_cut_off() -> log.Extent:
                """At first what the cut-off leader says of the stream, which no longer has to ask anybody for it."""
                if told:
                    return await present()
                cut.enter_context(cluster.cut_off(leader))
                info = await reading.jetstream.stream_info(reading.stream)
                assert info.created is not None
                told.append(info.state.last_seq)
                return log.Extent(info.created, info.state.last_seq)

            reading.extent = extent_once_cut_off  # type: ignore[method-assign]
            reader = LogReader(reading, 0, 2, (await writing.extent()).made_at)
            with pytest.raises(Unavailable, match="ends at 1, before the committed position 2"):
                await reader.fetch(10, 0.2)
            for _ in range(2):
                await _appends(writing)

            async def reads_on() -> bool:
                with suppress(Unavailable):
                    await reader.fetch(10, 0.2)
                return reader.position == 3

            await eventually(reads_on, within_seconds=_ELECTION_SECONDS, what="the frame behind the position is read")
        assert told == [1]


@pytest.mark.parametrize("fault", [LogCluster.killed, LogCluster.paused, LogCluster.cut_off], ids=lambda f: f.__name__)
async def test_without_the_logs_leader_everything_goes_on_and_totals_are_exact(
    replicated: Pipeline, cluster: LogCluster, fault: Fault
) -> None:
    replicated.define("orders_total")
    load = Load(replicated, "orders_total")
    async with log.connected(replicated.receiver_settings, "observer") as stream, replicated.running():
        async with load.running():
            for _ in range(_ROUNDS):
                await load.acknowledges(50)
                with fault(cluster, await _leader(stream)):
                    await load.acknowledges(100)
                    await _shows_at_least(replicated, load.acknowledged)
                await load.acknowledges(50)
        await replicated.expect("orders_total{$project}", load.acknowledged)
    assert increments(await replicated.samples("orders_total{$project}"))
