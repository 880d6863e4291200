"""OTLP in JSON: messages with the members and methods of their protobuf namesakes that `otlp` asks for.

Members are those of protobuf's JSON mapping, with OTLP's exceptions; unknown ones are ignored. 64-bit numbers are
strings or numbers: whoever reads them converts them.
"""

import msgspec

from services.ingest.errors import BatchTooLarge, MalformedJson

#: Objects in a body, about: more than fit into the largest body with attributes of some use.
_MOST_OBJECTS = 250_000

_Integer = int | str
_Double = float | str


class _Message(msgspec.Struct, rename="camel", gc=False):
    def HasField(self, name: str) -> bool:  # noqa: N802 - as in protobuf
        """Whether an optional member is there."""
        return getattr(self, name) is not None


class ArrayValue(_Message):
    values: list["AnyValue"] = []


class KeyValueList(_Message):
    values: list["KeyValue"] = []


class AnyValue(_Message):
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


class KeyValue(_Message):
    key: str = ""
    value: AnyValue = msgspec.field(default_factory=AnyValue)


class _Number(_Message):
    as_double: _Double | None = None
    as_int: _Integer | None = None

    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802 - as in protobuf
        """`as_double`, `as_int` or None."""
        return "as_double" if self.as_double is not None else "as_int" if self.as_int is not None else None


class Exemplar(_Number):
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


class NumberDataPoint(_Number):
    attributes: list[KeyValue] = []
    start_time_unix_nano: _Integer = 0
    time_unix_nano: _Integer = 0
    exemplars: list[Exemplar] = []
    flags: int = 0


class HistogramDataPoint(_Message):
    attributes: list[KeyValue] = []
    start_time_unix_nano: _Integer = 0
    time_unix_nano: _Integer = 0
    count: _Integer = 0
    sum: _Double | None = None
    bucket_counts: list[_Integer] = []
    explicit_bounds: list[_Double] = []
    exemplars: list[Exemplar] = []
    flags: int = 0


class ExponentialBuckets(_Message):
    offset: _Integer = 0
    bucket_counts: list[_Integer] = []


class ExponentialHistogramDataPoint(_Message):
    attributes: list[KeyValue] = []
    start_time_unix_nano: _Integer = 0
    time_unix_nano: _Integer = 0
    count: _Integer = 0
    sum: _Double | None = None
    scale: _Integer = 0
    zero_count: _Integer = 0
    zero_threshold: _Double = 0.0
    positive: ExponentialBuckets = msgspec.field(default_factory=ExponentialBuckets)
    negative: ExponentialBuckets = msgspec.field(default_factory=ExponentialBuckets)
    exemplars: list[Exemplar] = []
    flags: int = 0


class Gauge(_Message):
    data_points: list[NumberDataPoint] = []


class Sum(_Message):
    data_points: list[NumberDataPoint] = []
    aggregation_temporality: int = 0
    is_monotonic: bool = False


class Histogram(_Message):
    data_points: list[HistogramDataPoint] = []
    aggregation_temporality: int = 0


class ExponentialHistogram(_Message):
    data_points: list[ExponentialHistogramDataPoint] = []
    aggregation_temporality: int = 0


class Untaken(_Message):
    """Summaries, whose points are only counted."""

    data_points: list[msgspec.Raw] = []


class Metric(_Message):
    name: str = ""
    unit: str = ""
    gauge: Gauge = msgspec.field(default_factory=Gauge)
    sum: Sum = msgspec.field(default_factory=Sum)
    histogram: Histogram = msgspec.field(default_factory=Histogram)
    exponential_histogram: ExponentialHistogram = msgspec.field(default_factory=ExponentialHistogram)
    summary: Untaken = msgspec.field(default_factory=Untaken)


class InstrumentationScope(_Message):
    name: str = ""
    version: str = ""
    attributes: list[KeyValue] = []


class ScopeMetrics(_Message):
    scope: InstrumentationScope = msgspec.field(default_factory=InstrumentationScope)
    metrics: list[Metric] = []


class Resource(_Message):
    attributes: list[KeyValue] = []


class ResourceMetrics(_Message):
    resource: Resource = msgspec.field(default_factory=Resource)
    scope_metrics: list[ScopeMetrics] = []


class ExportMetricsServiceRequest(_Message):
    resource_metrics: list[ResourceMetrics] = []


_decoder = msgspec.json.Decoder(ExportMetricsServiceRequest)


def parse(body: bytes) -> ExportMetricsServiceRequest:
    """The request. Raises MalformedJson, and BatchTooLarge where it would take up far more memory than its bytes."""
    if body.count(b"{") > _MOST_OBJECTS:
        raise BatchTooLarge(f"A request in JSON has at most {_MOST_OBJECTS} objects.")
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise MalformedJson(f"The body is no OTLP metrics request in JSON: {reason}.") from error
