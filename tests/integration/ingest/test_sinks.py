"""Several sinks at once: each has its own watermark, and none waits for another."""

import asyncio
import dataclasses
from pathlib import Path

import psycopg
from prometheus_client import REGISTRY

from chassis.secrets import SecretFile
from deploy.local.servers import Prometheus
from services.ingest.sinks import addresses
from services.ingest.sinks.addresses import SinkAddress, SinkHeader
from tests.integration.ingest.http_sink import HttpSink, listening
from tests.integration.ingest.pipeline import PATIENCE_SECONDS, Pipeline, increments
from tests.suite_servers import RunningServer
from tests.waiting import eventually


def second(sink: HttpSink, name: str = "second") -> tuple[SinkAddress, ...]:
    return (SinkAddress(name=name, url=sink.url),)


def watermarks(pipeline: Pipeline) -> dict[str, int]:
    with psycopg.connect(pipeline.database.superuser_dsn) as connection:
        return dict(connection.execute("SELECT sink, delivered_ms FROM ingest.sink_watermarks").fetchall())


async def has_latest(sink: HttpSink, name: str, value: float) -> None:
    await eventually(
        lambda: asyncio.sleep(0, sink.latest(name) == value),
        within_seconds=PATIENCE_SECONDS,
        what=f"the sink has {name} at {value}",
    )


async def test_a_dead_sink_holds_up_neither_the_other_nor_commits_and_resumes_where_it_was(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with listening() as sink, pipeline.receiver():
        async with pipeline.aggregator(further_sinks=second(sink)):
            await pipeline.send({"name": "orders_total", "value": 1})
            await has_latest(sink, "orders_total", 1.0)
            await pipeline.expect("orders_total{$project}", 1)
        sink.answer = lambda _: 503
        async with pipeline.aggregator(further_sinks=second(sink)):
            for total in (2, 3):
                await pipeline.send({"name": "orders_total", "value": 1})
                await pipeline.expect("orders_total{$project}", total)
        delivered = watermarks(pipeline)
        assert 0 < delivered["second"] < delivered["remote_write"]
        sink.answer = lambda _: 204
        async with pipeline.aggregator(further_sinks=second(sink)):
            await has_latest(sink, "orders_total", 3.0)
    samples = [value for _, value in sorted(sink.taken["orders_total"])]
    assert samples == sorted(samples)
    assert samples[0] == 0.0
    assert increments(await pipeline.samples("orders_total{$project}"))


async def test_a_sink_that_hangs_at_the_first_request_does_not_delay_the_other(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with listening() as sink, pipeline.receiver():
        sink.held.clear()
        async with pipeline.aggregator(further_sinks=second(sink)):
            await pipeline.send({"name": "orders_total", "value": 1})
            await pipeline.expect("orders_total{$project}", 1)
            assert sink.taken == {}
            sink.held.set()
            await has_latest(sink, "orders_total", 1.0)


async def test_a_sink_that_is_taken_off_the_list_is_forgotten_and_a_new_one_begins_now(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with listening() as retired, listening() as new, pipeline.receiver():
        async with pipeline.aggregator(further_sinks=second(retired, "retired")):
            await pipeline.send({"name": "orders_total", "value": 1})
            await has_latest(retired, "orders_total", 1.0)
        assert set(watermarks(pipeline)) == {"remote_write", "retired"}
        async with pipeline.aggregator(further_sinks=second(new, "new")):
            await pipeline.send({"name": "orders_total", "value": 1})
            await has_latest(new, "orders_total", 2.0)
        assert set(watermarks(pipeline)) == {"remote_write", "new"}
        assert {value for _, value in new.taken["orders_total"]} <= {1.0, 2.0}, "no first zero, no history"


async def test_a_prometheus_without_native_histograms_gets_everything_else_at_once(
    pipeline: Pipeline, classic_prometheus: RunningServer[Prometheus]
) -> None:
    pipeline.define("orders_total")
    pipeline.define("wait_seconds", "histogram", native_histogram=True, labels=[{"name": "n"}])
    classic = dataclasses.replace(pipeline, prometheus_url=classic_prometheus.server.url)
    waits = [{"name": "wait_seconds", "value": 1, "labels": {"n": str(n)}} for n in range(30)]
    address = SinkAddress(name="classic", url=f"{classic_prometheus.server.url}/api/v1/write")
    async with pipeline.receiver(), pipeline.aggregator(further_sinks=(address,)):
        for total in range(1, 4):
            before = refusals("classic")
            await pipeline.send({"name": "orders_total", "value": 1}, *waits)
            await classic.expect("orders_total{$project}", total)
            await pipeline.expect("count(wait_seconds{$project})", 30)
        assert before > 30, "the first time"
        assert refusals("classic") == before, "and not again"


def refusals(sink: str) -> float:
    labels = {"sink": sink, "status": "500"}
    return REGISTRY.get_sample_value("pulsegate_sink_requests_total", labels) or 0.0


async def test_each_sink_gets_its_own_headers(pipeline: Pipeline) -> None:
    headers = (
        SinkHeader(sink="second", name="X-Scope-OrgID", value="pulsegate"),
        SinkHeader(sink="remote_write", name="Authorization", value="Bearer canary"),
    )
    pipeline.define("orders_total")
    async with listening() as sink, pipeline.receiver():
        async with pipeline.aggregator(further_sinks=second(sink), sink_headers=headers):
            await pipeline.send({"name": "orders_total", "value": 1})
            await has_latest(sink, "orders_total", 1.0)
        assert sink.headers[-1]["X-Scope-OrgID"] == "pulsegate"
        assert "Authorization" not in sink.headers[-1]


async def test_a_sink_goes_on_with_the_credentials_that_a_file_has_now(pipeline: Pipeline, tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text('{"second": {"Authorization": "Bearer first"}}')
    followed = SecretFile("PULSEGATE_SINK_HEADERS", file, addresses.headers)
    known = {"sink_headers": followed.current(), "secrets": {"sink_headers": followed}}
    pipeline.define("orders_total")
    async with listening() as sink, pipeline.receiver():
        right = "Bearer first"
        sink.answer = lambda _: 204 if sink.headers[-1]["Authorization"] == right else 401
        async with pipeline.aggregator(further_sinks=second(sink), **known):
            await pipeline.send({"name": "orders_total", "value": 1})
            await has_latest(sink, "orders_total", 1.0)
            right = "Bearer second"
            await pipeline.send({"name": "orders_total", "value": 1})
            await eventually(
                lambda: asyncio.sleep(0, 401 in sink.answered),
                within_seconds=PATIENCE_SECONDS,
                what="what was good is refused",
            )
            file.write_text('{"second": {"Authorization": "Bearer second"}}')
            await has_latest(sink, "orders_total", 2.0)
    samples = [value for _, value in sorted(sink.taken["orders_total"])]
    assert samples == sorted(samples)
    assert samples[0] == 0.0, "it is the same sink: it was told of all that happened meanwhile"


async def test_a_dead_sink_that_has_started_over_goes_on_from_there_with_the_next_owner(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    jobs = pipeline.define("jobs_total", labels=[{"name": "n"}])
    async with listening() as sink, pipeline.receiver():
        sink.held.clear()
        async with pipeline.aggregator(further_sinks=second(sink), sink_most_pending_bytes=1 << 19):
            await pipeline.send({"name": "orders_total", "value": 1})
            await pipeline.expect("orders_total{$project}", 1)
            for first in range(0, 600, 100):
                each = range(first, first + 100)
                await pipeline.send(*({"name": "jobs_total", "value": 1, "labels": {"n": str(n)}} for n in each))
            await pipeline.expect("count(jobs_total{$project})", 600)
            began = watermarks(pipeline)
            assert began["second"] < began["remote_write"]
            pipeline.upstreams.config.delete(jobs)
            await eventually(
                lambda: asyncio.sleep(0, watermarks(pipeline)["second"] > began["remote_write"]),
                within_seconds=PATIENCE_SECONDS,
                what="the sink has started over",
            )
        sink.held.set()
        async with pipeline.aggregator(further_sinks=second(sink)):
            await pipeline.send({"name": "orders_total", "value": 1})
            await has_latest(sink, "orders_total", 2.0)
            await pipeline.expect("orders_total{$project}", 2)
