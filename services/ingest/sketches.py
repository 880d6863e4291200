"""Quantile sketches of summaries: observations counted in bins so narrow that any of them stands for all in it.

This is DDSketch (https://www.vldb.org/pvldb/vol12/p2195-masson.pdf) with the mapping of its authors' library: a
quantile is at most 1 % off the observation that has its rank. Bins are kept sparsely, as ascending numbers and their
counts, so that negative, tiny and huge observations beside each other cost as little as others.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy as np
from ddsketch.mapping import LogarithmicMapping
from numpy.typing import NDArray

from services.ingest.columns import Floats, Ints

#: How far a quantile may be from the observation of its rank, as a part of that observation.
RELATIVE_ERROR = 0.01

#: Bins that a sketch keeps: more than observations of one sign over 17 powers of ten fill. Over it those next to zero
#: are joined, so that what is small among very different observations loses its exactness first.
MOST_BINS = 2_048

_mapping = LogarithmicMapping(RELATIVE_ERROR)
#: More than any key of the mapping, so that bins of positive numbers are positive.
_OFFSET = 40_000
#: Smaller numbers are taken for 0.
_LEAST: float = _mapping.min_possible
_GREATEST_KEY: int = _mapping.key(_mapping.max_possible)

#: Bins that lie closer together than this are added up without being sorted, which is several times as fast.
_DENSE = 16

Bins = NDArray[np.int32]

#: The first bin, and how many bytes each step to the next bin and each count have.
_header = Struct("<iBB")


def bin_of(observation: float) -> int:
    """The bin of a finite number: 0 of zero, above it those of positive numbers, all in the order of what they hold."""
    if observation > _LEAST:
        key: int = _mapping.key(observation)
        return _OFFSET + key
    if observation < -_LEAST:
        return -_OFFSET - _mapping.key(-observation)
    return 0


def count_into(bins: dict[int, int], observations: Iterable[float], weight: int) -> None:
    """Counts finite observations, each of which stands for `weight` alike, in their bins."""
    for observation in observations:
        number = bin_of(observation)
        bins[number] = bins.get(number, 0) + weight


def _value_of(number: int) -> float:
    if number == 0:
        return 0.0
    key = abs(number) - _OFFSET
    # The library's own formula overflows in the last bin.
    magnitude: float = _mapping.value(min(key, _GREATEST_KEY)) * (_mapping.gamma if key > _GREATEST_KEY else 1.0)
    return magnitude if number > 0 else -magnitude


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """Observations by bin. Nothing in it changes."""

    #: Ascending.
    bins: Bins
    #: How many observations each has, 1 or more.
    counts: Ints

    @classmethod
    def of(cls, counted: Iterable[Mapping[int, int]]) -> "Sketch":
        """All that was counted."""
        parts = [each for each in counted if each]
        bins = np.fromiter((number for each in parts for number in each), np.int32)
        return _summed(bins, np.fromiter((count for each in parts for count in each.values()), np.int64))

    @classmethod
    def joined(cls, sketches: Sequence["Sketch"]) -> "Sketch":
        """One sketch of all their observations."""
        filled = [each for each in sketches if each.bins.size]
        if len(filled) == 1:
            return filled[0]
        bins = [np.empty(0, np.int32), *(each.bins for each in filled)]
        return _summed(np.concatenate(bins), np.concatenate([np.empty(0, np.int64), *(e.counts for e in filled)]))

    @classmethod
    def decoded(cls, encoded: bytes) -> "Sketch":
        """The other way round than `encoded`."""
        first, step_size, count_size = _header.unpack_from(encoded)
        size = (len(encoded) - _header.size + step_size) // (step_size + count_size)
        steps = np.frombuffer(encoded, f"<u{step_size}", size - 1, _header.size)
        counts = np.frombuffer(encoded, f"<u{count_size}", size, len(encoded) - size * count_size)
        bins = np.concatenate(([first], steps)).cumsum()
        return cls(bins.astype(np.int32), counts.astype(np.int64))

    def encoded(self) -> bytes:
        """As the state keeps it: the first bin and two sizes, the steps between bins, the counts. There is a bin."""
        steps, counts = _narrowed(np.diff(self.bins)), _narrowed(self.counts)
        header = _header.pack(int(self.bins[0]), steps.itemsize, counts.itemsize)
        return b"".join((header, steps.tobytes(), counts.tobytes()))

    def quantiles(self, objectives: Sequence[float]) -> Floats:
        """For each objective q, the observation whose place is q of the way from the first to the last; NaN of none."""
        if not self.bins.size:
            return np.full(len(objectives), np.nan)
        upto = self.counts.cumsum()
        ranks = np.array(objectives) * float(upto[-1] - 1)
        places = np.minimum(np.searchsorted(upto, ranks, side="right"), self.bins.size - 1)
        return np.array([_value_of(number) for number in self.bins[places].tolist()])


def _narrowed(numbers: Bins | Ints) -> NDArray[np.unsignedinteger[Any]]:
    """Numbers that are not negative in as few bytes each as the largest needs, little-endian."""
    narrowest = np.min_scalar_type(int(numbers.max(initial=0)))
    return numbers.astype(narrowest.newbyteorder("<"))


def _summed(bins: Bins, counts: Ints) -> Sketch:
    """One count for each of the bins, which may be given repeatedly and in any order."""
    if not bins.size:
        return Sketch(bins, counts)
    first = int(bins.min())
    span = int(bins.max()) - first + 1
    if span <= _DENSE * bins.size:
        sums = np.zeros(span, np.int64)
        np.add.at(sums, bins - first, counts)
        places = np.flatnonzero(sums)
        return _bounded((places + first).astype(np.int32), sums[places])
    found, places = np.unique(bins, return_inverse=True)
    sums = np.zeros(found.size, np.int64)
    np.add.at(sums, places, counts)
    return _bounded(found, sums)


def _bounded(bins: Bins, counts: Ints) -> Sketch:
    """At most `MOST_BINS`: what is nearest to zero comes into the bin of the least magnitude that stays."""
    if bins.size <= MOST_BINS:
        return Sketch(bins, counts)
    by_magnitude = np.argsort(np.abs(bins), kind="stable")
    leaving, stays = by_magnitude[:-MOST_BINS], by_magnitude[-MOST_BINS]
    counts = counts.copy()
    counts[stays] += counts[leaving].sum()
    kept = np.ones(bins.size, np.bool_)
    kept[leaving] = False
    return Sketch(bins[kept], counts[kept])
