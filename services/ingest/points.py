"""What the doors besides `POST /api/v1/metrics` bring, whatever their format: data points."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b

import msgspec

from services.ingest.domain import MetricType
from services.ingest.exemplars import Span


@dataclass(frozen=True, slots=True)
class Observations:
    """Single observations, each of which stands for `weight` alike."""

    values: Sequence[float]
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Buckets:
    """Observations that their sender has put into buckets."""

    #: Upper bounds, ascending, without +Inf.
    bounds: tuple[float, ...]
    #: Observations in each bucket (not cumulative), the last one +Inf's.
    counts: Sequence[int]
    sum: float


class ComponentKind(Enum):
    """What one of the series of a classic histogram counts."""

    SUM = "sum"
    COUNT = "count"
    #: Observations up to a bound.
    BUCKET = "bucket"


@dataclass(frozen=True, slots=True)
class Component:
    """The total of one of the series that a histogram consists of in Prometheus."""

    kind: ComponentKind
    total: float
    #: A bucket's upper bound, +Inf's too.
    bound: float = math.inf


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a total comes from."""

    #: 16 bytes that stand for what identifies the series at its source, and for the run of the source as far as that is
    #: known.
    source: bytes
    #: When the source took the total, Unix nanoseconds.
    taken_ns: int
    #: When the source began is not known. If this is the first that is heard of it, what it stands at is where counting
    #: begins, and adds nothing.
    baseline: bool = False


def source_id(*identifying: object) -> bytes:
    """16 bytes for what identifies a source: texts, numbers and sequences of such."""
    return blake2b(_encoder.encode(identifying), digest_size=16).digest()


def identifying_of(labels: Mapping[str, str]) -> list[tuple[str, str]]:
    """What tells a series of Prometheus from others, for `source_id`: to it a label with an empty value is none."""
    pairs = sorted(labels.items())
    return [pair for pair in pairs if pair[1]] if "" in labels.values() else pairs


@dataclass(frozen=True, slots=True)
class ExponentialBuckets:
    """Observations that their sender has put into exponential buckets."""

    #: As of `NativeBuckets.packed`.
    packed: Sequence[int]
    count: int
    sum: float


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One data point: what is to be added to a series, a gauge's level, or what a source has counted since it began.

    A struct, because one is made for every point and a frozen dataclass takes seven times as long to make.
    """

    #: What the metric may be called in its definition, the likeliest first.
    names: Sequence[str]
    #: The definition must have each of these labels.
    labels: Mapping[str, str]
    #: Labels of where it comes from, which count where the definition has them; `labels` win.
    offered: Mapping[str, str] = msgspec.field(default_factory=dict)
    #: Which types of metric this can be a point of.
    types: frozenset[MetricType]
    value: float | Observations | Buckets | Component | ExponentialBuckets
    #: Of a gauge, Unix milliseconds; None: now.
    timestamp_ms: float | None = None
    #: A number, buckets or a component with an origin is a total, unless it is a gauge's.
    origin: Origin | None = None
    #: Of a gauge: who reports its level, 16 bytes, as far as the door tells one from another.
    reporter: bytes = b""
    #: An observation in it and its span.
    exemplar: tuple[float, Span] | None = None


_encoder = msgspec.msgpack.Encoder()

COUNTERS = frozenset({MetricType.COUNTER})
GAUGES = frozenset({MetricType.GAUGE})
HISTOGRAMS = frozenset({MetricType.HISTOGRAM})
NATIVE_HISTOGRAMS = frozenset({MetricType.NATIVE_HISTOGRAM})
SUMMARIES = frozenset({MetricType.SUMMARY})
DISTRIBUTIONS = frozenset({MetricType.HISTOGRAM, MetricType.SUMMARY, MetricType.NATIVE_HISTOGRAM})
