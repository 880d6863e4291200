"""The client: options, threads, forks and exits around what the other modules do."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from typing import Callable, List, Mapping, Sequence

from .accounts import Accounts, Stats
from .connection import Connection
from .intake import Intake
from .log import warn
from .metrics import Metric, fault_of, metrics_of
from .offline_queue import OfflineQueue
from .sealing import Sealer
from .sending import Sender

_METRICS_PER_BATCH = 100  # the server takes no more in one request, ...
_BYTES_PER_BATCH = 1024 * 1024  # ... nor a larger one
_EXIT_SECONDS = 2.0
_STOP_SECONDS = 0.2  # of closing, for writing down what is left
_LONGEST_WAIT_SECONDS = 24 * 3600.0


def _within(least: float, value: float, most: float) -> float:
    """The nearest to `value` between these two; the least for NaN."""
    return max(least, min(value, most))


class Client:
    """Sends metrics to one project. Methods may be called from any thread.

    A generated client adds one typed method a metric. Neither these nor record() raise, whatever they are called with;
    flush() and close() wait, for their timeout at most. Options:

    endpoint                the gateway's address, such as https://metrics.example.com
    key                     an API key that may write
    queue_directory         keeps unsent batches over restarts; one directory a project, any number of processes
    flush_interval_seconds  how long metrics gather, at most, before they are sealed into a batch
    max_batch_metrics       ... and how many, at most 100
    max_batch_bytes         ... and how large, at most 1 MiB
    max_queue_bytes         of batches that wait; when there are more, the oldest are dropped
    timeout_seconds         of one step of a request
    retry_base_seconds      the first wait between attempts; doubled each time, with jitter, ...
    retry_cap_seconds       ... up to this
    on_drop                 called as on_drop(reason, calls), soon after, on a thread of this client
    """

    def __init__(
        self,
        endpoint: str,
        key: str,
        *,
        queue_directory: str | None = None,
        flush_interval_seconds: float = 1.0,
        max_batch_metrics: int = _METRICS_PER_BATCH,
        max_batch_bytes: int = 256 * 1024,
        max_queue_bytes: int = 64 * 1024 * 1024,
        timeout_seconds: float = 10.0,
        retry_base_seconds: float = 1.0,
        retry_cap_seconds: float = 60.0,
        on_drop: Callable[[str, int], object] | None = None,
    ) -> None:
        self._server = (endpoint, str(key or "").strip(), _within(0.01, timeout_seconds, 3600))
        self._flush_interval_seconds = _within(0.01, flush_interval_seconds, 3600)
        self._batch_limits = (
            int(_within(1, max_batch_metrics, _METRICS_PER_BATCH)),
            int(_within(1024, max_batch_bytes, _BYTES_PER_BATCH)),
        )
        self._queue_limits = (queue_directory, max_queue_bytes)
        self._retry_seconds = (_within(0.01, retry_base_seconds, 3600), _within(0.01, retry_cap_seconds, 3600))
        self._on_drop = on_drop
        self._begin()
        self._start()
        _clients.add(self)

    def _begin(self) -> None:
        """Be empty, and a new producer: at first, and again in a forked child."""
        directory, max_queue_bytes = self._queue_limits
        self._accounts = Accounts()
        self._intake = Intake(self._accounts, *self._batch_limits, max_queue_bytes)
        self._queue = OfflineQueue(directory, max_queue_bytes)
        self._connection = Connection(*self._server)
        self._queue.adopting = not self._connection.fault
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def _start(self) -> None:
        """Start working, unless a thread does already. Takes no lock while it logs: a log handler may record."""
        with self._accounts.lock:
            if self._thread is not None or self._intake.closed:
                return
            self._thread = thread = threading.Thread(target=self._work, name="pulsegate-seal", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._not_started(error)

    def _not_started(self, error: RuntimeError) -> None:
        """There can be no more threads just now: the next record() tries again."""
        self._thread = None
        warn("threads", "cannot start a thread: %s", error)

    def _work(self) -> None:
        """Seal on this thread, send on another; when both have ended, count what cannot be kept."""
        sender = Sender(self._queue, self._accounts, self._connection, *self._retry_seconds)
        sending = threading.Thread(target=sender.run, args=(self._stopping,), name="pulsegate-send", daemon=True)
        try:
            sending.start()
        except RuntimeError as error:
            self._not_started(error)
            return
        sealer = Sealer(self._intake, self._queue, self._accounts, self._flush_interval_seconds, self._on_drop)
        sealer.run(self._stopping)
        sending.join(_STOP_SECONDS / 2)  # an attempt without an answer may last longer than the process
        for batch in self._queue.stop():
            self._accounts.drop(batch, "closed")
        self._accounts.report_drops(self._on_drop)

    def record(
        self,
        name: str,
        value: float | Sequence[float],
        labels: Mapping[str, str] | None = None,
        timestamp: float | None = None,
        kind: str | None = None,
    ) -> None:
        """Add to a metric: a counter's increment, a gauge's level, or one or more observations.

        `timestamp` is in Unix seconds and matters for gauges only. `kind` is counter, gauge, histogram or summary, and
        lets calls be folded before they are sent; without it, each is sent as it is. Never raises, never waits for I/O.
        """
        try:
            arrival: List[Metric] | str = metrics_of(name, value, labels, timestamp, kind)
        except Exception as error:  # noqa: BLE001 - whatever was passed: counted, and logged by a thread of ours
            arrival = fault_of(name, error)
        self._intake.take(arrival)
        if self._thread is None:
            self._start()

    def _refuse(self, name: str, error: TypeError) -> None:
        """Count a call that no method takes, such as one without a required label."""
        self._intake.take(f"{name!r}: {str(error)[:300]}")
        if self._thread is None:
            self._start()

    @property
    def stats(self) -> Stats:
        return self._accounts.stats(
            queued_batches=len(self._queue), queued_bytes=self._queue.bytes, disk_errors=self._queue.disk_errors
        )

    def _send_now(self) -> int:
        """Hand over what has gathered, and end the wait between attempts; the number of what gathers next."""
        following = self._intake.turn_over()
        self._queue.hurry()
        return following

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Send now, but no sooner than the server has asked for by Retry-After.

        True once all that was recorded before this call is settled: accepted, rejected or dropped.
        """
        following = self._send_now()
        if self._thread is None:
            self._start()
        patience_seconds = 0.0 if self._connection.fault else timeout_seconds
        return self._accounts.wait_settled(following, _within(0, patience_seconds, _LONGEST_WAIT_SECONDS))

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Flush and stop; blocks for `timeout_seconds` at most, 0.2 s where less is given.

        What is unsent then waits in the queue directory or, without one, is dropped and counted.
        """
        deadline = time.monotonic() + _within(_STOP_SECONDS, timeout_seconds, _LONGEST_WAIT_SECONDS)
        if not self._intake.close():
            return
        self.flush(deadline - _STOP_SECONDS - time.monotonic())
        self._stopping.set()
        self._intake.ring()
        self._queue.wake()
        if self._thread is not None:
            self._thread.join(max(deadline - time.monotonic(), 0.0))

    def _begin_in_child(self) -> None:
        """The parent's batches stay the parent's; threads start with the child's first record()."""
        closed = self._intake.closed
        self._queue.disown()
        self._connection.disown()
        self._begin()
        self._intake.closed = closed


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _begin_in_child() -> None:
    for client in list(_clients):
        client._begin_in_child()


def _close_all() -> None:
    """At exit: all clients flush at the same time, for a couple of seconds at most."""
    deadline = time.monotonic() + _EXIT_SECONDS
    for client in list(_clients):
        client._send_now()
    for client in list(_clients):
        client.close(deadline - time.monotonic())


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
