"""Two aggregators and one lane: one owner at a time, and time that only grows."""

import dataclasses
import signal
import time
from collections.abc import Sequence
from typing import Any

import psycopg

from chassis.clock import SystemClock
from chassis.ids import uuid7
from tests.integration.ingest.http_sink import HttpSink, listening
from tests.integration.ingest.pipeline import PATIENCE_SECONDS, Load, Pipeline, increments
from tests.late_aggregator import LateClock
from tests.waiting import eventually


class EarlyClock(SystemClock):
    """A machine's clock that is an hour ahead."""

    def now_ms(self) -> int:
        return super().now_ms() + 3_600_000


class BehindClock(SystemClock):
    """A machine's clock that is an hour behind."""

    def now_ms(self) -> int:
        return super().now_ms() - 3_600_000


class SteppingClock(SystemClock):
    """A machine's clock that may be set wrong, on which housekeeping's ten seconds pass at once."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms

    async def sleep(self, seconds: float) -> None:
        await super().sleep(0.01 if seconds == 10.0 else seconds)


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


async def test_an_aggregator_whose_clock_is_an_hour_behind_says_so_and_leaves_its_lane_to_one_whose_clock_is_right(
    pipeline: Pipeline,
) -> None:
    """Alone it goes on: samples that are late are better than none."""
    pipeline.define("orders_total")
    port = pipeline.new_ports().operations("aggregator")
    right = dataclasses.replace(
        pipeline, aggregator_settings=dataclasses.replace(pipeline.aggregator_settings, operations_port=port)
    )
    async with pipeline.receiver():
        await pipeline.send({"name": "orders_total", "value": 1})
        async with pipeline.aggregator(BehindClock()):
            await pipeline.expect_readiness("aggregator", "degraded")
            clock = (await pipeline.readiness("aggregator"))["checks"]["clock"]
            assert clock["reason"] == "this machine's clock is 3600 s behind Postgres'"
            await _comes(pipeline, "SELECT FROM ingest.series WHERE value = 1")
            assert await pipeline.value("orders_total{$project}") is None
            with right.process("aggregator"):
                await pipeline.expect("orders_total{$project}", 1)
                await pipeline.expect_readiness("aggregator", "degraded")


async def test_a_receiver_that_knows_postgres_compares_its_clock(reading: Pipeline) -> None:
    async with reading.receiver():
        clock = (await reading.readiness("receiver"))["checks"]["clock"]
        assert (clock["status"], clock["hard"]) == ("up", False)


async def test_an_owner_whose_clock_stepped_ahead_for_one_commit_forgets_nothing_but_what_is_old(
    pipeline: Pipeline,
) -> None:
    """From then on commits have timestamps of that future, whoever makes them."""
    pipeline.define("orders_total")
    numbered: dict[str, Any] = {"producer": str(uuid7()), "sequence": 1}
    clock, ahead_ms = SteppingClock(), 30 * 24 * 3_600_000
    async with listening() as sink:

        async def has(value: float) -> None:
            await eventually(lambda: _is(sink, value), within_seconds=PATIENCE_SECONDS, what=f"{value} was written")

        async with pipeline.receiver(), pipeline.aggregator(clock, remote_write_url=sink.url):
            await pipeline.send({"name": "orders_total", "value": 5}, **numbered)
            await has(5)
            clock.ahead_ms = ahead_ms
            await _comes(pipeline, f"SELECT FROM ingest.lanes WHERE commit_ms > {clock.now_ms() - 60_000}")
            clock.ahead_ms = 0
            await _run(pipeline, _OLD_PRODUCER, (clock.now_ms() - ahead_ms,))
            await _comes(pipeline, "SELECT WHERE NOT EXISTS (SELECT FROM ingest.producers WHERE floor = 77)")
        async with pipeline.receiver(), pipeline.aggregator(remote_write_url=sink.url):  # without memory of the batch
            await pipeline.send({"name": "orders_total", "value": 5}, **numbered)
            await pipeline.send({"name": "orders_total", "value": 1})
            await has(6)
            await _comes(pipeline, "SELECT FROM ingest.series WHERE value = 6")


_OLD_PRODUCER = """
INSERT INTO ingest.producers (partition, tenant_id, project_id, producer, floor, ranges, used_ms)
VALUES (0, uuidv7(), uuidv7(), uuidv7(), 77, '{}', %s)
"""


async def _is(sink: HttpSink, value: float) -> bool:
    return sink.latest("orders_total") == value


async def _run(pipeline: Pipeline, statement: str, values: Sequence[object] = ()) -> int:
    """How many rows it answers or changes."""
    async with await psycopg.AsyncConnection.connect(pipeline.database.superuser_dsn) as connection:
        return (await connection.execute(statement, values)).rowcount


async def _comes(pipeline: Pipeline, question: str) -> None:
    """Waits until the question is answered with a row."""

    async def answered() -> bool:
        return await _run(pipeline, question) > 0

    await eventually(answered, within_seconds=PATIENCE_SECONDS, what=question)
