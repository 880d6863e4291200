"""Prometheus remote write 1.0: encoding and one request.

Source: https://prometheus.io/docs/specs/prw/remote_write_spec/. The message is built by hand: the labels of a series
are encoded once and kept, and only a value and a timestamp are written anew.
"""

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from struct import Struct

import aiohttp
import cramjam

from services.ingest.domain import LabelPairs, MetricType
from services.ingest.series import Emission, Series

_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=3)
_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "User-Agent": "pulsegate",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}

_double = Struct("<d")
#: The NaN that Prometheus takes for "this series ends here".
_STALE_MARKER = bytes.fromhex("02000000 0000f07f")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver of a write request said."""

    #: HTTP status; 0: no answer.
    status: int
    #: The beginning of its text, or why there is no answer.
    text: str
    retry_after_seconds: float | None = None


class RemoteWrite:
    """One receiver of remote write."""

    name = "remote_write"

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    def encode(self, emissions: Sequence[Emission]) -> bytes:
        """The body of one write request."""
        return _compress(b"".join(part for emission in emissions for part in _time_series(emission)))

    def encode_probe(self, at_ms: int) -> bytes:
        """The body of a write request that any working receiver takes: one sample of `pulsegate_sink_probe`."""
        return _compress(
            _one(_encode_labels(("__name__", "pulsegate_sink_probe")), _double.pack(1.0), _timestamp(at_ms))
        )

    async def send(self, body: bytes) -> Answer:
        """Sends one request. Never raises for what happens on the way: status 0 says that there was no answer."""
        try:
            # A redirected POST would arrive as a GET, and its 200 would pass for a delivery.
            async with self._session.post(
                self._url, data=body, headers=_HEADERS, timeout=_TIMEOUT, allow_redirects=False
            ) as response:
                text = (await response.content.read(500)).decode(errors="replace").strip()
                return Answer(response.status, text, _seconds(response.headers.get("Retry-After")))
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            return Answer(0, type(error).__name__)


def samples_in(emission: Emission) -> int:
    """How many samples the emission becomes."""
    if emission.series.type is MetricType.HISTOGRAM:
        return len(emission.buckets) + 2
    return 2 if emission.series.type is MetricType.SUMMARY else 1


def _compress(message: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(message))


def _time_series(emission: Emission) -> Iterator[bytes]:
    """The emission as `TimeSeries` fields of a `WriteRequest`."""
    series = emission.series
    if series.encoded_labels is None:
        series.encoded_labels = tuple(_encode_labels(labels) for labels in exposed_labels(series))
    timestamp = _timestamp(emission.at_ms)
    values = (
        [_STALE_MARKER] * len(series.encoded_labels) if emission.stale else list(map(_double.pack, _values(emission)))
    )
    for labels, value in zip(series.encoded_labels, values, strict=True):
        yield _one(labels, value, timestamp)


def _values(emission: Emission) -> list[float]:
    """The samples' values, in the order of `exposed_labels`."""
    if emission.series.type is MetricType.HISTOGRAM:
        return [*map(float, accumulate(emission.buckets)), emission.value, float(emission.observations)]
    if emission.series.type is MetricType.SUMMARY:
        return [emission.value, float(emission.observations)]
    return [emission.value]


def exposed_labels(series: Series) -> list[LabelPairs]:
    """The label sets under which a series stands in Prometheus: one, or a histogram's buckets, sum and count."""
    identity = {
        "tenant_id": str(uuid.UUID(bytes=series.tenant_id)),
        "project_id": str(uuid.UUID(bytes=series.project_id)),
    }
    own = dict(zip(series.labels[::2], series.labels[1::2], strict=True)) | identity

    def exposed(suffix: str = "", **extra: str) -> LabelPairs:
        labels = own | extra | {"__name__": series.name + suffix}
        return tuple(text for name in sorted(labels) for text in (name, labels[name]))

    if series.type is MetricType.HISTOGRAM:
        bounds = [*map(format_bound, series.bounds), "+Inf"]
        return [*(exposed("_bucket", le=bound) for bound in bounds), exposed("_sum"), exposed("_count")]
    if series.type is MetricType.SUMMARY:
        return [exposed("_sum"), exposed("_count")]
    return [exposed()]


def format_bound(bound: float) -> str:
    """A finite bucket bound as OpenMetrics' canonical number, which Prometheus 3 writes too: `1.0`, `0.005`, `1e+06`.

    The shortest digits that stand for it, in scientific notation below 1e-4 and from 1e6 on.
    """
    if bound == 0:
        return "0.0"
    if 1e-4 <= abs(bound) < 1e6:
        return repr(bound)
    sign, digits, exponent = Decimal(repr(bound)).normalize().as_tuple()
    fraction = "".join(map(str, digits[1:]))
    mantissa = f"{digits[0]}.{fraction}" if fraction else str(digits[0])
    return f"{'-' if sign else ''}{mantissa}e{len(digits) + int(exponent) - 1:+03d}"


def _encode_labels(labels: LabelPairs) -> bytes:
    encoded = bytearray()
    for name, value in zip(labels[::2], labels[1::2], strict=True):
        pair = _field(1, name.encode()) + _field(2, value.encode())
        encoded += _field(1, pair)
    return bytes(encoded)


def _one(labels: bytes, value: bytes, timestamp: bytes) -> bytes:
    sample = _field(2, b"\x09" + value + b"\x10" + timestamp)
    return _field(1, labels + sample)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes((number << 3 | 2,)) + _varint(len(content)) + content


def _timestamp(at_ms: int) -> bytes:
    return _varint(at_ms)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _seconds(header: str | None) -> float | None:
    try:
        return float(header) if header else None
    except ValueError:
        return None
