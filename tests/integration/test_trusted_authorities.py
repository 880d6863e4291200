"""Servers whose certificates an authority of the installation's own has signed, and what the chart tells pods of it."""

import asyncio
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from deploy.local.authority import Authority, Leaf
from deploy.local.layout import CHECKOUT, Ports
from deploy.local.servers import Nats, Postgres, Prometheus, Valkey
from tests.chart_rendering import render
from tests.suite_servers import RunningServer, running
from tests.tls_front import tls_front
from tests.trace_collector import Collector

pytestmark = pytest.mark.timeout(180)

_MOUNTED = "/run/authorities/pulsegate/bundle.pem"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("a company's authority", datetime.now(UTC))


@pytest.fixture(scope="module")
def leaf(authority: Authority) -> Leaf:
    """Of every server here."""
    return authority.issue("localhost", now=datetime.now(UTC), life=timedelta(hours=1))


@pytest.fixture
def files(leaf: Leaf, authority: Authority, tmp_path: Path) -> Path:
    for name, text in {"tls.crt": leaf.certificate, "tls.key": leaf.key, "bundle.pem": authority.pem}.items():
        (tmp_path / name).write_bytes(text)
    return tmp_path


@pytest.fixture
def collector(leaf: Leaf) -> Iterator[Collector]:
    """A collector of traces that speaks TLS."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    credentials = grpc.ssl_server_credentials([(leaf.key, leaf.certificate)])
    collector.endpoint = f"https://localhost:{server.add_secure_port('localhost:0', credentials)}"
    server.start()
    yield collector
    server.stop(None)


@pytest.fixture
def log(files: Path, port_blocks: Callable[[], Ports]) -> Iterator[str]:
    """The address of a NATS that speaks TLS."""
    ports = port_blocks()
    server = Nats(
        folder=files / "nats",
        port=ports.server("nats"),
        monitoring_port=ports.server("nats-monitoring"),
        password="only-for-tests",
        log=files / "nats.log",
        further=f'tls {{ cert_file: "{files}/tls.crt", key_file: "{files}/tls.key" }}',
    )
    with running(server):
        yield server.url.replace("nats://", "tls://").replace("127.0.0.1", "localhost")


@pytest.fixture
async def addresses(
    files: Path,
    log: str,
    collector: Collector,
    postgres_server: RunningServer[Postgres],
    valkey_server: RunningServer[Valkey],
    prometheus_server: RunningServer[Prometheus],
) -> AsyncIterator[dict[str, str]]:
    """As an operator writes them."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files / "tls.crt", files / "tls.key")
    postgres, valkey = postgres_server.server, valkey_server.server
    async with AsyncExitStack() as stack:

        async def front(port: int, *, negotiated: bool = False) -> str:
            return f"localhost:{await stack.enter_async_context(tls_front(port, context, negotiated=negotiated))}"

        database = f"{await front(postgres.port, negotiated=True)}/postgres?sslmode=verify-full&sslrootcert=system"
        yield {
            "postgres": f"postgresql://postgres:{postgres.password}@{database}",
            "valkey": f"rediss://:{valkey.password}@{await front(valkey.port)}/0",
            "nats": log,
            "http": f"https://{await front(prometheus_server.server.port)}/-/ready",
            "otlp": collector.endpoint,
        }


async def _outcomes(addresses: dict[str, str], told: dict[str, str]) -> dict[str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.trusting_client", json.dumps(addresses)),
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], **told},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    outcomes: dict[str, str] = json.loads(said)
    return outcomes


async def test_what_the_chart_tells_every_pod_makes_each_of_them_believed(
    addresses: dict[str, str], files: Path, collector: Collector
) -> None:
    rendered = render(
        {"trustedAuthorities": {"configMap": "company", "key": "bundle.pem"}, "canary": {"enabled": True}}
    )
    told = [{name: text for name, text in pod.environment.items() if text == _MOUNTED} for pod in rendered.pods()]
    assert len(told) == 11
    assert all(each == told[0] for each in told)
    here = dict.fromkeys(told[0], str(files / "bundle.pem"))
    assert await _outcomes(addresses, here) == dict.fromkeys(addresses, "connected")
    assert [span.name for span in collector.spans] == ["a span"]


async def test_without_it_none_is_believed(addresses: dict[str, str], collector: Collector) -> None:
    outcomes = await _outcomes(addresses, {})
    assert outcomes.pop("otlp") == "connected"
    for outcome in outcomes.values():
        assert "certificate verify failed" in outcome.lower().replace("_", " "), outcomes
    assert not collector.spans
