"""What the clients of a chaos run know, whichever way they send."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.chaos.batches import Batch
from tests.chaos.levels import Levels
from tests.chaos.series import Series
from tests.chaos.windows import Windows

#: What a client may meet while processes die: it sends the same request again. 0: no answer.
RETRIED = frozenset({0, 408, 429, 500, 502, 503, 504})
#: A client's patience; shorter than the longest pause of a process.
TIMEOUT_SECONDS = 4.0


@dataclass
class Known:
    """The clients' log, and how it came to be."""

    expected: dict[Series, float] = field(default_factory=dict)
    #: What merged gauges are made of, and the quantiles of summaries; both change as time passes.
    levels: Levels = field(default_factory=Levels)
    windows: Windows = field(default_factory=Windows)
    #: What the batches that nobody acknowledged add, each for itself.
    given_up: list[dict[Series, float]] = field(default_factory=list)
    acknowledged: int = 0
    #: Metrics of acknowledged batches, by name.
    metrics: Counter[str] = field(default_factory=Counter)
    #: Metrics of all requests with numbered batches, by name, whatever became of them.
    attempted: Counter[str] = field(default_factory=Counter)
    #: Requests by HTTP status; 0: no answer.
    statuses: Counter[int] = field(default_factory=Counter)
    #: Batches that were sent again although they were acknowledged, by occasion.
    again: Counter[str] = field(default_factory=Counter)

    @property
    def retries(self) -> int:
        return sum(count for status, count in self.statuses.items() if status not in (200, 202))

    @property
    def series(self) -> set[Series]:
        """All that somebody sent."""
        tried = {series for adds in self.given_up for series in adds}
        return self.expected.keys() | tried | self.levels.series | self.windows.series

    def count_batch(self, batch: Batch) -> None:
        """A batch was acknowledged that was not before; batches of one worker in their order."""
        self.count(batch.metrics, batch.adds)
        for part in batch.parts:
            self.expected.update(part.sets)
            if part.level:
                self.levels.report(part.level)
            if part.sizes:
                self.windows.observe(part.sizes)

    def count(self, metrics: Iterable[str], adds: Mapping[Series, float]) -> None:
        """A request was acknowledged that was not before."""
        self.acknowledged += 1
        self.metrics.update(metrics)
        for series, amount in adds.items():
            self.expected[series] = self.expected.get(series, 0.0) + amount
