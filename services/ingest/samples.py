"""What sinks are to write, in columns: values of series, copied when they were sealed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from services.ingest import native_histograms
from services.ingest.columns import Floats, Ints, Mask, Objects, Rows, joined_rows
from services.ingest.domain import MetricType
from services.ingest.exemplars import Exemplar
from services.ingest.series import SeriesTable

#: What a row takes in the columns, and an array that it refers to, besides its numbers.
_ROW_BYTES = 41
_ARRAY_BYTES = 128
#: What the table keeps for a series that has ended, until that is delivered.
_ENDED_BYTES = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """One value each of rows of a table. Nothing in it changes; the table keeps the rows until it is delivered."""

    table: SeriesTable
    rows: Rows
    #: Unix milliseconds.
    at_ms: Ints
    value: Floats
    #: As in `SeriesTable.counts`; None for counters, gauges and stale markers.
    counts: Objects
    #: The series ends here: a stale marker.
    stale: Mask
    #: Of summaries that observed something lately; None for others.
    quantiles: Objects
    #: By row; of rows that are not here too.
    exemplars: Mapping[int, Exemplar] = field(default_factory=dict)

    @classmethod
    def values(cls, table: SeriesTable, rows: Rows, at_ms: int) -> Self:
        """What the table has now, to be written with that time."""
        return cls(
            table,
            rows,
            np.full(rows.size, at_ms, np.int64),
            table.value[rows],
            table.counts_of(rows),
            np.zeros(rows.size, np.bool_),
            table.quantiles_of(rows),
        )

    @classmethod
    def zeros(cls, table: SeriesTable, rows: Rows, at_ms: Ints) -> Self:
        """A 0 for each row, at a time of its own, before anything was observed."""
        counts = table.counts_of(rows)
        for at, count in enumerate(counts):
            counts[at] = None if count is None else np.zeros_like(count)
        for at in np.flatnonzero(table.type[rows] == MetricType.NATIVE_HISTOGRAM).tolist():
            # In the schema that the row has now: to Prometheus a finer one that follows a coarser one is a reset.
            counts[at] = np.array([0, *native_histograms.emptied(table.counts[int(rows[at])][1:].tolist())], np.int64)
        return cls(table, rows, at_ms, np.zeros(rows.size), counts, np.zeros(rows.size, np.bool_), _nothing(rows))

    @classmethod
    def stale_markers(cls, table: SeriesTable, rows: Rows, at_ms: int) -> Self:
        """The end of each row's series at that time."""
        at = np.full(rows.size, at_ms, np.int64)
        return cls(table, rows, at, np.zeros(rows.size), _nothing(rows), np.ones(rows.size, np.bool_), _nothing(rows))

    @classmethod
    def joined(cls, table: SeriesTable, parts: Sequence["Samples"]) -> Self:
        """All of the parts, in order."""
        return cls(
            table,
            joined_rows(part.rows for part in parts),
            np.concatenate([np.empty(0, np.int64), *(part.at_ms for part in parts)]),
            np.concatenate([np.empty(0), *(part.value for part in parts)]),
            np.concatenate([np.empty(0, np.object_), *(part.counts for part in parts)]),
            np.concatenate([np.empty(0, np.bool_), *(part.stale for part in parts)]),
            np.concatenate([np.empty(0, np.object_), *(part.quantiles for part in parts)]),
            {row: each for part in parts for row, each in part.exemplars.items()},
        )

    def __len__(self) -> int:
        return self.rows.size

    def at(self, index: Rows | Mask | slice) -> "Samples":
        """Those at some places."""
        return Samples(
            self.table,
            self.rows[index],
            self.at_ms[index],
            self.value[index],
            self.counts[index],
            self.stale[index],
            self.quantiles[index],
            self.exemplars,
        )

    def buckets_at(self, at: int) -> Ints:
        """How many observations of the classic histogram at that place lie up to each bound, +Inf last; nothing for a
        summary.

        Never fewer than up to a lower bound: a sender of single buckets may have other bounds than the definition, and
        what it counts up to a lower one lies up to those that it lacks.
        """
        upto = self.counts[at][1:].cumsum()
        found: Ints = np.maximum.accumulate(upto)
        return found

    def quantiles_at(self, at: int) -> list[float]:
        """What the summary at that place has for each of its objectives, NaN where it observed nothing lately; nothing
        for other types."""
        known = self.quantiles[at]
        if known is not None:
            return [float(each) for each in known]
        return [math.nan] * len(self.table.families[self.table.family[self.rows[at]]].objectives)

    def with_exemplars(self, exemplars: Mapping[int, Exemplar]) -> "Samples":
        """The same with exemplars."""
        return replace(self, exemplars=exemplars)

    def in_time(self) -> "Samples":
        """Ordered by their times."""
        return self.at(np.argsort(self.at_ms, kind="stable"))

    def latest(self) -> "Samples":
        """Of each row only the one that stands last."""
        places = np.arange(self.rows.size)
        last = np.empty(self.table.size, np.intp)
        last[self.rows] = places  # of several for one row, the last one stays
        return self.at(last[self.rows] == places)

    @property
    def held_bytes(self) -> int:
        """How much memory they keep from being used otherwise, at most: samples of a quiet row share their arrays. It
        is without exemplars."""
        arrays = [int(each.nbytes) for column in (self.counts, self.quantiles) for each in column if each is not None]
        ended = int(np.count_nonzero(self.stale))
        return _ROW_BYTES * len(self) + _ARRAY_BYTES * len(arrays) + sum(arrays) + _ENDED_BYTES * ended

    @property
    def widths(self) -> Ints:
        """How many samples of the sink each becomes."""
        return self.table.width[self.rows].astype(np.int64)


def _nothing(rows: Rows) -> Objects:
    return np.full(rows.size, None, np.object_)
