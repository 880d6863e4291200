"""What summaries must show: the quantiles of what was observed in the last ten minutes."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.series import Series

SUMMARY = "chaos_size_bytes"
OBJECTIVES = (0.01, 0.2, 0.4, 0.6, 0.8, 0.99)
#: How far a quantile may be from the observation of its rank, as a part of it; and what decimals cost.
RELATIVE_ERROR = 0.01 + 1e-9
#: An observation counts for nine minutes at least; what is older may have passed.
_COUNTED_SECONDS = 540.0


@dataclass(frozen=True)
class Sizes:
    """What a batch observes."""

    #: The series' labels.
    own: str
    sizes: Sequence[float]
    #: When the batch was made, Unix seconds: no later than it was received.
    made: float

    @property
    def adds(self) -> dict[Series, float]:
        """To the series that only grow."""
        return {(f"{SUMMARY}_count", self.own): float(len(self.sizes)), (f"{SUMMARY}_sum", self.own): sum(self.sizes)}


class Windows:
    """The observations of acknowledged batches, by series."""

    def __init__(self) -> None:
        self._observed: dict[str, list[Sizes]] = {}

    @property
    def series(self) -> set[Series]:
        """All that show quantiles."""
        return {_quantile(own, objective) for own in self._observed for objective in OBJECTIVES}

    def observe(self, sizes: Sizes) -> None:
        self._observed.setdefault(sizes.own, []).append(sizes)

    def quantiles(self, now: float) -> dict[Series, float]:
        """The observations that quantiles must be near, of the series of which everything counts still."""
        found: dict[Series, float] = {}
        for own, batches in self._observed.items():
            if batches[0].made > now - _COUNTED_SECONDS:
                ordered = sorted(size for batch in batches for size in batch.sizes)
                for objective in OBJECTIVES:
                    found[_quantile(own, objective)] = ordered[int(objective * (len(ordered) - 1))]
        return found


def _quantile(own: str, objective: float) -> Series:
    return SUMMARY, f'{own},quantile="{objective}"'
