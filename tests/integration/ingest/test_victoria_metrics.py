"""A real VictoriaMetrics as a sink beside Prometheus: both answer the same."""

import dataclasses
from typing import Any

import pytest

from deploy.local.servers import Prometheus
from services.ingest.sinks.addresses import SinkAddress
from tests.integration.ingest.pipeline import Load, Pipeline, increments
from tests.suite_servers import RunningServer
from tests.suite_sink_servers import DebianServer
from tests.waiting import eventually


@pytest.fixture
def vm(pipeline: Pipeline, victoria_metrics: RunningServer[DebianServer]) -> Pipeline:
    """The same project as VictoriaMetrics shows it. `pipeline` delivers there too."""
    url = victoria_metrics.server.url
    address = SinkAddress(name="vm", url=f"{url}/api/v1/write")
    pipeline.aggregator_settings = dataclasses.replace(pipeline.aggregator_settings, further_sinks=(address,))
    return dataclasses.replace(pipeline, prometheus_url=url)


async def test_all_types_are_the_same_in_both(pipeline: Pipeline, vm: Pipeline) -> None:
    pipeline.define("orders_total", labels=[{"name": "plan"}])
    pipeline.define("depth", "gauge")
    pipeline.define("size_bytes", "summary")
    pipeline.define("load_seconds", "histogram", buckets=[0.5, 10])
    async with pipeline.running():
        for plan in ("free", "pro", "free"):
            metrics: list[dict[str, Any]] = [
                {"name": "orders_total", "value": 0.25, "labels": {"plan": plan}},
                {"name": "depth", "value": -7.25},
                {"name": "size_bytes", "value": [1, 2]},
                {"name": "load_seconds", "value": [0.5, 1, 100]},
            ]
            await pipeline.send(*metrics)
        for expression, value in {
            'orders_total{plan="free", $project}': 0.5,
            "depth{$project}": -7.25,
            "size_bytes_sum{$project}": 9.0,
            "size_bytes_count{$project}": 6.0,
            'load_seconds_bucket{le="0.5", $project}': 3.0,
            'load_seconds_bucket{le="10.0", $project}': 6.0,
            'load_seconds_bucket{le="+Inf", $project}': 9.0,
            "load_seconds_sum{$project}": 304.5,
        }.items():
            await pipeline.expect(expression, value)
            await vm.expect(expression, value)
        samples = await pipeline.samples('orders_total{plan="free", $project}')
        assert samples[0][1] == 0.0

        async def the_same() -> bool:  # quiet series are written again now and then, to one sink before the other
            return (await vm.samples('orders_total{plan="free", $project}'))[: len(samples)] == samples

        await eventually(the_same, within_seconds=30)


async def test_a_deleted_metric_ends_in_both_and_its_name_begins_anew(pipeline: Pipeline, vm: Pipeline) -> None:
    first = pipeline.define("orders_total")
    async with pipeline.running():
        await pipeline.send({"name": "orders_total", "value": 5})
        await vm.expect("orders_total{$project}", 5)
        pipeline.upstreams.config.delete(first)
        await vm.expect("orders_total{$project}", None)
        await pipeline.expect("orders_total{$project}", None)
        pipeline.define("orders_total")
        await pipeline.send({"name": "orders_total", "value": 2})
        await vm.expect("orders_total{$project}", 2)
        await pipeline.expect("orders_total{$project}", 2)


async def test_each_is_away_and_the_aggregator_is_killed_under_load(
    pipeline: Pipeline,
    vm: Pipeline,
    victoria_metrics: RunningServer[DebianServer],
    prometheus_server: RunningServer[Prometheus],
) -> None:
    pipeline.define("orders_total")
    load = Load(pipeline, "orders_total")
    async with pipeline.receiver():
        with pipeline.process("aggregator") as aggregator:
            async with load.running():
                await load.acknowledges(50)
                with victoria_metrics.away():
                    await load.acknowledges(100)
                    aggregator.kill()
                    aggregator.start()
                    await load.acknowledges(100)
                with prometheus_server.away():
                    await load.acknowledges(100)
                    aggregator.kill()
                    aggregator.start()
                    await load.acknowledges(100)
            for place in (pipeline, vm):
                await place.expect("orders_total{$project}", load.acknowledged)
    for place in (pipeline, vm):
        assert increments(await place.samples("orders_total{$project}"))
