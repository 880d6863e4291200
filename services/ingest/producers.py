"""The windows of the producers in memory: which of their batches have been counted. No I/O."""

from array import array
from collections import Counter, OrderedDict
from typing import NamedTuple

from services.ingest.records import Record
from services.ingest.windows import Window

#: Producers that have been quiet for so long leave memory, and so do those beyond so many or so many bytes; their
#: windows stay in the state, from which they come back.
_IDLE_MS = 10 * 60 * 1000
_MOST = 200_000
_MOST_BYTES = 256 << 20
#: What a window takes without its ranges, and one number of these, measured and rounded up.
_WINDOW_BYTES = 700
_NUMBER_BYTES = 20
#: Once a project's windows in memory hold more numbers, each that is used keeps so many gaps alone: what a commit costs
#: grows with them, for all projects of the lane. There are two numbers to a gap.
MOST_NUMBERS_OF_PROJECT = 1 << 18
FEW_GAPS = 64
#: With more numbers than this to be stored, the next commit comes first: 16 MiB, which take Postgres some 0.3 s.
_MOST_DIRTY_NUMBERS = 1 << 21

ProducerKey = tuple[bytes, bytes]
"""Project id and producer id."""


class ProducerRow(NamedTuple):
    """A producer's window as it is to be stored."""

    tenant_id: bytes
    key: ProducerKey
    floor: int
    ranges: "array[int]"
    used_ms: int


class Producers:
    """Windows by producer, the one that was used last at the end."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        #: In the ranges of all windows, of those of each project, and of those that changed since `seal`.
        self._numbers = 0
        self._numbers_of_project: Counter[bytes] = Counter()
        self._dirty_numbers = 0
        self._windows: OrderedDict[ProducerKey, Window] = OrderedDict()
        self._dirty: dict[ProducerKey, bytes] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def __contains__(self, key: ProducerKey) -> bool:
        return key in self._windows

    def admit(self, key: ProducerKey, window: Window) -> None:
        """A producer's window as it was stored, or a new one."""
        self._windows[key] = window
        self._count(key, len(window.ranges))

    def claim(self, record: Record) -> bool:
        """Whether the batch is counted from now on; it is not where it was before. Its producer must be in memory."""
        if not record.producer:
            return True
        key = (record.project_id, record.producer)
        window = self._windows[key]
        window.used_ms = max(window.used_ms, record.received_ms)
        self._windows.move_to_end(key)
        before = len(window.ranges)
        claimed = window.claim(record.sequence, record.floor)
        if self._numbers_of_project[record.project_id] > MOST_NUMBERS_OF_PROJECT:
            window.close_oldest(FEW_GAPS)
        self._count(key, len(window.ranges) - before)
        self._dirty_numbers += len(window.ranges) - (before if key in self._dirty else 0)
        self._dirty[key] = record.tenant_id
        return claimed

    def _count(self, key: ProducerKey, numbers: int) -> None:
        if numbers:
            self._numbers += numbers
            self._numbers_of_project[key[0]] += numbers
            if not self._numbers_of_project[key[0]]:
                del self._numbers_of_project[key[0]]

    @property
    def many_dirty(self) -> bool:
        """Whether so much is to be stored that the next commit should come before any further record."""
        return self._dirty_numbers > _MOST_DIRTY_NUMBERS

    def seal(self, now_ms: int) -> list[ProducerRow]:
        """Copies of the windows that changed since the last time, as used now: the receiver's clock may be behind."""
        dirty, self._dirty, self._dirty_numbers = self._dirty, {}, 0
        sealed = ((tenant_id, key, self._windows[key]) for key, tenant_id in dirty.items())
        return [
            ProducerRow(tenant_id, key, window.floor, window.ranges[:], max(window.used_ms, now_ms))
            for tenant_id, key, window in sealed
        ]

    def drop_idle(self, now_ms: int) -> None:
        """Forgets windows that have been quiet for long, or are too many. Call it only while no commit is under way.

        It costs what it drops: it looks no further than to the first one that stays.
        """
        while self._windows:
            key, window = next(iter(self._windows.items()))
            idle = window.used_ms < now_ms - _IDLE_MS
            if key in self._dirty or not (idle or self._too_many()):
                return
            del self._windows[key]
            self._count(key, -len(window.ranges))

    def _too_many(self) -> bool:
        windows = len(self._windows)
        return windows > _MOST or windows * _WINDOW_BYTES + self._numbers * _NUMBER_BYTES > self._most_bytes
