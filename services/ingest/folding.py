"""The records of one read from the log, in columns."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from services.ingest.columns import NO_ROWS, Floats, Ids, Ints, Mask, Rows
from services.ingest.domain import LabelPairs, series_id
from services.ingest.errors import UnreadableLogError
from services.ingest.records import (
    ID_BYTES,
    DefinitionFacts,
    Distribution,
    Identity,
    Kind,
    Record,
    RecordedExemplar,
    identities_of,
)


class Portion:
    """Records of values between two endings of definitions, as one.

    Its series are first the scalar ones of all records in order, then the distributions of all records in order.
    """

    def __init__(self, records: Sequence[Record], endings: Sequence[Record], *, cumulative: bool = False) -> None:
        self.records = records
        #: Values and distributions are totals of their sources.
        self.cumulative = cumulative
        #: The records after these ones, each of which ends definitions.
        self.endings = endings
        self.distributions: list[Distribution] = [each for record in records for each in record.distributions]
        #: The receiver's clock when it took each of them, Unix milliseconds.
        self.arrivals: list[int] = []
        self._scalars = [len(record.ids) // ID_BYTES for record in records]
        self.scalar_count = sum(self._scalars)
        joined = b"".join([record.ids for record in records])
        if self.distributions:
            joined += b"".join([_checked(each.id) for each in self.distributions])
            self.arrivals = [record.received_ms for record in records for _ in record.distributions]
        self.ids = Ids.of(joined)
        self._with_exemplars = [number for number, record in enumerate(records) if record.exemplars]
        #: The row of each series, -1 where it has none, as of that version of the table.
        self.rows: Rows = NO_ROWS
        self.version = -1
        #: Whose series late data goes to, by the deleted definition that it names: of those series alone it was found
        #: out whether the state has them.
        self.heirs: dict[bytes, bytes] = {}
        #: Ids of series that were looked for in the state.
        self.sought: set[bytes] = set()
        self._identities: dict[int, list[Identity]] = {}
        self._facts: dict[int, dict[bytes, DefinitionFacts]] = {}

    def values(self) -> Floats:
        """A counter's increment or a gauge's level for each scalar series."""
        return np.frombuffer(b"".join([record.values for record in self.records]), "<f8").astype(np.float64, copy=False)

    def timestamps(self) -> Ints:
        """A gauge's timestamp for each scalar series, Unix milliseconds."""
        parts = [
            record.timestamps or bytes(8 * count) for record, count in zip(self.records, self._scalars, strict=True)
        ]
        return np.frombuffer(b"".join(parts), "<i8").astype(np.int64, copy=False)

    def readings(self) -> "list[Reading]":
        """Where each series of cumulative records comes from. Raises UnreadableLogError where one does not say."""
        scalars: list[Reading] = []
        others: list[Reading] = []
        for record, count in zip(self.records, self._scalars, strict=True):
            of_record = _readings(record)
            scalars += of_record[:count]
            others += of_record[count:]
        return scalars + others

    def parts(self) -> Ints:
        """Which part of its series each scalar total is: see `records.PART_VALUE`."""
        parts = [
            (record.origins.parts if record.origins else b"") or bytes(8 * count)
            for record, count in zip(self.records, self._scalars, strict=True)
        ]
        return np.frombuffer(b"".join(parts), "<i8").astype(np.int64, copy=False)

    def reporters(self, places: Rows) -> tuple[Ids, Ints]:
        """Who reported the scalar series at these places, zero where that is unknown, and when they were received."""
        joined = b"".join(
            [
                record.reporters or (record.producer or bytes(ID_BYTES)) * count
                for record, count in zip(self.records, self._scalars, strict=True)
            ]
        )
        received_ms = np.repeat(np.array([record.received_ms for record in self.records], np.int64), self._scalars)
        return Ids.of(joined).at(places), received_ms[places]

    def label_sets(self, places: Rows) -> Ids:
        """What label set the series at each of these places has: its id as sent; of late data, as its heir's."""
        ids = self.ids.at(places)
        if not self.heirs:
            return ids
        each = zip(ids.each(), self.sources(places), strict=True)
        return Ids.of(
            b"".join(
                [
                    series_id(self.heirs[facts.id], stands_for.labels) if facts.id in self.heirs else identity
                    for identity, (_, facts, stands_for) in each
                ]
            )
        )

    def inherited(self, identity: bytes, facts: DefinitionFacts, labels: LabelPairs) -> tuple[bytes, DefinitionFacts]:
        """Which series data of a label set goes to, and its definition: its heir's, where it has one."""
        heir = self.heirs.get(facts.id, facts.id)
        return (identity, facts) if heir == facts.id else (series_id(heir, labels), replace(facts, id=heir))

    def weights(self) -> Ints:
        """How many metrics stand behind each series of a record."""
        weights = np.ones(self.scalar_count + len(self.distributions), np.int64)
        if self.distributions:
            weights[self.scalar_count :] = [each.metrics for each in self.distributions]
        return weights

    def count_of(self, places: Mask) -> int:
        """How many records have series there."""
        return int(np.unique(self._origins()[0][places]).size)

    def exemplars(self, accepted: Sequence[bool] | None = None) -> list[tuple[Record, RecordedExemplar]]:
        """Those of the accepted records, or of all, each with its record."""
        return [
            (self.records[number], each)
            for number in self._with_exemplars
            if accepted is None or accepted[number]
            for each in self.records[number].exemplars
        ]

    def mask(self, accepted: Sequence[bool]) -> Mask:
        """Where the series of the accepted records are."""
        each = np.array(accepted, np.bool_)
        scalars = np.repeat(each, self._scalars)
        if not self.distributions:
            return scalars
        return np.concatenate([scalars, np.repeat(each, [len(record.distributions) for record in self.records])])

    def sources(self, places: Rows) -> list[tuple[Record, DefinitionFacts, Identity]]:
        """The record of the series at each place, its definition, and what its id stands for.

        Raises UnreadableLogError where the record does not say.
        """
        numbers, offsets = self._origins()
        return [
            self._source(number, at)
            for number, at in zip(numbers[places].tolist(), offsets[places].tolist(), strict=True)
        ]

    def _origins(self) -> tuple[Rows, Rows]:
        """For each series the number of its record and its place among that record's series."""
        scalars = np.array(self._scalars, np.intp)
        others = np.array([len(record.distributions) for record in self.records], np.intp)
        each = np.arange(scalars.size)
        starts = np.repeat(scalars.cumsum() - scalars, scalars)
        other_starts = np.repeat(others.cumsum() - others - scalars, others)
        numbers = np.concatenate([np.repeat(each, scalars), np.repeat(each, others)])
        offsets = np.concatenate([np.arange(starts.size) - starts, np.arange(other_starts.size) - other_starts])
        return numbers, offsets

    def _source(self, number: int, at: int) -> tuple[Record, DefinitionFacts, Identity]:
        record = self.records[number]
        if number not in self._identities:
            self._identities[number] = identities_of(record)
            self._facts[number] = {facts.id: facts for facts in record.definitions}
        identity = self._identities[number][at]
        facts = self._facts[number].get(identity.definition_id)
        if facts is None:
            raise UnreadableLogError("a record does not describe the definition of one of its series")
        return record, facts, identity


class Reading(NamedTuple):
    """A total that a source has taken."""

    record: Record
    source: bytes
    #: When, Unix nanoseconds.
    taken_ns: int
    #: Where the source is new, the total adds nothing.
    baseline: bool


def _readings(record: Record) -> list[Reading]:
    if record.origins is None:
        raise UnreadableLogError("a cumulative record does not say where its totals come from")
    sources, taken_ns = record.origins.sources, np.frombuffer(record.origins.taken_ns, "<i8").tolist()
    baselines = record.origins.baselines or bytes(len(taken_ns))
    return [
        Reading(record, sources[at * ID_BYTES : (at + 1) * ID_BYTES], taken, bool(baseline))
        for at, (taken, baseline) in enumerate(zip(taken_ns, baselines, strict=True))
    ]


def _checked(identity: bytes) -> bytes:
    if len(identity) != ID_BYTES:
        raise UnreadableLogError(f"a series id has {len(identity)} bytes")
    return identity


def portions_of(records: Iterable[Record]) -> list[Portion]:
    """The records that have values, cut after each run of endings; totals by themselves, after the other values."""
    portions: list[Portion] = []
    values: list[Record] = []
    totals: list[Record] = []
    endings: list[Record] = []
    for record in records:
        if record.kind is Kind.END:
            endings.append(record)
            continue
        if record.kind is Kind.TALLY:
            continue
        if endings:
            portions += _cut(values, totals, endings)
            values, totals, endings = [], [], []
        (totals if record.kind is Kind.CUMULATIVE else values).append(record)
    return portions + _cut(values, totals, endings)


def _cut(values: Sequence[Record], totals: Sequence[Record], endings: Sequence[Record]) -> list[Portion]:
    if totals:
        first = [Portion(values, [])] if values else []
        return [*first, Portion(totals, endings, cumulative=True)]
    return [Portion(values, endings)] if values or endings else []
