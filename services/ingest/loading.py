"""What the storage gives to `aggregation.LaneState`: the state to begin with, and what is looked up later."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from services.ingest.columns import Rows
from services.ingest.producers import ProducerKey
from services.ingest.recent import NOTHING_RECENT, Recent
from services.ingest.series import SeriesTable, StoredSeries
from services.ingest.sources import SourceKey, Total
from services.ingest.windows import Window


class Missing(NamedTuple):
    """What records name and memory does not hold."""

    producers: set[ProducerKey]
    #: Partitions and series ids.
    series: set[tuple[int, bytes]]
    sources: set[SourceKey]

    def __bool__(self) -> bool:
        return bool(self.producers or self.series or self.sources)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What the state had of what was missing: a window, stored or new, for each producer, the totals of each source,
    if any, and the stored series."""

    windows: Mapping[ProducerKey, Window]
    series: Sequence[StoredSeries]
    sources: Mapping[SourceKey, Sequence[Total]] = field(default_factory=dict)
    #: Of these series.
    recent: Recent = NOTHING_RECENT


NOTHING_FOUND = Found(windows={}, series=())


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A lane's state as it was stored."""

    position: int
    commit_ms: int
    #: Up to which commit each sink has been delivered.
    watermarks: Mapping[str, int]
    #: Holds the series that changed after `live_since_ms`, and all that have `__other__` everywhere.
    table: SeriesTable
    live_since_ms: int
    #: Definitions that were deleted, and the commits that ended them.
    ended: dict[bytes, int]
    #: Series of deleted definitions whose stale markers may not be delivered: rows that cannot be found by their ids.
    unmarked: Rows
    recent: Recent = NOTHING_RECENT
    #: Of which log the position is; None where that was not stored.
    log_made_at: datetime | None = None
    #: Projects with as many series in the state as they may have.
    full_of_series: Collection[bytes] = ()

    @property
    def delivered_ms(self) -> int:
        """Every commit up to this one is delivered, to all sinks."""
        return min(self.watermarks.values(), default=self.commit_ms)
