"""An OTLP collector for tests: it keeps the spans that it is sent."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """`spans` are complete once the exporting process has stopped exporting; others send theirs every five seconds."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        #: The service that made a span, by the span's id.
        self.services: dict[bytes, str] = {}
        self.endpoint = ""

    def Export(self, request: Any, _call: Any) -> Any:  # noqa: N802
        for resource in request.resource_spans:
            spans = [span for scope in resource.scope_spans for span in scope.spans]
            told = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
            self.services.update((span.span_id, told["service.name"].removeprefix("pulsegate-")) for span in spans)
            self.spans += spans
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[Collector]:
    """Collects while open, at the collector's `endpoint`."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None)
