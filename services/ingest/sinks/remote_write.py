"""Prometheus remote write 1.0: encoding and one request.

Source: https://prometheus.io/docs/specs/prw/remote_write_spec/. The message is built by hand: the labels of a series
are encoded once and kept, and only a value and a timestamp are written anew.
"""

import asyncio
import uuid
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from struct import Struct
from typing import Any

import aiohttp
import cramjam
import numpy as np
from numpy.typing import NDArray

from chassis.clock import Clock
from services.ingest.columns import Ints, Rows
from services.ingest.domain import LabelPairs, MetricType
from services.ingest.native_histograms import NativeBuckets
from services.ingest.samples import Samples
from services.ingest.series import Family, SeriesTable
from services.ingest.sinks import wire
from services.ingest.sinks.addresses import REMOTE_WRITE
from services.ingest.sinks.attempts import Answer
from services.ingest.sinks.histograms import histogram
from services.ingest.sinks.samples_writer import SamplesWriter

_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=3)
_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "User-Agent": "pulsegate",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}

_TAKEN_FOR_MS = 7 * 24 * 3600 * 1000
_NATIVE_TAKEN_FOR_MS = 50 * 60 * 1000

#: The NaN that Prometheus takes for "this series ends here".
_STALE_MARKER = 0x7FF0000000000002

#: A sample, as every `TimeSeries` here ends, after the tag of its value: the timestamp is a varint of six bytes, as any
#: time from 1971 to 2109 is. That it has the same length everywhere lets a series' own bytes be made once.
_SAMPLE = np.dtype([("value", "<u8"), ("timestamp_tag", "u1"), ("timestamp", "u1", (6,))])
_sample_bytes = Struct(f"{_SAMPLE.itemsize}s")
_SAMPLE_TAGS = b"\x12\x10\x09"
_TIMESTAMP_BITS = np.arange(0, 42, 7)
_TIMESTAMP_GOES_ON = np.array([0x80] * 5 + [0], np.uint8)


class RemoteWrite:
    """One receiver of remote write."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: Callable[[], str],
        *,
        name: str = REMOTE_WRITE,
        headers: Callable[[], Mapping[str, str]] = dict,
        oldest_ms: int = _TAKEN_FOR_MS,
        oldest_native_ms: int = _NATIVE_TAKEN_FOR_MS,
    ) -> None:
        """`url` and `headers` are asked for with each request; `oldest_ms` is how old a sample may be that it takes,
        `oldest_native_ms` a native histogram."""
        self.name = name
        self._session = session
        self._url = url
        self._headers = headers
        self._oldest_ms = oldest_ms
        self._oldest_native_ms = oldest_native_ms

    def writer(self, lane: int, clock: Clock) -> SamplesWriter:
        """See `delivery.Sink`."""
        return SamplesWriter(self, lane, clock, oldest_ms=self._oldest_ms, oldest_native_ms=self._oldest_native_ms)

    def encode(self, samples: Samples) -> bytes:
        """The body of one write request. Each series' samples are in the order in which they stand."""
        types = samples.table.type[samples.rows]
        scalar = types <= MetricType.GAUGE
        if scalar.all() and not samples.exemplars:
            return _compress(b"".join(_scalars(samples)))
        native = types == MetricType.NATIVE_HISTOGRAM
        series = (
            *_scalars(samples.at(scalar)),
            *_distributions(samples.at(~scalar & ~native)),
            *_native_histograms(samples.at(native)),
            *_exemplars(samples),
        )
        return _compress(b"".join(series))

    def encode_probe(self, at_ms: int) -> bytes:
        """The body of a write request that any working receiver takes: one sample of `pulsegate_sink_probe`."""
        series = _before_sample(_encode_labels(("__name__", "pulsegate_sink_probe")))
        return _compress(b"".join(_time_series([series], np.ones(1).view(np.uint64), np.array([at_ms]))))

    async def send(self, body: bytes) -> Answer:
        """Sends one request. Never raises for what happens on the way: status 0 says that there was no answer."""
        try:
            # A redirected POST would arrive as a GET, and its 200 would pass for a delivery.
            headers = {**self._headers(), **_HEADERS}
            async with self._session.post(
                self._url(), data=body, headers=headers, timeout=_TIMEOUT, allow_redirects=False
            ) as response:
                text = (await response.content.read(500)).decode(errors="replace").strip()
                return Answer(response.status, text, _seconds(response.headers.get("Retry-After")))
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            return Answer(0, type(error).__name__)


def _compress(message: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(message))


def _scalars(samples: Samples) -> list[bytes]:
    """Counters and gauges as `TimeSeries` fields of a `WriteRequest`, in parts."""
    series: list[Any] = _encoded(samples.table, samples.rows)
    values = np.where(samples.stale, np.uint64(_STALE_MARKER), samples.value.view(np.uint64))
    return _time_series(series, values, samples.at_ms)


def _distributions(samples: Samples) -> list[bytes]:
    """Classic histograms and summaries, in the order of `exposed_labels`."""
    if not len(samples):
        return []
    series: list[Any] = _encoded(samples.table, samples.rows)
    values, widths = [_STALE_BITS] * len(samples), samples.widths
    for at in np.flatnonzero(~samples.stale).tolist():
        each = [*samples.buckets_at(at), samples.value[at], samples.counts[at][0], *samples.quantiles_at(at)]
        values[at] = np.array(each, np.float64).view(np.uint64)
    every = [np.broadcast_to(each, width) for each, width in zip(values, widths.tolist(), strict=True)]
    return _time_series(list(chain.from_iterable(series)), np.concatenate(every), np.repeat(samples.at_ms, widths))


_STALE_BITS = np.array([_STALE_MARKER], np.uint64)
_STALE_SUM = float(_STALE_BITS.view(np.float64)[0])


def _native_histograms(samples: Samples) -> Iterator[bytes]:
    """Native histograms. The end of one is a stale marker as the sum of an empty one."""
    series: list[Any] = _encoded(samples.table, samples.rows)
    for at, (labels, at_ms) in enumerate(zip(series, samples.at_ms.tolist(), strict=True)):
        if samples.stale[at]:
            value = histogram(0, _STALE_SUM, NativeBuckets(), at_ms)
        else:
            count, *packed = samples.counts[at].tolist()
            value = histogram(count, float(samples.value[at]), NativeBuckets.unpacked(packed), at_ms)
        yield wire.length_delimited(1, labels + wire.length_delimited(4, value))


def _exemplars(samples: Samples) -> Iterator[bytes]:
    """Exemplars of the series that have samples here, after these, in series without samples, as Prometheus sends its
    own."""
    rows = samples.exemplars.keys() & set(samples.rows[~samples.stale].tolist()) if samples.exemplars else ()
    for row in sorted(rows):
        each, family = samples.exemplars[row], samples.table.families[samples.table.family[row]]
        exposed = exposed_labels(family, samples.table.label_pairs(row))
        bucket = bisect_left(family.bounds, each.value) if family.type is MetricType.HISTOGRAM else 0
        span = _label("span_id", each.span.span_id.hex()) + _label("trace_id", each.span.trace_id.hex())
        exemplar = span + wire.double(2, each.value) + wire.whole(3, each.at_ms)
        yield wire.length_delimited(1, _encode_labels(exposed[bucket]) + wire.length_delimited(3, exemplar))


def _encoded(table: SeriesTable, rows: Rows) -> list[bytes | tuple[bytes, ...] | None]:
    """What stands before the sample in the rows' `TimeSeries`; several for a classic histogram or a summary, the labels
    alone for a native histogram."""
    encoded = [table.encoded[row] for row in rows.tolist()]
    if None in encoded:
        for at, row in enumerate(rows.tolist()):
            encoded[at] = table.encoded[row] = encoded[at] or _encode(table, row)
    return encoded


def _encode(table: SeriesTable, row: int) -> bytes | tuple[bytes, ...]:
    family = table.families[table.family[row]]
    if family.type is MetricType.NATIVE_HISTOGRAM:
        return _encode_labels(exposed_labels(family, table.label_pairs(row))[0])
    encoded = tuple(_before_sample(_encode_labels(each)) for each in exposed_labels(family, table.label_pairs(row)))
    return encoded if family.type > MetricType.GAUGE else encoded[0]


def exposed_labels(family: Family, labels: LabelPairs) -> list[LabelPairs]:
    """The label sets under which a series stands in Prometheus: one; or a histogram's buckets, sum and count; or a
    summary's sum, count and quantiles."""
    own = dict(zip(labels[::2], labels[1::2], strict=True)) | {
        "tenant_id": _as_text(family.tenant_id),
        "project_id": _as_text(family.project_id),
    }

    def exposed(suffix: str = "", **extra: str) -> LabelPairs:
        labels = own | extra | {"__name__": family.name + suffix}
        return tuple(text for name in sorted(labels) for text in (name, labels[name]))

    if family.type is MetricType.HISTOGRAM:
        bounds = [*map(format_bound, family.bounds), "+Inf"]
        return [*(exposed("_bucket", le=bound) for bound in bounds), exposed("_sum"), exposed("_count")]
    if family.type is MetricType.SUMMARY:
        quantiles = (exposed(quantile=format_bound(objective)) for objective in family.objectives)
        return [exposed("_sum"), exposed("_count"), *quantiles]
    return [exposed()]


def format_bound(bound: float) -> str:
    """A finite bucket bound, or a quantile, as OpenMetrics' canonical number, which Prometheus 3 writes too.

    As `1.0`, `0.005`, `1e+06`: the shortest digits that stand for it, scientific below 1e-4 and from 1e6 on.
    """
    if bound == 0:
        return "0.0"
    if 1e-4 <= abs(bound) < 1e6:
        return repr(bound)
    sign, digits, exponent = Decimal(repr(bound)).normalize().as_tuple()
    fraction = "".join(map(str, digits[1:]))
    mantissa = f"{digits[0]}.{fraction}" if fraction else str(digits[0])
    return f"{'-' if sign else ''}{mantissa}e{len(digits) + int(exponent) - 1:+03d}"


@lru_cache(maxsize=1024)
def _as_text(identity: bytes) -> str:
    return str(uuid.UUID(bytes=identity))


def _encode_labels(labels: LabelPairs) -> bytes:
    return b"".join(map(_encode_label, labels[::2], labels[1::2]))


def _label(name: str, value: str) -> bytes:
    return wire.length_delimited(1, wire.length_delimited(1, name.encode()) + wire.length_delimited(2, value.encode()))


_encode_label = lru_cache(maxsize=8192)(_label)


def _before_sample(labels: bytes) -> bytes:
    """The field `timeseries` with these labels, up to its only sample's value."""
    length = len(labels) + len(_SAMPLE_TAGS) + _SAMPLE.itemsize
    return b"\x0a" + wire.varint(length) + labels + _SAMPLE_TAGS


def _time_series(series: Sequence[bytes], values: NDArray[np.uint64], at_ms: Ints) -> list[bytes]:
    """Each series with its sample, in parts to be joined. Values are the bits of float64, times are below 2^42."""
    samples = np.empty(len(series), _SAMPLE)
    samples["value"] = values
    samples["timestamp_tag"] = 0x10
    samples["timestamp"] = (at_ms[:, None] >> _TIMESTAMP_BITS & 0x7F) | _TIMESTAMP_GOES_ON
    parts = [b""] * (2 * len(series))
    parts[::2] = series
    parts[1::2] = [each for (each,) in _sample_bytes.iter_unpack(samples.tobytes())]
    return parts


def _seconds(header: str | None) -> float | None:
    try:
        return float(header) if header else None
    except ValueError:
        return None
