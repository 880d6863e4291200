"""Another number of lanes: by command and after a drain alone, with nothing lost, nothing double, nothing silent."""

import dataclasses
import secrets
import signal

import pytest

from chassis import postgres
from chassis.errors import Unavailable
from services.ingest.regrouping import regroup
from tests.integration.ingest.pipeline import PATIENCE_SECONDS, Pipeline
from tests.integration.ingest.test_lanes import of_lane
from tests.waiting import eventually


class Lanes:
    """Two projects that two lanes part, and what was acknowledged for them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._projects = [dataclasses.replace(pipeline, project_id=of_lane(lane, 2)) for lane in (0, 1)]
        self.acknowledged = 0
        for project in self._projects:
            project.define("orders_total")

    def told(self, lanes: int) -> Pipeline:
        """The pipeline as PULSEGATE_LOG_LANES says."""
        for project in self._projects:
            project.receiver_settings = dataclasses.replace(project.receiver_settings, lanes=lanes)
            project.aggregator_settings = dataclasses.replace(project.aggregator_settings, lanes=lanes)
        return self._projects[0]

    async def send(self, value: int) -> None:
        for project in self._projects:
            await project.send({"name": "orders_total", "value": value})
        self.acknowledged += value

    async def are_exact(self) -> None:
        for project in self._projects:
            await project.expect("orders_total{$project}", self.acknowledged)


@pytest.fixture
def lanes(pipeline: Pipeline) -> Lanes:
    return Lanes(pipeline)


async def reason_of(pipeline: Pipeline, check: str, text: str) -> None:
    """Waits until the aggregator's readiness says so."""

    async def said() -> bool:
        return text in (await pipeline.readiness("aggregator"))["checks"][check].get("reason", "")

    await eventually(said, within_seconds=PATIENCE_SECONDS, what=text)


async def test_more_and_fewer_lanes_count_on_exactly(lanes: Lanes) -> None:
    for number in (2, 1, 4, 2):
        pipeline = lanes.told(number)
        if lanes.acknowledged:
            assert (await regroup(pipeline.aggregator_settings)).startswith(f"There are {number} lanes now")
        assert (await regroup(pipeline.aggregator_settings)) == f"There are {number} lanes already."
        async with pipeline.running():
            await lanes.send(number)
            await lanes.are_exact()


async def test_what_is_not_in_the_state_keeps_the_lanes_as_they_are(lanes: Lanes) -> None:
    pipeline = lanes.told(2)
    async with pipeline.receiver():
        await lanes.send(5)
        fewer = dataclasses.replace(pipeline.aggregator_settings, lanes=1)
        async with pipeline.aggregator():
            await lanes.are_exact()
        await lanes.send(7)
        with pytest.raises(SystemExit, match="batches in lane 0 of 2, 1 of 2 are not in the state yet"):
            await regroup(fewer)
        await lanes.send(9)  # the log takes them again
        async with pipeline.aggregator():
            await lanes.are_exact()
        await regroup(fewer)
        with pytest.raises(Unavailable):
            await lanes.send(100)
    async with lanes.told(1).running():
        await lanes.are_exact()
        await lanes.send(1)
        await lanes.are_exact()


async def test_what_nobody_has_read_yet_is_not_in_the_state(lanes: Lanes) -> None:
    pipeline = lanes.told(1)
    more = dataclasses.replace(pipeline.aggregator_settings, lanes=2)
    async with pipeline.receiver():
        await lanes.send(5)
        with pytest.raises(SystemExit, match="batches in lane 0 of 1 are not in the state yet"):
            await regroup(more)
        async with pipeline.aggregator():
            await lanes.are_exact()
    await regroup(more)
    async with lanes.told(2).running():
        await lanes.send(7)
        await lanes.are_exact()


async def test_what_waits_for_the_new_lanes_is_read(lanes: Lanes) -> None:
    """They begin at a position whose frame is another lane's."""
    async with lanes.told(2).running():
        await lanes.send(5)
        await lanes.are_exact()
    pipeline = lanes.told(1)
    await regroup(pipeline.aggregator_settings)
    async with pipeline.receiver():
        await lanes.send(7)
        async with pipeline.aggregator():
            await lanes.are_exact()


async def test_receivers_and_aggregators_that_never_agreed_are_brought_together(lanes: Lanes) -> None:
    pipeline = lanes.told(1)
    async with pipeline.receiver(lanes=2), pipeline.aggregator():
        await lanes.send(5)
        await reason_of(pipeline, "log", "which are not the 1 lanes")
        with pytest.raises(SystemExit, match="0 of 2, 1 of 2"):
            await regroup(pipeline.aggregator_settings)
    pipeline = lanes.told(2)
    await regroup(pipeline.aggregator_settings)
    async with pipeline.running():
        await lanes.are_exact()


async def test_lanes_of_a_version_that_did_not_say_how_many_are_regrouped_before_they_are_taken(lanes: Lanes) -> None:
    async with lanes.told(1).running():
        await lanes.send(5)
        await lanes.are_exact()
    pipeline = lanes.told(2)
    async with (
        postgres.connected(pipeline.aggregator_settings.dsn) as database,
        database.transaction(role="ingest_aggregator") as connection,
    ):
        await connection.execute("UPDATE lanes SET lanes_in_all = NULL")
    async with pipeline.aggregator():
        await reason_of(pipeline, "lane 0", "the state is of 1 lanes")
    assert (await regroup(pipeline.aggregator_settings)).startswith("There are 2 lanes now")
    async with pipeline.running():
        await lanes.send(7)
        await lanes.are_exact()


async def test_another_number_without_regrouping_halts_loudly(lanes: Lanes) -> None:
    async with lanes.told(2).running():
        await lanes.send(5)
        await lanes.are_exact()
    pipeline = lanes.told(1)
    async with pipeline.aggregator():
        await reason_of(pipeline, "log", "which are not the 1 lanes")
        await reason_of(pipeline, "lane 0", "the state is of 2 lanes")
    async with lanes.told(2).running():
        await lanes.send(5)
        await lanes.are_exact()


async def test_an_aggregator_with_another_number_takes_no_lane_from_one_that_works(lanes: Lanes) -> None:
    pipeline = lanes.told(2)
    async with pipeline.running():
        await lanes.send(5)
        await lanes.are_exact()
        other = dataclasses.replace(
            pipeline,
            aggregator_settings=dataclasses.replace(
                pipeline.aggregator_settings, lanes=4, operations_port=pipeline.new_ports().operations("aggregator")
            ),
        )
        async with other.aggregator():
            await reason_of(other, "lane 3", "the state is of 2 lanes")
            await lanes.send(7)
            await lanes.are_exact()
            assert (await pipeline.readiness("aggregator"))["status"] == "ready"


async def test_an_owner_of_before_that_wakes_up_writes_nothing(lanes: Lanes) -> None:
    pipeline = lanes.told(2)
    with pipeline.process("aggregator") as sleeper:
        async with pipeline.receiver():
            await lanes.send(5)
            await lanes.are_exact()
            sleeper.send_signal(signal.SIGSTOP)
        pipeline = lanes.told(1)
        await regroup(pipeline.aggregator_settings)
        awake = pipeline.aggregator(operations_port=pipeline.new_ports().operations("aggregator"))
        async with pipeline.receiver(), awake:
            await lanes.send(7)
            await lanes.are_exact()
            sleeper.send_signal(signal.SIGCONT)
            await reason_of(pipeline, "lane 1", "the state is of 1 lanes")
            await lanes.send(9)
            await lanes.are_exact()


async def _fill_the_log(pipeline: Pipeline) -> int:
    """Sends batches of 100 until the log is full; returns how many metrics were acknowledged."""
    acknowledged = 0
    async with pipeline.client() as send:
        while True:
            labels = [{"order": secrets.token_hex(90)} for _ in range(100)]
            try:
                await send(*({"name": "orders_total", "value": 1, "labels": each} for each in labels))
            except Unavailable as error:
                refusal = error.message
                break
            acknowledged += 100
    assert refusal == "The log is full."
    return acknowledged


async def test_a_full_log_is_regrouped_too(pipeline: Pipeline) -> None:
    pipeline.receiver_settings = dataclasses.replace(pipeline.receiver_settings, log_most_bytes=1 << 20)
    pipeline.aggregator_settings = dataclasses.replace(pipeline.aggregator_settings, log_most_bytes=1 << 20)
    pipeline.define("orders_total", labels=[{"name": "order"}])
    async with pipeline.receiver():
        acknowledged = await _fill_the_log(pipeline)
    async with pipeline.aggregator():
        await pipeline.expect("sum(orders_total{$project})", acknowledged)
    more = dataclasses.replace(pipeline.aggregator_settings, lanes=2)
    assert (await regroup(more)).startswith("There are 2 lanes now")
    pipeline.receiver_settings = dataclasses.replace(pipeline.receiver_settings, lanes=2)
    pipeline.aggregator_settings = more
    async with pipeline.running():
        await pipeline.send({"name": "orders_total", "value": 1})
        await pipeline.expect("sum(orders_total{$project})", acknowledged + 1)
