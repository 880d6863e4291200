"""The log's format: one batch is one record, a frame is one log message with the records of many batches.

A record is self-contained, so that the aggregator never reads definitions. MessagePack arrays; `version` comes first
and any reader refuses a version that it does not know. Fields are only ever added at the end.
"""

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from services.ingest.domain import MetricType
from services.ingest.errors import UnreadableLogError

VERSION = 1


class Kind(IntEnum):
    """What a record's values mean."""

    #: To be added to (counters, histograms, summaries) or merged with (gauges) what is there.
    DELTA = 1
    #: Totals of a cumulative source since its start. Reserved: other doors write them.
    CUMULATIVE = 2
    #: A group's series as they are now. Reserved: other doors write them.
    REPLACE = 3
    #: The definitions named in `metrics` were deleted: their series end.
    END = 4


class SeriesDelta(msgspec.Struct, array_like=True):
    """One label set's part of a batch, equal label sets already folded."""

    id: bytes
    #: Names and values, alternating, sorted by name.
    labels: tuple[str, ...]
    #: A counter's increment, a gauge's level, the sum of a histogram's or summary's observations.
    value: float
    #: How many observations.
    count: int = 0
    #: Observations in each bucket (not cumulative), the last one +Inf's. Empty for other types.
    buckets: list[int] = []
    #: A gauge's timestamp, Unix milliseconds.
    timestamp_ms: int = 0


class MetricDelta(msgspec.Struct, array_like=True):
    """One metric's part of a batch, with what the aggregator must know of its definition."""

    definition_id: bytes
    name: str
    type: MetricType
    bounds: tuple[float, ...]
    #: Limits of distinct values, by label.
    max_distinct: dict[str, int]
    series: list[SeriesDelta]


class Record(msgspec.Struct, array_like=True):
    """One batch. Ids are the 16 bytes of a UUID."""

    version: int
    kind: Kind
    tenant_id: bytes
    project_id: bytes
    #: Empty where the client named no producer; then `sequence` and `floor` are 0.
    producer: bytes
    sequence: int
    #: Everything below it is settled; 0: the client did not say.
    floor: int
    #: The receiver's clock, Unix milliseconds.
    received_ms: int
    metrics: list[MetricDelta]
    #: W3C trace context of the request; empty where it is not traced.
    traceparent: str = ""


_encoder = msgspec.msgpack.Encoder()
_frame_decoder = msgspec.msgpack.Decoder(list[bytes])
_record_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """The record's bytes."""
    return _encoder.encode(record)


def encode_frame(records: Sequence[bytes]) -> bytes:
    """One log message."""
    return _encoder.encode(records)


def decode_frame(frame: bytes) -> list[Record]:
    """The records of a log message, in order. Raises UnreadableLogError on anything this version cannot read."""
    try:
        return [_decode(encoded) for encoded in _frame_decoder.decode(frame)]
    except msgspec.DecodeError as error:
        raise UnreadableLogError(f"a frame of {len(frame)} bytes cannot be read: {error}") from error


def _decode(encoded: bytes) -> Record:
    record = _record_decoder.decode(encoded)
    if record.version != VERSION or record.kind not in (Kind.DELTA, Kind.END):
        raise UnreadableLogError(f"a record of version {record.version}, kind {record.kind}, is unknown here")
    return record
