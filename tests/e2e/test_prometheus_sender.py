"""A real Prometheus as sender: what it scrapes from exporters is what the suite shows."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from deploy.local.layout import Ports
from deploy.local.servers import HOST, Prometheus
from tests.e2e.api import Project
from tests.e2e.test_doors import losing_answers
from tests.suite_servers import running

pytestmark = pytest.mark.timeout(180)

BOUNDS = (0.1, 0.5, 1.0)


class Exporter:
    """A process that is scraped, as far as its metrics go."""

    def __init__(self, port: int) -> None:
        self.address = f"{HOST}:{port}"
        self._port = port
        self.start()

    def start(self) -> None:
        """Counts from zero."""
        registry = CollectorRegistry()
        self.orders = Counter("shop_orders", "Orders.", ["plan"], registry=registry)
        self.render = Histogram("shop_render_seconds", "Time.", buckets=BOUNDS, registry=registry)
        self.depth = Gauge("shop_depth", "Depth.", registry=registry)
        self._server, self._thread = start_http_server(self._port, HOST, registry)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def work(self, times: int) -> None:
        """Two orders and two observations each, whose sum is exact."""
        for _ in range(times):
            self.orders.labels("pro").inc(2)
            self.render.observe(0.25)
            self.render.observe(2.0)
            self.depth.inc()


@dataclass(frozen=True)
class Sender(Prometheus):
    """A Prometheus that passes on what it scrapes, in requests too small for all parts of a histogram."""

    targets: list[str] = field(default_factory=list)
    remote_write: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        super().prepare()
        queue = {"batch_send_deadline": "100ms", "max_samples_per_send": 3, "min_shards": 4, "max_backoff": "200ms"}
        keep = {"source_labels": ["__name__"], "regex": "shop_.*", "action": "keep"}
        configuration = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
            "scrape_configs": [{"job_name": "shop", "static_configs": [{"targets": self.targets}]}],
            "remote_write": [{**self.remote_write, "queue_config": queue, "write_relabel_configs": [keep]}],
        }
        (self.folder / "prometheus.yml").write_text(json.dumps(configuration))


@contextmanager
def exporting(ports: Ports) -> Iterator[list[Exporter]]:
    exporters = [Exporter(ports.server("postgres")), Exporter(ports.server("valkey"))]
    try:
        yield exporters
    finally:
        for each in exporters:
            each.stop()


@pytest.fixture
async def shop(project: Project) -> Project:
    await project.define("shop_orders_total", labels=[{"name": "plan"}])
    await project.define("shop_render_seconds", "histogram", unit="seconds", buckets=list(BOUNDS))
    await project.define("shop_depth", "gauge", labels=[{"name": "instance"}])
    return project


async def test_what_prometheus_scrapes_counts_exactly_through_restarts_and_lost_answers(
    shop: Project, tmp_path: Path, prometheus_binary: Path, port_blocks: Callable[[], Ports]
) -> None:
    ports, worked = port_blocks(), 0

    async def shows(times: int) -> None:
        await shop.shows('shop_orders_total{plan="pro"}', 2 * times, within_seconds=40)
        await shop.shows("shop_render_seconds_count", 2 * times)
        await shop.shows('shop_render_seconds_bucket{le="0.1"}', 0)
        await shop.shows('shop_render_seconds_bucket{le="0.5"}', times)
        await shop.shows('shop_render_seconds_bucket{le="+Inf"}', 2 * times)
        await shop.shows("shop_render_seconds_sum", 2.25 * times)

    with exporting(ports) as exporters:
        async with losing_answers(shop.api.base_url, every=7) as base_url:
            sender = Sender(
                binary=prometheus_binary,
                folder=tmp_path / "sender",
                port=ports.server("prometheus"),
                log=tmp_path / "sender.log",
                targets=[each.address for each in exporters],
                remote_write={
                    "url": f"{base_url}/api/v1/write",
                    "authorization": {"credentials": shop.secret_key},
                },
            )
            with running(sender):
                for times in (50, 30, 10):
                    for exporter in exporters:
                        exporter.work(times)
                        worked += times
                    await shows(worked)
                    exporters[0].stop()
                    exporters[0].start()
                await shop.shows(f'shop_depth{{instance="{exporters[0].address}"}}', 0)
                await shop.shows(f'shop_depth{{instance="{exporters[1].address}"}}', 90)
                await shows(worked)
