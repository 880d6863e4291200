"""What merged gauges must show: each producer's latest level of the last five minutes, merged by the metric's rule."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tests.chaos.series import Series

MERGERS: Mapping[str, Callable[[Iterable[float]], float]] = {"min": min, "max": max, "sum": sum}
_KEPT_MS = 300_000


def merged_gauge(rule: str) -> str:
    """The metric that is merged by a rule."""
    return f"chaos_{rule}_sessions"


@dataclass(frozen=True)
class Level:
    """What one producer reports."""

    metric: str
    rule: str
    #: The series' labels.
    own: str
    producer: str
    timestamp_ms: int
    value: float

    @property
    def series(self) -> Series:
        return self.metric, self.own


class Levels:
    """The latest level of each series and producer, of acknowledged batches."""

    def __init__(self) -> None:
        self._latest: dict[Series, dict[str, Level]] = {}

    @property
    def series(self) -> set[Series]:
        """All that ever had a level."""
        return set(self._latest)

    def report(self, level: Level) -> None:
        """A producer's levels are told in the order of their timestamps."""
        self._latest.setdefault(level.series, {})[level.producer] = level

    def merged(self, now_ms: int) -> dict[Series, float]:
        """What each series that has a level must show."""
        found: dict[Series, float] = {}
        for series, levels in self._latest.items():
            counted = [each for each in levels.values() if each.timestamp_ms > now_ms - _KEPT_MS]
            if counted:
                found[series] = MERGERS[counted[0].rule](each.value for each in counted)
        return found
