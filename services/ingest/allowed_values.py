"""The values that a label may have, in little more memory than their bytes."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class AllowedValues:
    """A set of texts, looked up by halving. A `frozenset` takes up to thirty times as much memory for short ones, of
    which a tenant may define millions, and every receiver keeps those of all tenants."""

    #: In their order, one after the other, as UTF-8.
    _texts: bytes
    #: Where each ends.
    _ends: "array[int]"

    @classmethod
    def of(cls, values: Iterable[str]) -> "AllowedValues":
        texts = sorted({value.encode() for value in values})
        return cls(b"".join(texts), array("I", list(accumulate(map(len, texts)))))

    def __contains__(self, value: str) -> bool:
        wanted = value.encode()
        place = bisect_left(range(len(self._ends)), wanted, key=self._at)
        return place < len(self._ends) and self._at(place) == wanted

    def _at(self, place: int) -> bytes:
        return self._texts[self._ends[place - 1] if place else 0 : self._ends[place]]
