"""A metric's whole path: receiver, log, aggregator, Prometheus; each type with its exact result."""

import gzip
import json
import time
from typing import Any

import pytest
import zstandard
from prometheus_client import REGISTRY

from chassis.errors import PulsegateError
from chassis.ids import uuid7
from tests.integration.ingest.pipeline import Pipeline, increments

#: Of tenants, and of the lane.
FULL = ("pulsegate_aggregator_full_tenants", "pulsegate_aggregator_series_fill_ratio")


async def test_increments_of_many_batches_become_one_cumulative_counter(pipeline: Pipeline) -> None:
    pipeline.define("orders_total", labels=[{"name": "plan", "required": True}])
    async with pipeline.running():
        for _ in range(5):
            answer = await pipeline.send(
                {"name": "orders_total", "value": 2, "labels": {"plan": "pro"}},
                {"name": "orders_total", "value": 1, "labels": {"plan": "free"}},
            )
            assert (answer.accepted, list(answer.rejected)) == (2, [])
        await pipeline.expect('orders_total{plan="pro", $project}', 10)
        await pipeline.expect('orders_total{plan="free", $project}', 5)
        series = (await pipeline.query('orders_total{plan="pro", $project}'))[0]["metric"]
        assert series == {
            "__name__": "orders_total",
            "plan": "pro",
            "tenant_id": pipeline.tenant_id,
            "project_id": pipeline.project_id,
        }
        samples = await pipeline.samples('orders_total{plan="pro", $project}')
        assert samples[0][1] == 0.0, "rate() sees the first increment"
        assert increments(samples)
        increase = await pipeline.value('increase(orders_total{plan="pro", $project}[1h])')
        assert increase is not None
        assert increase >= 10.0


async def test_a_batch_sent_again_is_counted_once(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    producer = str(uuid7())
    async with pipeline.running():
        first = await pipeline.send({"name": "orders_total", "value": 3}, producer=producer, sequence=1)
        again = await pipeline.send({"name": "orders_total", "value": 3}, producer=producer, sequence=1)
        await pipeline.send({"name": "orders_total", "value": 4}, producer=producer, sequence=2)
        assert (first.accepted, first.duplicate) == (1, False)
        assert (again.accepted, again.duplicate) == (1, True)
        await pipeline.expect("orders_total{$project}", 7)


async def test_a_gauge_is_its_newest_level(pipeline: Pipeline) -> None:
    pipeline.define("depth", "gauge")
    now_ms = int(time.time() * 1000)
    async with pipeline.running():
        await pipeline.send({"name": "depth", "value": -2.5, "timestamp": now_ms})
        await pipeline.send({"name": "depth", "value": 9, "timestamp": now_ms - 60_000})
        await pipeline.expect("depth{$project}", -2.5)
        await pipeline.send({"name": "depth", "value": 4})
        await pipeline.expect("depth{$project}", 4)
        assert all(value != 9 for _, value in await pipeline.samples("depth{$project}"))


async def test_a_histogram_answers_quantiles(pipeline: Pipeline) -> None:
    pipeline.define("load_seconds", "histogram", buckets=[0.1, 1, 1e6])
    async with pipeline.running():
        await pipeline.send({"name": "load_seconds", "value": [0.05, 0.1, 0.5, 0.5]})
        await pipeline.send({"name": "load_seconds", "value": 2e6}, {"name": "load_seconds", "value": 1})
        await pipeline.expect("load_seconds_count{$project}", 6)
        assert await pipeline.value("load_seconds_sum{$project}") == 2_000_002.15
        buckets = {
            each["metric"]["le"]: each["value"][1] for each in await pipeline.query("load_seconds_bucket{$project}")
        }
        assert buckets == {"0.1": "2", "1.0": "5", "1e+06": "5", "+Inf": "6"}
        assert await pipeline.value("histogram_quantile(0.5, load_seconds_bucket{$project})") == pytest.approx(0.4)


async def test_a_summary_exposes_count_and_sum(pipeline: Pipeline) -> None:
    pipeline.define("size_bytes", "summary", objectives=[0.5])
    async with pipeline.running():
        await pipeline.send({"name": "size_bytes", "value": [1, 2, 3.5]})
        await pipeline.expect("size_bytes_count{$project}", 3)
        assert await pipeline.value("size_bytes_sum{$project}") == 6.5


async def test_good_metrics_are_taken_and_bad_ones_named(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with pipeline.running():
        answer = await pipeline.send(
            {"name": "nothing", "value": 1},
            {"name": "orders_total", "value": 2},
            {"name": "orders_total", "value": -1},
            {"name": "orders_total", "value": "NaN"},
            {"name": "orders_total", "value": 1e308},
            {"name": "orders_total", "value": 1e308},
        )
        assert answer.accepted == 3
        assert [(rejection.index, rejection.code) for rejection in answer.rejected] == [
            (0, "METRIC_NOT_DEFINED"),
            (2, "VALUE_NEGATIVE"),
            (3, "VALUE_NOT_FINITE"),
        ]
        await pipeline.expect("orders_total{$project}", 1.7976931348623157e308)


async def test_a_wholly_rejected_batch_keeps_nothing_and_may_be_sent_again(pipeline: Pipeline) -> None:
    producer = str(uuid7())
    async with pipeline.running():
        answer = await pipeline.send({"name": "orders_total", "value": 1}, producer=producer, sequence=1)
        assert (answer.accepted, answer.rejected[0].code) == (0, "METRIC_NOT_DEFINED")
        pipeline.define("orders_total")
        answer = await pipeline.send({"name": "orders_total", "value": 1}, producer=producer, sequence=1)
        assert (answer.accepted, answer.duplicate) == (1, False)
        await pipeline.expect("orders_total{$project}", 1)


async def test_compressed_batches_and_broken_ones(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    body = json.dumps({"metrics": [{"name": "orders_total", "value": 1}]}).encode()
    async with pipeline.running():
        await pipeline.send_bytes(gzip.compress(body), "gzip")
        await pipeline.send_bytes(zstandard.compress(body), "zstd")
        for broken, encoding, code in (
            (zstandard.compress(body)[:-1], "zstd", "MALFORMED_REQUEST"),
            (body, "br", "UNSUPPORTED_MEDIA_TYPE"),
            (gzip.compress(bytes(8 << 20)), "gzip", "BODY_TOO_LARGE"),
            (b"{", "", "MALFORMED_JSON"),
        ):
            with pytest.raises(PulsegateError) as caught:
                await pipeline.send_bytes(broken, encoding)
            assert caught.value.code == code
        await pipeline.expect("orders_total{$project}", 2)


async def test_label_values_travel_as_they_were_sent(pipeline: Pipeline) -> None:
    pipeline.define("orders_total", labels=[{"name": "note"}])
    notes = [
        '"quoted"',
        "back\\slash",
        "new\nline",
        "tab\tstop",
        "\U0001f600 é",
        "{}",
        "'; DROP TABLE series; --",
        "\\N",
    ]
    async with pipeline.running():
        for note in notes * 2:
            await pipeline.send({"name": "orders_total", "value": 1, "labels": {"note": note}})
        await pipeline.expect("sum(orders_total{$project})", 16)
        found = {each["metric"]["note"]: each["value"][1] for each in await pipeline.query("orders_total{$project}")}
        assert found == dict.fromkeys(notes, "2")
    async with pipeline.running():  # and as they were stored
        await pipeline.send(*({"name": "orders_total", "value": 1, "labels": {"note": note}} for note in notes))
        await pipeline.expect("sum(orders_total{$project})", 24)
        assert len(await pipeline.query("orders_total{$project}")) == len(notes)


async def test_over_a_budget_totals_stay_exact_also_after_a_restart(pipeline: Pipeline) -> None:
    pipeline.define("visits_total", labels=[{"name": "page", "max_distinct": 3}, {"name": "plan"}])
    async with pipeline.receiver():
        async with pipeline.aggregator():
            for number in range(10):
                await pipeline.send({"name": "visits_total", "value": 1, "labels": {"page": f"p{number}"}})
            await pipeline.expect("sum(visits_total{$project})", 10)
        async with pipeline.aggregator(most_series_per_metric=5):
            for number in range(20):
                labels = {"page": f"p{number}", "plan": f"plan{number}"}
                await pipeline.send({"name": "visits_total", "value": 1, "labels": labels})
            await pipeline.expect("sum(visits_total{$project})", 30)
            assert await pipeline.value('visits_total{page="__other__", plan="", $project}') == 7
            assert await pipeline.value('sum(visits_total{page="__other__", plan="__other__", $project})') is not None
            assert len(await pipeline.query("visits_total{$project}")) <= 6


@pytest.mark.parametrize(
    ("budget", "full"),
    [({"most_series_per_tenant": 5}, [1, 6 / 1_200_000]), ({"most_series_per_lane": 5}, [0, 6 / 5])],
)
async def test_without_room_what_is_known_goes_on_also_after_a_restart(
    pipeline: Pipeline, budget: dict[str, Any], full: list[float]
) -> None:
    pipeline.define("visits_total", labels=[{"name": "page"}])
    async with pipeline.receiver():
        for times in (1, 2):
            async with pipeline.aggregator(**budget):
                for number in range(10):
                    await pipeline.send({"name": "visits_total", "value": 1, "labels": {"page": f"p{number}"}})
                await pipeline.expect("sum(visits_total{$project})", 10 * times)
                assert await pipeline.value('visits_total{page="__other__", $project}') == 5 * times
                assert await pipeline.value('sum(visits_total{page="p4", $project})') == times
                assert len(await pipeline.query("visits_total{$project}")) == 6
                assert [REGISTRY.get_sample_value(name, {"lane": "0"}) for name in FULL] == full
