"""Cumulative sources: what each of their series stood at last, so that a new total becomes what is to be added. No I/O.

A source is one series as its sender knows it, and, where the sender says when it began to count, one run of it. It may
feed several definitions, one after the other, and keeps an account of each.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from services.ingest import native_histograms
from services.ingest.columns import Floats, Mask
from services.ingest.domain import add_finite
from services.ingest.folding import Portion, Reading
from services.ingest.records import Distribution

#: Sources that have been quiet for so long leave memory, and so do those beyond so many or so many bytes; their totals
#: stay in the state, from which they come back.
_IDLE_MS = 10 * 60 * 1000
_MOST = 200_000
_MOST_BYTES = 256 << 20
#: What a source with one total takes without its counts, and one of these, measured and rounded up.
_SOURCE_BYTES = 900
_COUNT_BYTES = 40

SourceKey = tuple[bytes, bytes]
"""Project id and source."""


class SourceRow(NamedTuple):
    """What a source has told a definition, as it is to be stored."""

    tenant_id: bytes
    project_id: bytes
    source: bytes
    definition_id: bytes
    #: When the source took its last total, Unix nanoseconds.
    taken_ns: int
    #: The total; of a distribution the sum.
    value: float
    #: Of a distribution the count and the buckets; empty for others.
    counts: Sequence[int]
    #: When it was used last, Unix milliseconds.
    used_ms: int


class Total:
    """The last total of a source for one definition. `counts` are replaced, never changed."""

    __slots__ = ("counts", "definition_id", "taken_ns", "used_ms", "value")

    def __init__(
        self, definition_id: bytes, taken_ns: int = 0, value: float = 0.0, counts: Sequence[int] = (), used_ms: int = 0
    ) -> None:
        self.definition_id = definition_id
        self.taken_ns = taken_ns
        self.value = value
        self.counts = counts
        self.used_ms = used_ms

    def advance(
        self, taken_ns: int, value: float, counts: Sequence[int], *, native: bool = False
    ) -> tuple[float, Sequence[int]] | None:
        """What a total adds to those before it; None where it is not newer than the last one, and therefore counted.

        A total that fell has begun anew: it counts as a whole. With counts it is they that tell, because a sum of
        observations may fall by itself. `native`: they are those of a native histogram.
        """
        if taken_ns <= self.taken_ns:
            return None
        was_value, was_counts = self.value, self.counts
        self.taken_ns, self.value, self.counts = taken_ns, value, counts
        if not counts:
            return (value if value < was_value else add_finite(value, -was_value)), counts
        increase = _native_increase if native else _increase
        more = increase(counts, was_counts) if was_counts else None
        return (value, counts) if more is None else (add_finite(value, -was_value), more)


def _increase(counts: Sequence[int], before: Sequence[int]) -> Sequence[int] | None:
    """None where they have fallen."""
    more = [now - was for now, was in zip(counts, before, strict=True)]
    return more if min(more) >= 0 else None


def _native_increase(counts: Sequence[int], before: Sequence[int]) -> Sequence[int] | None:
    more = native_histograms.increase(counts[1:], before[1:])
    return None if more is None else [counts[0] - before[0], *more]


@dataclass(frozen=True, slots=True, eq=False)
class Increments:
    """What the totals of a portion add up to."""

    #: Where the series are that bring something new.
    news: Mask
    #: For each scalar series, and for each distribution; meaningless where there is no news.
    values: Floats
    distributions: Sequence[Distribution]


class Sources:
    """Totals by source, the one that was used last at the end."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        #: In all totals.
        self._counts = 0
        self._totals: OrderedDict[SourceKey, list[Total]] = OrderedDict()
        self._dirty: dict[tuple[SourceKey, bytes], tuple[bytes, Total]] = {}

    def __len__(self) -> int:
        return len(self._totals)

    def __contains__(self, key: SourceKey) -> bool:
        return key in self._totals

    def admit(self, key: SourceKey, totals: Iterable[Total]) -> None:
        """What a source has told each definition, as it was stored; nothing for a new one."""
        self._totals[key] = known = list(totals)
        self._counts += _counts_of(known)

    def increments(self, portion: Portion, definition_ids: Sequence[bytes], native: Mask) -> Increments:
        """Takes the totals of a portion in, in order. `definition_ids`: whom each of them is for; `native`: which of
        them are native histograms. Raises ValueError where such a one cannot be read."""
        readings, scalars = portion.readings(), portion.scalar_count
        news = np.zeros(len(readings), np.bool_)
        values = portion.values().copy()
        for at, value in enumerate(values.tolist()):
            step = self._advance(readings[at], definition_ids[at], value, ())
            if step is not None:
                news[at], values[at] = True, step[0]
        distributions = list(portion.distributions)
        for at, each in enumerate(distributions, scalars):
            counts = [each.count, *each.buckets]
            step = self._advance(readings[at], definition_ids[at], each.sum, counts, native=bool(native[at]))
            if step is not None:
                news[at] = True
                distributions[at - scalars] = Distribution(each.id, step[0], step[1][0], list(step[1][1:]))
        return Increments(news, values, distributions)

    def _advance(
        self, reading: Reading, definition_id: bytes, value: float, counts: Sequence[int], *, native: bool = False
    ) -> tuple[float, Sequence[int]] | None:
        record = reading.record
        key = (record.project_id, reading.source)
        totals = self._totals[key]
        total = next((each for each in totals if each.definition_id == definition_id), None)
        if total is None:
            total = Total(definition_id, value=value, counts=counts) if reading.baseline else Total(definition_id)
            totals.append(total)
            self._counts += len(total.counts)
        before = len(total.counts)
        step = total.advance(reading.taken_ns, value, counts, native=native)
        if step is not None:
            self._counts += len(counts) - before
            total.used_ms = max(total.used_ms, record.received_ms)
            self._totals.move_to_end(key)
            self._dirty[key, definition_id] = record.tenant_id, total
        return step

    def seal(self, now_ms: int) -> list[SourceRow]:
        """Copies of the totals that changed since the last time, as used now: the receiver's clock may be behind."""
        dirty, self._dirty = self._dirty, {}
        return [
            SourceRow(
                tenant_id, *key, definition_id, total.taken_ns, total.value, total.counts, max(total.used_ms, now_ms)
            )
            for (key, definition_id), (tenant_id, total) in dirty.items()
        ]

    def drop_idle(self, now_ms: int) -> None:
        """Forgets totals that have been quiet for long, or are too many. Call it only while no commit is under way.

        It costs what it drops: it looks no further than to the first one that stays.
        """
        while self._totals:
            key, totals = next(iter(self._totals.items()))
            changed = any((key, total.definition_id) in self._dirty for total in totals)
            idle = all(total.used_ms < now_ms - _IDLE_MS for total in totals)
            if changed or not (idle or self._too_many()):
                return
            del self._totals[key]
            self._counts -= _counts_of(totals)

    def _too_many(self) -> bool:
        sources = len(self._totals)
        return sources > _MOST or sources * _SOURCE_BYTES + self._counts * _COUNT_BYTES > self._most_bytes


def _counts_of(totals: Iterable[Total]) -> int:
    return sum([len(total.counts) for total in totals])
