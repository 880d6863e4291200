"""Definitions as the receiver sees them: new ones at once, deleted ones within a second, config away."""

import dataclasses
import time

import pytest

from chassis.errors import Unavailable
from chassis.ids import uuid7
from tests.integration.ingest.pipeline import Pipeline
from tests.waiting import eventually, seconds_until


async def test_a_metric_may_be_sent_as_soon_as_it_is_defined(pipeline: Pipeline) -> None:
    async with pipeline.running():
        pipeline.upstreams.config.silent = True  # the feed has not told yet
        pipeline.define("orders_total", labels=[{"name": "plan", "values": ["free"]}])
        answer = await pipeline.send({"name": "orders_total", "value": 1, "labels": {"plan": "free"}})
        assert answer.accepted == 1
        pipeline.define("orders_total", labels=[{"name": "plan", "values": ["free", "pro"]}])
        answer = await pipeline.send({"name": "orders_total", "value": 1, "labels": {"plan": "pro"}})
        assert answer.accepted == 1
        questions = pipeline.upstreams.config.questions
        await pipeline.send({"name": "orders_total", "value": 1, "labels": {"plan": "pro"}})
        assert pipeline.upstreams.config.questions == questions, "only a rejection is worth a question"
        await pipeline.expect("sum(orders_total{$project})", 3)


@pytest.mark.alone
async def test_rejections_cost_the_same_however_large_a_projects_definitions_are(pipeline: Pipeline) -> None:
    large = dataclasses.replace(pipeline, project_id=str(uuid7()))
    for number in range(1_000):  # nearly 8 MiB
        values = [f"{number}-{value}".ljust(78, "x") for value in range(100)]
        large.define(f"a{number}_total", labels=[{"name": "plan", "values": values}])
    async with pipeline.receiver(), pipeline.client() as send, large.client() as send_large:
        unknown = {"name": "unknown_total", "value": 1}
        for refuse in (send, send_large):
            await refuse(unknown)
        began = time.process_time()
        for _ in range(20):
            await send(unknown)
        usual = time.process_time() - began
        for _ in range(20):
            answer = await send_large(unknown)
            assert [rejection.code for rejection in answer.rejected] == ["METRIC_NOT_DEFINED"]
        assert time.process_time() - began - usual < 3 * usual + 0.2


async def test_a_deleted_metric_is_refused_within_a_second_and_its_series_ends(pipeline: Pipeline) -> None:
    orders = pipeline.define("orders_total")
    async with pipeline.running():
        await pipeline.send({"name": "orders_total", "value": 1})
        await pipeline.expect("orders_total{$project}", 1)
        pipeline.upstreams.config.delete(orders)

        async def refused() -> bool:
            answer = await pipeline.send({"name": "orders_total", "value": 1})
            return answer.accepted == 0 and answer.rejected[0].code == "METRIC_NOT_DEFINED"

        assert await seconds_until(refused, what="it is refused") < 1.0
        await pipeline.expect("orders_total{$project}", None)
    async with pipeline.running():
        await pipeline.expect("orders_total{$project}", None)


async def test_what_was_acknowledged_before_a_deletion_shows_before_the_series_ends(pipeline: Pipeline) -> None:
    orders = pipeline.define("orders_total")
    async with pipeline.running():
        await pipeline.send({"name": "orders_total", "value": 7})
        pipeline.upstreams.config.delete(orders)
        await pipeline.expect("max_over_time(orders_total{$project}[1m])", 7)
        await pipeline.expect("orders_total{$project}", None)
        assert [value for _, value in await pipeline.samples("orders_total{$project}")] == [0.0, 7.0]


async def test_a_metric_that_is_deleted_and_made_anew_starts_from_zero(pipeline: Pipeline) -> None:
    orders = pipeline.define("orders_total")
    async with pipeline.running():
        await pipeline.send({"name": "orders_total", "value": 100})
        await pipeline.expect("orders_total{$project}", 100)
        pipeline.upstreams.config.delete(orders)
        pipeline.define("orders_total", "gauge")
        answer = await pipeline.send({"name": "orders_total", "value": -7})
        assert answer.accepted == 1, "a counter would not take it"
        await pipeline.expect("orders_total{$project}", -7)


async def test_a_retry_is_answered_as_the_batch_was_at_first_whatever_became_of_the_definitions(
    pipeline: Pipeline,
) -> None:
    orders = pipeline.define("orders_total")
    batch = {"producer": str(uuid7()), "sequence": 1}
    metrics = [{"name": "orders_total", "value": 1}, {"name": "visits_total", "value": 5}]
    async with pipeline.running():
        first = await pipeline.send(*metrics, **batch)
        assert [rejection.code for rejection in first.rejected] == ["METRIC_NOT_DEFINED"]
        pipeline.define("visits_total")
        pipeline.upstreams.config.delete(orders)
        again = await pipeline.send(*metrics, **batch)
        assert (again.accepted, again.rejected, again.duplicate) == (1, first.rejected, True)


async def test_after_a_restart_a_retry_is_answered_by_todays_definitions_and_counts_as_the_batch_did_at_first(
    pipeline: Pipeline,
) -> None:
    orders = pipeline.define("orders_total")
    producer = str(uuid7())
    metrics = [{"name": "orders_total", "value": 1}, {"name": "visits_total", "value": 5}]
    async with pipeline.running():
        assert (await pipeline.send(*metrics, producer=producer, sequence=1)).accepted == 1
        await pipeline.expect("orders_total{$project}", 1)
    pipeline.define("visits_total")
    pipeline.upstreams.config.delete(orders)
    async with pipeline.running():
        again = await pipeline.send(*metrics, producer=producer, sequence=1)
        assert (again.accepted, [each.index for each in again.rejected], again.duplicate) == (1, [0], False)
        await pipeline.send(metrics[1], producer=producer, sequence=2)
        await pipeline.expect("visits_total{$project}", 5)


async def test_without_config_known_metrics_go_on_and_unknown_ones_are_to_be_sent_again(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with pipeline.running():
        pipeline.upstreams.config.away = True
        assert (await pipeline.send({"name": "orders_total", "value": 1})).accepted == 1
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            await pipeline.send({"name": "orders_total", "value": 10}, {"name": "visits_total", "value": 10})
        assert caught.value.retry_after_seconds
        assert time.monotonic() - began < 5.0
        await pipeline.expect("orders_total{$project}", 1)
        pipeline.define("visits_total")
        pipeline.upstreams.config.away = False

        async def taken() -> bool:
            try:
                answer = await pipeline.send({"name": "visits_total", "value": 1})
            except Unavailable:
                return False
            return answer.accepted == 1

        await eventually(taken, within_seconds=10.0, what="the new metric is taken without a restart")
        await pipeline.expect("visits_total{$project}", 1)
        await pipeline.expect("orders_total{$project}", 1)


async def test_config_that_fails_otherwise_is_as_good_as_away(pipeline: Pipeline) -> None:
    async with pipeline.running():
        pipeline.upstreams.config.broken = True
        with pytest.raises(Unavailable):
            await pipeline.send({"name": "visits_total", "value": 1})
