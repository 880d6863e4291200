"""The log's format: one batch is one record, a frame is one log message with the records of many batches.

A record is self-contained, so that the aggregator never reads definitions, and laid out in columns, so that it never
looks at the labels of a series that it knows: 100 metrics cost it one look-up each and a few array operations.

A frame is one byte, the format's version, and the MessagePack array of its records compressed with Snappy, which makes
the repeated labels cheap. Any reader refuses a version that it does not know. Fields are only ever added at the end.
"""

import sys
from array import array
from collections.abc import Iterable, Sequence
from enum import IntEnum
from struct import Struct

import cramjam
import msgspec

from services.ingest.domain import GaugeMerge, MetricType
from services.ingest.errors import UnreadableLogError

VERSION = 3
#: Version 2 knows neither merge rules nor bins.
_READABLE = frozenset({b"\x02", b"\x03"})

#: Bytes of a series id.
ID_BYTES = 16

_array_header = Struct(">BI")


class Kind(IntEnum):
    """What a record's values mean."""

    #: To be added to (counters, histograms, summaries) or merged with (gauges) what is there.
    DELTA = 1
    #: Totals of cumulative sources since their starts: see `Origins`.
    CUMULATIVE = 2
    # 3 was never written: keep it free.
    #: The definitions named in the record were deleted: their series end.
    END = 4
    #: No values, but what a receiver has counted: see `Tally`.
    TALLY = 5


class DefinitionFacts(msgspec.Struct, array_like=True, frozen=True):
    """What the aggregator must know of a definition."""

    id: bytes
    name: str
    type: MetricType
    #: A classic histogram's upper bounds; empty for other types.
    bounds: tuple[float, ...]
    #: Limits of distinct values, by label.
    max_distinct: dict[str, int]
    gauge_merge: GaugeMerge = GaugeMerge.LAST
    #: A summary's quantiles; empty for other types.
    objectives: tuple[float, ...] = ()


class Identity(msgspec.Struct, array_like=True, frozen=True):
    """Which series an id stands for."""

    definition_id: bytes
    #: Names and values, alternating, sorted by name.
    labels: tuple[str, ...]


class Distribution(msgspec.Struct, array_like=True):
    """What a batch observed of one histogram or summary series, equal label sets already folded."""

    id: bytes
    sum: float
    count: int
    #: Observations in each bucket (not cumulative), the last one +Inf's. A native histogram's as of
    #: `NativeBuckets.packed`. Empty for a summary.
    buckets: list[int]
    #: Metrics of the batch that were folded into it.
    metrics: int = 1
    #: A summary's observations by bin, see `sketches.bin_of`; empty for a histogram.
    bins: dict[int, int] = {}


class Tally(msgspec.Struct, array_like=True, frozen=True):
    """Metrics that a receiver told something about by itself."""

    #: Empty where the name is not to be had, or names are too many.
    metric: str
    #: Of their rejection; empty: they are duplicates of what is durable.
    code: str
    count: int
    #: What the last one that was rejected was told.
    example: str


class RecordedExemplar(msgspec.Struct, array_like=True, frozen=True):
    """The trace of an observation: see `exemplars`."""

    #: The id of its series.
    series: bytes
    value: float
    trace_id: bytes
    span_id: bytes


#: Which part of its series a scalar total is: a counter's value or the sum of a histogram's observations; their count;
#: or, from `PART_BUCKETS` on, how many of them lie in a bucket *or a lower one*.
PART_VALUE, PART_COUNT, PART_BUCKETS = 0, 1, 2


class Origins(msgspec.Struct, array_like=True, frozen=True):
    """Where the totals of a cumulative record come from, a column for all its series, scalars and distributions."""

    #: 16 bytes for what identifies the series at its source, and the run of the source, as far as that is known.
    sources: bytes
    #: When the source took the total, Unix nanoseconds, int64, little-endian.
    taken_ns: bytes
    #: See `PART_VALUE`; of the scalar series alone, int64, little-endian; empty where all are that.
    parts: bytes = b""
    #: A byte each: 1 where the total of a source that is new adds nothing, because nobody knows when it began, else 0;
    #: empty where none is such a one.
    baselines: bytes = b""


class Record(msgspec.Struct, array_like=True, kw_only=True):
    """One batch. Ids of tenants, projects, producers and definitions are the 16 bytes of a UUID.

    Its series are first the scalar ones, counters and gauges in the order of the batch and as often as they come, then
    the distributions.
    """

    kind: Kind
    tenant_id: bytes
    project_id: bytes
    #: Empty where the client named no producer; then `sequence` and `floor` are 0.
    producer: bytes = b""
    sequence: int = 0
    #: Everything below it is settled; 0: the client did not say.
    floor: int = 0
    #: The receiver's clock, Unix milliseconds.
    received_ms: int
    #: Of all series in the record.
    definitions: list[DefinitionFacts]
    #: The ids of the scalar series, one after the other.
    ids: bytes = b""
    #: A counter's increment or a gauge's level for each of them, float64, little-endian.
    values: bytes = b""
    #: A gauge's timestamp for each of them, Unix milliseconds, int64, little-endian, 0 for a counter; empty where all
    #: are counters.
    timestamps: bytes = b""
    distributions: list[Distribution] = []
    #: The `Identity` of each series, scalar ones and distributions, encoded, one after the other: see `identities_of`.
    identities: bytes = b""
    #: W3C trace context of the request; empty where it is not traced.
    traceparent: str = ""
    tallies: list[Tally] = []
    #: Of a cumulative record, whose values and distributions are totals.
    origins: Origins | None = None
    #: At most one for each series.
    exemplars: list[RecordedExemplar] = []
    #: Who reports the level of each scalar series, 16 bytes, for gauges that are merged; empty where the producer does.
    reporters: bytes = b""


_encoder = msgspec.msgpack.Encoder()
_frame_decoder = msgspec.msgpack.Decoder(list[Record])
_identities_decoder = msgspec.msgpack.Decoder(list[Identity])


def encode_identity(identity: Identity) -> bytes:
    """A series' part of `Record.identities`, which its writer keeps and uses again."""
    return _encoder.encode(identity)


def identities_of(record: Record) -> list[Identity]:
    """The identities of all series of the record, in order. Raises UnreadableLogError."""
    count = len(record.ids) // ID_BYTES + len(record.distributions)
    try:
        identities = _identities_decoder.decode(_array_header.pack(0xDD, count) + record.identities)
    except msgspec.DecodeError as error:
        raise UnreadableLogError(f"the identities of a record cannot be read: {error}") from error
    return identities


def float64s(values: Iterable[float]) -> bytes:
    """Numbers as a column of the record."""
    return _little_endian(array("d", values))


def int64s(values: Iterable[int]) -> bytes:
    """Whole numbers as a column of the record."""
    return _little_endian(array("q", values))


def _little_endian(column: "array[float] | array[int]") -> bytes:
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def encode(record: Record) -> bytes:
    """The record's bytes."""
    return _encoder.encode(record)


def encode_frame(records: Sequence[bytes]) -> bytes:
    """One log message of encoded records."""
    packed = b"".join((_array_header.pack(0xDD, len(records)), *records))
    return bytes((VERSION,)) + bytes(cramjam.snappy.compress_raw(packed))


def decode_frame(frame: bytes) -> list[Record]:
    """The records of a log message, in order. Raises UnreadableLogError on anything this version cannot read."""
    if frame[:1] not in _READABLE:
        raise UnreadableLogError(f"a frame of version {frame[:1].hex()} is unknown here")
    try:
        records = _frame_decoder.decode(cramjam.snappy.decompress_raw(frame[1:]))
    except (msgspec.DecodeError, cramjam.DecompressionError) as error:
        raise UnreadableLogError(f"a frame of {len(frame)} bytes cannot be read: {error}") from error
    for record in records:
        _check(record)
    return records


def _check(record: Record) -> None:
    scalars = len(record.ids) // ID_BYTES
    whole = len(record.ids) == scalars * ID_BYTES and len(record.values) == scalars * 8
    whole = whole and len(record.reporters) in (0, len(record.ids))
    if not whole or len(record.timestamps) not in (0, scalars * 8):
        raise UnreadableLogError("the columns of a record differ in length")
    if record.kind is Kind.CUMULATIVE:
        _check_origins(record.origins, scalars, scalars + len(record.distributions))


def _check_origins(origins: Origins | None, scalars: int, series: int) -> None:
    if origins is None:
        raise UnreadableLogError("a cumulative record does not say where its totals come from")
    whole = len(origins.sources) == series * ID_BYTES and len(origins.taken_ns) == series * 8
    whole = whole and len(origins.baselines) in (0, series)
    if not whole or len(origins.parts) not in (0, scalars * 8):
        raise UnreadableLogError("the columns of a record differ in length")
