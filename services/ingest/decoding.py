"""From a request's bytes to a typed batch: decompression under a limit, one JSON decode, the batch's own rules.

A well-formed batch is decoded in one go. Where that fails for a wrong type somewhere, each metric is decoded by itself,
so that a malformed one costs only itself. So does one with half a character in its text: JSON's grammar has escapes of
lone surrogates, which are left where a program cuts a text in the middle of an emoji, and UTF-8 has none.
"""

import re
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import cramjam
import msgspec
import zstandard

from chassis.errors import Invalid
from services.ingest.domain import MOST_METRICS_IN_BATCH, MOST_OBSERVATIONS, SEQUENCE_WINDOW, Fault
from services.ingest.errors import (
    BatchEmpty,
    BatchTooLarge,
    BodyTooLarge,
    MalformedCompression,
    MalformedJson,
    SequenceOutOfWindow,
    UnknownEncoding,
)
from services.ingest.exemplars import Span, span_of_text
from services.ingest.points import Point

MOST_BODY_BYTES = 4 << 20
#: Commas of a batch: between all that it may hold, and as many in the values of its labels.
_MOST_COMMAS = 500_000

_ZSTD_MOST_WINDOW_BYTES = 8 << 20
#: Members of a gzip body, or frames of a zstd body: each costs a decompressor of its own.
_MOST_MEMBERS = 100
_MOST_SEQUENCE = 2**62
#: At most, and rounded up: 64 bytes are told by three.
_SNAPPY_UNPACKS_TO_TIMES = 22
#: What cramjam says where what is unpacked does not fit into the place for it.
_NO_ROOM_LEFT = "failed to write whole buffer"
#: The escape of a surrogate that is not one of a pair, in a text without escaped backslashes.
_HALF_CHARACTER = re.compile(
    rb"\\u[dD](?:[89abAB][\dA-Fa-f]{2}(?!\\u[dD][c-fC-F][\dA-Fa-f]{2})"
    rb"|(?<!\\u[dD][89abAB][\dA-Fa-f]{2}\\u[dD])[c-fC-F][\dA-Fa-f]{2})"
)
#: A batch that has more of them, or that is larger, is no JSON: what they cost is bounded.
_MOST_HALF_CHARACTERS = 1_000
_MOST_BYTES_AROUND_HALF_CHARACTERS = 1 << 20
#: Of the same length, and no character (Unicode, "noncharacters"): it is in no text that anybody means to send.
_STAND_IN = rb"\uffff"
_NULL = b"null"
#: As a producer it would be all batches without one, where levels of gauges are merged.
_NIL = bytes(16)
_ABSENT = msgspec.Raw(_NULL)


class Metric(msgspec.Struct, gc=False):
    """A metric as sent. The labels stay raw: most label sets were seen before."""

    name: str
    value: float | list[float]
    labels: msgspec.Raw = _ABSENT
    timestamp: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """A batch as sent. `producer` is empty, and `sequence` and `floor` are 0, where the client named none."""

    producer: bytes
    sequence: int
    floor: int
    metrics: list[Metric | Fault]
    #: What another door than `POST /api/v1/metrics` has brought, instead of metrics.
    points: Sequence[Point | Fault] = ()
    #: Of metrics, by their position.
    spans: Mapping[int, Span] = field(default_factory=dict)


class _Body(msgspec.Struct, gc=False):
    metrics: list[Metric]
    producer: msgspec.Raw = _ABSENT
    sequence: msgspec.Raw = _ABSENT
    floor: msgspec.Raw = _ABSENT


class _SentExemplar(msgspec.Struct, rename="camel"):
    trace_id: str
    span_id: str


class _MetricWithExemplar(msgspec.Struct):
    exemplar: _SentExemplar | None = None


class _LooseBody(msgspec.Struct):
    metrics: list[msgspec.Raw]
    producer: msgspec.Raw = _ABSENT
    sequence: msgspec.Raw = _ABSENT
    floor: msgspec.Raw = _ABSENT


class _LooseMetric(msgspec.Struct):
    name: str
    value: msgspec.Raw
    labels: msgspec.Raw = _ABSENT
    timestamp: float | None = None


class _Named(msgspec.Struct):
    name: str


_body_decoder = msgspec.json.Decoder(_Body)
_exemplar_decoder = msgspec.json.Decoder(_MetricWithExemplar)
_loose_body_decoder = msgspec.json.Decoder(_LooseBody)
_metric_decoder = msgspec.json.Decoder(Metric)
_loose_metric_decoder = msgspec.json.Decoder(_LooseMetric)
_name_decoder = msgspec.json.Decoder(_Named)
_loose_value_decoder = msgspec.json.Decoder(list[msgspec.Raw] | str | bool | float | dict | None)
_observation_decoder = msgspec.json.Decoder(str | float)
_NOT_FINITE_WORDS = frozenset({"nan", "inf", "infinity", "+inf", "-inf", "+infinity", "-infinity", "-nan", "+nan"})


def decode(body: bytes, content_encoding: str) -> Batch:
    """The batch in a request's body.

    Raises UnknownEncoding, MalformedCompression, BodyTooLarge, MalformedJson, BatchEmpty, BatchTooLarge,
    SequenceOutOfWindow, or Invalid (`details.fields`) for a bad producer, sequence or floor.
    """
    plain = decompress(body, content_encoding)
    _check_text(plain)
    try:
        decoded, metrics = _parse(plain)
    except MalformedJson:
        plain = _without_half_characters(plain)
        if not plain:
            raise
        decoded, metrics = _parse_around_stand_ins(plain)
    if not metrics:
        raise BatchEmpty("A batch needs at least one metric.")
    if len(metrics) > MOST_METRICS_IN_BATCH:
        raise _too_large(len(metrics))
    producer, sequence, floor = _identity(decoded)
    # The I of `traceId` alone is found, or rather not found, twenty times as fast as the word.
    spans = _spans(plain) if b"I" in plain and b'"exemplar"' in plain else {}
    return Batch(producer=producer, sequence=sequence, floor=floor, metrics=metrics, spans=spans)


def decompress(body: bytes, content_encoding: str) -> bytes:
    """The body as plain bytes, at most `MOST_BODY_BYTES`: a larger one raises before it is unpacked any further."""
    if content_encoding in ("", "identity"):
        plain = body
    elif content_encoding == "gzip":
        plain = _gunzip(body)
    elif content_encoding == "zstd":
        plain = _unzstd(body)
    elif content_encoding == "snappy":
        plain = _unsnappy(body)
    elif content_encoding == "x-snappy-framed":
        plain = _unsnappy_frames(body)
    else:
        raise UnknownEncoding("Content-Encoding must be gzip, zstd, snappy or x-snappy-framed, or absent.")
    if len(plain) > MOST_BODY_BYTES:
        raise BodyTooLarge(f"A body may have at most {MOST_BODY_BYTES} bytes decompressed.")
    return plain


def _gunzip(body: bytes) -> bytes:
    unpacked = bytearray()
    for _ in range(_MOST_MEMBERS):
        member = zlib.decompressobj(wbits=31)
        try:
            unpacked += member.decompress(body, MOST_BODY_BYTES + 1 - len(unpacked))
        except zlib.error as error:
            raise MalformedCompression("The body is not gzip.") from error
        if len(unpacked) > MOST_BODY_BYTES:
            return bytes(unpacked)
        if not member.eof:
            raise MalformedCompression("The gzip body is cut short.")
        body = member.unused_data
        if not body:
            return bytes(unpacked)
    raise MalformedCompression(f"A gzip body may have at most {_MOST_MEMBERS} members.")


def _unzstd(body: bytes) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MOST_WINDOW_BYTES)
    try:
        unpacked: bytes = decompressor.stream_reader(body, read_across_frames=True).read(MOST_BODY_BYTES + 1)
        if len(unpacked) <= MOST_BODY_BYTES:
            _check_frames(decompressor, body)
    except zstandard.ZstdError as error:
        raise MalformedCompression("The body is not zstd.") from error
    return unpacked


def _check_frames(decompressor: zstandard.ZstdDecompressor, body: bytes) -> None:
    """The reader, which alone bounds what is unpacked, does not tell whether the last frame was whole: a second look
    does, at a body that is known to be small."""
    for _ in range(_MOST_MEMBERS):
        frame = decompressor.decompressobj()
        frame.decompress(body)
        if not frame.eof:
            raise MalformedCompression("The zstd body is cut short.")
        body = frame.unused_data
        if not body:
            return
    raise MalformedCompression(f"A zstd body may have at most {_MOST_MEMBERS} frames.")


def _unsnappy(body: bytes) -> bytes:
    """Of the block format, which begins with the length of what it unpacks to."""
    try:
        if cramjam.snappy.decompress_raw_len(body) > MOST_BODY_BYTES:
            raise BodyTooLarge(f"A body may have at most {MOST_BODY_BYTES} bytes decompressed.")
        return bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError as error:
        raise MalformedCompression("The body is not snappy in its block format.") from error


def _unsnappy_frames(body: bytes) -> bytes:
    """Of the framing format, whose frames each have a checksum."""
    unpacked = bytearray(min(MOST_BODY_BYTES + 1, _SNAPPY_UNPACKS_TO_TIMES * len(body)))
    try:
        length = cramjam.snappy.decompress_into(body, unpacked)
    except cramjam.DecompressionError as error:
        if _NO_ROOM_LEFT in str(error):
            return bytes(unpacked)
        raise MalformedCompression("The body is not snappy in its framing format.") from error
    return bytes(memoryview(unpacked)[:length])


def _check_text(plain: bytes) -> None:
    if len(plain) > _MOST_COMMAS and plain.count(b",") > _MOST_COMMAS:
        raise BatchTooLarge(f"A batch has at most {_MOST_COMMAS} commas: its arrays are too long.")
    try:
        plain.decode()  # raw parts are not looked at before they are needed
    except UnicodeDecodeError as error:
        raise MalformedJson(f"The body is not JSON: it is not UTF-8 at byte {error.start}.") from error


def _parse(plain: bytes) -> tuple[_Body | _LooseBody, list[Metric | Fault]]:
    try:
        body = _body_decoder.decode(plain)
    except msgspec.ValidationError:
        return _parse_loosely(plain)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedJson(f"The body is not JSON: {_reason(error)}.") from error
    return body, list(body.metrics)


def _parse_loosely(plain: bytes) -> tuple[_LooseBody, list[Metric | Fault]]:
    try:
        msgspec.json.decode(plain, type=msgspec.Raw)  # what is no JSON at all is that before it is anything else
        body = _loose_body_decoder.decode(plain)
    except msgspec.ValidationError as error:
        raise Invalid.fields({"metrics": f"a batch is an object with an array of metrics ({error})"}) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedJson(f"The body is not JSON: {_reason(error)}.") from error
    if len(body.metrics) > MOST_METRICS_IN_BATCH:
        raise _too_large(len(body.metrics))
    return body, [_decode_metric(raw) for raw in body.metrics]


def _without_half_characters(plain: bytes) -> bytes:
    """The body with stand-ins for half characters, empty where there are none. Takes time linear in its length."""
    if len(plain) > _MOST_BYTES_AROUND_HALF_CHARACTERS:
        return b""
    escapes = _without_escaped_backslashes(plain)
    mended = bytearray(plain)
    found = False
    for half in islice(_HALF_CHARACTER.finditer(escapes), _MOST_HALF_CHARACTERS):
        mended[half.start() : half.end()] = _STAND_IN
        found = True
    return bytes(mended) if found else b""


def _without_escaped_backslashes(json: bytes) -> bytes:
    """Of the same length, and each backslash in it begins an escape."""
    return json.replace(rb"\\", b"  ")


def _parse_around_stand_ins(plain: bytes) -> tuple[_LooseBody, list[Metric | Fault]]:
    body, metrics = _parse_loosely(plain)
    for index, raw in enumerate(body.metrics):
        if _STAND_IN in _without_escaped_backslashes(bytes(raw)):
            name, read = _name(raw), metrics[index]
            metrics[index] = Fault(
                "METRIC_MALFORMED",
                "A text has half a surrogate pair, as where an emoji was cut in two: \\ud83d.",
                metric="" if "\uffff" in name else name,
                is_array=read.is_array if isinstance(read, Fault) else isinstance(read.value, list),
            )
    return body, metrics


def _too_large(count: int) -> BatchTooLarge:
    return BatchTooLarge(f"A batch takes at most {MOST_METRICS_IN_BATCH} metrics; this one has {count}.")


def _decode_metric(raw: msgspec.Raw) -> Metric | Fault:
    try:
        return _metric_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return replace(_diagnose(raw), metric=_name(raw))


def _name(raw: msgspec.Raw) -> str:
    """What a metric calls itself, whatever else is wrong with it; empty where that cannot be read."""
    try:
        return _name_decoder.decode(raw).name
    except (msgspec.DecodeError, RecursionError):
        return ""


def _spans(plain: bytes) -> dict[int, Span]:
    """What exemplars name, by the metric's position. One that is malformed is passed over: it costs no metric."""
    found: dict[int, Span] = {}
    for index, raw in enumerate(_loose_body_decoder.decode(plain).metrics):
        try:
            sent = _exemplar_decoder.decode(raw).exemplar
        except (msgspec.DecodeError, RecursionError):
            continue
        if sent is not None and (span := span_of_text(sent.trace_id, sent.span_id)):
            found[index] = span
    return found


def _diagnose(raw: msgspec.Raw) -> Fault:
    try:
        loose = _loose_metric_decoder.decode(raw)
        values = _loose_value_decoder.decode(loose.value)
    except (msgspec.DecodeError, RecursionError) as error:
        if str(error).endswith("out of range - at `$.timestamp`"):
            return Fault("TIMESTAMP_OUT_OF_RANGE", "The timestamp is too large for a 64-bit float.")
        if str(error).endswith("out of range"):
            return Fault("VALUE_NOT_FINITE", "The value is too large for a 64-bit float.")
        return Fault(
            "METRIC_MALFORMED", f"A metric is an object with name, value, labels, timestamp: {_reason(error)}."
        )
    if _has_not_finite(values):
        return Fault("VALUE_NOT_FINITE", "The value must be a finite number.", is_array=isinstance(values, list))
    return Fault(
        "METRIC_MALFORMED",
        "The value must be a number, or an array of numbers for a histogram or summary.",
        is_array=isinstance(values, list),
    )


def _has_not_finite(values: object) -> bool:
    if isinstance(values, str):
        return values.strip().lower() in _NOT_FINITE_WORDS
    if not isinstance(values, list):
        return False
    return any(_is_not_finite(raw) for raw in values[:MOST_OBSERVATIONS])


def _is_not_finite(raw: msgspec.Raw) -> bool:
    try:
        item = _observation_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        return "out of range" in str(error)
    return isinstance(item, str) and item.strip().lower() in _NOT_FINITE_WORDS


def _identity(body: _Body | _LooseBody) -> tuple[bytes, int, int]:
    """Producer, sequence and floor: both of the first two or neither."""
    faults: dict[str, str] = {}
    producer = _producer(body.producer, faults)
    sequence = _whole_number("sequence", body.sequence, faults)
    floor = _whole_number("floor", body.floor, faults)
    if not faults and bool(producer) != bool(sequence):
        faults["sequence" if producer else "producer"] = "producer and sequence go together"
    if not faults and floor and not producer:
        faults["floor"] = "floor needs producer and sequence"
    if not faults and floor > sequence:
        faults["floor"] = "may not be above sequence"
    if faults:
        raise Invalid.fields(faults)
    if floor and sequence - floor >= SEQUENCE_WINDOW:
        raise SequenceOutOfWindow(
            f"From floor to sequence there may be at most {SEQUENCE_WINDOW} numbers; "
            "raise floor to the lowest sequence that may still be sent."
        )
    return producer, sequence, floor


def _producer(raw: msgspec.Raw, faults: dict[str, str]) -> bytes:
    if bytes(raw) == _NULL:
        return b""
    try:
        text = msgspec.json.decode(raw, type=str)
        if len(text) != 36:
            raise ValueError("not the 36 characters of a UUID")
        producer = uuid.UUID(text).bytes
    except (ValueError, msgspec.DecodeError):
        producer = _NIL
    if producer == _NIL:
        faults["producer"] = "must be a UUID other than nil, such as 0192f0c1-7d3a-7c6e-9a55-3f6f0c1b2a4d"
        return b""
    return producer


def _whole_number(member: str, raw: msgspec.Raw, faults: dict[str, str]) -> int:
    if bytes(raw) == _NULL:
        return 0
    try:
        value = msgspec.json.decode(raw, type=int)
        if not 1 <= value <= _MOST_SEQUENCE:
            raise ValueError("out of range")
    except (ValueError, msgspec.DecodeError):
        faults[member] = "must be a whole number from 1 to 2^62"
        return 0
    return value


def _reason(error: Exception) -> str:
    """Why something could not be decoded, in words for the client."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).rstrip(".")[:200]
