"""OpenTelemetry traces by OTLP: one trace from the HTTP request over gRPC and the log to Postgres.

Off unless an endpoint is configured; then every function here costs one attribute look-up.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

_propagator = TraceContextTextMapPropagator()


class _State:
    provider: TracerProvider | None = None


@contextmanager
def exporting(service: str, endpoint: str | None, sample_ratio: float = 1.0) -> Iterator[None]:
    """Exports spans to the OTLP endpoint (gRPC, such as `http://host:4317`) while open; flushes them at the end.

    Does nothing where the endpoint is None. Call it once in a process.
    """
    if endpoint is None:
        yield
        return
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"pulsegate-{service}"}),
        sampler=ParentBasedTraceIdRatio(sample_ratio),
    )
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _State.provider = provider
    try:
        yield
    finally:
        _State.provider = None
        provider.shutdown()


def enabled() -> bool:
    """Whether spans are recorded at all."""
    return _State.provider is not None


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    carrier: Mapping[str, str] | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Iterator[Span]:
    """A span around a block, current within it. With `carrier` it continues the trace named there (W3C headers)."""
    if _State.provider is None:
        yield trace.INVALID_SPAN
        return
    parent = _propagator.extract(dict(carrier)) if carrier is not None else None
    tracer = _State.provider.get_tracer("pulsegate")
    with tracer.start_as_current_span(name, context=parent, kind=kind, attributes=attributes) as current:
        yield current


def inject(carrier: MutableMapping[str, str]) -> None:
    """Writes the current trace into the carrier, as W3C `traceparent`."""
    if _State.provider is not None:
        _propagator.inject(carrier)
