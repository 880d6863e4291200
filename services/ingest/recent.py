"""The part of a series' state that passes with time: levels of merged gauges and sketches of summaries. No I/O.

It makes values that change without data. `settle` brings them up to a time, just before a checkpoint is sealed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.ingest.columns import NO_ROWS, Floats, Ids, Ints, Mask, Rows
from services.ingest.folding import Portion
from services.ingest.gauge_levels import Reports, merged
from services.ingest.series import SeriesTable
from services.ingest.sketches import Sketch
from services.ingest.turns import Steps

#: Some 5 ms.
_SUMMARIES_IN_STEP = 64


class StoredSketch(NamedTuple):
    """What one series observed in one minute."""

    partition: int
    series_id: bytes
    tenant_id: bytes
    minute: int
    #: As of `Sketch.encoded`.
    bins: bytes


@dataclass(frozen=True, slots=True, eq=False)
class StoredLevels:
    """Levels of gauges as the state has them, in columns."""

    partition: NDArray[np.int16]
    series: Ids
    #: Ids of 16 bytes.
    tenants: NDArray[np.void]
    reporters: Ids
    timestamp_ms: Ints
    as_of_ms: Ints
    level: Floats

    def __len__(self) -> int:
        return self.level.size


@dataclass(frozen=True, slots=True)
class Recent:
    """Levels and sketches on their way from the state, or to it."""

    levels: Sequence[StoredLevels] = ()
    sketches: Sequence[StoredSketch] = ()


NOTHING_RECENT = Recent()


def restore(table: SeriesTable, stored: Recent, unfindable: Rows = NO_ROWS) -> None:
    """Takes in what the state has of series that are in the table, and nothing of others.

    `unfindable`: rows that are not found by their ids, and get what they observed all the same; gauges among them keep
    their values.
    """
    for levels in stored.levels:
        _restore_levels(table, levels)
    if stored.sketches:
        found = table.find(Ids.of(b"".join([each.series_id for each in stored.sketches]))).tolist()
        others = dict(zip(table.ids(unfindable).each(), unfindable.tolist(), strict=True))
        rows = [others.get(each.series_id, row) for row, each in zip(found, stored.sketches, strict=True)]
        table.windows.restore(
            (row, each.minute, each.bins) for row, each in zip(rows, stored.sketches, strict=True) if row >= 0
        )


def _restore_levels(table: SeriesTable, levels: StoredLevels) -> None:
    rows = table.find(levels.series)
    known = np.flatnonzero(rows >= 0)
    table.levels.restore(
        Reports(
            rows=rows[known],
            series=levels.series.at(known),
            reporters=levels.reporters.at(known),
            shared=table.folded[rows[known]],
            families=table.family[rows[known]].astype(np.int64),
            timestamp_ms=levels.timestamp_ms[known],
            as_of_ms=levels.as_of_ms[known],
            level=levels.level[known],
        )
    )


def report(table: SeriesTable, portion: Portion, rows: Rows, places: Rows) -> Mask:
    """Takes in the levels of those gauges that are merged; returns which of the rows are not.

    `places`: of the rows' levels in the portion.
    """
    merges = table.merged[rows]
    if merges.any():
        _report(table, portion, rows[merges], places[merges])
    return ~merges


def _report(table: SeriesTable, portion: Portion, rows: Rows, places: Rows) -> None:
    """Each producer's levels are told apart, and each label set's where several share a row because they are over a
    budget."""
    reporters, arrivals = portion.reporters(places)
    sent, folded = portion.label_sets(places), table.folded[rows]
    timestamps = portion.timestamps()[places]
    table.levels.report(
        Reports(
            rows=rows,
            series=table.ids(rows),
            reporters=Ids(
                np.where(folded, reporters.low ^ sent.low, reporters.low),
                np.where(folded, reporters.high ^ sent.high, reporters.high),
            ),
            shared=folded,
            families=table.family[rows].astype(np.int64),
            timestamp_ms=timestamps,
            as_of_ms=np.minimum(timestamps, arrivals),
            level=portion.values()[places],
        )
    )


def settle(table: SeriesTable, now_ms: int, due: Rows = NO_ROWS) -> Steps[Rows]:
    """Makes values of gauges and quantiles of summaries what they are at that time; where they change, the rows are
    dirty. Of very many quiet summaries some follow in the next calls: see `SummaryWindows.settle`; not those that are
    `due` to be written. Returns the live gauges that no producer reports any more: they have no value."""
    for number, (row, sketch) in enumerate(table.windows.settle(now_ms)):
        _settle_quantiles(table, row, sketch)
        if number % _SUMMARIES_IN_STEP == 0:
            yield
    for number, row in enumerate(np.unique(due[table.windows.waiting(due)]).tolist()):
        table.set_quantiles(row, table.windows.settle_one(row))
        if number % _SUMMARIES_IN_STEP == 0:
            yield
    table.levels.expire(now_ms)
    rows = table.levels.take_touched()
    rows = rows[table.merged[rows] & table.present[rows] & table.live[rows]]
    if not rows.size:
        return rows
    levels = table.levels.of(rows)
    reported = np.array([each.size > 0 for each in levels], np.bool_)
    values = [
        merged(table.families[number].merge, each)
        for number, each in zip(table.family[rows].tolist(), levels, strict=True)
        if each.size
    ]
    _set_values(table, rows[reported], np.array(values, np.float64))
    return rows[~reported]


def _set_values(table: SeriesTable, rows: Rows, values: Floats) -> None:
    table.dirty[rows] |= table.value[rows] != values
    table.value[rows] = values


def _settle_quantiles(table: SeriesTable, row: int, sketch: Sketch) -> None:
    before = table.quantiles.get(row)
    table.set_quantiles(row, sketch)
    if table.live[row] and not _same(before, table.quantiles.get(row)):
        table.dirty[row] = True


def _same(before: Floats | None, after: Floats | None) -> bool:
    if before is None or after is None:
        return before is after
    return np.array_equal(before, after)


def seal(table: SeriesTable) -> Steps[Recent]:
    """Copies of what the state does not have yet."""
    sketches = []
    for number, changed in enumerate(table.windows.seal()):
        sketches.append(_stored(table, *changed))
        if number % _SUMMARIES_IN_STEP == 0:
            yield
    if not len(table.levels):
        return Recent(sketches=sketches)
    reports = table.levels.seal(table.ids)
    tenants = [table.families[number].tenant_id for number in table.family[reports.rows].tolist()]
    levels = StoredLevels(
        partition=table.partition[reports.rows],
        series=reports.series,
        tenants=np.frombuffer(b"".join(tenants), "V16"),
        reporters=reports.reporters,
        timestamp_ms=reports.timestamp_ms,
        as_of_ms=reports.as_of_ms,
        level=reports.level,
    )
    return Recent([levels] if len(levels) else [], sketches)


def _stored(table: SeriesTable, row: int, minute: int, sketch: Sketch) -> StoredSketch:
    family = table.families[table.family[row]]
    [identity] = table.ids(np.array([row])).each()
    return StoredSketch(family.partition, identity, family.tenant_id, minute, sketch.encoded())
