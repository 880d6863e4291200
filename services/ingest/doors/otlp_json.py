"""OTLP in JSON: messages with the members and methods of their protobuf namesakes that `otlp` asks for.

Members are those of protobuf's JSON mapping, with OTLP's exceptions; unknown ones are ignored, and `null` is as good as
none. Numbers are strings or numbers: whoever reads them converts them.
"""

import re
from collections.abc import Sequence

import msgspec

from services.ingest.errors import BatchTooLarge, MalformedJson
from services.ingest.turns import Steps

#: Objects in a body, about: more than fit into the largest body with attributes of some use.
_MOST_OBJECTS = 250_000
#: Commas: numbers in arrays are short, and an object each in memory.
_MOST_COMMAS = 750_000

_Integer = int | str
_Double = float | str


class _Message(msgspec.Struct, rename="camel", gc=False, frozen=True):
    def HasField(self, name: str) -> bool:  # noqa: N802 - as in protobuf
        """Whether an optional member is there."""
        return getattr(self, name) is not None


class ArrayValue(_Message, frozen=True):
    values: Sequence["AnyValue"] = ()


class KeyValueList(_Message, frozen=True):
    values: Sequence["KeyValue"] = ()


class AnyValue(_Message, frozen=True):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: _Integer | None = None
    double_value: _Double | None = None
    array_value: ArrayValue | None = None
    kvlist_value: KeyValueList | None = None
    bytes_value: str | None = None

    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802 - as in protobuf
        """The name of the member that is there."""
        return next((name for name in self.__struct_fields__ if getattr(self, name) is not None), None)


class KeyValue(_Message, frozen=True):
    key: str = ""
    value: AnyValue = AnyValue()


class _Number(_Message, frozen=True):
    as_double: _Double | None = None
    as_int: _Integer | None = None

    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802 - as in protobuf
        """`as_double`, `as_int` or None."""
        return "as_double" if self.as_double is not None else "as_int" if self.as_int is not None else None


class Exemplar(_Number, frozen=True):
    time_unix_nano: _Integer = 0
    #: In hexadecimal digits, as OTLP has it, where protobuf's mapping would have Base64.
    trace_id_text: str = msgspec.field(default="", name="traceId")
    span_id_text: str = msgspec.field(default="", name="spanId")

    @property
    def trace_id(self) -> bytes:
        """Raises ValueError."""
        return bytes.fromhex(self.trace_id_text)

    @property
    def span_id(self) -> bytes:
        """Raises ValueError."""
        return bytes.fromhex(self.span_id_text)


class NumberDataPoint(_Number, frozen=True):
    attributes: Sequence[KeyValue] = ()
    start_time_unix_nano: _Integer = 0
    time_unix_nano: _Integer = 0
    exemplars: Sequence[Exemplar] = ()
    flags: _Integer = 0


class HistogramDataPoint(_Message, frozen=True):
    attributes: Sequence[KeyValue] = ()
    start_time_unix_nano: _Integer = 0
    time_unix_nano: _Integer = 0
    count: _Integer = 0
    sum: _Double | None = None
    bucket_counts: Sequence[_Integer] = ()
    explicit_bounds: Sequence[_Double] = ()
    exemplars: Sequence[Exemplar] = ()
    flags: _Integer = 0


class ExponentialBuckets(_Message, frozen=True):
    offset: _Integer = 0
    bucket_counts: Sequence[_Integer] = ()


class ExponentialHistogramDataPoint(_Message, frozen=True):
    attributes: Sequence[KeyValue] = ()
    start_time_unix_nano: _Integer = 0
    time_unix_nano: _Integer = 0
    count: _Integer = 0
    sum: _Double | None = None
    scale: _Integer = 0
    zero_count: _Integer = 0
    zero_threshold: _Double = 0.0
    positive: ExponentialBuckets = ExponentialBuckets()
    negative: ExponentialBuckets = ExponentialBuckets()
    exemplars: Sequence[Exemplar] = ()
    flags: _Integer = 0


class Gauge(_Message, frozen=True):
    data_points: Sequence[NumberDataPoint] = ()


class Sum(_Message, frozen=True):
    data_points: Sequence[NumberDataPoint] = ()
    aggregation_temporality: int = 0
    is_monotonic: bool = False


class Histogram(_Message, frozen=True):
    data_points: Sequence[HistogramDataPoint] = ()
    aggregation_temporality: int = 0


class ExponentialHistogram(_Message, frozen=True):
    data_points: Sequence[ExponentialHistogramDataPoint] = ()
    aggregation_temporality: int = 0


class Untaken(_Message, frozen=True):
    """Summaries, whose points are only counted."""

    data_points: Sequence[msgspec.Raw] = ()


class Metric(_Message, frozen=True):
    name: str = ""
    unit: str = ""
    gauge: Gauge = Gauge()
    sum: Sum = Sum()
    histogram: Histogram = Histogram()
    exponential_histogram: ExponentialHistogram = ExponentialHistogram()
    summary: Untaken = Untaken()


class InstrumentationScope(_Message, frozen=True):
    name: str = ""
    version: str = ""
    attributes: Sequence[KeyValue] = ()


class ScopeMetrics(_Message, frozen=True):
    scope: InstrumentationScope = InstrumentationScope()
    metrics: Sequence[Metric] = ()


class Resource(_Message, frozen=True):
    attributes: Sequence[KeyValue] = ()


class ResourceMetrics(_Message, frozen=True):
    resource: Resource = Resource()
    scope_metrics: Sequence[ScopeMetrics] = ()


class ExportMetricsServiceRequest(_Message, frozen=True):
    resource_metrics: Sequence[ResourceMetrics] = ()


_decoder = msgspec.json.Decoder(ExportMetricsServiceRequest)
#: A string of a valid text, and what follows it where it names a member that is null.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"(\s*+:\s*+null)?', re.DOTALL)
_STRINGS_AT_A_TIME = 1_000


def parse(body: bytes) -> Steps[ExportMetricsServiceRequest]:
    """The request. Raises MalformedJson, and BatchTooLarge where it would take up far more memory than its bytes."""
    if body.count(b"{") > _MOST_OBJECTS:
        raise BatchTooLarge(f"A request in JSON has at most {_MOST_OBJECTS} objects.")
    if body.count(b",") > _MOST_COMMAS:
        raise BatchTooLarge(f"A request in JSON has at most {_MOST_COMMAS} commas.")
    try:
        try:
            return _decoder.decode(body)
        except msgspec.ValidationError:
            if b"null" not in body:
                raise
            msgspec.json.decode(body, type=msgspec.Raw)  # raises where it is no JSON at all
        return _decoder.decode((yield from _without_nulls(body)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise MalformedJson(f"The body is no OTLP metrics request in JSON: {reason}.") from error


def _without_nulls(body: bytes) -> Steps[bytes]:
    """The same JSON, in which members that are null have a name that nothing has."""
    kept, done = bytearray(), 0
    for number, string in enumerate(_STRING.finditer(body)):
        if string[1]:
            kept += body[done : string.start()] + b'""'
            done = string.start(1)
        if number % _STRINGS_AT_A_TIME == 0:
            yield
    return bytes(kept + body[done:])
