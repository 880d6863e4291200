"""The windows of the producers in memory: which of their batches have been counted. No I/O."""

from collections import OrderedDict
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
_NUMBER_BYTES = 40

ProducerKey = tuple[bytes, bytes]
"""Project id and producer id."""


class ProducerRow(NamedTuple):
    """A producer's window as it is to be stored."""

    tenant_id: bytes
    key: ProducerKey
    floor: int
    ranges: list[int]
    used_ms: int


class Producers:
    """Windows by producer, the one that was used last at the end."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        #: In the ranges of all windows.
        self._numbers = 0
        self._windows: OrderedDict[ProducerKey, Window] = OrderedDict()
        self._dirty: dict[ProducerKey, bytes] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def __contains__(self, key: ProducerKey) -> bool:
        return key in self._windows

    def admit(self, key: ProducerKey, window: Window) -> None:
        """A producer's window as it was stored, or a new one."""
        self._windows[key] = window
        self._numbers += len(window.ranges)

    def claim(self, record: Record) -> bool:
        """Whether the batch is counted from now on; it is not where it was before. Its producer must be in memory."""
        if not record.producer:
            return True
        key = (record.project_id, record.producer)
        window = self._windows[key]
        window.used_ms = max(window.used_ms, record.received_ms)
        self._windows.move_to_end(key)
        self._dirty[key] = record.tenant_id
        before = len(window.ranges)
        claimed = window.claim(record.sequence, record.floor)
        self._numbers += len(window.ranges) - before
        return claimed

    def seal(self, now_ms: int) -> list[ProducerRow]:
        """Copies of the windows that changed since the last time, as used now: the receiver's clock may be behind."""
        dirty, self._dirty = self._dirty, {}
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
            self._numbers -= len(window.ranges)

    def _too_many(self) -> bool:
        windows = len(self._windows)
        return windows > _MOST or windows * _WINDOW_BYTES + self._numbers * _NUMBER_BYTES > self._most_bytes
