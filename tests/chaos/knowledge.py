"""What the clients of a chaos run know, whichever way they send."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.chaos.batches import Series

#: What a client may meet while processes die: it sends the same request again. 0: no answer.
RETRIED = frozenset({0, 408, 429, 500, 502, 503, 504})
#: A client's patience; shorter than the longest pause of a process.
TIMEOUT_SECONDS = 4.0


@dataclass
class Known:
    """The clients' log, and how it came to be."""

    expected: dict[Series, float] = field(default_factory=dict)
    #: What the batches that nobody acknowledged add, each for itself.
    given_up: list[dict[Series, float]] = field(default_factory=list)
    acknowledged: int = 0
    #: Metrics of acknowledged batches, by name.
    metrics: Counter[str] = field(default_factory=Counter)
    #: Requests by HTTP status; 0: no answer.
    statuses: Counter[int] = field(default_factory=Counter)
    #: Batches that were sent again although they were acknowledged, by occasion.
    again: Counter[str] = field(default_factory=Counter)

    @property
    def retries(self) -> int:
        return sum(count for status, count in self.statuses.items() if status not in (200, 202))

    def count(self, metrics: Iterable[str], adds: Mapping[Series, float]) -> None:
        """A batch was acknowledged that was not before."""
        self.acknowledged += 1
        self.metrics.update(metrics)
        for series, amount in adds.items():
            self.expected[series] = self.expected.get(series, 0.0) + amount
