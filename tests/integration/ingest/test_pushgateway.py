"""A real Pushgateway as a sink, scraped by a real Prometheus: totals there are those that remote write delivers."""

import dataclasses
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chassis.ids import uuid7
from services.ingest.sinks import pushgateway as sinks_pushgateway
from services.ingest.sinks.addresses import SinkAddress, SinkKind
from tests.integration.ingest.pipeline import PATIENCE_SECONDS, Pipeline
from tests.suite_servers import RunningServer
from tests.suite_sink_servers import DebianServer, Scraper
from tests.waiting import eventually

Gateway = RunningServer[DebianServer]


def further(gateway: Gateway) -> dict[str, Any]:
    address = SinkAddress(name="gate", kind=SinkKind.PUSHGATEWAY, url=gateway.server.url)
    return {"further_sinks": (address,)}


async def shown(gateway: Gateway, project_id: str) -> dict[tuple[str, str], float]:
    """What the Pushgateway shows of a project, by sample name and the label `plan`; its own samples are left out."""
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.server.url}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
    return {
        (sample.name, sample.labels.get("plan", "")): sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("project_id") == project_id and not sample.name.startswith("push_")
    }


async def expect(gateway: Gateway, project_id: str, samples: dict[tuple[str, str], float]) -> None:
    last: dict[tuple[str, str], float] = {}

    async def seen() -> bool:
        nonlocal last
        last = await shown(gateway, project_id)
        return last == samples

    try:
        await eventually(seen, within_seconds=PATIENCE_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"the Pushgateway shows {last}, not {samples}") from error


async def test_prometheus_that_scrapes_it_sees_the_same_totals(
    pipeline: Pipeline, pushgateway: Gateway, scraper: RunningServer[Scraper]
) -> None:
    pipeline.define("orders_total", labels=[{"name": "plan"}, {"name": "job"}, {"name": "instance"}])
    pipeline.define("depth", "gauge")
    pipeline.define("load_seconds", "histogram", buckets=[0.5, 10])
    pipeline.define("wait_seconds", "histogram", native_histogram=True)
    pipeline.define("size_bytes", "summary", objectives=[0.5, 0.75])
    scraped = dataclasses.replace(pipeline, prometheus_url=scraper.server.url)
    async with pipeline.receiver(), pipeline.aggregator(**further(pushgateway)):
        for labels in ({}, {"plan": 'a "b" \\ c\n'}, {"job": "a/b"}, {"job": "shop", "instance": "i-1"}):
            for _ in range(2):
                await pipeline.send({"name": "orders_total", "value": 1.5, "labels": labels})
        distributions = [
            {"name": name, "value": [0.5, 1, 100]} for name in ("load_seconds", "size_bytes", "wait_seconds")
        ]
        await pipeline.send({"name": "depth", "value": -7}, *distributions)
        await pipeline.expect("histogram_count(wait_seconds{$project})", 3.0)
        await scraped.expect("wait_seconds_count{$project}", 3.0)
        await scraped.expect("wait_seconds_sum{$project}", 101.5)
        for expression, value in {
            "sum(orders_total{$project})": 12.0,
            'orders_total{instance="i-1", job="shop", $project}': 3.0,
            'orders_total{job="a/b", $project}': 3.0,
            'orders_total{plan="a \\"b\\" \\\\ c\\n", $project}': 3.0,
            "depth{$project}": -7.0,
            'load_seconds_bucket{le="10.0", $project}': 2.0,
            "load_seconds_count{$project}": 3.0,
            "load_seconds_sum{$project}": 101.5,
            "size_bytes_sum{$project}": 101.5,
            "size_bytes_count{$project}": 3.0,
            'round(size_bytes{quantile="0.5", $project}, 0.1)': 1.0,
            "count(size_bytes{$project})": 2.0,
            f'count(orders_total{{tenant_id="{pipeline.tenant_id}", $project}})': 4.0,
        }.items():
            await pipeline.expect(expression, value)
            await scraped.expect(expression, value)


async def test_what_it_has_forgotten_and_what_changed_meanwhile_is_there_again(
    pipeline: Pipeline, pushgateway: Gateway
) -> None:
    names = ("quiet_total", "orders_total", "gone_total")
    *_, gone = [pipeline.define(name) for name in names]
    async with pipeline.receiver(), pipeline.aggregator(**further(pushgateway)):
        await pipeline.send(*({"name": name, "value": 1} for name in names))
        await expect(pushgateway, pipeline.project_id, {(name, ""): 1.0 for name in names})
        with pushgateway.away():
            await pipeline.send({"name": "orders_total", "value": 1})
            await pipeline.expect("orders_total{$project}", 2)
            pipeline.upstreams.config.delete(gone)
        await expect(pushgateway, pipeline.project_id, {("quiet_total", ""): 1.0, ("orders_total", ""): 2.0})


async def test_a_new_owner_knows_what_is_quiet_and_removes_what_has_ended(
    pipeline: Pipeline, pushgateway: Gateway
) -> None:
    names = ("quiet_total", "orders_total", "gone_total")
    *_, gone = [pipeline.define(name) for name in names]
    async with pipeline.receiver():
        async with pipeline.aggregator(**further(pushgateway)):
            await pipeline.send(*({"name": name, "value": 1} for name in names))
            await expect(pushgateway, pipeline.project_id, {(name, ""): 1.0 for name in names})
        with pushgateway.paused():
            async with pipeline.aggregator(**further(pushgateway)):
                pipeline.upstreams.config.delete(gone)
                await pipeline.expect("gone_total{$project}", None)
        async with pipeline.aggregator(**further(pushgateway)):
            await pipeline.send({"name": "orders_total", "value": 1})
            await expect(pushgateway, pipeline.project_id, {("quiet_total", ""): 1.0, ("orders_total", ""): 2.0})


async def test_a_name_that_it_refuses_holds_up_no_other(pipeline: Pipeline, pushgateway: Gateway) -> None:
    other = dataclasses.replace(pipeline, project_id=str(uuid7()))
    pipeline.define("clash", "gauge")
    for name in ("first_total", "second_total"):
        other.define(name)
    other.define("clash", "histogram", buckets=[1])
    async with pipeline.receiver(), pipeline.aggregator(**further(pushgateway)):
        await pipeline.send({"name": "clash", "value": 1})
        await expect(pushgateway, pipeline.project_id, {("clash", ""): 1.0})
        for total in (1.0, 2.0):
            await other.send(*({"name": name, "value": 1} for name in ("first_total", "clash", "second_total")))
            await expect(pushgateway, other.project_id, {("first_total", ""): total, ("second_total", ""): total})
        await pipeline.send({"name": "clash", "value": 2})
        await expect(pushgateway, pipeline.project_id, {("clash", ""): 2.0})


async def shown_jobs(gateway: Gateway, project_id: str) -> dict[tuple[str, str], float]:
    """What the Pushgateway shows of a project's only metric, by the labels `job` and `exported_job`."""
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.server.url}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
    return {
        (sample.labels["job"], sample.labels.get("exported_job", "")): sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("project_id") == project_id and not sample.name.startswith("push_")
    }


async def test_many_jobs_share_a_group_and_another_owner_that_has_fewer_groups_leaves_nothing_behind(
    pipeline: Pipeline, pushgateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.define("runs_total", labels=[{"name": "job"}, {"name": "exported_job"}])

    async def run(*jobs: str) -> None:
        await pipeline.send(*({"name": "runs_total", "value": 1, "labels": {"job": job}} for job in jobs))

    async def expect_jobs(counted: dict[tuple[str, str], float]) -> None:
        async def seen() -> bool:
            return await shown_jobs(pushgateway, pipeline.project_id) == counted

        await eventually(seen, within_seconds=PATIENCE_SECONDS, what=f"it shows {counted}")

    async with pipeline.receiver():
        monkeypatch.setattr(sinks_pushgateway, "_MOST_GROUPS", 3)
        async with pipeline.aggregator(**further(pushgateway)):
            for job in ("a", "b", "c", "d", "e"):
                await run(job)
                await pipeline.expect(f'runs_total{{job="{job}", $project}}', 1)
            await run("e", "a")
            own = {("a", ""): 2.0, ("b", ""): 1.0, ("c", ""): 1.0}
            await expect_jobs({**own, ("pulsegate", "d"): 1.0, ("pulsegate", "e"): 2.0})
        monkeypatch.setattr(sinks_pushgateway, "_MOST_GROUPS", 2)
        async with pipeline.aggregator(**further(pushgateway)):
            await run("b", "f")
            shared = {
                ("pulsegate", "c"): 1.0,
                ("pulsegate", "d"): 1.0,
                ("pulsegate", "e"): 2.0,
                ("pulsegate", "f"): 1.0,
            }
            await expect_jobs({("a", ""): 2.0, ("b", ""): 2.0, **shared})
