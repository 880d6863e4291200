"""What clients of Prometheus push to a Pushgateway, whatever its format: families of series, which become data points.

Values of counters, histograms and summaries are totals: the source of each is its series within the group, and, where
the sender says when it began to count, one run of that. Gauges are levels. The group's labels are offered to the
definition and replace labels of the same name, as in Pushgateway.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise

from services.ingest.domain import MOST_NAME_LENGTH, MOST_POINTS_IN_REQUEST, Fault, MetricType, PushGroup
from services.ingest.doors.names import NAME_TOO_LONG, as_counter, clipped
from services.ingest.errors import MalformedBody
from services.ingest.points import (
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    SUMMARIES,
    Buckets,
    Origin,
    Point,
    identifying_of,
    source_id,
)

#: Of a series: far more than a definition has.
MOST_LABELS_OF_SERIES = 64
#: Likewise.
_MOST_BUCKETS_OF_SERIES = 4_096
#: Of all lines, or series, of a push together.
MOST_LABELS_IN_PUSH = 20 * MOST_POINTS_IN_REQUEST


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


@dataclass(frozen=True, slots=True)
class _Pushed:
    """What all points of a push have in common."""

    reporter: bytes
    #: The group's labels, their values no longer than it takes to refuse them.
    offered: Mapping[str, str]
    arrived_ns: int
    #: The series so far, by name and labels.
    seen: set[tuple[object, ...]] = field(default_factory=set)

    def meet(self, name: str, identifying: Sequence[tuple[str, str]]) -> None:
        """Raises MalformedBody where the series was there before: one of the two would be lost."""
        key = (name, *identifying)
        if key in self.seen:
            told = ",".join([f'{label}="{value}"' for label, value in identifying])
            raise MalformedBody(f"The series {clipped(f'{name}{{{told}}}')} is there twice.")
        self.seen.add(key)


def points_of(families: Iterable[Family], push: Push) -> Iterator[Point | Fault]:
    """A point for each series, those of one family after each other.

    Raises MalformedBody where a series is there twice, as a counter with `_total` and without may be.
    """
    reporter = source_id("push", sorted(push.group.items()))
    offered = {label: clipped(value) for label, value in push.group.items()}
    pushed = _Pushed(reporter, offered, push.arrived_ns)
    for family in families:
        yield from _points(family, pushed)


def _points(family: Family, pushed: _Pushed) -> Iterable[Point | Fault]:
    name = as_counter(family.name) if family.type is FamilyType.COUNTER else family.name
    if len(name) > MOST_NAME_LENGTH:
        return [NAME_TOO_LONG] * len(family.series)
    types = _TYPES[family.type]
    return (_point((name,), types, series, pushed) for series in family.series)


def _point(names: tuple[str], types: frozenset[MetricType], series: Series, pushed: _Pushed) -> Point | Fault:
    labels, offered = series.labels, pushed.offered
    if not offered.keys().isdisjoint(labels):
        labels = {label: value for label, value in labels.items() if label not in offered}
    identifying = identifying_of(labels)
    pushed.meet(names[0], identifying)
    if isinstance(series.value, Fault):
        return series.value
    origin = None
    if types is not GAUGES:
        origin = Origin(source_id(pushed.reporter, names[0], identifying, series.began), pushed.arrived_ns)
    return Point(
        names=names,
        labels=labels,
        offered=offered,
        types=types,
        value=series.value,
        timestamp_ms=pushed.arrived_ns // 1_000_000,
        reporter=pushed.reporter,
        origin=origin,
    )


def buckets_of(cumulative: Mapping[float, float], count: float | None, total: float | None) -> Buckets | Fault:
    """A histogram of what lies up to each bound. `count` counts where there is no bucket up to +Inf."""
    if len(cumulative) > _MOST_BUCKETS_OF_SERIES:
        return Fault("METRIC_MALFORMED", f"A histogram has at most {_MOST_BUCKETS_OF_SERIES} buckets.")
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
