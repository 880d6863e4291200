"""Totals in Prometheus equal what was acknowledged, to the unit, whatever was killed meanwhile."""

import asyncio
import json
from collections.abc import Callable

import pytest

from chassis.ids import uuid7
from tests.e2e.api import Project, connected, sign_up
from tests.e2e.load import Load
from tests.suite_running import Suite

pytestmark = pytest.mark.timeout(300)


async def _kill_under_load(
    suite: Suite, names: list[str], load: Load, *, times: int, every_seconds: float, producers: int = 4, seed: int = 1
) -> None:
    """kill -9 of one process after the other, `times` times, while a load runs."""
    killed = 0
    running = asyncio.create_task(
        load.run(producers=producers, batches=100, seed=seed, going_on=lambda: killed < times)
    )
    while killed < times:
        await asyncio.wait([running], timeout=every_seconds)
        assert not running.done(), f"the load ended after {killed} kills: {running}"
        name = names[killed % len(names)]
        pid = suite.kill(name)
        await asyncio.to_thread(suite.wait_restarted, name, pid)
        killed += 1
    await running
    suite.wait_ready()


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["receiver", "aggregator"], id="receiver and aggregator"),
        pytest.param(["gateway", "nats", "config", "auth", "valkey"], id="the others"),
    ],
)
async def test_totals_are_exact_when_processes_are_killed_under_load(
    suite: Suite, project: Project, names: list[str]
) -> None:
    load = Load(project)
    await load.define()
    await _kill_under_load(suite, names, load, times=6, every_seconds=1.0, producers=8)
    await load.adds_up()


async def test_totals_are_exact_when_postgres_is_killed_in_mid_commit(suite: Suite, project: Project) -> None:
    load = Load(project)
    await load.define()
    await _kill_under_load(suite, ["postgres"], load, times=3, every_seconds=1.5)
    await load.adds_up()


async def test_nothing_is_lost_while_prometheus_is_away(suite: Suite, project: Project) -> None:
    load = Load(project)
    await load.define()
    with suite.paused("prometheus"):
        await load.run(producers=4, batches=50)
    await load.adds_up()
    await _kill_under_load(suite, ["prometheus"], load, times=2, every_seconds=1.0, seed=2)
    await load.adds_up()


async def test_one_batch_counts_once_at_once_later_in_parallel_and_after_restarts(
    suite: Suite, project: Project
) -> None:
    await project.define("retried_total")
    producer = str(uuid7())

    async def send() -> bool:
        answer = await project.send({"name": "retried_total", "value": 7}, producer=producer, sequence=1)
        assert (answer.status, answer.json["accepted"], answer.json["rejected"]) == (202, 1, [])
        return bool(answer.json.get("duplicate", False))

    assert not await send()
    assert await send(), "the receiver that took it a moment ago knows it"
    await asyncio.gather(*(send() for _ in range(50)))
    await project.shows("retried_total", 7)
    for name in ("receiver", "aggregator", "nats"):
        pid = suite.kill(name)
        suite.wait_restarted(name, pid)
    suite.wait_ready()
    await send()
    answer = await project.send({"name": "retried_total", "value": 1}, producer=producer, sequence=2)
    assert answer.status == 202
    await project.shows("retried_total", 8)


async def test_the_same_sequence_with_other_bytes_does_not_count(project: Project) -> None:
    await project.define("first_total")
    producer = str(uuid7())
    for value in (3, 1000):
        answer = await project.send({"name": "first_total", "value": value}, producer=producer, sequence=1)
        assert answer.status == 202
    await project.send({"name": "first_total", "value": 1}, producer=producer, sequence=2)
    await project.shows("first_total", 4)


async def test_below_the_floor_is_a_duplicate_and_far_from_it_is_refused(project: Project) -> None:
    await project.define("floor_total")
    producer = str(uuid7())
    metric = {"name": "floor_total", "value": 1}
    assert (await project.send(metric, producer=producer, sequence=10, floor=10)).status == 202
    assert (await project.send(metric, producer=producer, sequence=9)).status == 202
    refused = await project.send(metric, producer=producer, sequence=5000, floor=11)
    assert (refused.status, refused.code) == (422, "SEQUENCE_OUT_OF_WINDOW")
    await project.send(metric, producer=producer, sequence=11)
    await project.shows("floor_total", 2)


async def test_everything_goes_on_after_a_stop_and_a_start(start_suite: Callable[..., Suite]) -> None:
    suite = start_suite(PULSEGATE_AUTH_REQUESTS_PER_MINUTE="1000")
    async with connected(suite.base_url) as api:
        project = await sign_up(api)
        load = Load(project)
        await load.define()
        await load.run(producers=2, batches=20)
        assert suite.stop() == 0
        suite.start()
        await load.run(producers=2, batches=20, seed=2)
        await load.adds_up()
        run = json.loads((suite.data / "run.json").read_text())
        assert {"gateway", "auth", "config", "codegen", "receiver", "aggregator", "postgres"} <= {
            process["name"] for process in run["processes"]
        }
        suite.kill_supervisor()
        suite.start()
        await load.run(producers=2, batches=20, seed=3)
        await load.adds_up()
    suite.stop()
