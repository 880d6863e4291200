"""What PromQL answers about series that end, fold, come late or come from the future, from a real Prometheus."""

import time

import pytest

from tests.integration.ingest.pipeline import Pipeline

DAY_MS = 24 * 3600 * 1000
#: A selector of each type's series.
SHOWN = {
    "orders_total{$project}": 5,
    "depth{$project}": 5,
    "load_seconds_count{$project}": 1,
    'load_seconds_bucket{le="+Inf", $project}': 1,
    "histogram_count(wait_seconds{$project})": 1,
    "size_bytes_sum{$project}": 5,
}


async def test_series_that_end_are_gone_from_an_instant_query_at_once(pipeline: Pipeline) -> None:
    ending = [
        pipeline.define("orders_total"),
        pipeline.define("depth", "gauge"),
        pipeline.define("load_seconds", "histogram", buckets=[1]),
        pipeline.define("wait_seconds", "histogram", native_histogram=True),
        pipeline.define("size_bytes", "summary"),
    ]
    pipeline.define("alive_total")
    async with pipeline.running():
        await pipeline.send(*({"name": each.spec.name, "value": 5} for each in ending))
        await pipeline.send({"name": "alive_total", "value": 1})
        for expression, value in SHOWN.items():
            await pipeline.expect(expression, value)
        for each in ending:
            pipeline.upstreams.config.delete(each)
        for expression in SHOWN:  # and not only after the five minutes that Prometheus looks back
            await pipeline.expect(expression, None)
        found = await pipeline.query('{__name__=~".+", $project}')
        assert [each["metric"]["__name__"] for each in found] == ["alive_total"]
        assert await pipeline.value("last_over_time(orders_total{$project}[1h])") == 5, "what was is still there"


async def test_late_data_counts_on_arrival_and_shows_at_the_time_of_its_commit(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    pipeline.define("depth", "gauge", labels=[{"name": "of"}])
    now_ms = int(time.time() * 1000)

    def level(of: str, value: float, at_ms: int) -> dict[str, object]:
        return {"name": "depth", "value": value, "labels": {"of": of}, "timestamp": at_ms}

    async with pipeline.running():
        answer = await pipeline.send(
            {"name": "orders_total", "value": 1, "timestamp": 0},
            {"name": "orders_total", "value": 2, "timestamp": now_ms + 400 * DAY_MS},
            level("late", 3, now_ms - 8 * DAY_MS + 60_000),
            level("future", 4, now_ms + 9 * 60_000),
            level("too late", 5, now_ms - 8 * DAY_MS - 60_000),
            level("too far", 6, now_ms + 11 * 60_000),
        )
        assert [(each.index, each.code) for each in answer.rejected] == [
            (4, "TIMESTAMP_OUT_OF_RANGE"),
            (5, "TIMESTAMP_OUT_OF_RANGE"),
        ]
        await pipeline.expect("orders_total{$project}", 3)
        await pipeline.expect('depth{of="late", $project}', 3)
        await pipeline.expect('depth{of="future", $project}', 4)
        await pipeline.send(level("late", 7, now_ms - DAY_MS), level("future", 8, now_ms))
        await pipeline.expect('depth{of="late", $project}', 7)
        assert await pipeline.value('depth{of="future", $project}') == 4, "the newest timestamp wins"
        for series in ("orders_total{$project}", 'depth{of="late", $project}', 'depth{of="future", $project}'):
            for at, _ in await pipeline.samples(series, over="10d"):
                assert now_ms / 1000 - 10 <= at <= time.time()


async def test_classic_histograms_over_a_budget_fold_and_keep_their_quantiles(pipeline: Pipeline) -> None:
    pipeline.define("load_seconds", "histogram", buckets=[25, 50, 100], labels=[{"name": "page"}])
    async with pipeline.receiver(), pipeline.aggregator(most_series_per_metric=2):
        for page in range(5):
            values = list(range(1 + 20 * page, 21 + 20 * page))
            await pipeline.send({"name": "load_seconds", "value": values, "labels": {"page": f"p{page}"}})
        await pipeline.expect("sum(load_seconds_count{$project})", 100)
        assert await pipeline.value('load_seconds_count{page="__other__", $project}') == 60
        assert await pipeline.value("sum(load_seconds_sum{$project})") == 5050
        quantile = await pipeline.value("histogram_quantile(0.5, sum by (le) (load_seconds_bucket{$project}))")
        assert quantile == pytest.approx(50)
