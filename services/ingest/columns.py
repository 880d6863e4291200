"""The NumPy columns that the aggregator's parts hand each other."""

from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from services.ingest.errors import UnreadableLogError
from services.ingest.records import ID_BYTES

Rows = NDArray[np.intp]
"""Numbers of rows of a `SeriesTable`."""

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Objects = NDArray[np.object_]

NO_ROWS: Rows = np.empty(0, np.intp)


class Ids(NamedTuple):
    """16-byte ids of series, each as two little-endian numbers."""

    low: NDArray[np.uint64]
    high: NDArray[np.uint64]

    @classmethod
    def of(cls, joined: bytes) -> Self:
        """Ids that stand one after the other. Raises UnreadableLogError where the last one is cut off."""
        if len(joined) % ID_BYTES:
            raise UnreadableLogError("a series id has not 16 bytes")
        halves = np.frombuffer(joined, "<u8").reshape(-1, 2)
        return cls(np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1]))

    def at(self, index: Rows) -> "Ids":
        """Those at some places."""
        return Ids(self.low[index], self.high[index])

    def joined(self) -> bytes:
        """One after the other."""
        return np.stack(self, axis=1).astype("<u8", copy=False).tobytes()

    def each(self) -> list[bytes]:
        """One by one."""
        joined = self.joined()
        return [joined[at : at + ID_BYTES] for at in range(0, len(joined), ID_BYTES)]


def joined_rows(parts: Iterable[Rows]) -> Rows:
    """All rows of the parts, in order."""
    return np.concatenate([NO_ROWS, *parts])
