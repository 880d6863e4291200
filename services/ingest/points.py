"""What the doors besides `POST /api/v1/metrics` bring, whatever their format: data points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.ingest.domain import MetricType


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One data point: what is to be added to a series, or a gauge's level."""

    #: What the metric may be called in its definition, the likeliest first.
    names: Sequence[str]
    #: The definition must have each of these labels.
    labels: Mapping[str, str]
    #: Labels of where it comes from, which count where the definition has them; `labels` win.
    offered: Mapping[str, str] = field(default_factory=dict)
    #: Which types of metric this can be a point of.
    types: frozenset[MetricType]
    value: float | Observations | Buckets
    #: Unix milliseconds; None: now.
    timestamp_ms: float | None = None


COUNTERS = frozenset({MetricType.COUNTER})
GAUGES = frozenset({MetricType.GAUGE})
HISTOGRAMS = frozenset({MetricType.HISTOGRAM})
DISTRIBUTIONS = frozenset({MetricType.HISTOGRAM, MetricType.SUMMARY})
