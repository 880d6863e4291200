"""A log of three servers: its leader killed, paused, cut off under load. Clients go on; nothing is lost or doubled."""

import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from nats.errors import Error as NatsError

from deploy.local.layout import Ports
from services.ingest import log
from tests.chaos import log_cluster, plan
from tests.chaos.log_cluster import LogCluster
from tests.integration.ingest.pipeline import Load, Pipeline, increments
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

_ELECTION_SECONDS = 60.0
#: How often the leader is lost.
_ROUNDS = 1 + plan.chosen().most_kills // 50

Fault = Callable[[LogCluster, str], AbstractContextManager[None]]


@pytest.fixture
async def cluster(data_folder: Path, port_blocks: Callable[[], Ports]) -> AsyncIterator[LogCluster]:
    ports = port_blocks()
    async with log_cluster.running(data_folder / f"cluster-{ports.public}", ports) as cluster:
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
