"""The delivery ledger: what became of the metrics of each project, by name and hour. No I/O.

What is committed and what is a duplicate is counted where records are folded, and stored in the transaction that stores
what they changed. What receivers alone know, rejections and the duplicates that they answer by themselves, comes
through the log, as records of tallies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from services.ingest.columns import Ints, Mask, Rows
from services.ingest.folding import Portion
from services.ingest.records import Record, identities_of
from services.ingest.series import Family, SeriesTable

HOUR_MS = 3_600_000


class LedgerKey(NamedTuple):
    """One line of the ledger."""

    tenant_id: bytes
    project_id: bytes
    #: Empty for metrics whose name is not to be had, or that are too many.
    metric: str
    #: When the hour of the receiver's clock began, Unix milliseconds.
    hour_ms: int


@dataclass(slots=True)
class Counts:
    """Metrics; what was accepted is what is committed and what is a duplicate."""

    committed: int = 0
    duplicate: int = 0
    #: Of the committed ones those whose label set was over a budget.
    folded: int = 0


@dataclass(slots=True)
class Rejected:
    """Metrics that were rejected for one reason."""

    count: int = 0
    #: What the last one was told, and when, Unix milliseconds.
    example: str = ""
    last_ms: int = 0


@dataclass(frozen=True, slots=True)
class LedgerLines:
    """What is to be added to the ledger with a commit."""

    counts: dict[LedgerKey, Counts] = field(default_factory=dict)
    #: By line and code.
    rejected: dict[tuple[LedgerKey, str], Rejected] = field(default_factory=dict)


class Ledger:
    """Counts since the last commit."""

    def __init__(self) -> None:
        self._lines = LedgerLines()

    def seal(self) -> LedgerLines:
        """What has been counted; counting begins anew."""
        sealed, self._lines = self._lines, LedgerLines()
        return sealed

    def count(self, portion: Portion, accepted: Sequence[bool], rows: Rows, table: SeriesTable) -> None:
        """Counts folded records: `accepted` says which of them count, `rows` where each of their series is."""
        weights = portion.weights()
        hours = [record.received_ms // HOUR_MS for record in portion.records]
        for hour in set(hours):
            wanted = portion.mask([counts and at == hour for counts, at in zip(accepted, hours, strict=True)])
            self._count_committed(hour * HOUR_MS, rows[wanted], weights[wanted], table)
        for record, counts in zip(portion.records, accepted, strict=True):
            if not counts:
                self._count_duplicate(record)

    def count_each(self, portion: Portion, committed: Mask, rows: Rows, table: SeriesTable) -> None:
        """The same where each series by itself is `committed` or a duplicate, and all have rows."""
        weights = portion.weights()
        hours = [record.received_ms // HOUR_MS for record in portion.records]
        for hour in set(hours):
            of_hour = portion.mask([at == hour for at in hours])
            wanted, repeated = of_hour & committed, of_hour & ~committed
            self._count_committed(hour * HOUR_MS, rows[wanted], weights[wanted], table)
            numbers = np.bincount(table.family[rows[repeated]], weights[repeated])
            for number in np.flatnonzero(numbers).tolist():
                self._line_of(table.families[number], hour * HOUR_MS).duplicate += int(numbers[number])

    def _count_committed(self, hour_ms: int, rows: Rows, weights: Ints, table: SeriesTable) -> None:
        if not rows.size:
            return
        numbers = table.family[rows]
        counts = np.bincount(numbers, weights)
        into_other = table.folded[rows]
        folded = np.bincount(numbers[into_other], weights[into_other], minlength=counts.size)
        for number in np.flatnonzero(counts).tolist():
            line = self._line_of(table.families[number], hour_ms)
            line.committed += int(counts[number])
            line.folded += int(folded[number])

    def _line_of(self, family: Family, hour_ms: int) -> Counts:
        return self._line(LedgerKey(family.tenant_id, family.project_id, family.name, hour_ms))

    def _line(self, key: LedgerKey) -> Counts:
        line = self._lines.counts.get(key)
        if line is None:
            line = self._lines.counts[key] = Counts()
        return line

    def _count_duplicate(self, record: Record) -> None:
        names = {facts.id: facts.name for facts in record.definitions}
        identities = identities_of(record)
        scalars = len(identities) - len(record.distributions)
        weights = [1] * scalars + [each.metrics for each in record.distributions]
        for identity, weight in zip(identities, weights, strict=True):
            name = names.get(identity.definition_id, "")
            self._line(_key(record, name)).duplicate += weight

    def add(self, record: Record) -> None:
        """Takes a receiver's tallies in."""
        for tally in record.tallies:
            key = _key(record, _clean(tally.metric))
            if not tally.code:
                self._line(key).duplicate += tally.count
                continue
            rejected = self._lines.rejected.setdefault((key, _clean(tally.code)), Rejected())
            rejected.count += tally.count
            rejected.example, rejected.last_ms = _clean(tally.example), record.received_ms


def _key(record: Record, metric: str) -> LedgerKey:
    return LedgerKey(record.tenant_id, record.project_id, metric, record.received_ms // HOUR_MS * HOUR_MS)


def _clean(text: str) -> str:
    """The text without what Postgres cannot keep."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
