"""The queue of sealed batches: bounded, and on disk where a directory is given."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
import uuid
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Tuple

from .batches import Batch
from .locks import remove_lock, try_lock
from .log import warn


class OfflineQueue:
    """The sealed batches that are not settled yet: in files or, without a directory that works, in memory.

    A directory may serve many processes. Each owns the files named after its random owner id, and holds the lock
    `<owner>.lock` while it lives. Where an owner's lock is free, whoever takes it adopts the owner's batches.
    """

    _NAME = re.compile(r"[0-9a-f]{32}\.(\d+)\.([0-9a-f-]{36})\.(\d+)\.(\d+)\.json")

    def __init__(self, directory: str | None, max_bytes: int) -> None:
        self.bytes = self.disk_errors = 0
        self.adopting = True  # not while this process could not deliver what it takes over
        self._directory = Path(directory) if directory else None
        self._max_bytes = max_bytes
        self._owner = ""
        self._lock: int | None = None
        self._batches: Dict[Tuple[str, int], Batch] = {}  # by producer and sequence, in order of sending
        self._in_flight: Batch | None = None
        self._hurried = False  # since the last batch was taken
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._batches)

    def put(self, batches: Iterable[Batch]) -> List[Batch]:
        """Keep these batches; the oldest ones, which had to make room, are returned."""
        for batch in batches:
            if self._directory and self._lock is not None and batch.path is None:
                self._write(batch, self._directory)
            with self._changed:
                self._batches[batch.producer, batch.sequence] = batch
                self.bytes += batch.size
                self._changed.notify_all()
        evicted = self._evict()
        for batch in evicted:
            self._unlink(batch)
        return evicted

    def _evict(self) -> List[Batch]:
        evicted = []
        with self._changed:
            while self.bytes > self._max_bytes and len(self) > 1:
                others = (one for one in self._batches.values() if one is not self._in_flight)
                oldest = min(others, key=lambda one: one.sealed_at)  # one in flight may be counted already: it stays
                self._forget(oldest)
                evicted.append(oldest)
        return evicted

    def _forget(self, batch: Batch) -> bool:
        if self._batches.pop((batch.producer, batch.sequence), None) is None:
            return False
        self.bytes -= batch.size
        return True

    def take(self, stopping: threading.Event) -> Batch | None:
        """The next batch to send, as soon as there is one; None when stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._batches or stopping.is_set())
            self._hurried = False
            self._in_flight = None if stopping.is_set() else next(iter(self._batches.values()))
            return self._in_flight

    def rest(self, stopping: threading.Event, patience_seconds: float, least_seconds: float) -> None:
        """Wait for as long as both say. A hurry ends the patience, only stopping ends the least."""
        with self._changed:
            began = time.monotonic()
            self._changed.wait_for(stopping.is_set, least_seconds)
            left = began + patience_seconds - time.monotonic()
            self._changed.wait_for(lambda: self._hurried or stopping.is_set(), max(left, 0.0))

    def hurry(self) -> None:
        """End the patience of this rest or, in the middle of an attempt, of the rest that follows."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def put_back(self, batch: Batch) -> None:
        """Send it again after the others: a batch that the server cannot digest must not hold up the rest."""
        with self._changed:
            self._in_flight = None
            if self._batches.pop((batch.producer, batch.sequence), None):
                self._batches[batch.producer, batch.sequence] = batch

    def remove(self, batch: Batch) -> bool:
        """Forget a batch: its file first, since whatever may still be sent must not be below the floor.

        False where it was given up already, by a stop in the middle of its attempt.
        """
        self._unlink(batch)
        with self._changed:
            self._in_flight = None
            return self._forget(batch)

    def _unlink(self, batch: Batch) -> None:
        if batch.path:
            with self._counting_errors():
                batch.path.unlink(missing_ok=True)

    def lowest_sequence(self, producer: str, default: int) -> int:
        with self._changed:
            return min((one.sequence for one in self._batches.values() if one.producer == producer), default=default)

    def stop(self) -> List[Batch]:
        """Release the directory to whoever adopts the files in it; what only memory holds is returned."""
        with self._changed:
            left = [batch for batch in self._batches.values() if not batch.path]
            for batch in left:
                self._forget(batch)
        if self._directory and self._lock is not None and not self._batches:
            lock, self._lock = self._lock, None
            with self._counting_errors():
                remove_lock(lock, self._directory / f"{self._owner}.lock")
        self.disown()
        return left

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def disown(self) -> None:
        """Close the lock. In a forked child this takes nothing from the parent, whose own descriptor stays open."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def adopt(self) -> List[Batch]:
        """Become an owner and, while `adopting`, take over what ended processes have left.

        The batches that had to make room are returned.
        """
        adopted: List[Batch] = []
        if self._directory:
            with self._counting_errors():
                self._claim(self._directory)
                names = [path.name for path in self._directory.iterdir()]
                owners = {name[:32] for name in names if re.match(r"[0-9a-f]{32}\.", name)} - {self._owner}
                for owner in owners if self.adopting else ():
                    with self._counting_errors(silently=True):  # of an owner such as another user: the rest goes on
                        for batch in self._adopt_from(self._directory, owner):
                            adopted.append(batch)  # noqa: PERF402 - one by one: kept, should the next one fail
        return self.put(sorted(adopted, key=lambda batch: (batch.sealed_at, batch.sequence)))

    def give_back(self) -> None:
        """Stop adopting, and leave what was adopted to processes that can deliver it: in the name of no live owner."""
        self.adopting = False
        with self._changed:
            adopted = [batch for batch in self._batches.values() if batch.path and not batch.number]
            for batch in adopted:
                self._forget(batch)
        nobody = uuid.uuid4().hex
        for path in (batch.path for batch in adopted if batch.path):
            with self._counting_errors():
                path.rename(path.with_name(nobody + path.name[32:]))

    def _claim(self, directory: Path) -> None:
        """Become an owner, unless this queue is one already."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(3):  # an adopter may catch a new lock file in the instant before it is locked
            if self._lock is None:
                self._owner = uuid.uuid4().hex
                lock_file = directory / f"{self._owner}.lock"
                self._lock = try_lock(lock_file)
                if self._lock is None:
                    lock_file.unlink(missing_ok=True)
        if self._lock is None:
            raise OSError("no file can be locked here")

    def _adopt_from(self, directory: Path, owner: str) -> Iterator[Batch]:
        lock_file = directory / f"{owner}.lock"
        lock = try_lock(lock_file)
        if lock is None:  # its process lives
            return
        try:
            for path in list(directory.glob(f"{owner}.*")):
                name = self._NAME.fullmatch(path.name)
                if name:
                    ours = path.with_name(self._owner + path.name[32:])
                    size = path.stat().st_size
                    path.rename(ours)
                    sealed_at, producer, sequence, calls = name.groups()
                    yield Batch(producer, int(sequence), int(sealed_at), int(calls), size, path=ours)
                elif path.suffix == ".tmp":  # its process ended while it wrote this
                    path.unlink()
        except BaseException:
            os.close(lock)
            raise
        remove_lock(lock, lock_file)

    def _write(self, batch: Batch, directory: Path) -> None:
        """One file a batch, complete or absent; a batch that cannot be written stays in memory."""
        facts = (self._owner, batch.sealed_at, batch.producer, batch.sequence, batch.calls)
        path = directory / ".".join(map(str, (*facts, "json")))
        draft = path.with_suffix(".tmp")
        with self._counting_errors():
            try:
                draft.write_bytes(batch.content)
                draft.replace(path)
                batch.path, batch.content = path, b""
            finally:
                draft.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _counting_errors(self, silently: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.disk_errors += 1
            if not silently:
                warn("queue directory", "the queue directory fails, what cannot be written stays in memory: %s", error)
