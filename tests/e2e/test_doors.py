"""The other doors with the clients of their ecosystems: what they record is what Prometheus answers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from aiohttp import ClientSession, web
from datadog.dogstatsd.base import DogStatsd
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from statsd import StatsClient

from tests.e2e.api import Project

pytestmark = pytest.mark.timeout(120)

BOUNDS = [0.1, 0.5, 1.0]


@contextmanager
def listening() -> Iterator[socket.socket]:
    """Where StatsD clients send their datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        yield server


async def forward(project: Project, server: socket.socket, datagrams: int) -> None:
    """Posts what the clients have sent, as it is."""
    body = b"\n".join(server.recv(65_535) for _ in range(datagrams))
    answer = await project.api.call(
        "POST",
        "/api/v1/statsd",
        credential=project.secret_key,
        data=body,
        headers={"Content-Type": "text/plain"},
    )
    assert (answer.status, answer.json["rejected"]) == (202, []), answer.text


async def test_statsd_clients_count_exactly(project: Project) -> None:
    await project.define("shop_orders_total", labels=[{"name": "plan"}])
    await project.define("queue_depth", "gauge")
    await project.define("render_seconds", "histogram", unit="seconds", buckets=BOUNDS)
    with listening() as server:
        host, port = server.getsockname()
        plain = StatsClient(host, port, prefix="shop")
        for _ in range(20):
            plain.incr("orders", 2)
        await forward(project, server, 20)
        tagged = DogStatsd(host=host, port=port, disable_telemetry=True, disable_buffering=True)
        tagged.increment("shop.orders", 5, tags=["plan:pro"])
        tagged.gauge("queue_depth", 12)
        tagged.timing("render", 250)
        tagged.histogram("render.seconds", 0.75)
        await forward(project, server, 4)
    await project.shows('shop_orders_total{plan=""}', 40)
    await project.shows('shop_orders_total{plan="pro"}', 5)
    await project.shows("queue_depth", 12)
    await project.shows('render_seconds_bucket{le="0.5"}', 1)
    await project.shows("render_seconds_count", 2)
    assert await project.value("render_seconds_sum") == 1.0


async def test_the_opentelemetry_sdk_with_delta_temporality_counts_exactly(project: Project) -> None:
    await project.define("shop_orders_total", labels=[{"name": "plan"}, {"name": "job"}])
    await project.define("queue_depth", "gauge")
    await project.define("render_seconds", "histogram", unit="seconds", buckets=BOUNDS)

    exporter = OTLPMetricExporter(
        endpoint=f"{project.api.base_url}/v1/metrics",
        headers={"Authorization": f"Bearer {project.secret_key}"},
        compression=Compression.Gzip,
        preferred_temporality={Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA},
    )
    provider = MeterProvider(
        [PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)],
        Resource({"service.name": "checkout"}),
        views=[View(instrument_name="render", aggregation=ExplicitBucketHistogramAggregation(BOUNDS))],
    )
    meter = provider.get_meter("shop")
    orders, depth = meter.create_counter("shop.orders"), meter.create_up_down_counter("queue.depth")
    render = meter.create_histogram("render", unit="s")
    for _ in range(3):
        for _ in range(10):
            orders.add(2, {"plan": "pro"})
            depth.add(1)
            render.record(0.25)
        assert await asyncio.to_thread(provider.force_flush)
    await asyncio.to_thread(provider.shutdown)

    await project.shows('shop_orders_total{plan="pro", job="checkout"}', 60)
    await project.shows("queue_depth", 30)
    await project.shows('render_seconds_bucket{le="0.5"}', 30)
    await project.shows("render_seconds_count", 30)
    assert await project.value("render_seconds_sum") == 7.5


@asynccontextmanager
async def losing_answers(base_url: str, every: int) -> AsyncIterator[str]:
    """An address that passes requests on, and loses one answer in so many: a 503 is what the sender sees of it."""
    passed_on = 0

    async def pass_on(request: web.Request) -> web.Response:
        nonlocal passed_on
        passed_on += 1
        headers = {name: value for name, value in request.headers.items() if name not in ("Host", "Content-Length")}
        async with session.post(base_url + request.path, data=await request.read(), headers=headers) as answer:
            body = await answer.read()
            assert answer.status in (200, 204), body
            return web.Response(status=503 if passed_on % every == 0 else answer.status, body=body)

    application = web.Application()
    application.router.add_post("/{path:.*}", pass_on)
    runner = web.AppRunner(application)
    async with ClientSession(auto_decompress=False) as session:
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield "http://{}:{}".format(*runner.addresses[0][:2])
        finally:
            await runner.cleanup()


def cumulative_provider(project: Project, base_url: str) -> MeterProvider:
    """The SDK of one process as it is by default; nothing tells the processes of a service apart."""
    exporter = OTLPMetricExporter(
        endpoint=f"{base_url}/v1/metrics", headers={"Authorization": f"Bearer {project.secret_key}"}
    )
    return MeterProvider(
        [PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)],
        Resource({"service.name": "checkout"}),
        views=[View(instrument_name="render", aggregation=ExplicitBucketHistogramAggregation(BOUNDS))],
    )


async def test_the_opentelemetry_sdk_as_it_is_counts_exactly_through_restarts_and_lost_answers(
    project: Project,
) -> None:
    await project.define("shop_orders_total", labels=[{"name": "plan"}, {"name": "job"}])
    await project.define("queue_depth", "gauge")
    await project.define("render_seconds", "histogram", unit="seconds", buckets=BOUNDS)
    async with losing_answers(project.api.base_url, every=3) as base_url:
        for _restart in range(2):
            workers = [cumulative_provider(project, base_url) for _ in range(2)]
            meters = [provider.get_meter("shop") for provider in workers]
            for _export in range(3):
                for meter, provider in zip(meters, workers, strict=True):
                    for _ in range(10):
                        meter.create_counter("shop.orders").add(2, {"plan": "pro"})
                        meter.create_up_down_counter("queue.depth").add(1)
                        meter.create_histogram("render", unit="s").record(0.25)
                    assert await asyncio.to_thread(provider.force_flush)
            for provider in workers:
                await asyncio.to_thread(provider.shutdown)
    await project.send({"name": "shop_orders_total", "value": 5, "labels": {"plan": "pro", "job": "checkout"}})

    await project.shows('shop_orders_total{plan="pro", job="checkout"}', 2 * 2 * 60 + 5)
    await project.shows("queue_depth", 30)
    await project.shows('render_seconds_bucket{le="0.1"}', 0)
    await project.shows('render_seconds_bucket{le="0.5"}', 2 * 2 * 30)
    await project.shows("render_seconds_count", 2 * 2 * 30)
    assert await project.value("render_seconds_sum") == 2 * 2 * 7.5
