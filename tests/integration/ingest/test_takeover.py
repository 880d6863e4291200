"""Two aggregators and one lane: one owner at a time, and time that only grows."""

import signal
import time

import psycopg

from chassis.clock import SystemClock
from tests.integration.ingest.pipeline import PATIENCE_SECONDS, Load, Pipeline, increments
from tests.late_aggregator import LateClock
from tests.waiting import eventually


class EarlyClock(SystemClock):
    """A machine's clock that is an hour ahead."""

    def now_ms(self) -> int:
        return super().now_ms() + 3_600_000


class KilledError(Exception):
    """Ends an aggregator without its goodbye."""


async def no_resets(pipeline: Pipeline) -> bool:
    return (await pipeline.value("resets(orders_total{$project}[1h])")) == 0


async def test_a_paused_owner_is_replaced_and_can_write_nothing_when_it_wakes(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    load = Load(pipeline, "orders_total")
    async with pipeline.receiver():
        with pipeline.process("aggregator") as paused:
            await pipeline.expect_readiness("aggregator", "ready")
            async with load.running():
                await load.acknowledges(100)
                paused.send_signal(signal.SIGSTOP)
                await load.acknowledges(100)
                async with pipeline.aggregator(operations_port=pipeline.new_ports().public):
                    first_taken = load.acknowledged
                    await _reaches(pipeline, first_taken)
                    paused.send_signal(signal.SIGCONT)
                    await load.acknowledges(200)
                    await pipeline.expect_readiness("aggregator", "ready")
                    await load.acknowledges(100)
            await pipeline.expect("orders_total{$project}", load.acknowledged)  # the woken one has it again
    assert increments(await pipeline.samples("orders_total{$project}"))
    assert await no_resets(pipeline)


async def _reaches(pipeline: Pipeline, least: float) -> None:
    async def reached() -> bool:
        return (await pipeline.value("orders_total{$project}") or 0.0) >= least

    await eventually(reached, within_seconds=PATIENCE_SECONDS, what=f"{least} are visible")


async def test_a_killed_owner_is_replaced_by_one_whose_clock_is_two_seconds_behind(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    load = Load(pipeline, "orders_total")
    async with pipeline.receiver(), load.running():
        try:
            async with pipeline.aggregator():
                await load.acknowledges(100)
                await _reaches(pipeline, 50)
                raise KilledError
        except* KilledError:
            pass
        async with pipeline.aggregator(LateClock()):
            taken = load.acknowledged
            await _reaches(pipeline, taken)
            await load.acknowledges(100)
            await _reaches(pipeline, load.acknowledged - 50)
        async with pipeline.aggregator():
            await load.acknowledges(50)
            await _reaches(pipeline, load.acknowledged - 50)
    async with pipeline.aggregator():
        await pipeline.expect("orders_total{$project}", load.acknowledged)
    assert increments(await pipeline.samples("orders_total{$project}"))
    assert await no_resets(pipeline)


async def test_an_aggregator_whose_clock_is_an_hour_ahead_takes_nothing_and_says_why(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with pipeline.receiver():
        await pipeline.send({"name": "orders_total", "value": 1})
        async with pipeline.aggregator(EarlyClock()):

            async def told() -> bool:
                checks = (await pipeline.readiness("aggregator")).get("checks", {})
                reason = checks.get("lane 0", {}).get("reason", "")
                return "3600 s ahead of Postgres'" in reason

            await eventually(told, within_seconds=PATIENCE_SECONDS, what="readiness says what is amiss")
            async with await psycopg.AsyncConnection.connect(pipeline.database.superuser_dsn) as connection:
                cursor = await connection.execute("SELECT FROM ingest.lanes UNION ALL SELECT FROM ingest.aggregators")
                assert await cursor.fetchall() == []
        async with pipeline.aggregator():
            await pipeline.expect("orders_total{$project}", 1)
    assert all(at <= time.time() for at, _ in await pipeline.samples("orders_total{$project}"))
