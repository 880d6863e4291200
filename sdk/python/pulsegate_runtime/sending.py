"""Sending: each batch in the queue until the server has settled it."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from typing import NamedTuple

from .accounts import Accounts
from .batches import Batch
from .connection import Answer, Connection
from .log import warn
from .offline_queue import OfflineQueue

_REFUSED_SLOWDOWN, _REFUSED_CAP_SECONDS = 10, 300.0  # a refused key is tried rarely, but may be repaired any time

_random = random.SystemRandom()  # leaves the host's seeded generator alone, and differs after a fork


class Wait(NamedTuple):
    """Until the next attempt: as long as both say."""

    backoff_seconds: float = 0.0  # our own patience, which ends with whoever is in a hurry
    retry_after_seconds: float = 0.0  # what the server asked for


class Sender:
    """Sends on a thread of its own: one batch at a time, each until it is settled."""

    def __init__(
        self,
        offline_queue: OfflineQueue,
        accounts: Accounts,
        connection: Connection,
        retry_base_seconds: float,
        retry_cap_seconds: float,
    ) -> None:
        self._queue = offline_queue
        self._accounts = accounts
        self._connection = connection
        self._retry_base_seconds = retry_base_seconds
        self._retry_cap_seconds = retry_cap_seconds
        self._failures = 0  # since the last answer that settled a batch

    def run(self, stopping: threading.Event) -> None:
        if self._connection.fault:
            fault = f"nothing can be sent: {self._connection.fault}; what is recorded is kept as long as there is room"
            warn(self._connection.fault, fault)
            stopping.wait()
            return
        while True:
            batch = self._queue.take(stopping)
            if batch is None:
                break
            try:
                wait = self._attempt(batch)
            except Exception as error:  # noqa: BLE001 - whatever went wrong on the way, the batch is still queued
                wait = self._retry(batch, type(error).__name__)  # no more of it: it could quote the key
            self._queue.rest(stopping, wait.backoff_seconds, wait.retry_after_seconds)
        self._connection.close()

    def _attempt(self, batch: Batch) -> Wait:
        """Send a batch once; the wait before the next attempt, none when this batch is settled."""
        if batch.expired():
            return self._drop(batch, "expired")
        try:
            body = batch.body()
        except FileNotFoundError:
            return self._drop(batch, "unreadable")
        except OSError as error:
            return self._read_later(batch, type(error).__name__)
        answer = self._connection.post(body)
        if answer.status in (401, 403):
            self._queue.give_back()
            return self._retry(batch, answer.reason, answer.retry_after_seconds, refused=True)
        self._queue.adopting = True
        if answer.status in (408, 425, 429) or not (answer.status == 202 or 400 <= answer.status < 500):
            return self._retry(batch, answer.reason, answer.retry_after_seconds)
        self._failures = 0
        return self._conclude(batch, body, answer)

    def _conclude(self, batch: Batch, body: bytes, answer: Answer) -> Wait:
        """Settle a batch by an answer that is final."""
        if answer.status == 413:
            return self._drop(batch, "too_large")
        if answer.code == "SEQUENCE_OUT_OF_WINDOW":
            return self._drop(batch, "out_of_window")
        rejected = batch.calls
        if answer.status == 202:
            split = dict(enumerate(batch.split))
            rejected = min(rejected, sum(split.get(index, 1) for index in set(answer.rejected)))
        if rejected:
            message = "the server rejected %d record() calls%s: %s"
            warn(f"rejected {answer.code}", message, rejected, _example(body, answer), answer.reason)
        if self._queue.remove(batch):
            self._accounts.settle(batch, rejected)
        return Wait()

    def _drop(self, batch: Batch, reason: str) -> Wait:
        if self._queue.remove(batch):
            self._accounts.drop(batch, reason)
        return Wait()

    def _read_later(self, batch: Batch, why: str) -> Wait:
        """Queue a batch again that cannot be read now. This says nothing of the server: the back-off does not grow."""
        self._queue.put_back(batch)
        self._accounts.count("retries")
        warn("reading", "a batch in the queue directory cannot be read (%s) and is tried again", why)
        return Wait(self._retry_base_seconds * _random.uniform(0.5, 1.0))

    def _retry(self, batch: Batch, why: str, retry_after_seconds: float = 0.0, refused: bool = False) -> Wait:
        """Queue a batch again; the wait is exponential, jittered, and never shorter than the server asked for."""
        self._queue.put_back(batch)
        self._accounts.count("retries")
        cap = _REFUSED_CAP_SECONDS if refused else self._retry_cap_seconds
        base = self._retry_base_seconds * (_REFUSED_SLOWDOWN if refused else 1)
        backoff = min(cap, base * 2.0 ** min(self._failures, 30)) * _random.uniform(0.5, 1.0)
        wait = Wait(backoff, retry_after_seconds * _random.uniform(1.0, 1.1))
        self._failures += 1
        warn("retry", "a batch was not delivered (%s); the next attempt is in %.1f s", why, max(wait))
        return wait


def _example(body: bytes, answer: Answer) -> str:
    """Which metric the server's sentence is about."""
    with contextlib.suppress(ValueError, LookupError):  # an index of no metric
        name = json.loads(body)["metrics"][answer.rejected[0]]["name"]
        return f", such as of {name[:200]!r}"
    return ""
