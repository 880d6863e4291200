"""Several aggregators and several lanes: each has its part, and what one leaves behind the others take."""

import dataclasses
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack

import psycopg
import pytest
from prometheus_client import REGISTRY

from chassis import postgres
from chassis.clock import Clock, SystemClock
from services.ingest.fleet import Fleet
from services.ingest.storage.leases import Leases
from tests.integration.ingest.pipeline import PATIENCE_SECONDS, Load, Pipeline, increments
from tests.integration.ingest.test_lanes import of_lane
from tests.integration.ingest.test_takeover import BehindClock
from tests.suite_database import Database
from tests.waiting import eventually

LANES = 4


async def owners(pipeline: Pipeline) -> list[int]:
    """How many lanes each aggregator holds a lease of."""
    async with await psycopg.AsyncConnection.connect(pipeline.database.superuser_dsn) as connection:
        cursor = await connection.execute("SELECT owner FROM ingest.lanes WHERE lease_until > clock_timestamp()")
        return sorted(Counter([owner async for (owner,) in cursor]).values())


async def expect_owners(pipeline: Pipeline, *lanes: int, within_seconds: float = PATIENCE_SECONDS) -> None:
    async def shared() -> bool:
        return await owners(pipeline) == list(lanes)

    await eventually(shared, within_seconds=within_seconds, what=f"the aggregators have {lanes} lanes")


@pytest.mark.alone
async def test_aggregators_share_the_lanes_and_take_over_within_ten_seconds(pipeline: Pipeline) -> None:
    pipeline.receiver_settings = dataclasses.replace(pipeline.receiver_settings, lanes=LANES)
    # The lease that operators get by default.
    pipeline.aggregator_settings = dataclasses.replace(pipeline.aggregator_settings, lanes=LANES, lease_seconds=5.0)
    projects = [dataclasses.replace(pipeline, project_id=of_lane(lane, LANES)) for lane in range(LANES)]
    loads = [Load(project, "orders_total", clients=1) for project in projects]
    for project in projects:
        project.define("orders_total")
    async with pipeline.receiver():
        with pipeline.process("aggregator") as killed, _another(pipeline).process("aggregator"):
            async with AsyncExitStack() as running:
                for load in loads:
                    await running.enter_async_context(load.running())
                await expect_owners(pipeline, 2, 2)
                for load in loads:
                    await load.acknowledges(20)
                killed.kill()
                died = time.monotonic()
                await expect_owners(pipeline, LANES, within_seconds=10.0)
                for project, load in zip(projects, loads, strict=True):
                    await _reaches(project, load.acknowledged, within_seconds=10.0 - (time.monotonic() - died))
            for project, load in zip(projects, loads, strict=True):
                await project.expect("orders_total{$project}", load.acknowledged)
                assert increments(await project.samples("orders_total{$project}"))


async def test_an_aggregator_that_comes_later_gets_its_part_and_the_first_tells_no_more_of_it(
    pipeline: Pipeline,
) -> None:
    """A lag that stayed would keep autoscalers from scaling down, and series would be told of twice."""
    pipeline.receiver_settings = dataclasses.replace(pipeline.receiver_settings, lanes=LANES)
    pipeline.aggregator_settings = dataclasses.replace(pipeline.aggregator_settings, lanes=LANES)
    async with pipeline.receiver(), pipeline.aggregator():
        await expect_owners(pipeline, LANES)
        await _expect_told(*range(LANES))
        with _another(pipeline).process("aggregator") as later:
            await expect_owners(pipeline, 2, 2, within_seconds=60.0)
            await _expect_told(0, 1)
            later.send_signal(signal.SIGTERM)
            assert later.ends() == 0
        await expect_owners(pipeline, LANES)


@pytest.mark.parametrize(
    ("clock", "another_late", "lanes"),
    [(BehindClock(), True, 2), (BehindClock(), False, 0), (SystemClock(), True, LANES), (SystemClock(), False, 2)],
    ids=["both late", "late", "another late", "none late"],
)
async def test_aggregators_whose_clocks_are_late_share_the_lanes_where_no_clock_is_right(
    database: Database, clock: Clock, another_late: bool, lanes: int
) -> None:
    async with postgres.connected(database.dsn("ingest")) as connected:
        leases = Leases(connected)
        await leases.attend("another", LANES, 60.0, late=another_late)
        fleet = Fleet(leases, clock, lanes=LANES, lease_seconds=60.0)
        epochs = [await fleet.take(lane) for lane in range(LANES)]
    assert len(epochs) - epochs.count(None) == lanes


def _another(pipeline: Pipeline) -> Pipeline:
    """The same with an aggregator that serves its operations elsewhere."""
    port = pipeline.new_ports().operations("aggregator")
    settings = dataclasses.replace(pipeline.aggregator_settings, operations_port=port)
    return dataclasses.replace(pipeline, aggregator_settings=settings)


async def _expect_told(*lanes: int) -> None:
    """Waits until this process exposes what owners say for these lanes alone."""

    async def told() -> bool:
        found: dict[str, set[str]] = {name: set() for name in ("log_lag_frames", "aggregator_live_series")}
        for family in REGISTRY.collect():
            for sample in family.samples:
                if (name := sample.name.removeprefix("pulsegate_")) in found:
                    found[name].add(sample.labels["lane"])
        return all(each == {str(lane) for lane in lanes} for each in found.values())

    await eventually(told, within_seconds=PATIENCE_SECONDS, what=f"metrics of the lanes {lanes} alone")


async def _reaches(project: Pipeline, least: float, within_seconds: float) -> None:
    async def reached() -> bool:
        return (await project.value("orders_total{$project}") or 0.0) >= least

    await eventually(reached, within_seconds=within_seconds, what=f"{least} are visible")
