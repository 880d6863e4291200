"""OpenTelemetry traces by OTLP: one trace from the HTTP request over gRPC and the log to Postgres and the sinks.

Off unless an endpoint is configured; then every function here costs one attribute look-up.
"""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Sampler
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from chassis.errors import PulsegateError

_propagator = TraceContextTextMapPropagator()


class _State:
    provider: TracerProvider | None = None


@contextmanager
def exporting(service: str, endpoint: str | None, sampler: Sampler = DEFAULT_ON) -> Iterator[None]:
    """Exports spans to the OTLP endpoint (gRPC, such as `http://host:4317`) while open; flushes them at the end.

    Does nothing where the endpoint is None. Call it once in a process.
    """
    if endpoint is None:
        yield
        return
    resource = Resource.create({"service.name": f"pulsegate-{service}", "service.namespace": "pulsegate"})
    provider = TracerProvider(resource=resource, sampler=sampler)
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


def sampled() -> bool:
    """Whether there is a current span that is recorded."""
    return _State.provider is not None and trace.get_current_span().get_span_context().trace_flags.sampled


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    carrier: Mapping[str, str] | None = None,
    attributes: Attributes = None,
) -> Iterator[Span]:
    """A span around a block, current within it. With `carrier` it continues the trace named there (W3C headers).

    An error that ends the block is named by its code or its class, never by its message: that may quote data.
    """
    if _State.provider is None:
        yield trace.INVALID_SPAN
        return
    parent = _propagator.extract(dict(carrier)) if carrier is not None else None
    tracer = _State.provider.get_tracer("pulsegate")
    with tracer.start_as_current_span(
        name, context=parent, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except PulsegateError as error:
            failed(current, error.code, by_us=error.http_status >= 500)
            raise
        except Exception as error:
            failed(current, type(error).__qualname__)
            raise


def failed(current: Span, error_type: str, *, by_us: bool = True) -> None:
    """Says of a span how it failed; where a caller was refused with reason, it is no error."""
    current.set_attribute("error.type", error_type)
    if by_us:
        current.set_status(StatusCode.ERROR)


@contextmanager
def spans(
    name: str,
    traceparents: Sequence[str],
    *,
    kind: SpanKind,
    attributes: Attributes,
) -> Iterator[Sequence[str]]:
    """A span in each of several traces around one block, which works for all of them; the last one is current.

    Their own `traceparent`s are for what continues them.
    """
    if _State.provider is None or not traceparents:
        yield ()
        return
    with ExitStack() as stack:
        opened = []
        for traceparent in traceparents:
            stack.enter_context(span(name, kind=kind, carrier={"traceparent": traceparent}, attributes=attributes))
            opened.append(sampled_traceparent())
        yield [each for each in opened if each]


def begun(name: str, *, kind: SpanKind, attributes: Attributes) -> Span:
    """A child of the current span, for what goes on after that: whoever calls ends it."""
    if _State.provider is None:
        return trace.INVALID_SPAN
    return _State.provider.get_tracer("pulsegate").start_span(name, kind=kind, attributes=attributes)


def inject(carrier: MutableMapping[str, str]) -> None:
    """Writes the current trace into the carrier, as W3C `traceparent`."""
    if _State.provider is not None:
        _propagator.inject(carrier)


def sampled_traceparent() -> str:
    """The current span as W3C `traceparent`; empty unless it is recorded."""
    if not sampled():
        return ""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier["traceparent"]


def exemplar() -> dict[str, str] | None:
    """The current span as the exemplar of what is observed now; None unless it is recorded."""
    if not sampled():
        return None
    current = trace.get_current_span().get_span_context()
    return {"trace_id": trace.format_trace_id(current.trace_id), "span_id": trace.format_span_id(current.span_id)}
