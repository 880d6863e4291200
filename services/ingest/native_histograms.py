"""Native histograms: observations in exponential buckets, which are added up without losing a count. No I/O.

Source: https://prometheus.io/docs/specs/native_histograms/. In schema s, bucket k holds what is above 2^((k-1)/2^s) and
not above 2^(k/2^s); a negative observation is in the bucket of its magnitude, among the negative ones. What is not
farther from 0 than the threshold is in the zero bucket. Where buckets get too many, neighbours are merged two by two,
which halves the resolution and keeps every count exact.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

#: Eight buckets for each doubling: what is in the same bucket as a quantile is off by 9 % at most, 2^(1/8).
FINEST_SCHEMA = 3
#: One bucket for a factor of 65 536.
COARSEST_SCHEMA = -4
#: Positive and negative ones together.
MOST_BUCKETS = 160
#: The width of the zero bucket that Prometheus' client libraries have, 2^-128.
ZERO_THRESHOLD = 2.938735877055719e-39

_ZERO_EXPONENT = -128
_LARGEST_EXPONENT = 1024
#: Upper bounds of the buckets from one half on, as Prometheus has them, which rounds some of them down.
_FRACTIONS = (
    0.5,
    0.5452538663326288,
    0.5946035575013605,
    0.6484197773255048,
    0.7071067811865475,
    0.7711054127039704,
    0.8408964152537144,
    0.9170040432046711,
)
#: Numbers before the indexes in a packed histogram.
_HEAD = 3


class NativeBuckets:
    """Exponential buckets with the number of observations in each."""

    __slots__ = ("negative", "positive", "schema", "zero")

    def __init__(self, schema: int = FINEST_SCHEMA) -> None:
        self.schema = schema
        self.zero = 0
        #: Counts by index.
        self.positive: dict[int, int] = {}
        self.negative: dict[int, int] = {}

    @property
    def count(self) -> int:
        """All observations."""
        return self.zero + sum(self.positive.values()) + sum(self.negative.values())

    def observe(self, observations: Iterable[float], weight: int = 1) -> None:
        """Adds finite observations, each of which stands for `weight` alike."""
        for observation in observations:
            if abs(observation) <= ZERO_THRESHOLD:
                self.zero += weight
                continue
            side = self.positive if observation > 0 else self.negative
            index = coarser(_finest_index(abs(observation)), FINEST_SCHEMA - self.schema)
            side[index] = side.get(index, 0) + weight
        self._bound()

    def add(self, other: "NativeBuckets") -> None:
        """Adds another histogram; the result has the coarser schema of the two, or a coarser one still."""
        self.coarsen(min(self.schema, other.schema))
        steps = other.schema - self.schema
        self.zero += other.zero
        _add(self.positive, other.positive, steps)
        _add(self.negative, other.negative, steps)
        self._bound()

    def coarsen(self, schema: int) -> None:
        """Merges buckets until the schema is not finer than this one."""
        steps = self.schema - schema
        if steps > 0:
            self.schema = schema
            self.positive = _add({}, self.positive, steps)
            self.negative = _add({}, self.negative, steps)

    def settle(self) -> None:
        """Moves what is in buckets within the threshold into the zero bucket; drops empty ones.

        Raises ValueError for a bucket that holds no finite numbers, and for a schema that is not taken.
        """
        if not COARSEST_SCHEMA <= self.schema <= FINEST_SCHEMA:
            raise ValueError(f"schema {self.schema}")
        innermost, outermost = (_index_of_power(each, self.schema) for each in (_ZERO_EXPONENT, _LARGEST_EXPONENT))
        for side in (self.positive, self.negative):
            for index, count in list(side.items()):
                if index > outermost:
                    raise ValueError(f"bucket {index} of schema {self.schema}")
                if index <= innermost:
                    self.zero += count
                if index <= innermost or not count:
                    del side[index]
        self._bound()

    def _bound(self) -> None:
        while len(self.positive) + len(self.negative) > MOST_BUCKETS and self.schema > COARSEST_SCHEMA:
            self.coarsen(self.schema - 1)

    def packed(self) -> list[int]:
        """Schema, zero bucket, how many buckets are negative; the indexes of these and of the positive ones, each
        ascending; then their counts in the same order."""
        negative, positive = sorted(self.negative.items()), sorted(self.positive.items())
        both = [*negative, *positive]
        head = (self.schema, self.zero, len(negative))
        return [*head, *(index for index, _ in both), *(count for _, count in both)]

    @classmethod
    def unpacked(cls, packed: Sequence[int]) -> "NativeBuckets":
        """The other way round. Raises ValueError where it is not what `packed` makes."""
        buckets, rest = (len(packed) - _HEAD) // 2, (len(packed) - _HEAD) % 2
        if buckets < 0 or rest or not 0 <= packed[2] <= buckets:
            raise ValueError(f"{len(packed)} numbers are no native histogram")
        found = cls(packed[0])
        if not COARSEST_SCHEMA <= found.schema <= FINEST_SCHEMA:
            raise ValueError(f"schema {found.schema}")
        found.zero = packed[1]
        negatives, middle = _HEAD + packed[2], _HEAD + buckets
        found.negative = dict(zip(packed[_HEAD:negatives], packed[middle : middle + packed[2]], strict=True))
        found.positive = dict(zip(packed[negatives:middle], packed[middle + packed[2] :], strict=True))
        return found


#: Without any observation.
EMPTY = tuple(NativeBuckets().packed())


def emptied(packed: Sequence[int]) -> list[int]:
    """The same schema without any observation."""
    return NativeBuckets(packed[0]).packed()


def merged(packed: Sequence[int], more: Sequence[int]) -> list[int]:
    """Both together, all of them as of `NativeBuckets.packed`. Raises ValueError where one of them is not."""
    both = NativeBuckets.unpacked(packed)
    both.add(NativeBuckets.unpacked(more))
    return both.packed()


def increase(packed: Sequence[int], before: Sequence[int]) -> list[int] | None:
    """What a total has more than the one before, all as of `NativeBuckets.packed`, in the coarser schema of the two;
    None where it has fallen there, which says that its source has begun anew. That it became finer says nothing: a
    source may tell the same observations in another scale. Raises ValueError where one of them is no such thing."""
    now, was = NativeBuckets.unpacked(packed), NativeBuckets.unpacked(before)
    now.coarsen(was.schema)
    was.coarsen(now.schema)
    now.zero -= was.zero
    for side, less in ((now.positive, was.positive), (now.negative, was.negative)):
        for index, count in less.items():
            side[index] = side.get(index, 0) - count
    if min(now.zero, *now.positive.values(), *now.negative.values(), 0) < 0:
        return None
    now.settle()
    return now.packed()


def _finest_index(magnitude: float) -> int:
    fraction, exponent = math.frexp(magnitude)
    return bisect_left(_FRACTIONS, fraction) + (exponent - 1) * len(_FRACTIONS)


def coarser(index: int, steps: int) -> int:
    """The bucket that a bucket is part of once the resolution was halved so often."""
    return -(-index >> steps)


def _index_of_power(exponent: int, schema: int) -> int:
    """The bucket that ends at 2^exponent."""
    return exponent << schema if schema >= 0 else coarser(exponent, -schema)


def _add(side: dict[int, int], more: Mapping[int, int], steps: int) -> dict[int, int]:
    for index, count in more.items():
        merged_index = coarser(index, steps)
        side[merged_index] = side.get(merged_index, 0) + count
    return side
