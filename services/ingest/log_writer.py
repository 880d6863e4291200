"""Appends records to the log with group commit: while frames wait for the disk, the next one fills.

JetStream answers a message when it is on disk. The answers come to an inbox of the writer's own, so that waiting for
one costs a dictionary entry rather than a task.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from chassis import failpoints, logs
from chassis.errors import Unavailable
from chassis.tasks import heed_cancellation
from services.ingest import metrics, records
from services.ingest.domain import lane_of, partition_of
from services.ingest.errors import LogUnavailable
from services.ingest.log import STREAM_FULL, Log
from services.ingest.records import Record

log = logs.get(__name__)

#: A frame closes at this size, well below the largest message that a server takes by default (1 MiB).
_MOST_FRAME_BYTES = 1 << 19
#: Frames that wait for the disk at the same time: enough that the log is never idle for want of one.
_MOST_UNDER_WAY = 2
_RETRY_AFTER_SECONDS = 1.0
_RECONNECT_SECONDS = 0.05


class Frame:
    """Records that become durable together."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.size_bytes = 0
        self.published_at = 0.0
        #: The connection to the log over which it went.
        self.connection = 0
        #: When it is given up.
        self.deadline: asyncio.TimerHandle | None = None
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._error: LogUnavailable | None = None

    def add(self, record: bytes) -> None:
        self.records.append(record)
        self.size_bytes += len(record)

    def settle(self, error: LogUnavailable | None) -> None:
        """Tells everybody who waits what became of it. Once: what comes later changes nothing."""
        if self.deadline is not None:
            self.deadline.cancel()
        if not self._settled.done():
            self._error = error
            self._settled.set_result(None)

    @property
    def settled(self) -> bool:
        return self._settled.done()

    def when_settled(self, callback: Callable[["Frame"], None]) -> None:
        """Calls back soon after it is settled."""
        self._settled.add_done_callback(lambda _: callback(self))

    async def stored(self) -> None:
        """Returns once the frame is on disk. Raises LogUnavailable; it may then have been kept or not."""
        await asyncio.shield(self._settled)
        self.check()

    def check(self) -> None:
        """Raises LogUnavailable where a settled frame is not known to be on disk."""
        if (error := self._error) is not None:
            raise LogUnavailable(error.message, details=error.details, retry_after_seconds=error.retry_after_seconds)


class Queued:
    """Bytes that wait for the log, whatever their lane."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0

    def has_room_for(self, more_bytes: int) -> bool:
        return self._bytes + more_bytes <= self._most_bytes

    def count(self, change_bytes: int) -> None:
        self._bytes += change_bytes
        metrics.LOG_QUEUED_BYTES.set(self._bytes)


class LogWriter:
    """Appends to one lane."""

    def __init__(self, stream: Log, lane: int, queued: Queued, *, timeout_seconds: float) -> None:
        """`queued`: shared with the writers of other lanes."""
        self._log = stream
        self._lane = lane
        self._queued = queued
        self._timeout_seconds = timeout_seconds
        self._queue: deque[Frame] = deque()
        self._under_way: dict[str, Frame] = {}
        #: Something is queued, and may be sent.
        self._ready = asyncio.Event()

    def put(self, record: bytes) -> Frame:
        """The frame that will carry the record. Raises LogUnavailable where too much is waiting."""
        if not self._queued.has_room_for(len(record)):
            raise _away("Too many batches wait for the log.")
        frame = self._queue[-1] if self._queue else None
        if frame is None or frame.size_bytes + len(record) > _MOST_FRAME_BYTES:
            frame = self._open_frame()
        frame.add(record)
        self._queued.count(len(record))
        self._look_whether_ready()
        return frame

    def _open_frame(self) -> Frame:
        frame = Frame()
        frame.deadline = asyncio.get_running_loop().call_later(self._timeout_seconds, self._give_up, frame)
        self._queue.append(frame)
        return frame

    def _look_whether_ready(self) -> None:
        if self._queue and len(self._under_way) < _MOST_UNDER_WAY:
            self._ready.set()
        else:
            self._ready.clear()

    async def run(self) -> None:
        """Writes frames until cancelled; what then still waits is refused."""
        subscribed = False
        try:
            while True:
                await self._ready.wait()
                if not subscribed:
                    inbox = await self._subscribe()
                    subscribed = True
                if self._queue:  # what waited for the connection may have been given up
                    await self._publish(self._queue.popleft(), inbox)
                self._look_whether_ready()
                heed_cancellation()
        finally:
            for frame in (*self._under_way.values(), *self._queue):
                frame.settle(_stopping())

    async def _subscribe(self) -> str:
        """The inbox for the log's answers; once there is a connection, it outlives those that follow."""
        client = self._log.client
        while not client.is_connected:
            await asyncio.sleep(_RECONNECT_SECONDS)
            heed_cancellation()
        inbox: str = client.new_inbox()
        await client.subscribe(f"{inbox}.*", cb=self._answered)
        self._numbers = count()
        return inbox

    async def _publish(self, frame: Frame, inbox: str) -> None:
        number = str(next(self._numbers))
        self._under_way[number] = frame
        frame.when_settled(lambda _: self._done(number))
        frame.published_at = time.monotonic()
        frame.connection = self._log.connection
        try:
            await self._log.client.publish(
                self._log.subject(self._lane),
                records.encode_frame(frame.records),
                reply=f"{inbox}.{number}",
                headers={"Nats-Expected-Stream": self._log.stream},
            )
            if failpoints.ARMED:
                await failpoints.reached("frame-sent")
        except (NatsError, OSError, Unavailable) as cause:
            frame.settle(_unavailable(type(cause).__name__))

    async def _answered(self, message: Msg) -> None:
        frame = self._under_way.get(message.subject.rpartition(".")[2])
        if frame is None or frame.settled:
            return
        error = _refusal(message)
        if error is None:
            metrics.LOG_APPEND.observe(time.monotonic() - frame.published_at)
            metrics.LOG_FRAME_RECORDS.observe(len(frame.records))
        if failpoints.ARMED:
            error = await _failing(error)
        frame.settle(error)

    def _give_up(self, frame: Frame) -> None:
        if frame in self._queue:
            self._queue.remove(frame)
            self._queued.count(-frame.size_bytes)
        else:
            self._log.distrust(frame.connection)
        frame.settle(_unavailable("TimeoutError"))

    def _done(self, number: str) -> None:
        frame = self._under_way.pop(number)
        self._queued.count(-frame.size_bytes)
        self._look_whether_ready()


class LaneWriters:
    """The writers of all lanes, one each; a `tallies.Appending`."""

    def __init__(self, writers: Sequence[LogWriter]) -> None:
        self._writers = writers

    def of(self, project_id: bytes) -> LogWriter:
        """That of the project's lane."""
        return self._writers[lane_of(partition_of(project_id), len(self._writers))]

    async def append(self, record: Record) -> None:
        """See `tallies.Appending`."""
        await self.of(record.project_id).put(records.encode(record)).stored()


async def _failing(error: LogUnavailable | None) -> LogUnavailable | None:
    """The log's answer as it arrives where a failpoint may keep it from doing so."""
    try:
        await failpoints.reached("log-acknowledged")
    except Unavailable as failure:
        return _unavailable(failure.message)
    return error


class _Refused(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    """JetStream's answer to a published message."""

    seq: int = 0
    error: _Refused | None = None


_answer_decoder = msgspec.json.Decoder(_Answer)


def _refusal(message: Msg) -> LogUnavailable | None:
    """None where the log says that the message is on disk."""
    try:
        answer = _answer_decoder.decode(message.data)
    except msgspec.DecodeError:
        return _unavailable((message.headers or {}).get("Status", "an answer that cannot be read"))
    if answer.error is not None:
        return _unavailable(answer.error.description, full=answer.error.err_code == STREAM_FULL)
    return None if answer.seq else _unavailable("an answer without a position")


def _away(message: str, retry_after_seconds: float = _RETRY_AFTER_SECONDS) -> LogUnavailable:
    return LogUnavailable.waiting_for("log", message, retry_after_seconds)


def _stopping() -> LogUnavailable:
    return _away("The receiver is stopping.")


def _unavailable(reason: str, *, full: bool = False) -> LogUnavailable:
    metrics.LOG_FAILURES.labels("full" if full else reason[:40]).inc()
    log.warning("frame not acknowledged", full=full, reason=reason)
    return _away("The log is full.", 10.0) if full else _away("The log did not answer.")
