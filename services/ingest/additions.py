"""How values of records are added to the series of a table, or take the place of what is there. No I/O."""

from collections.abc import Iterable
from sys import float_info

import numpy as np

from services.ingest import native_histograms
from services.ingest.columns import Floats, Ints, Rows
from services.ingest.domain import MetricType, add_finite
from services.ingest.errors import UnreadableLogError
from services.ingest.records import PART_BUCKETS, PART_COUNT, PART_VALUE, Distribution
from services.ingest.series import SeriesTable

#: Counts stay there where they would grow beyond: what no honest client reaches must not stop anybody else. Two of them
#: are still a number of 64 bits.
_MOST_COUNT = 2**61


def add_counters(table: SeriesTable, rows: Rows, increments: Floats) -> None:
    """Counters: increments are never negative, so a sum that overflows stays at the largest number."""
    totals = table.value
    with np.errstate(over="ignore"):
        np.add.at(totals, rows, increments)
    totals[rows] = np.minimum(totals[rows], float_info.max)


def set_newest(table: SeriesTable, rows: Rows, levels: Floats, timestamps: Ints) -> None:
    """Gauges: the newest timestamp wins, of equal ones the one that came last."""
    order = np.argsort(timestamps, kind="stable")
    order = order[timestamps[order] >= table.timestamp_ms[rows[order]]]
    # Of several assignments to one row, NumPy keeps the last.
    table.value[rows[order]] = levels[order]
    table.timestamp_ms[rows[order]] = timestamps[order]


def add_distribution(table: SeriesTable, row: int, delta: Distribution, received_ms: int) -> None:
    """What was observed of a histogram or summary. Raises UnreadableLogError where its buckets are others."""
    family = table.families[table.family[row]]
    counts = table.counts.get(row)
    if counts is None:
        raise other_buckets(family.name)
    # A new array: the one before may have been sealed.
    if table.type[row] == MetricType.NATIVE_HISTOGRAM:
        table.counts[row] = _with_native(counts, delta, family.name)
    elif counts.size == len(delta.buckets) + 1:
        increments = np.array(_bounded([delta.count, *delta.buckets]), np.int64)
        table.counts[row] = np.minimum(counts + increments, _MOST_COUNT)
    else:
        raise other_buckets(family.name)
    table.value[row] = add_finite(float(table.value[row]), delta.sum)
    if delta.bins and family.objectives:
        table.windows.observe(row, received_ms, delta.bins)


def _with_native(counts: Ints, delta: Distribution, name: str) -> Ints:
    try:
        packed = native_histograms.merged(counts[1:].tolist(), delta.buckets)
    except ValueError as error:
        raise other_buckets(name) from error
    return np.array(_bounded([int(counts[0]) + delta.count, *packed]), np.int64)


def _bounded(counts: Iterable[int]) -> list[int]:
    return [min(count, _MOST_COUNT) for count in counts]


def add_parts(table: SeriesTable, rows: Rows, increments: Floats, parts: Ints) -> None:
    """What counters have gained, and single parts of histograms: see `records.PART_VALUE`.

    Raises UnreadableLogError where a series has no such part.
    """
    counters = table.type[rows] == MetricType.COUNTER
    if (table.type[rows[~counters]] != MetricType.HISTOGRAM).any() or parts[counters].any():
        raise UnreadableLogError("a record has a total that its series cannot take")
    add_counters(table, rows[counters], increments[counters])
    others = np.flatnonzero(~counters)
    for row, part, increment in zip(*(each[others].tolist() for each in (rows, parts, increments)), strict=True):
        if part == PART_VALUE:
            table.value[row] = add_finite(float(table.value[row]), increment)
        else:
            table.counts[row] = _with_part(table.counts[row], part, int(increment))


def _with_part(counts: Ints, part: int, increment: int) -> Ints:
    """Counts that an increment was added to: a new array, because the one before may have been sealed."""
    if not PART_COUNT <= part < PART_BUCKETS + counts.size - 1:
        raise UnreadableLogError("a record has a total of a bucket that its series has not")
    counts, increment = counts.copy(), min(increment, _MOST_COUNT)
    if part == PART_COUNT:
        counts[0] = min(int(counts[0]) + increment, _MOST_COUNT)
        return counts
    bucket = part - PART_BUCKETS + 1
    counts[bucket] = min(int(counts[bucket]) + increment, _MOST_COUNT)
    if bucket + 1 < counts.size:  # what is in a lower bucket is not in the next one
        counts[bucket + 1] = max(int(counts[bucket + 1]) - increment, -_MOST_COUNT)
    return counts


def other_buckets(name: str) -> UnreadableLogError:
    """A record and its series do not fit together."""
    return UnreadableLogError(f"a record has other buckets than its series, definition {name!r}")
