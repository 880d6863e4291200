"""Native histograms in a real Prometheus: exact counts and sums, also over restarts and budgets, and quantiles."""

from typing import Any

import pytest

from tests.integration.ingest.pipeline import Pipeline

#: The width of a bucket of schema 3, as a factor.
BUCKET = 2.0 ** (1 / 8)


async def histogram_of(pipeline: Pipeline, selector: str) -> tuple[float, float, list[tuple[float, float, float]]]:
    """Count, sum and buckets (lower bound, upper bound, count) of the only series, as the query API has them."""
    [series] = await pipeline.query(selector)
    found: dict[str, Any] = series["histogram"][1]
    buckets = [(float(lower), float(upper), float(count)) for _, lower, upper, count in found.get("buckets", [])]
    return float(found["count"]), float(found["sum"]), buckets


async def test_observations_are_one_series_with_exact_buckets(pipeline: Pipeline) -> None:
    pipeline.define("wait_seconds", "histogram", native_histogram=True)
    async with pipeline.running():
        await pipeline.send({"name": "wait_seconds", "value": [1, 1, 4, -2, 0]})
        await pipeline.send({"name": "wait_seconds", "value": 1}, {"name": "wait_seconds", "value": 1.5})
        await pipeline.expect("histogram_count(wait_seconds{$project})", 7)
        count, total, buckets = await histogram_of(pipeline, "wait_seconds{$project}")
    assert (count, total) == (7, 6.5)
    assert buckets == [
        (-2.0, -1.8340080864093422, 1),
        (-2.938735877055719e-39, 2.938735877055719e-39, 1),
        (0.9170040432046711, 1.0, 3),
        (1.414213562373095, 1.5422108254079407, 1),
        (3.6680161728186844, 4.0, 1),
    ]
    assert len(await pipeline.query('{__name__=~"wait_seconds.*", $project}')) == 1
    [history] = await pipeline.query("wait_seconds{$project}[1h]")
    assert history["histograms"][0][1] == {"count": "0", "sum": "0"}, "rate() sees the first observations"


async def test_counts_and_sums_stay_exact_while_the_resolution_falls_and_processes_restart(pipeline: Pipeline) -> None:
    pipeline.define("wait_seconds", "histogram", native_histogram=True)
    wide = [1e-9 * 1.25**step for step in range(200)]
    async with pipeline.running():
        await pipeline.send({"name": "wait_seconds", "value": [1, 2, 3]})
        await pipeline.expect("histogram_count(wait_seconds{$project})", 3)
    async with pipeline.running():
        await pipeline.send({"name": "wait_seconds", "value": wide})
        await pipeline.expect("histogram_count(wait_seconds{$project})", 203)
        _, total, buckets = await histogram_of(pipeline, "wait_seconds{$project}")
        assert total == pytest.approx(sum(wide) + 6, rel=1e-12)
        assert sum(held for _, _, held in buckets) == 203
        assert buckets[-1][1] / buckets[-1][0] == pytest.approx(2**0.5), "two steps coarser"
        assert await pipeline.value("resets(wait_seconds{$project}[1h])") == 0
        [increase] = await pipeline.query("histogram_count(increase(wait_seconds{$project}[1h]))")
        assert float(increase["value"][1]) >= 203


async def test_quantiles_of_native_and_classic_histograms(pipeline: Pipeline) -> None:
    pipeline.define("wait_seconds", "histogram", native_histogram=True)
    pipeline.define("load_seconds", "histogram", buckets=[25, 50, 100])
    observations = list(range(1, 101))
    async with pipeline.running():
        await pipeline.send({"name": "wait_seconds", "value": observations})
        await pipeline.send({"name": "load_seconds", "value": observations})
        await pipeline.expect("histogram_count(wait_seconds{$project})", 100)
        await pipeline.expect("load_seconds_count{$project}", 100)
        for quantile in (0.5, 0.9, 0.99):
            native = await pipeline.value(f"histogram_quantile({quantile}, wait_seconds{{$project}})")
            assert native is not None
            assert 100 * quantile / BUCKET <= native <= 100 * quantile * BUCKET
            classic = await pipeline.value(f"histogram_quantile({quantile}, load_seconds_bucket{{$project}})")
            assert classic == pytest.approx(100 * quantile)
        assert await pipeline.value("histogram_fraction(0, 64, wait_seconds{$project})") == pytest.approx(0.64)


async def test_native_histograms_over_a_budget_fold_and_add_up(pipeline: Pipeline) -> None:
    pipeline.define("wait_seconds", "histogram", native_histogram=True, labels=[{"name": "page"}])
    async with pipeline.receiver(), pipeline.aggregator(most_series_per_metric=2):
        for number in range(6):
            await pipeline.send({"name": "wait_seconds", "value": [1, 10**number], "labels": {"page": f"p{number}"}})
        await pipeline.expect("histogram_count(sum(wait_seconds{$project}))", 12)
        await pipeline.expect('histogram_count(wait_seconds{page="__other__", $project})', 8)
        assert await pipeline.value("histogram_sum(sum(wait_seconds{$project}))") == 111_117


async def test_a_deleted_native_histogram_is_gone_at_once_and_its_name_begins_anew(pipeline: Pipeline) -> None:
    deleted = pipeline.define("wait_seconds", "histogram", native_histogram=True)
    async with pipeline.running():
        await pipeline.send({"name": "wait_seconds", "value": [1, 2, 3]})
        await pipeline.expect("histogram_count(wait_seconds{$project})", 3)
        pipeline.upstreams.config.delete(deleted)
        await pipeline.expect("histogram_count(wait_seconds{$project})", None)
        pipeline.define("wait_seconds", "histogram", native_histogram=True)
        await pipeline.send({"name": "wait_seconds", "value": [1, 2, 3, 4]})
        await pipeline.expect("histogram_count(wait_seconds{$project})", 4)
