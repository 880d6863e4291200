"""Exemplars: the trace of one observation, shown beside its series. No I/O.

They are best effort, at most one a series and commit, and never a reason to refuse or to repeat anything.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.ingest.columns import Ids, Rows
from services.ingest.records import Record, RecordedExemplar

#: Prometheus keeps 100 000 of all time, unless it is told otherwise.
_MOST_IN_COMMIT = 10_000
#: So that no project takes the places of all others.
_MOST_OF_PROJECT = 1_000
_TRACE_ID_BYTES, _SPAN_ID_BYTES = 16, 8


@dataclass(frozen=True, slots=True)
class Span:
    """Ids as W3C trace context has them."""

    trace_id: bytes
    span_id: bytes


class Exemplar(NamedTuple):
    """What a sink shows of one observation."""

    value: float
    span: Span
    #: The receiver's clock, Unix milliseconds.
    at_ms: int


def span_of(trace_id: bytes, span_id: bytes) -> Span | None:
    """None where these are no ids of a span."""
    if len(trace_id) != _TRACE_ID_BYTES or len(span_id) != _SPAN_ID_BYTES or not (any(trace_id) and any(span_id)):
        return None
    return Span(trace_id, span_id)


def span_of_text(trace_id: str, span_id: str) -> Span | None:
    """The same for ids in hexadecimal digits."""
    try:
        return span_of(bytes.fromhex(trace_id), bytes.fromhex(span_id))
    except ValueError:
        return None


class NewestExemplars:
    """Of each series the newest exemplar since the last commit."""

    def __init__(self) -> None:
        self._by_row: dict[int, Exemplar] = {}
        self._per_project: Counter[bytes] = Counter()

    def note(self, exemplars: Sequence[tuple[Record, RecordedExemplar]], rows_of: Callable[[Ids], Rows]) -> None:
        """Takes exemplars in, in order. `rows_of` finds the rows of series, -1 where there is none."""
        if not exemplars:
            return
        rows = rows_of(Ids.of(b"".join([each.series for _, each in exemplars])))
        for row, (record, each) in zip(rows.tolist(), exemplars, strict=True):
            if row >= 0 and (row in self._by_row or self._has_room(record.project_id)):
                self._by_row[row] = Exemplar(each.value, Span(each.trace_id, each.span_id), record.received_ms)

    def _has_room(self, project_id: bytes) -> bool:
        """Takes a place for one more series, where there is one."""
        if len(self._by_row) >= _MOST_IN_COMMIT or self._per_project[project_id] >= _MOST_OF_PROJECT:
            return False
        self._per_project[project_id] += 1
        return True

    def seal(self) -> dict[int, Exemplar]:
        """By row; gathering begins anew."""
        sealed, self._by_row = self._by_row, {}
        self._per_project.clear()
        return sealed
