"""Between the host's threads and the sealing thread: what is recorded gathers here."""

from __future__ import annotations

import collections
import queue
from typing import Deque, List

from .accounts import Accounts
from .batches import Gathering
from .metrics import Metric


class Intake:
    """Gathers what any thread records, until the sealing thread fetches it. Touches memory only."""

    def __init__(self, accounts: Accounts, max_batch_metrics: int, max_batch_bytes: int, max_full_bytes: int) -> None:
        self.closed = False
        self._accounts = accounts
        self._max_batch_metrics = max_batch_metrics
        self._max_batch_bytes = max_batch_bytes
        self._max_full_bytes = max_full_bytes
        self._arrivals: Deque[List[Metric] | str] = collections.deque()
        self._busy = False
        self._open = Gathering(number=1)
        self._full: Deque[Gathering] = collections.deque()  # waiting to be sealed
        self._full_bytes = 0
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()  # wakes the sealing thread

    def take(self, arrival: List[Metric] | str) -> None:
        """Take in the metrics of one call, or what is wrong with it."""
        with self._accounts.lock:
            self._arrivals.append(arrival)
            if self._busy:  # a signal handler or finaliser has come in between: the outer call sees to it
                return
            self._busy = True
            try:
                while self._arrivals:
                    self._gather(self._arrivals.popleft())
            finally:
                self._busy = False

    def _gather(self, arrival: List[Metric] | str) -> None:
        self._accounts.count("recorded")
        if self.closed:
            self._accounts.drop_calls(1, "closed")
        elif isinstance(arrival, str):
            self._accounts.drop_invalid(arrival)
        else:
            for metric in arrival:
                self._add(metric)

    def _add(self, metric: Metric) -> None:
        if self._open.size + metric.size > self._max_batch_bytes:
            self.turn_over()
        if self._open.size + metric.size > self._max_batch_bytes:
            self._accounts.drop_calls(metric.calls, "too_large")
            return
        self._open.add(metric)
        if len(self._open.metrics) >= self._max_batch_metrics:
            self.turn_over()

    def close(self) -> bool:
        """Drop what comes from now on; True the first time."""
        with self._accounts.lock:
            already, self.closed = self.closed, True
            return not already

    def turn_over(self) -> int:
        """Hand the open batch, if anything is in it, to the sealing thread, and open the next: its number."""
        with self._accounts.lock:
            gathered = self._open
            if gathered.metrics:
                self._open = Gathering(gathered.number + 1)
                self._accounts.expect(gathered)
                self._full.append(gathered)
                self._full_bytes += gathered.size
                self.ring()
            while self._full_bytes > self._max_full_bytes and len(self._full) > 1:  # sealing cannot keep up
                self._accounts.drop(self._pop_full(), "queue_full")
            return self._open.number

    def _pop_full(self) -> Gathering:
        gathered = self._full.popleft()
        self._full_bytes -= gathered.size
        return gathered

    def fetch(self) -> Gathering | None:
        """The next gathering to seal, if one waits."""
        with self._accounts.lock:
            return self._pop_full() if self._full else None

    def ring(self) -> None:
        self._bell.put(None)

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for the bell; False when it has not rung in time."""
        try:
            self._bell.get(timeout=timeout_seconds)
        except queue.Empty:
            return False
        while not self._bell.empty():  # once is enough
            self._bell.get_nowait()
        return True
