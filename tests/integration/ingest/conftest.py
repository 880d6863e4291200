"""Fixture: `pipeline`, a `Pipeline` of its own for each test, not started."""

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from deploy.local.layout import Ports
from deploy.local.servers import Nats, Prometheus
from services.ingest.settings import AggregatorSettings, ReceiverSettings
from tests.integration.ingest.pipeline import SERVICE_TOKEN, Pipeline
from tests.integration.ingest.upstreams import serving
from tests.suite_database import Database
from tests.suite_servers import RunningServer


@pytest.fixture
async def pipeline(
    nats_server: RunningServer[Nats],
    prometheus_server: RunningServer[Prometheus],
    database: Database,
    port_blocks: Callable[[], Ports],
) -> AsyncIterator[Pipeline]:
    ports = port_blocks()
    common: dict[str, Any] = {
        "host": "127.0.0.1",
        "service_token": SERVICE_TOKEN,
        "log_level": "info",
        "otlp_endpoint": None,
        "drain_seconds": 2.0,
        "nats_urls": (nats_server.server.url,),
        "stream": f"TEST_{database.name}_{ports.public}",
        "lanes": 1,
        "log_replicas": 1,
        "log_most_bytes": 64 << 20,
    }
    async with serving() as upstreams:
        yield Pipeline(
            upstreams=upstreams,
            prometheus_url=prometheus_server.server.url,
            database=database,
            new_ports=port_blocks,
            receiver_settings=ReceiverSettings(
                **common,
                operations_port=ports.operations("receiver"),
                grpc_port=ports.grpc("receiver"),
                auth_address=upstreams.address,
                config_address=upstreams.address,
                append_timeout_seconds=2.0,
                most_queued_bytes=64 << 20,
            ),
            aggregator_settings=AggregatorSettings(
                **common,
                operations_port=ports.operations("aggregator"),
                dsn=database.dsn("ingest"),
                remote_write_url=f"{prometheus_server.server.url}/api/v1/write",
                commit_interval_seconds=0.2,
                lease_seconds=2.0,
                stale_after_seconds=86_400,
                most_series_per_project=100_000,
                most_series_per_metric=10_000,
                most_series_per_tenant=600_000,
                most_series_per_lane=1_200_000,
                most_stored_series_per_project=1_000_000,
                most_producers_per_project=10_000,
                most_sources_per_project=10_000,
                log_keep_seconds=600.0,
                sink_oldest_seconds=7 * 86_400,
                sink_native_oldest_seconds=3_000,
                sink_most_pending_bytes=512 << 20,
            ),
        )


@pytest.fixture
def reading(pipeline: Pipeline) -> Pipeline:
    """Whose receiver reads the ledger."""
    dsn = pipeline.database.dsn("ingest")
    pipeline.receiver_settings = dataclasses.replace(pipeline.receiver_settings, dsn=dsn)
    return pipeline
