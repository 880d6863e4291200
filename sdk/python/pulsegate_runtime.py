"""The Pulsegate runtime: what every generated Python client builds on. Standard library only, Python 3.8 or later.

A metric goes one way through this file:

    Client.record ─→ _Gathering ─→ _Batch ─→ _Queue ─→ _Connection ─→ settled, and counted in Client.stats
    any thread       folds         numbered, disk or   HTTP, retried
                                   sealed    memory    byte for byte

record() touches memory only. One thread *seals*: it numbers what has been gathered, fixes its bytes and writes them to
the queue before anything is sent. Another *delivers*: it sends each batch until the server has settled it. The server
knows a batch by its producer and sequence, so that a retry is never counted twice.

Nothing here raises into the host application or makes it wait; what cannot be delivered is counted, with a reason.
"""

from __future__ import annotations

import atexit
import codecs
import collections
import contextlib
import email.utils
import gzip
import http.client
import json
import logging
import math
import os
import queue
import random
import re
import sys
import threading
import time
import urllib.parse
import uuid
import weakref
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Sequence

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["Client", "Stats"]

codecs.lookup("idna")  # for host names: were it first imported while another thread forks, the child would hang in it

_METRICS_PER_BATCH = 100  # the server takes no more in one request, ...
_OBSERVATIONS_PER_METRIC = 1_000  # ... in one array, ...
_SEQUENCE_WINDOW = 4_096  # ... or from `floor` to `sequence`
_GIVE_UP_SECONDS = 7 * 24 * 3600  # the server remembers a batch for 8 days: later, a retry could count twice
_GZIP_FROM_BYTES = 1_024
_ENVELOPE_BYTES = 160  # at most: producer, sequence and floor around the metrics
_NUMBER_BYTES = 25  # at most: a double as JSON, and its comma
_ADOPT_EVERY_SECONDS = 30.0
_WARN_EVERY_SECONDS = 60.0
_EXIT_SECONDS = 2.0
_REFUSED_SLOWDOWN, _REFUSED_CAP_SECONDS = 10, 300.0  # a refused key is tried rarely, but may be repaired any time
_RETRY_AFTER_CAP_SECONDS = 3600.0
_ANSWER_BYTES = 1024 * 1024

_log = logging.getLogger("pulsegate")
_warning_due: Dict[str, float] = {}
_random = random.SystemRandom()  # leaves the host's seeded generator alone, and differs after a fork
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False).encode


def _warn(topic: str, message: str, *values: object) -> None:
    """Log a warning, at most one a minute on each topic; the others as debug messages."""
    now = time.monotonic()
    due = now >= _warning_due.get(topic, now)
    if due:
        _warning_due[topic] = now + _WARN_EVERY_SECONDS
    _log.log(logging.WARNING if due else logging.DEBUG, message, *values)


@dataclass(frozen=True)
class Stats:
    """What became of the record() calls: recorded + adopted = accepted + rejected + all dropped + pending."""

    recorded: int  #: calls in this process, good or bad
    adopted: int  #: calls in batches that this process took over from ended ones and has settled
    accepted: int  #: taken by the server, durably
    rejected: int  #: refused by the server for good: not defined, a wrong label, …
    dropped: Mapping[str, int]  #: given up here, by reason (the README lists them)
    pending: int  #: gathered or queued, not settled yet
    queued_batches: int  #: sealed and waiting, adopted ones too
    queued_bytes: int  #: of their bodies
    retries: int  #: attempts that failed and are repeated
    disk_errors: int  #: failures of the queue directory; what they hit is kept in memory


@dataclass
class _Metric:
    """One metric of a batch, of one record() call or of several folded into it."""

    identity: str  # name and labels as canonical JSON, without the closing brace
    kind: str | None
    values: List[float]
    timestamp: int | None  # Unix milliseconds
    calls: int

    @property
    def size(self) -> int:
        return len(self.identity.encode()) + _NUMBER_BYTES * (len(self.values) + 2)

    def fold(self, later: _Metric) -> bool:
        """Take in a later metric of the same kind, name and labels; False where they must stay apart."""
        if self.kind == "counter" and math.isfinite(self.values[0] + later.values[0]):
            self.values[0] += later.values[0]
        elif self.kind == "gauge":
            if (later.timestamp or 0) >= (self.timestamp or 0):
                self.values, self.timestamp = later.values, later.timestamp
        elif self.kind in ("histogram", "summary") and len(self.values + later.values) <= _OBSERVATIONS_PER_METRIC:
            self.values += later.values
        else:
            return False
        self.calls += later.calls
        return True

    def json(self) -> str:
        value = _to_json(self.values if len(self.values) > 1 else self.values[0])
        timestamp = "" if self.timestamp is None else f',"timestamp":{self.timestamp}'
        return f'{self.identity},"value":{value}{timestamp}}}'


def _metrics_of(name: str, value: Any, labels: Any, timestamp: float | None, kind: str | None) -> List[_Metric]:
    """The metrics of one record() call: one, or several where it brings many observations. Raises if invalid."""
    label_set = dict(labels or {})
    if not name or not all(isinstance(text, str) for text in (name, *label_set, *label_set.values())):
        raise TypeError("name and labels are text")
    single = isinstance(value, (int, float, str, bytes)) or not isinstance(value, Iterable)
    values = [_finite(value)] if single else [_finite(one) for one in value]
    if not values or (kind in ("counter", "gauge") and len(values) > 1) or (kind == "counter" and values[0] < 0):
        raise ValueError("not a value of this kind")
    identity, moment = _to_json({"labels": label_set, "name": name})[:-1], _milliseconds(timestamp, kind)
    identity.encode()  # raises for half a surrogate pair
    starts = range(0, len(values), _OBSERVATIONS_PER_METRIC)
    return [
        _Metric(identity, kind, values[at : at + _OBSERVATIONS_PER_METRIC], moment, calls=int(at == 0)) for at in starts
    ]


def _finite(value: Any) -> float:
    if isinstance(value, (str, bytes)):
        raise TypeError("text is not a number")
    number: float = value if type(value) is int and abs(value) <= 2**53 else float(value)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _milliseconds(timestamp: float | None, kind: str | None) -> int | None:
    """Gauges have a time of their own, that of the call unless given; everything else counts on arrival."""
    if kind in ("counter", "histogram", "summary") or (kind != "gauge" and timestamp is None):
        return None
    moment = round((time.time() if timestamp is None else _finite(timestamp)) * 1000)
    if not 0 <= moment <= 2**53:
        raise ValueError("not a time")
    return moment


class _Gathering:
    """The open batch: metrics in order of arrival, folded where that changes no total."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.metrics: List[_Metric] = []
        self.size = _ENVELOPE_BYTES
        self._latest: Dict[Any, _Metric] = {}

    def add(self, metric: _Metric) -> None:
        latest = self._latest.get((metric.kind, metric.identity))
        before = latest.size if latest else 0
        if latest and latest.fold(metric):
            self.size += latest.size - before
            return
        self.metrics.append(metric)
        self.size += metric.size
        self._latest[metric.kind, metric.identity] = metric

    @property
    def calls(self) -> int:
        return sum(metric.calls for metric in self.metrics)

    def seal(self, producer: str, sequence: int, floor: int) -> _Batch:
        head = f'{{"producer":"{producer}","sequence":{sequence},"floor":{floor},"metrics":['
        body = f"{head}{','.join(metric.json() for metric in self.metrics)}]}}".encode()
        split = [metric.calls for metric in self.metrics]
        now = int(time.time() * 1000)
        return _Batch(producer, sequence, now, sum(split), len(body), content=body, number=self.number, split=split)


@dataclass
class _Batch:
    """A sealed batch: its producer, sequence and bytes never change again."""

    producer: str
    sequence: int
    sealed_at: int  # Unix milliseconds; its first attempt follows at once
    calls: int
    size: int  # bytes of the body
    content: bytes = b""  # the body, where there is no file
    path: Path | None = None  # else a file with just the body
    number: int = 0  # of the gathering; 0 when adopted
    split: Sequence[int] = ()  # calls by metric; unknown when adopted

    def body(self) -> bytes:
        return self.path.read_bytes() if self.path else self.content

    def expired(self) -> bool:
        return time.time() - self.sealed_at / 1000 > _GIVE_UP_SECONDS


def _try_lock(path: Path) -> int | None:
    """A descriptor that locks `path` until it is closed or the process ends; None while somebody else holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):  # else its last holder has just removed it
            return descriptor
    os.close(descriptor)
    return None


class _Queue:
    """The sealed batches that are not settled yet: in files or, without a directory that works, in memory.

    A directory may serve many processes. Each owns the files named after its random owner id, and holds the lock
    `<owner>.lock` while it lives. Where an owner's lock is free, whoever takes it adopts the owner's batches.
    """

    _NAME = re.compile(r"[0-9a-f]{32}\.(\d+)\.([0-9a-f-]{36})\.(\d+)\.(\d+)\.json")

    def __init__(self, directory: str | None, max_bytes: int) -> None:
        self.bytes = self.disk_errors = 0
        self._directory = Path(directory) if directory else None
        self._max_bytes = max_bytes
        self._owner = ""
        self._lock: int | None = None
        self._batches: Dict[Any, _Batch] = {}  # by producer and sequence, in order of sending
        self._in_flight: _Batch | None = None
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._batches)

    def put(self, batches: Iterable[_Batch]) -> List[_Batch]:
        """Keep these batches; the oldest ones, which had to make room, are returned."""
        for batch in batches:
            if self._directory and self._lock is not None and batch.path is None:
                self._write(batch, self._directory)
            with self._changed:
                self._batches[batch.producer, batch.sequence] = batch
                self.bytes += batch.size
                self._changed.notify_all()
        evicted = list(self._over_limit())
        for batch in evicted:
            self._unlink(batch)
        return evicted

    def _over_limit(self) -> Iterator[_Batch]:
        with self._changed:
            while self.bytes > self._max_bytes and len(self) > 1:
                others = (one for one in self._batches.values() if one is not self._in_flight)
                oldest = min(others, key=lambda one: one.sealed_at)  # one in flight may be counted already: it stays
                del self._batches[oldest.producer, oldest.sequence]
                self.bytes -= oldest.size
                yield oldest

    def take(self, stopping: threading.Event) -> _Batch | None:
        """The next batch to send, as soon as there is one; None when stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._batches or stopping.is_set())
            self._in_flight = None if stopping.is_set() else next(iter(self._batches.values()))
            return self._in_flight

    def put_back(self, batch: _Batch) -> None:
        """Send it again after the others: a batch that the server cannot digest must not hold up the rest."""
        with self._changed:
            self._in_flight = None
            if self._batches.pop((batch.producer, batch.sequence), None):
                self._batches[batch.producer, batch.sequence] = batch

    def remove(self, batch: _Batch) -> None:
        """Forget a batch: its file first, since whatever may still be sent must not be below the floor."""
        self._unlink(batch)
        with self._changed:
            self._in_flight = None if self._in_flight is batch else self._in_flight
            if self._batches.pop((batch.producer, batch.sequence), None):
                self.bytes -= batch.size

    def _unlink(self, batch: _Batch) -> None:
        if batch.path:
            with self._counting_errors():
                batch.path.unlink(missing_ok=True)

    def lowest_sequence(self, producer: str, default: int) -> int:
        with self._changed:
            return min((one.sequence for one in self._batches.values() if one.producer == producer), default=default)

    def stop(self) -> List[_Batch]:
        """Release the directory to whoever adopts the files in it; what only memory holds is returned."""
        left = [batch for batch in list(self._batches.values()) if not batch.path]
        self.disown()
        if self._directory and self._owner and len(left) == len(self):
            with self._counting_errors():
                (self._directory / f"{self._owner}.lock").unlink(missing_ok=True)
        return left

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def disown(self) -> None:
        """Close the lock. In a forked child this takes nothing from the parent, whose own descriptor stays open."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def adopt(self) -> List[_Batch]:
        """Take over what ended processes have left; the batches that had to make room are returned."""
        adopted: List[_Batch] = []
        if self._directory:
            with self._counting_errors():
                self._claim(self._directory)
                names = [path.name for path in self._directory.iterdir()]
                for owner in {name[:32] for name in names if re.match(r"[0-9a-f]{32}\.", name)} - {self._owner}:
                    adopted += self._adopt_from(self._directory, owner)
        return self.put(sorted(adopted, key=lambda batch: (batch.sealed_at, batch.sequence)))

    def _claim(self, directory: Path) -> None:
        """Become an owner, unless this queue is one already."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(3):  # an adopter may catch a new lock file in the instant before it is locked
            if self._lock is None:
                self._owner = uuid.uuid4().hex
                lock_file = directory / f"{self._owner}.lock"
                self._lock = _try_lock(lock_file)
                if self._lock is None:
                    lock_file.unlink(missing_ok=True)
        if self._lock is None:
            raise OSError("no file can be locked here")

    def _adopt_from(self, directory: Path, owner: str) -> Iterator[_Batch]:
        lock_file = directory / f"{owner}.lock"
        lock = _try_lock(lock_file)
        if lock is None:  # its process lives
            return
        try:
            for path in list(directory.glob(f"{owner}.*")):
                name = self._NAME.fullmatch(path.name)
                if name:
                    ours = path.with_name(self._owner + path.name[32:])
                    path.rename(ours)
                    sealed_at, producer, sequence, calls = name.groups()
                    size = ours.stat().st_size
                    yield _Batch(producer, int(sequence), int(sealed_at), int(calls), size, path=ours)
                elif path.suffix == ".tmp":  # its process ended while it wrote this
                    path.unlink()
        finally:
            os.close(lock)
        lock_file.unlink(missing_ok=True)

    def _write(self, batch: _Batch, directory: Path) -> None:
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
    def _counting_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.disk_errors += 1
            _log.debug("queue directory: %s", error)


class _Answer(NamedTuple):
    status: int
    code: str  # of the error, or of the first rejected metric
    rejected: List[int]  # indexes of metrics
    retry_after_seconds: float


class _Connection:
    """A kept-alive connection to the ingestion endpoint; used by one thread."""

    def __init__(self, endpoint: str, key: str, timeout_seconds: float) -> None:
        self._endpoint = endpoint
        self._headers = {"X-API-Key": key, "Content-Type": "application/json", "User-Agent": "pulsegate-python/1"}
        self._timeout_seconds = timeout_seconds
        self._http: http.client.HTTPConnection | None = None

    def post(self, body: bytes) -> _Answer:
        """Send one body. Raises what goes wrong on the way, ValueError for an endpoint or key that cannot be used."""
        kept = self._http is not None and self._http.sock is not None
        try:
            return self._exchange(body)
        except ConnectionError:
            self.close()
            if not kept:
                raise
            return self._exchange(body)  # the server had closed the idle connection: not a failure yet
        except BaseException:
            self.close()
            raise

    def _exchange(self, body: bytes) -> _Answer:
        url = urllib.parse.urlsplit(self._endpoint)
        if self._http is None:
            kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
            if url.scheme not in kinds or not url.hostname:
                raise ValueError("the endpoint is not an http(s) address")
            self._http = kinds[url.scheme](url.hostname, url.port, timeout=self._timeout_seconds)
        headers = dict(self._headers)
        if len(body) >= _GZIP_FROM_BYTES:
            body, headers["Content-Encoding"] = gzip.compress(body, 6, mtime=0), "gzip"
        self._http.request("POST", url.path.rstrip("/") + "/api/v1/metrics", body, headers)
        response = self._http.getresponse()
        answer = _answer(response.status, response.read(_ANSWER_BYTES), response.getheader("Retry-After", ""))
        if not response.isclosed():  # more than we care to read
            self.close()
        return answer

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def disown(self) -> None:
        """Let go of the parent's socket in a forked child: not by close(), whose locks a lost thread may hold."""
        if self._http is not None and self._http.sock is not None:
            os.close(self._http.sock.detach())


def _answer(status: int, body: bytes, retry_after: str) -> _Answer:
    code, rejected = "", []
    with contextlib.suppress(ValueError, AttributeError, TypeError, LookupError):  # nor need a proxy answer JSON
        document = json.loads(body)
        rejected = [int(one["index"]) for one in document.get("rejected", [])]
        code = str((document.get("error") or document["rejected"][0])["code"])
    return _Answer(status, code, rejected, _retry_after_seconds(retry_after))


def _retry_after_seconds(header: str) -> float:
    """RFC 9110, 10.2.3: seconds or a date; 0 where it says neither."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if header.strip().isdigit():
            return min(float(header), _RETRY_AFTER_CAP_SECONDS)
        moment = email.utils.parsedate_to_datetime(header).astimezone(timezone.utc)
        wait = (moment - datetime.now(timezone.utc)).total_seconds()
        return min(max(wait, 0.0), _RETRY_AFTER_CAP_SECONDS)
    return 0.0


class _Accounts:
    """What has become of every record() call. `lock` guards this, and the open batch of its client."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # taken again by a signal handler or finaliser that records
        self.counts: collections.Counter[str] = collections.Counter()
        self.dropped: collections.Counter[str] = collections.Counter()
        self._reported: collections.Counter[str] = collections.Counter()
        self._unsettled: Dict[int, None] = {}  # numbers of gatherings, ascending
        self._settled = threading.Condition(self.lock)

    def expect(self, gathering: _Gathering) -> None:
        self._unsettled[gathering.number] = None

    def settle(self, batch: _Batch, rejected: int = 0) -> None:
        self._close(batch, accepted=batch.calls - rejected, rejected=rejected)

    def drop(self, batch: _Batch | _Gathering, reason: str) -> None:
        with self.lock:
            self.dropped[reason] += batch.calls
            self._close(batch)

    def _close(self, batch: _Batch | _Gathering, **counts: int) -> None:
        with self.lock:
            self.counts.update(counts, adopted=0 if batch.number else batch.calls)
            self._unsettled.pop(batch.number, None)
            self._settled.notify_all()

    def wait_settled(self, below: int, timeout_seconds: float) -> bool:
        """True once every gathering with a number below this one is settled."""
        with self.lock:
            bounded = min(timeout_seconds, threading.TIMEOUT_MAX)
            return self._settled.wait_for(lambda: next(iter(self._unsettled), below) >= below, bounded)

    def report_drops(self, on_drop: Callable[[str, int], object] | None) -> None:
        """Tell the log and the host application what has been dropped since the last report."""
        with self.lock:
            new, self._reported = self.dropped - self._reported, self.dropped.copy()
        for reason, calls in new.items():
            _warn(f"drop {reason}", "dropped %d record() calls: %s", calls, reason)
            try:
                if on_drop:
                    on_drop(reason, calls)
            except Exception as error:  # noqa: BLE001 - the host's own fault must not end our thread
                _warn("on_drop", "on_drop raised %s", type(error).__name__)


class _Sender:
    """Delivers the queue on a thread of its own: one batch at a time, each until it is settled."""

    def __init__(
        self,
        pending: _Queue,
        accounts: _Accounts,
        connection: _Connection,
        retry_base_seconds: float,
        retry_cap_seconds: float,
    ) -> None:
        self._queue = pending
        self._accounts = accounts
        self._connection = connection
        self._retry_base_seconds = retry_base_seconds
        self._retry_cap_seconds = retry_cap_seconds
        self._failures = 0  # since the last answer that settled a batch

    def run(self, stopping: threading.Event) -> None:
        while True:
            batch = self._queue.take(stopping)
            if batch is None:
                break
            try:
                wait_seconds = self._attempt(batch)
            except Exception as error:  # noqa: BLE001 - whatever went wrong on the way, the batch is still queued
                wait_seconds = self._retry(batch, type(error).__name__)  # no more of it: it could quote the key
            stopping.wait(wait_seconds)
        self._connection.close()

    def _attempt(self, batch: _Batch) -> float:
        """Send a batch once; the seconds to wait before the next attempt, 0 when this batch is settled."""
        if batch.expired():
            return self._drop(batch, "expired")
        try:
            body = batch.body()
        except OSError:
            return self._drop(batch, "unreadable")
        answer = self._connection.post(body)
        if answer.status in (401, 403):
            return self._retry(batch, f"{answer.status} {answer.code}", answer.retry_after_seconds, refused=True)
        if answer.status in (408, 429) or not (answer.status == 202 or 400 <= answer.status < 500):
            return self._retry(batch, f"{answer.status} {answer.code}", answer.retry_after_seconds)
        self._failures = 0
        return self._conclude(batch, answer)

    def _conclude(self, batch: _Batch, answer: _Answer) -> float:
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
            _warn("rejected", "the server rejected %d record() calls: %d %s", rejected, answer.status, answer.code)
        self._queue.remove(batch)
        self._accounts.settle(batch, rejected)
        return 0.0

    def _drop(self, batch: _Batch, reason: str) -> float:
        self._queue.remove(batch)
        self._accounts.drop(batch, reason)
        return 0.0

    def _retry(self, batch: _Batch, why: str, retry_after_seconds: float = 0.0, refused: bool = False) -> float:
        """Queue a batch again; the wait is exponential, jittered, and never shorter than the server asked for."""
        self._queue.put_back(batch)
        with self._accounts.lock:
            self._accounts.counts["retries"] += 1
        cap = _REFUSED_CAP_SECONDS if refused else self._retry_cap_seconds
        base = self._retry_base_seconds * (_REFUSED_SLOWDOWN if refused else 1)
        backoff = min(cap, base * 2.0 ** min(self._failures, 30)) * _random.uniform(0.5, 1.0)
        wait_seconds = max(backoff, retry_after_seconds * _random.uniform(1.0, 1.1))
        self._failures += 1
        _warn("retry", "a batch was not delivered (%s); the next attempt is in %.1f s", why, wait_seconds)
        return wait_seconds


class Client:
    """Sends metrics to one project. Methods may be called from any thread; none of them raises.

    A generated client adds one typed method a metric. Options:

    endpoint                the gateway's address, such as https://metrics.example.com
    key                     an API key that may write
    queue_directory         keeps unsent batches over restarts; one directory a project, any number of processes
    flush_interval_seconds  how long metrics gather, at most, before they are sealed into a batch
    max_batch_metrics       ... and how many, at most 100
    max_batch_bytes         ... and how large
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
        self._server = (endpoint, str(key or "").strip(), timeout_seconds)
        self._flush_interval_seconds = max(flush_interval_seconds, 0.01)
        self._max_batch_metrics = max(1, min(max_batch_metrics, _METRICS_PER_BATCH))
        self._max_batch_bytes = max_batch_bytes
        self._queue_limits = (queue_directory, max_queue_bytes)
        self._retry_seconds = (retry_base_seconds, retry_cap_seconds)
        self._on_drop = on_drop
        self._closed = False
        self._begin()
        self._start()
        _clients.add(self)

    def _begin(self) -> None:
        """Be empty, and a new producer: at first, and again in a forked child."""
        self._producer, self._sequence = str(uuid.uuid4()), 0
        self._accounts = _Accounts()
        self._arrivals: Deque[List[_Metric]] = collections.deque()
        self._gathering = False
        self._open = _Gathering(number=1)
        self._full: Deque[_Gathering] = collections.deque()  # waiting to be sealed
        self._full_bytes = 0
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()  # wakes the sealing thread
        self._queue = _Queue(*self._queue_limits)
        self._connection = _Connection(*self._server)
        self._stopping = threading.Event()
        self._sealing: threading.Thread | None = None
        self._sending: threading.Thread | None = None

    def _start(self) -> None:
        try:
            if self._sealing is None:
                sealing = threading.Thread(target=self._seal_forever, name="pulsegate-seal", daemon=True)
                sealing.start()
                self._sealing = sealing
            if self._sending is None:
                sending = threading.Thread(target=self._send_forever, name="pulsegate-send", daemon=True)
                sending.start()
                self._sending = sending
        except RuntimeError as error:  # no more threads just now: the next record() tries again
            _warn("threads", "cannot start a thread: %s", error)

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
            metrics = _metrics_of(name, value, labels, timestamp, kind)
        except Exception:  # noqa: BLE001 - whatever was passed, the host application must not suffer for it
            metrics = []
        with self._accounts.lock:
            self._arrivals.append(metrics)
            if self._gathering:  # a signal handler or finaliser has come in between: the outer call sees to it
                return
            self._gathering = True
            try:
                while self._arrivals:
                    self._gather(self._arrivals.popleft())
            finally:
                self._gathering = False

    def _gather(self, metrics: List[_Metric]) -> None:
        self._accounts.counts["recorded"] += 1
        if not metrics or self._closed:
            self._accounts.dropped["closed" if self._closed else "invalid"] += 1
            return
        if self._sending is None:
            self._start()
        for metric in metrics:
            if _ENVELOPE_BYTES + metric.size > self._max_batch_bytes:
                self._accounts.dropped["too_large"] += metric.calls
                continue
            if self._open.size + metric.size > self._max_batch_bytes:
                self._turn_over()
            self._open.add(metric)
            if len(self._open.metrics) >= self._max_batch_metrics:
                self._turn_over()

    def _turn_over(self) -> None:
        """Hand the open batch, if anything is in it, to the sealing thread, and open the next."""
        gathered = self._open
        if gathered.metrics:
            self._open = _Gathering(gathered.number + 1)
            self._accounts.expect(gathered)
            self._full.append(gathered)
            self._full_bytes += gathered.size
            self._bell.put(None)
        while self._full_bytes > self._queue_limits[1] and len(self._full) > 1:  # sealing cannot keep up
            self._accounts.drop(self._next_full(), "queue_full")

    def _next_full(self) -> _Gathering:
        gathered = self._full.popleft()
        self._full_bytes -= gathered.size
        return gathered

    @property
    def stats(self) -> Stats:
        with self._accounts.lock:
            counts, dropped = self._accounts.counts, dict(self._accounts.dropped)
            settled = counts["accepted"] + counts["rejected"] + sum(dropped.values())
            return Stats(
                recorded=counts["recorded"],
                adopted=counts["adopted"],
                accepted=counts["accepted"],
                rejected=counts["rejected"],
                dropped=dropped,
                pending=counts["recorded"] + counts["adopted"] - settled,
                queued_batches=len(self._queue),
                queued_bytes=self._queue.bytes,
                retries=counts["retries"],
                disk_errors=self._queue.disk_errors,
            )

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Send now. True once all that was recorded before this call is settled: accepted, rejected or dropped."""
        with self._accounts.lock:
            if self._sending is None and not self._closed:
                self._start()
            self._turn_over()
            following = self._open.number
        return self._accounts.wait_settled(following, timeout_seconds)

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Flush and stop. What is unsent then waits in the queue directory or, without one, is dropped and counted."""
        deadline = time.monotonic() + timeout_seconds
        with self._accounts.lock:
            if self._closed:
                return
            self._closed = True
        self.flush(timeout_seconds)
        self._stopping.set()
        self._bell.put(None)
        self._queue.wake()
        if self._sending is not None:
            self._sending.join(max(deadline - time.monotonic(), 0.2))

    def _seal_forever(self) -> None:
        adoption_due = time.monotonic()
        stopping = False
        while not stopping:
            stopping = self._stopping.is_set()
            try:
                if time.monotonic() >= adoption_due:
                    adoption_due = time.monotonic() + _ADOPT_EVERY_SECONDS
                    self._drop_evicted(self._queue.adopt())
                self._seal_gathered(everything=stopping or not self._rung())
                self._accounts.report_drops(self._on_drop)
            except Exception as error:  # noqa: BLE001 - the thread must outlive any fault of its own
                _warn("fault", "sealing failed: %s", type(error).__name__)

    def _rung(self) -> bool:
        """Wait for the bell, for one flush interval at most."""
        try:
            self._bell.get(timeout=self._flush_interval_seconds)
        except queue.Empty:
            return False
        while not self._bell.empty():  # once is enough
            self._bell.get_nowait()
        return True

    def _seal_gathered(self, everything: bool) -> None:
        with self._accounts.lock:
            if everything:
                self._turn_over()
        while True:
            with self._accounts.lock:
                if not self._full:
                    return
                gathered = self._next_full()
            try:
                self._seal(gathered)
            except Exception as error:  # noqa: BLE001 - one batch is lost and counted, not the thread
                _warn("fault", "a batch could not be sealed: %s", type(error).__name__)
                self._accounts.drop(gathered, "fault")

    def _seal(self, gathered: _Gathering) -> None:
        sequence = self._sequence + 1
        floor = self._queue.lowest_sequence(self._producer, sequence)
        if sequence - floor >= _SEQUENCE_WINDOW:  # a long outage: go on as another producer, with a window of its own
            self._producer, sequence, floor = str(uuid.uuid4()), 1, 1
        self._sequence = sequence
        self._drop_evicted(self._queue.put([gathered.seal(self._producer, sequence, floor)]))

    def _drop_evicted(self, batches: Iterable[_Batch]) -> None:
        for batch in batches:
            self._accounts.drop(batch, "queue_full")

    def _send_forever(self) -> None:
        _Sender(self._queue, self._accounts, self._connection, *self._retry_seconds).run(self._stopping)
        if self._sealing is not None:
            self._sealing.join()
        for batch in self._queue.stop():
            self._accounts.drop(batch, "closed")
        self._accounts.report_drops(self._on_drop)

    def _begin_in_child(self) -> None:
        """The parent's batches stay the parent's; threads start with the child's first record()."""
        self._queue.disown()
        self._connection.disown()
        self._begin()


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _begin_in_child() -> None:
    for client in list(_clients):
        client._begin_in_child()


def _close_all() -> None:
    deadline = time.monotonic() + _EXIT_SECONDS
    for client in list(_clients):
        client.close(max(0.0, deadline - time.monotonic()))


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
