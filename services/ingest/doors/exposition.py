"""What clients of Prometheus push to a Pushgateway, whatever its format: families of series, which become data points.

Values of counters, histograms and summaries are totals: the source of each is its series within the group, and, where
the sender says when it began to count, one run of that. Gauges are levels. The group's labels are offered to the
definition and replace labels of the same name, as in Pushgateway.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise

from services.ingest.domain import Fault, MetricType, PushGroup
from services.ingest.doors.names import as_counter
from services.ingest.points import COUNTERS, GAUGES, HISTOGRAMS, SUMMARIES, Buckets, Origin, Point, source_id


class FamilyType(Enum):
    """As both formats have it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"
    UNTYPED = "untyped"


@dataclass(frozen=True, slots=True)
class Push:
    """What a body does not say."""

    group: PushGroup
    #: When it arrived, Unix nanoseconds: later pushes have larger ones.
    arrived_ns: int


@dataclass(slots=True)
class Series:
    """One series of a family; buckets without bounds are a summary's."""

    labels: Mapping[str, str]
    value: float | Buckets | Fault
    #: When it began to count, Unix seconds; 0: the sender does not say.
    began: float = 0.0


@dataclass(slots=True)
class Family:
    """The series of one name."""

    name: str
    type: FamilyType
    series: list[Series] = field(default_factory=list)


_TYPES: Mapping[FamilyType, frozenset[MetricType]] = {
    FamilyType.COUNTER: COUNTERS,
    FamilyType.GAUGE: GAUGES,
    FamilyType.HISTOGRAM: HISTOGRAMS,
    FamilyType.SUMMARY: SUMMARIES,
    FamilyType.UNTYPED: COUNTERS | GAUGES,
}


def points_of(families: Iterable[Family], push: Push) -> list[Point | Fault]:
    """A point for each series, those of one family after each other."""
    reporter = source_id("push", sorted(push.group.items()))
    return [_point(family, series, push, reporter) for family in families for series in family.series]


def _point(family: Family, series: Series, push: Push, reporter: bytes) -> Point | Fault:
    if isinstance(series.value, Fault):
        return series.value
    group = push.group
    name = as_counter(family.name) if family.type is FamilyType.COUNTER else family.name
    labels = {label: value for label, value in series.labels.items() if label not in group}
    source = source_id(reporter, name, sorted(labels.items()), series.began)
    return Point(
        names=(name,),
        labels=labels,
        offered=group,
        types=_TYPES[family.type],
        value=series.value,
        reporter=reporter,
        origin=None if family.type is FamilyType.GAUGE else Origin(source, push.arrived_ns),
    )


def buckets_of(cumulative: Mapping[float, float], count: float | None, total: float | None) -> Buckets | Fault:
    """A histogram of what lies up to each bound. `count` counts where there is no bucket up to +Inf."""
    ascending = sorted(cumulative.items())
    if not ascending or ascending[-1][0] != float("inf"):
        ascending.append((float("inf"), -1.0 if count is None else count))
    *bounds, _ = [bound for bound, _ in ascending]
    upto = [0.0, *(number for _, number in ascending)]
    counts = [_whole(number - before) for before, number in pairwise(upto)]
    if total is None or None in counts or (count is not None and count != upto[-1]):
        return Fault("METRIC_MALFORMED", "A histogram has a sum, a count, and buckets that count whole observations.")
    return Buckets(tuple(bounds), [number for number in counts if number is not None], total)


def summary_of(count: float | None, total: float | None) -> Buckets | Fault:
    """A summary without its quantiles, which cannot be merged with those of other sources."""
    whole = None if count is None else _whole(count)
    if whole is None or total is None:
        return Fault("METRIC_MALFORMED", "A summary has a sum and a count of whole observations.")
    return Buckets((), [whole], total)


def _whole(number: float) -> int | None:
    """The number of observations; None where it is none."""
    return int(number) if number >= 0 and number.is_integer() else None
