"""Prometheus fails in every way under load, for a while: in the end it has everything, exactly once."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator

import pytest

from chassis.clock import SystemClock
from tests.chaos import plan
from tests.chaos.prometheus_proxy import PrometheusProxy, Says
from tests.integration.ingest.pipeline import Load, Pipeline, increments
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(int(10 * plan.chosen().outage_seconds) + 300)

_OUTAGE_SECONDS = plan.chosen().outage_seconds
#: Ten minutes pass in as many seconds.
_COMPRESSED_SECONDS = 15.0


@pytest.fixture
async def proxy(pipeline: Pipeline) -> AsyncIterator[PrometheusProxy]:
    proxy = PrometheusProxy(f"{pipeline.prometheus_url}/api/v1/write")
    async with proxy.listening():
        pipeline.aggregator_settings = dataclasses.replace(pipeline.aggregator_settings, remote_write_url=proxy.url)
        yield proxy


async def test_whatever_prometheus_answers_for_a_while_totals_are_exact(
    pipeline: Pipeline, proxy: PrometheusProxy
) -> None:
    pipeline.define("orders_total")
    load = Load(pipeline, "orders_total")
    answers = [500, 429, 400, Says.NOTHING, Says.SILENCE]
    async with pipeline.receiver():
        with pipeline.process("aggregator") as aggregator:
            async with load.running():
                for number, answer in enumerate(answers):
                    await load.acknowledges(50)
                    proxy.answer(answer)
                    await asyncio.sleep(_OUTAGE_SECONDS / len(answers))  # how long an outage is, not a wait
                    if number % 2:  # what waits for the sink must survive this
                        aggregator.kill()
                        aggregator.start()
                    await load.acknowledges(50)
                    await _was_answered(proxy, answer)
                    proxy.answer(Says.WHAT_PROMETHEUS_SAYS)
                await load.acknowledges(50)
            await pipeline.expect("orders_total{$project}", load.acknowledged, within_seconds=90)
    assert increments(await pipeline.samples("orders_total{$project}"))


async def _was_answered(proxy: PrometheusProxy, answer: int) -> None:
    async def asked() -> bool:
        return proxy.answered[answer] > 0

    await eventually(asked, within_seconds=60, what=f"the aggregator was answered {answer}")


class HastyClock(SystemClock):
    """Ten minutes late when it is made, and so fast that it is right after the compressed time."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def now_ms(self) -> int:
        late_ms = 600_000 * max(0.0, 1 - (time.monotonic() - self._began) / _COMPRESSED_SECONDS)
        return int(super().now_ms() - late_ms)


async def test_ten_minutes_without_prometheus_lose_nothing(pipeline: Pipeline, proxy: PrometheusProxy) -> None:
    pipeline.define("orders_total")
    before, meanwhile = (Load(pipeline, "orders_total", clients=2) for _ in range(2))
    async with pipeline.receiver(), pipeline.aggregator(HastyClock()):
        async with before.running():
            await before.acknowledges(10)
        await pipeline.expect("orders_total{$project}", before.acknowledged)
        proxy.answer(Says.NOTHING)
        async with meanwhile.running():
            await asyncio.sleep(_COMPRESSED_SECONDS)
        assert await pipeline.value("orders_total{$project}") in (None, before.acknowledged)
        proxy.answer(Says.WHAT_PROMETHEUS_SAYS)
        await pipeline.expect("orders_total{$project}", before.acknowledged + meanwhile.acknowledged)
    samples = await pipeline.samples("orders_total{$project}")
    assert increments(samples)
    assert samples[-1][0] - samples[0][0] > 500
    assert len(samples) > 25, "one for each quarter of a minute of the outage"
