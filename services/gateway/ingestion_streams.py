"""Batches on their way to the receivers: few long-lived streams carry what has gathered, instead of a call for each.

A message takes the batches of two milliseconds; their outcomes come back in any order. A stream that is to end (the
receiver says so before it stops, or it has lasted long enough to spread anew) is sent nothing more, while the next one
is open already, and its outcomes are still taken. Where a stream breaks, nothing is known of its batches: their callers
are told so and send again, safely. A batch is never sent twice from here.
"""

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import msgspec
from opentelemetry.trace import SpanKind

from chassis import context, logs, tracing
from chassis import metrics as chassis_metrics
from chassis.breakers import Breaker
from chassis.errors import DeadlineExceeded, Internal, PulsegateError, Unavailable, from_wire
from chassis.grpc_client import ServiceChannel
from chassis.tasks import ended, in_background
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from contracts.pulsegate.ingest.v1.ingest_pb2_grpc import IngestServiceStub
from services.gateway import metrics

log = logs.get(__name__)

_METHOD = "/pulsegate.ingest.v1.IngestService/StreamBatches"

#: How long a batch waits for others, and what ends the wait.
_LINGER_SECONDS = 0.002
_MOST_BATCHES_A_MESSAGE = 32
_MOST_BYTES_A_MESSAGE = 1 << 20

#: Batches without an outcome, all streams together; more are turned away.
_MOST_BATCHES_UNDER_WAY = 8192
_MOST_BYTES_UNDER_WAY = 128 << 20

#: A stream lasts so long, give or take a fifth, and its outcomes some seconds longer: less than the half minute that a
#: server gives to what is under way when it closes a connection for its age.
_STREAM_SECONDS = 15.0
_OPENING_SECONDS = 1.0

#: How long batches wait for the next stream, after one that broke and after one whose receiver announced its end.
_HOPE_SECONDS = 0.25
_HOPE_AFTER_DRAINING_SECONDS = 5.0

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_RETRY_AFTER_SECONDS = 1.0


class _Batch:
    """A batch and who waits for its outcome."""

    __slots__ = (
        "body",
        "content_encoding",
        "correlation_id",
        "deadline",
        "door",
        "number",
        "outcome",
        "principal",
        "sent_at",
        "stream",
        "timer",
        "traceparent",
    )

    def __init__(
        self, number: int, body: bytes, content_encoding: str, door: "pb.Door.ValueType", deadline: float
    ) -> None:
        self.number = number
        self.body = body
        self.content_encoding = content_encoding
        self.door = door
        #: On the event loop's clock.
        self.deadline = deadline
        self.principal = context.PRINCIPAL_TOKEN.get()
        self.correlation_id = context.CORRELATION_ID.get()
        self.traceparent = _traceparent() if tracing.enabled() else ""
        loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[pb.IngestBatchResponse] = loop.create_future()
        self.timer = loop.call_at(deadline, self._expire)
        self.stream: _Stream | None = None
        self.sent_at = 0.0

    def write_to(self, message: pb.StreamBatchesRequest, now: float) -> None:
        message.batches.add(
            number=self.number,
            principal=self.principal,
            body=self.body,
            content_encoding=self.content_encoding,
            timeout_milliseconds=max(1, int((self.deadline - now) * 1000)),
            correlation_id=self.correlation_id,
            traceparent=self.traceparent,
            door=self.door,
        )

    def fail(self, error: PulsegateError) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def _expire(self) -> None:
        self.fail(DeadlineExceeded("ingest did not answer in time."))
        if self.stream is not None:
            self.stream.doubt(self)

    def leave(self) -> None:
        """Forgets everything that belongs to a batch nobody waits for any more."""
        self.timer.cancel()
        self.body = b""
        if self.stream is not None:
            self.stream.under_way.pop(self.number, None)


def _traceparent() -> str:
    carrier: dict[str, str] = {}
    tracing.inject(carrier)
    return carrier.get("traceparent", "")


class _Stream:
    """One stream, from its opening to its last outcome."""

    def __init__(self, call: Any, service: str) -> None:
        self._call = call
        self._service = service
        self._heard_at = 0.0
        self._given_up = False
        self.under_way: dict[int, _Batch] = {}
        #: Nothing more is sent.
        self.over = asyncio.Event()
        #: Why: `drained`, `aged`, `broken` or `silent`.
        self.reason = ""

    def end(self, reason: str) -> None:
        """Sends nothing more."""
        if not self.over.is_set():
            self.reason = reason
            self.over.set()

    def doubt(self, batch: _Batch) -> None:
        """Gives the stream up where it has said nothing while a batch waited in vain: the receiver hangs."""
        if self._heard_at < batch.sent_at and not self.over.is_set():
            self.end("silent")
            self.give_up()

    def give_up(self) -> None:
        """Breaks the stream."""
        self._given_up = True
        self._call.cancel()

    async def send(self, batches: Sequence[_Batch]) -> None:
        """One message. A stream that breaks meanwhile is over; `receive` tells the batches."""
        message, now = pb.StreamBatchesRequest(), asyncio.get_running_loop().time()
        for batch in batches:
            batch.write_to(message, now)
            batch.stream, batch.sent_at = self, now
            self.under_way[batch.number] = batch
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            self.end("broken")
        except asyncio.CancelledError:
            if not self._given_up:
                raise

    async def half_close(self) -> None:
        """Tells the receiver that nothing more comes."""
        try:
            await self._call.done_writing()
        except asyncio.CancelledError:
            if not self._given_up:
                raise

    async def receive(self) -> None:
        """Tells each batch its outcome until the receiver ends the stream; then tells the others that there is none."""
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                self._hear(response)
        except grpc.aio.AioRpcError as error:
            log.warning("a stream of batches broke", service=self._service, reason=(error.details() or "")[:200])
        except asyncio.CancelledError:
            if not self._given_up:
                raise
        finally:
            self.end("broken")
            for batch in tuple(self.under_way.values()):
                batch.fail(_away(self._service))

    def _hear(self, response: pb.StreamBatchesResponse) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if response.draining:
            self.end("drained")
        for told in response.outcomes:
            batch = self.under_way.get(told.number)
            if batch is None:
                continue  # nobody waits for it any more
            if told.WhichOneof("result") == "response":
                if not batch.outcome.done():
                    batch.outcome.set_result(told.response)
            else:
                batch.fail(_error_in(told.error, self._service))


def _away(service: str) -> Unavailable:
    return Unavailable(f"{service} is away.", retry_after_seconds=_RETRY_AFTER_SECONDS)


def _error_in(encoded: bytes, service: str) -> PulsegateError:
    try:
        return from_wire(encoded)
    except msgspec.DecodeError:
        return Internal(f"{service} answered an error that cannot be read.")


class IngestionStreams:
    """Carries batches to the receivers while `carrying()` is open."""

    def __init__(
        self,
        channel: ServiceChannel,
        *,
        streams: int,
        reset_seconds: float,
        timeout_seconds: float,
        most_batches: int = _MOST_BATCHES_UNDER_WAY,
        most_bytes: int = _MOST_BYTES_UNDER_WAY,
        stream_seconds: float = _STREAM_SECONDS,
    ) -> None:
        self.channel = channel
        self._stub = IngestServiceStub(channel.grpc_channel)
        self._breaker = Breaker(channel.service, reset_seconds=reset_seconds)
        self._timeout_seconds = timeout_seconds
        self._most_batches, self._most_bytes = most_batches, most_bytes
        self._stream_seconds = stream_seconds
        self._streams = streams
        #: Those that are open, or soon will be.
        self._hopeful: set[int] = set()
        self._numbers = itertools.count(1)
        self._batches = self._bytes = 0
        #: What waits to be sent.
        self._gathered: deque[_Batch] = deque()
        #: There is something to send, or a stream is over.
        self._news = asyncio.Event()
        self._carriers: set[asyncio.Task[None]] = set()

    async def take(
        self, body: bytes, content_encoding: str, door: "pb.Door.ValueType" = pb.DOOR_UNSPECIFIED
    ) -> pb.IngestBatchResponse:
        """What a receiver made of a batch of the current principal, in the format of its door: durable when it returns.

        Raises the receiver's error, Unavailable (without a stream, too much under way, or it broke: nothing is known of
        the batch) or DeadlineExceeded.
        """
        if self._batches >= self._most_batches or self._bytes + len(body) > self._most_bytes:
            raise Unavailable("Too many batches are under way.", retry_after_seconds=_RETRY_AFTER_SECONDS)
        with self._breaker.guarded():
            if not tracing.enabled():
                return await self._outcome(body, content_encoding, door)
            with tracing.span(_METHOD, kind=SpanKind.CLIENT):
                return await self._outcome(body, content_encoding, door)

    async def _outcome(self, body: bytes, content_encoding: str, door: "pb.Door.ValueType") -> pb.IngestBatchResponse:
        batch = self._gather(body, content_encoding, door)
        began, status = time.monotonic(), grpc.StatusCode.OK
        self._batches += 1
        self._bytes += len(body)
        try:
            return await batch.outcome
        except PulsegateError as error:
            status = error.grpc_status
            raise
        except asyncio.CancelledError:
            status = grpc.StatusCode.CANCELLED
            raise
        finally:
            self._batches -= 1
            self._bytes -= len(body)
            batch.leave()
            chassis_metrics.GRPC_CALLED.labels(_METHOD, status.name).observe(time.monotonic() - began)

    def _gather(self, body: bytes, content_encoding: str, door: "pb.Door.ValueType") -> _Batch:
        timeout = context.remaining_seconds(self._timeout_seconds)
        if timeout <= 0:
            raise DeadlineExceeded(f"No time was left to ask {self.channel.service}.")
        if not self._hopeful:
            raise _away(self.channel.service)
        deadline = asyncio.get_running_loop().time() + timeout
        batch = _Batch(next(self._numbers), body, content_encoding, door, deadline)
        self._gathered.append(batch)
        self._news.set()
        return batch

    @asynccontextmanager
    async def carrying(self) -> AsyncIterator[None]:
        """Keeps the streams open meanwhile. They connect by themselves, now or later."""
        metrics.BATCHES_UNDER_WAY.set_function(lambda: self._batches)
        try:
            async with in_background(*(self._follow(position) for position in range(self._streams))):
                yield
        finally:
            await ended(self._carriers)

    async def _follow(self, position: int) -> None:
        """Opens one stream after the other, each as soon as the one before is over, until it is cancelled."""
        loop = asyncio.get_running_loop()
        losing_hope, reason = loop.call_soon(self._lose_hope, position), ""
        while True:
            stream = await self._opened()
            losing_hope.cancel()
            self._hopeful.add(position)
            if reason != "aged":
                self._breaker.try_again()
            reason = await self._last(stream)
            hope = _HOPE_AFTER_DRAINING_SECONDS if reason == "drained" else _HOPE_SECONDS
            losing_hope = loop.call_later(hope, self._lose_hope, position)

    async def _opened(self) -> _Stream:
        """The next stream, which a receiver has taken up: it greets each one with an empty response."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            await self.channel.ready()
            try:
                async with asyncio.timeout(_OPENING_SECONDS):
                    return await self._open()
            except (PulsegateError, TimeoutError) as error:
                log.warning("no stream of batches could be opened", reason=str(error) or "no answer")
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnections
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _open(self) -> _Stream:
        call = self.channel.conversation(self._stub.StreamBatches)
        try:
            greeting = await call.read()
        except grpc.aio.AioRpcError as error:
            raise self.channel.told_by(error) from error
        except asyncio.CancelledError:
            call.cancel()
            raise
        if greeting is grpc.aio.EOF or greeting.draining:
            call.cancel()
            raise Unavailable("the receiver is about to stop")
        return _Stream(call, self.channel.service)

    async def _last(self, stream: _Stream) -> str:
        """Carries batches in a stream, in the background, until it is over; says why it is."""
        metrics.INGESTION_STREAMS.inc()
        carrier = asyncio.create_task(self._carry(stream))
        self._carriers.add(carrier)
        carrier.add_done_callback(self._carried)
        try:
            async with asyncio.timeout(self._stream_seconds * random.uniform(0.8, 1.2)):  # noqa: S311
                await stream.over.wait()
        except TimeoutError:
            stream.end("aged")
        finally:
            metrics.INGESTION_STREAMS.dec()
        metrics.INGESTION_STREAM_ENDS.labels(stream.reason).inc()
        self._news.set()
        return stream.reason

    def _carried(self, carrier: asyncio.Task[None]) -> None:
        self._carriers.discard(carrier)
        if not carrier.cancelled() and (error := carrier.exception()):
            log.error("a stream of batches failed", exc_info=error)

    def _lose_hope(self, position: int) -> None:
        self._hopeful.discard(position)
        while self._gathered and not self._hopeful:
            self._gathered.popleft().fail(_away(self.channel.service))

    async def _carry(self, stream: _Stream) -> None:
        """Sends what gathers until the stream is over, and takes its outcomes until every batch has one."""
        receiving = asyncio.create_task(stream.receive())
        try:
            while not stream.over.is_set():
                if batches := await self._next_message(stream):
                    await stream.send(batches)
            await stream.half_close()
            async with asyncio.timeout(self._timeout_seconds):
                await asyncio.shield(receiving)
        except TimeoutError:
            log.warning("a stream of batches did not end", service=self.channel.service)
        finally:
            stream.give_up()
            await ended([receiving])

    async def _next_message(self, stream: _Stream) -> Sequence[_Batch]:
        """What has gathered, after a moment in which more may come; nothing where another stream took it."""
        await self._news.wait()
        if self._gathered and len(self._gathered) < _MOST_BATCHES_A_MESSAGE:
            await asyncio.sleep(_LINGER_SECONDS)
        if stream.over.is_set():
            return ()
        message: list[_Batch] = []
        size = 0
        while self._gathered and len(message) < _MOST_BATCHES_A_MESSAGE and size < _MOST_BYTES_A_MESSAGE:
            batch = self._gathered.popleft()
            if not batch.outcome.done():
                message.append(batch)
                size += len(batch.body)
        if not self._gathered:
            self._news.clear()
        return message
