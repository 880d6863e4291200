"""Sealing: what has gathered becomes numbered batches in the queue."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Callable, Iterable

from .accounts import Accounts
from .batches import Batch, Gathering
from .intake import Intake
from .log import warn
from .offline_queue import OfflineQueue

_SEQUENCE_WINDOW = 4_096  # the server takes no more numbers from `floor` to `sequence`
_ADOPT_EVERY_SECONDS = 30.0


class Sealer:
    """Seals on a thread of its own, as one producer; adopts what ended processes have left."""

    def __init__(
        self,
        intake: Intake,
        offline_queue: OfflineQueue,
        accounts: Accounts,
        flush_interval_seconds: float,
        on_drop: Callable[[str, int], object] | None,
    ) -> None:
        self._producer, self._sequence = "", 0
        self._intake = intake
        self._queue = offline_queue
        self._accounts = accounts
        self._flush_interval_seconds = flush_interval_seconds
        self._on_drop = on_drop

    def run(self, stopping: threading.Event) -> None:
        """Until stopping, and then once more: nothing stays behind in the intake."""
        adoption_due = time.monotonic()
        last = False
        while not last:
            last = stopping.is_set()
            try:
                if time.monotonic() >= adoption_due:
                    adoption_due = time.monotonic() + _ADOPT_EVERY_SECONDS
                    self._drop_evicted(self._queue.adopt())
                if last or not self._intake.wait(self._flush_interval_seconds):
                    self._intake.turn_over()
                self._seal_all()
                self._accounts.report_drops(self._on_drop)
            except Exception as error:  # noqa: BLE001 - the thread must outlive any fault of its own
                warn("fault", "sealing failed: %s", type(error).__name__)
                stopping.wait(self._flush_interval_seconds)

    def _seal_all(self) -> None:
        while True:
            gathered = self._intake.fetch()
            if gathered is None:
                return
            try:
                self._seal(gathered)
            except Exception as error:  # noqa: BLE001 - one batch is lost and counted, not the thread
                warn("fault", "a batch could not be sealed: %s", type(error).__name__)
                self._accounts.drop(gathered, "fault")

    def _seal(self, gathered: Gathering) -> None:
        sequence = self._sequence + 1
        floor = self._queue.lowest_sequence(self._producer, sequence)
        # Not before the first batch: a snapshot of the process may be restored many times. And after a long outage: as
        # another producer, with a window of its own.
        if sequence == 1 or sequence - floor >= _SEQUENCE_WINDOW:
            self._producer, sequence, floor = str(uuid.uuid4()), 1, 1
        self._sequence = sequence
        self._drop_evicted(self._queue.put([gathered.seal(self._producer, sequence, floor)]))

    def _drop_evicted(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            self._accounts.drop(batch, "queue_full")
