"""All series of a lane, a row each, in columns; and their definitions.

What folding and sealing touch is in NumPy columns; what is rarely looked at, such as labels, is kept as bytes.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.ingest import native_histograms
from services.ingest.columns import NO_ROWS, Floats, Ids, Ints, Mask, Objects, Rows, joined_rows
from services.ingest.domain import OTHER, GaugeMerge, LabelPairs, MetricType, is_other, partition_of
from services.ingest.gauge_levels import GaugeLevels
from services.ingest.series_index import SeriesIndex
from services.ingest.sketches import Sketch
from services.ingest.summary_windows import SummaryWindows

_FIRST_CAPACITY = 1024
#: Bytes of memory that a live series takes, measured and rounded up: by itself, for each of its samples besides
#: name and labels, and by its type. Of a summary, whose last ten minutes come to more or less, it is what is usual.
_SERIES_BYTES = 400
_SAMPLE_BYTES = 250
_BYTES_OF_TYPE = {MetricType.HISTOGRAM: 250, MetricType.NATIVE_HISTOGRAM: 1_700, MetricType.SUMMARY: 11_000}

_labels_encoder = msgspec.msgpack.Encoder()
_labels_decoder = msgspec.msgpack.Decoder(LabelPairs)


def encode_labels(labels: LabelPairs) -> bytes:
    """Label pairs as a table keeps them."""
    return _labels_encoder.encode(labels)


def decode_labels(encoded: bytes) -> LabelPairs:
    """The other way round."""
    return _labels_decoder.decode(encoded)


class Family:
    """One definition: what its series share."""

    __slots__ = (
        "bounds",
        "definition_id",
        "merge",
        "name",
        "number",
        "objectives",
        "partition",
        "project_id",
        "rows",
        "tenant_id",
        "type",
    )

    def __init__(
        self,
        *,
        tenant_id: bytes,
        project_id: bytes,
        definition_id: bytes,
        name: str,
        type: MetricType,  # noqa: A002 - the field's name
        bounds: tuple[float, ...],
        merge: GaugeMerge = GaugeMerge.LAST,
        objectives: tuple[float, ...] = (),
    ) -> None:
        self.tenant_id = tenant_id
        self.project_id = project_id
        self.definition_id = definition_id
        self.name = name
        self.type = type
        self.bounds = bounds
        self.merge = merge
        self.objectives = objectives
        self.partition = partition_of(project_id)
        #: Its place in the table, and how many rows refer to it.
        self.number = -1
        self.rows = 0

    @property
    def no_counts(self) -> Ints:
        """The count and the buckets of a histogram or summary without any observation."""
        buckets: Sequence[int] = ()
        if self.type is MetricType.HISTOGRAM:
            buckets = [0] * (len(self.bounds) + 1)
        elif self.type is MetricType.NATIVE_HISTOGRAM:
            buckets = native_histograms.EMPTY
        return np.array([0, *buckets], np.int64)

    @property
    def passes(self) -> bool:
        """Whether values of its series change with time alone: see `recent.py`."""
        return self.type is MetricType.SUMMARY or self.merge is not GaugeMerge.LAST

    @property
    def width(self) -> int:
        """How many samples a sink writes of one of its series."""
        if self.type is MetricType.HISTOGRAM:
            return len(self.bounds) + 3
        return 2 + len(self.objectives) if self.type is MetricType.SUMMARY else 1

    def kilobytes(self, label_bytes: Ints) -> int:
        """What series of it take in memory, each rounded up, while they are live. `label_bytes`: of the encoded labels
        of each, which are kept once, and with the name once more for each of its samples."""
        fixed = _SERIES_BYTES + _BYTES_OF_TYPE.get(self.type, 0) + self.width * (_SAMPLE_BYTES + len(self.name))
        return int((-(-(fixed + (1 + self.width) * label_bytes) // 1024)).sum())


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoredSeries:
    """Series as the state has them, in columns."""

    ids: Ids
    families: Sequence[Family]
    #: As of `encode_labels`.
    labels: Sequence[bytes]
    folded: Mask
    value: Floats
    #: The count, then the buckets of each histogram or summary; None for others.
    counts: Sequence[Ints | None]
    timestamp_ms: Ints
    created_ms: Ints
    changed_ms: Ints

    def __len__(self) -> int:
        return len(self.families)

    @property
    def passing(self) -> list[tuple[int, bytes]]:
        """Partitions and ids of those whose values change with time alone."""
        if not any(family.passes for family in self.families):
            return []
        pairs = zip(self.families, self.ids.each(), strict=True)
        return [(family.partition, identity) for family, identity in pairs if family.passes]

    def at(self, places: Mask) -> "StoredSeries":
        """Those where the mask says so."""
        chosen = np.flatnonzero(places)
        return StoredSeries(
            ids=self.ids.at(chosen),
            families=[self.families[place] for place in chosen.tolist()],
            labels=[self.labels[place] for place in chosen.tolist()],
            folded=self.folded[chosen],
            value=self.value[chosen],
            counts=[self.counts[place] for place in chosen.tolist()],
            timestamp_ms=self.timestamp_ms[chosen],
            created_ms=self.created_ms[chosen],
            changed_ms=self.changed_ms[chosen],
        )


class _Newcomer(NamedTuple):
    row: int
    identity: bytes
    family: Family
    labels: bytes


class SeriesTable:
    """Rows of series. A row keeps its number until nothing that has left for a sink refers to it any more."""

    #: See the columns of the table `series`. Each is meaningful below `size`.
    value: Floats
    timestamp_ms: Ints
    created_ms: Ints
    changed_ms: Ints
    partition: NDArray[np.int16]
    type: NDArray[np.uint8]
    #: The number of its `Family`.
    family: NDArray[np.int32]
    #: See `Family.width`.
    width: NDArray[np.uint16]
    #: Gauges whose value is made of several producers' levels.
    merged: Mask
    #: Holds what label sets over a budget were folded into.
    folded: Mask
    #: Of these, has `__other__` everywhere, and so stays in memory.
    other: Mask
    #: Is found by its id.
    present: Mask
    #: Is written to the sinks; a series without data for a day is not, until it wakes up.
    live: Mask
    #: Has changed since the last checkpoint.
    dirty: Mask
    #: Has a row in the state.
    stored: Mask
    _low: NDArray[np.uint64]
    _high: NDArray[np.uint64]

    def __init__(self) -> None:
        #: Rows below it are or were in use.
        self.size = 0
        #: Changes whenever an id is added or removed: what `find` said before may be wrong from then on.
        self.version = 0
        #: As of `encode_labels`.
        self.labels: list[bytes] = []
        #: What a sink needs of a row's labels, made once, by the sink.
        self.encoded: list[bytes | tuple[bytes, ...] | None] = []
        #: The count, then the buckets of each histogram or summary, those of a native histogram as of
        #: `NativeBuckets.packed`. Arrays in it are replaced, never changed.
        self.counts: dict[int, Ints] = {}
        #: What summaries observed lately, and the quantiles of it, which are replaced, never changed.
        self.windows = SummaryWindows()
        self.quantiles: dict[int, Floats] = {}
        #: What producers reported lately for the gauges that are made of it.
        self.levels = GaugeLevels()
        #: Definitions that were given objectives, which the state does not have yet.
        self.adopted: list[Family] = []
        self.families: list[Family] = []
        self._family_of: dict[bytes, Family] = {}
        self._free_families: list[int] = []
        self._index = SeriesIndex()
        self._count = 0
        self._newcomers: dict[bytes, _Newcomer] = {}
        self._free: list[int] = []
        self._leaving: list[Rows] = []
        self._gone: deque[tuple[int, Rows]] = deque()
        for name, kind in _DTYPES.items():
            setattr(self, name, np.zeros(_FIRST_CAPACITY, kind))

    def __len__(self) -> int:
        """How many series can be found."""
        return self._count + len(self._newcomers)

    @property
    def _ids(self) -> Ids:
        return Ids(self._low, self._high)

    def find(self, ids: Ids) -> Rows:
        """The row of each id, -1 where there is none. Newcomers must have settled."""
        return self._index.find(ids, self._ids)

    def row_of(self, identity: bytes) -> int:
        """The row of one id, newcomers too; -1 where there is none."""
        newcomer = self._newcomers.get(identity)
        return newcomer.row if newcomer else int(self.find(Ids.of(identity))[0])

    def ids(self, rows: Rows) -> Ids:
        """The ids of rows."""
        return self._ids.at(rows)

    def family_of(self, definition_id: bytes) -> Family | None:
        """The definition, if any row refers to it."""
        return self._family_of.get(definition_id)

    def of_family(self, definition_id: bytes) -> Rows:
        """The rows in use of a definition."""
        family = self._family_of.get(definition_id)
        if family is None:
            return NO_ROWS
        return np.flatnonzero((self.family[: self.size] == family.number) & self.present[: self.size])

    def of_name(self, project_id: bytes, name: str) -> Rows:
        """The rows in use of all definitions that have or had the name."""
        return joined_rows(self.of_family(family.definition_id) for family in self.families_of(project_id, name))

    def families_of(self, project_id: bytes, name: str) -> list[Family]:
        """The definitions that have or had the name, as far as any row refers to them."""
        return [each for each in self._family_of.values() if each.name == name and each.project_id == project_id]

    def enter(self, family: Family) -> Family:
        """The table's own `Family` of the definition; this one, if it has none yet."""
        known = self._family_of.setdefault(family.definition_id, family)
        if known.number < 0:
            if self._free_families:
                known.number = self._free_families.pop()
                self.families[known.number] = known
            else:
                known.number = len(self.families)
                self.families.append(known)
        return known

    def adopt(self, family: Family, objectives: tuple[float, ...]) -> None:
        """Gives a definition, of whose series all have settled, the objectives that earlier records did not tell."""
        family.objectives = objectives
        rows = np.flatnonzero(self.family[: self.size] == family.number)
        self.width[rows] = family.width
        for row in rows.tolist():
            self.encoded[row] = None
        self.adopted.append(family)

    def make(self, identity: bytes, family: Family, labels: LabelPairs) -> int:
        """The row of a new series, which is written by `settle`. The family must have been entered."""
        [row] = self._take(1)
        family.rows += 1
        self._newcomers[identity] = _Newcomer(row, identity, family, encode_labels(labels))
        return row

    def settle(self) -> None:
        """Gives newcomers their place in all columns; to be called before anything is done with their rows."""
        if self._newcomers:
            rows, identities, families, labels = zip(*self._newcomers.values(), strict=True)
            self._newcomers = {}
            folded = np.array([is_folded(each) for each in labels], np.bool_)
            self._fill(np.array(rows, np.intp), Ids.of(b"".join(identities)), families, labels, folded)
            self._index_rows(np.array(rows, np.intp))

    def restore(self, stored: StoredSeries, *, findable: bool = True) -> Rows:
        """Rows for series from the state; `findable` by their ids or not."""
        rows = np.array(self._take(len(stored)), np.intp)
        families = [self.enter(family) for family in stored.families]
        for family in families:
            family.rows += 1
        self._fill(rows, stored.ids, families, stored.labels, stored.folded)
        self.value[rows] = stored.value
        self.timestamp_ms[rows] = stored.timestamp_ms
        self.created_ms[rows] = stored.created_ms
        self.changed_ms[rows] = stored.changed_ms
        self.stored[rows] = True
        for row, counts in zip(rows.tolist(), stored.counts, strict=True):
            if counts is not None:
                self.counts[row] = counts
        if findable:
            self._index_rows(rows)
        return rows

    def _take(self, count: int) -> list[int]:
        reused = self._free[-count:] if count else []
        del self._free[len(self._free) - len(reused) :]
        first = self.size
        self.size += count - len(reused)
        if self.size > self.value.size:
            self._grow(self.size)
        missing = self.size - len(self.labels)
        self.labels.extend([b""] * missing)
        self.encoded.extend([None] * missing)
        return [*reused, *range(first, self.size)]

    def _grow(self, least: int) -> None:
        capacity = max(least, 2 * self.value.size)
        for name, kind in _DTYPES.items():
            column = np.zeros(capacity, kind)
            before = getattr(self, name)
            column[: before.size] = before
            setattr(self, name, column)

    def _fill(self, rows: Rows, ids: Ids, families: Sequence[Family], labels: Sequence[bytes], folded: Mask) -> None:
        for name in _DTYPES:
            getattr(self, name)[rows] = 0
        self._low[rows], self._high[rows] = ids
        self.family[rows] = [family.number for family in families]
        self.partition[rows] = [family.partition for family in families]
        self.type[rows] = [family.type for family in families]
        self.width[rows] = [family.width for family in families]
        self.merged[rows] = [family.merge is not GaugeMerge.LAST for family in families]
        self.folded[rows] = folded
        for at in np.flatnonzero(folded).tolist():
            self.other[rows[at]] = is_other(decode_labels(labels[at]))
        for row, encoded in zip(rows.tolist(), labels, strict=True):
            self.labels[row] = encoded
        for at in np.flatnonzero(self.type[rows] > MetricType.GAUGE).tolist():
            self.counts[int(rows[at])] = families[at].no_counts

    def _index_rows(self, rows: Rows) -> None:
        self._index.add(self.ids(rows), rows, self._ids)
        self.present[rows] = True
        self._count += rows.size
        self.version += 1

    def remove(self, rows: Rows) -> None:
        """Series that cannot be found any more. Their rows stay as they are until they are reclaimed."""
        self._index.remove(self.ids(rows), rows)
        if self.merged[rows].any():
            self.levels.forget(rows)
        self.present[rows] = self.live[rows] = self.dirty[rows] = False
        self._count -= rows.size
        self.version += 1

    def leave(self, rows: Rows) -> None:
        """Removed rows that samples under way may refer to: they are reclaimed once the next commit is delivered."""
        self._leaving.append(rows)

    def committed(self, commit_ms: int) -> None:
        """Everything that refers to rows that have left is in this commit or an earlier one."""
        if self._leaving:
            self._gone.append((commit_ms, joined_rows(self._leaving)))
            self._leaving = []

    def delivered(self, commit_ms: int) -> None:
        """Every commit up to this one is delivered: rows that left by then are reclaimed."""
        while self._gone and self._gone[0][0] <= commit_ms:
            self.reclaim(self._gone.popleft()[1])

    def reclaim(self, rows: Rows) -> None:
        """Removed rows that nothing refers to."""
        for row, number in zip(rows.tolist(), self.family[rows].tolist(), strict=True):
            self.labels[row], self.encoded[row] = b"", None
            if self.counts.pop(row, None) is not None:
                self.windows.forget(row)
                self.quantiles.pop(row, None)
            self._free.append(row)
            family = self.families[number]
            family.rows -= 1
            if not family.rows:
                del self._family_of[family.definition_id]
                self._free_families.append(number)

    def kilobytes(self, family: Family, rows: Rows) -> int:
        """What these rows, all of one family, take in memory while they are live."""
        return family.kilobytes(np.array([len(self.labels[row]) for row in rows.tolist()], np.int64))

    def label_pairs(self, row: int) -> LabelPairs:
        """Names and values of a row's labels."""
        return decode_labels(self.labels[row])

    def counts_of(self, rows: Rows) -> Objects:
        """The counts of each row, None for counters and gauges. They never change."""
        counts = np.full(rows.size, None, np.object_)
        for at in np.flatnonzero(self.type[rows] > MetricType.GAUGE).tolist():
            counts[at] = self.counts[int(rows[at])]
        return counts

    def set_quantiles(self, row: int, observed: Sketch) -> None:
        """Makes the quantiles of a summary those of what it observed lately."""
        if observed.bins.size:
            self.quantiles[row] = observed.quantiles(self.families[self.family[row]].objectives)
        else:
            self.quantiles.pop(row, None)

    def quantiles_of(self, rows: Rows) -> Objects:
        """The quantiles of each row; None where nothing was observed lately, and for all but summaries. Nothing is
        written without it, so that what came from the state and waits is settled here at the latest."""
        for row in np.unique(rows[self.windows.waiting(rows)]).tolist():
            self.set_quantiles(row, self.windows.settle_one(row))
        quantiles = np.full(rows.size, None, np.object_)
        if self.quantiles:
            for at in np.flatnonzero(self.type[rows] == MetricType.SUMMARY).tolist():
                quantiles[at] = self.quantiles.get(int(rows[at]))
        return quantiles


_DTYPES: dict[str, type[np.generic]] = {
    "value": np.float64,
    "timestamp_ms": np.int64,
    "created_ms": np.int64,
    "changed_ms": np.int64,
    "partition": np.int16,
    "type": np.uint8,
    "family": np.int32,
    "width": np.uint16,
    "merged": np.bool_,
    "folded": np.bool_,
    "other": np.bool_,
    "present": np.bool_,
    "live": np.bool_,
    "dirty": np.bool_,
    "stored": np.bool_,
    "_low": np.uint64,
    "_high": np.uint64,
}


def is_folded(labels: bytes) -> bool:
    """Whether one of the encoded labels has the value that label sets over a budget get."""
    return _OTHER_ENCODED in labels and OTHER in decode_labels(labels)[1::2]


_OTHER_ENCODED = OTHER.encode()
