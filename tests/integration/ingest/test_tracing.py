"""One trace from the caller over gRPC and the log to Postgres."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.trace import SpanKind

from chassis import tracing
from tests.integration.ingest.pipeline import Pipeline


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it is sent: name and parent by span id, for each trace id."""

    def __init__(self) -> None:
        self.traces: dict[bytes, dict[bytes, tuple[str, bytes]]] = {}

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.traces.setdefault(span.trace_id, {})[span.span_id] = (span.name, span.parent_span_id)
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        server.stop(None)


async def test_a_batch_is_one_trace_from_its_request_to_its_commit(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    with collecting() as (collector, endpoint):
        with tracing.exporting("tests", endpoint):
            async with pipeline.running():
                for _ in range(2):
                    with tracing.span("request", kind=SpanKind.CLIENT):
                        await pipeline.send({"name": "orders_total", "value": 1})
                await pipeline.expect("orders_total{$project}", 2)
        requests = [spans for spans in collector.traces.values() if "request" in _names(spans)]
    assert len(requests) == 2
    call = "/pulsegate.ingest.v1.IngestService/IngestBatch"
    for spans in requests:
        assert _way_to_root(spans, "ingest commit") == ["ingest commit", call, call, "request"]
    assert any("postgres" in _names(spans) for spans in requests), "the commit's statements belong to a batch's trace"


def _names(spans: dict[bytes, tuple[str, bytes]]) -> list[str]:
    return [name for name, _ in spans.values()]


def _way_to_root(spans: dict[bytes, tuple[str, bytes]], name: str) -> list[str]:
    """The names from the only span of that name up to the root."""
    [identity] = [identity for identity, (each, _) in spans.items() if each == name]
    way = []
    while identity:
        each, identity = spans[identity]
        way.append(each)
    return way
