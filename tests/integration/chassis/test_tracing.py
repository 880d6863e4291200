"""Traces as a collector receives them: one from the HTTP request over gRPC to Postgres."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from aiohttp import ClientSession, web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.trace import SpanKind

from chassis import grpc_client, grpc_server, http_server, metrics, postgres, tracing
from chassis.errors import Conflict, Unavailable
from chassis.health import Health
from chassis.postgres import Database
from chassis.principals import PrincipalVerifier
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from contracts.pulsegate.config.v1 import definitions_pb2_grpc as pb_grpc
from deploy.local.layout import Ports
from services.config.callers import CALLERS
from tests.integration.chassis.conftest import Schema

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP receiver that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()

    def Export(self, request: Any, _call: Any) -> Any:  # noqa: N802
        for resource in request.resource_spans:
            names = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
            self.services.add(names["service.name"])
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> Any:
        """The one span of this name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def endpoint(collector: Collector, port_blocks: Callable[[], Ports]) -> Iterator[str]:
    port = port_blocks().public
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None)


class Backend(pb_grpc.DefinitionServiceServicer):
    """Asks the database, in a call."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def GetMetric(self, request: Any, _call: Any) -> pb.GetMetricResponse:  # noqa: N802
        async with self._database.transaction(tenant_id="a") as connection:
            await connection.execute("SELECT %s::text AS found", ("CANARY",))
        return pb.GetMetricResponse(metric=pb.Metric(id="found"))


@pytest.fixture
async def front(schema: Schema, port_blocks: Callable[[], Ports]) -> AsyncIterator[str]:
    """The address of an HTTP server that calls a gRPC server that asks Postgres."""
    ports = port_blocks()

    async def no_keys() -> str:
        return '{"keys": []}'

    async def handle(request: web.Request) -> web.Response:
        with tracing.span("GET /metric", kind=SpanKind.SERVER, carrier=request.headers):
            stub = pb_grpc.DefinitionServiceStub(channel.grpc_channel)
            answer = await channel.call(stub.GetMetric, pb.GetMetricRequest())
        return web.Response(text=answer.metric.id)

    app = web.Application()
    app.add_routes([web.get("/metric", handle)])
    async with (
        postgres.connected(schema.dsn) as database,
        grpc_server.serving(
            "127.0.0.1",
            ports.grpc("config"),
            [lambda server: pb_grpc.add_DefinitionServiceServicer_to_server(Backend(database), server)],  # type: ignore[abstract]
            callers=CALLERS,
            service_token="shared",
            verifier=PrincipalVerifier(no_keys),
            process_health=Health(),
        ),
        grpc_client.connected("backend", f"127.0.0.1:{ports.grpc('config')}", "shared") as channel,
        http_server.serving(app, "127.0.0.1", ports.public),
    ):
        yield f"http://127.0.0.1:{ports.public}/metric"


async def get(address: str, **headers: str) -> None:
    async with ClientSession() as session, session.get(address, headers=headers) as response:
        assert response.status == 200


async def test_one_trace_leads_from_the_request_over_grpc_to_postgres(
    front: str, endpoint: str, collector: Collector
) -> None:
    with tracing.exporting("test", endpoint):
        await get(front, traceparent=TRACEPARENT)
    method = "/pulsegate.config.v1.DefinitionService/GetMetric"
    request = collector.named("GET /metric")
    called, served = sorted(
        (span for span in collector.spans if span.name == method), key=lambda span: span.start_time_unix_nano
    )
    (query,) = [span for span in collector.spans if any("found" in str(item) for item in span.attributes)]

    assert collector.services == {"pulsegate-test"}
    assert {span.trace_id.hex() for span in (request, called, served, query)} == {TRACEPARENT[3:35]}
    assert request.parent_span_id.hex() == TRACEPARENT[36:52]
    assert called.parent_span_id == request.span_id
    assert served.parent_span_id == called.span_id
    assert query.parent_span_id == served.span_id
    assert "CANARY" not in str(collector.spans)


async def test_without_a_caller_that_traces_a_new_trace_begins(front: str, endpoint: str, collector: Collector) -> None:
    with tracing.exporting("test", endpoint):
        await get(front)
        await get(front)
    requests = [span for span in collector.spans if span.name == "GET /metric"]
    assert len({span.trace_id for span in requests}) == 2
    assert all(not span.parent_span_id for span in requests)


async def test_a_caller_that_does_not_sample_is_followed(front: str, endpoint: str, collector: Collector) -> None:
    with tracing.exporting("test", endpoint):
        await get(front, traceparent=f"{TRACEPARENT[:-2]}00")
    assert collector.spans == []


async def test_without_an_endpoint_nothing_is_recorded_nor_sent_on(front: str) -> None:
    with tracing.exporting("test", None):
        await get(front, traceparent=TRACEPARENT)
        assert not tracing.enabled()
        carrier: dict[str, str] = {}
        with tracing.span("here"):
            tracing.inject(carrier)
    assert carrier == {}


async def test_a_collector_that_is_away_hurts_nobody(front: str, port_blocks: Callable[[], Ports]) -> None:
    with tracing.exporting("test", f"http://127.0.0.1:{port_blocks().public}"):
        await get(front)
        began = time.monotonic()
    assert time.monotonic() - began < 40  # at the end it tries for a while to get rid of what it has


async def test_errors_are_named_in_traces_and_not_quoted(endpoint: str, collector: Collector) -> None:
    with tracing.exporting("test", endpoint):
        errors = {"refused": Conflict("CANARY"), "away": Unavailable("CANARY"), "broken": OSError("CANARY")}
        for name, error in errors.items():
            with pytest.raises(type(error)), tracing.span(name):
                raise error
    told = {
        span.name: (span.status.code, {entry.key: entry.value.string_value for entry in span.attributes}["error.type"])
        for span in collector.spans
    }
    assert told == {
        "refused": (Status.STATUS_CODE_UNSET, "CONFLICT"),
        "away": (Status.STATUS_CODE_ERROR, "SERVICE_UNAVAILABLE"),
        "broken": (Status.STATUS_CODE_ERROR, "OSError"),
    }
    assert "CANARY" not in str(collector.spans)


async def test_metrics_lead_to_sampled_traces_for_those_who_ask_for_openmetrics(
    endpoint: str, port_blocks: Callable[[], Ports]
) -> None:
    def observe(seconds: float) -> None:
        metrics.POSTGRES_QUERIES.observe(seconds, tracing.exemplar())

    with tracing.exporting("test", endpoint):
        with tracing.span("sampled", carrier={"traceparent": TRACEPARENT}):
            observe(0.01)
        with tracing.span("not sampled", carrier={"traceparent": f"00-{'f' * 32}-{'f' * 16}-00"}):
            observe(0.02)
    observe(0.03)
    port = port_blocks().public
    async with http_server.serving_operations("127.0.0.1", port, Health()), ClientSession() as session:
        address = f"http://127.0.0.1:{port}/metrics"
        async with session.get(address, headers={"Accept": "application/openmetrics-text; version=1.0.0"}) as response:
            assert response.content_type == "application/openmetrics-text"
            openmetrics = await response.text()
        async with session.get(address) as response:
            assert response.content_type == "text/plain"
            plain = await response.text()
    exemplars = [line for line in openmetrics.splitlines() if " # {" in line and "postgres_query" in line]
    assert sum(TRACEPARENT[3:35] in line and float(line.split()[-2]) == 0.01 for line in exemplars) == 1
    assert "f" * 32 not in openmetrics
    assert " # {" not in plain
