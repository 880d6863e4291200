"""Batches on their way to the receivers: few long-lived streams carry what has gathered, instead of a call for each.

A message takes the batches of five milliseconds; their outcomes come back in any order. A stream that is to end (the
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
from functools import cache

import grpc
from opentelemetry.trace import SpanKind
from prometheus_client import Histogram

from chassis import context, logs, tracing
from chassis import metrics as chassis_metrics
from chassis.checked_upstreams import breaker_of
from chassis.errors import DeadlineExceeded, PulsegateError, Unavailable
from chassis.grpc_client import ServiceChannel
from chassis.shares import Shares
from chassis.tasks import ended, in_background
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from contracts.pulsegate.ingest.v1.ingest_pb2_grpc import IngestServiceStub
from services.gateway import metrics
from services.gateway.batch_stream import Batch, BatchStream, away
from services.gateway.shares import HOLDERS

log = logs.get(__name__)

_METHOD = "/pulsegate.ingest.v1.IngestService/StreamBatches"

#: How soon one message follows another: what a message costs is the same for one batch and for many, so what arrives in
#: between gathers. After a pause a batch waits for nobody. A message that is full does not wait either, nor one after
#: which large bodies are left.
_PACE_SECONDS = 0.005
_MOST_BATCHES_A_MESSAGE = 64
_MOST_BYTES_A_MESSAGE = 1 << 20
#: Larger bodies, and compressed ones that may become large, go last in a message, so many bytes of them or a single
#: one: nobody's small batch waits for more of them, however many there are.
_LARGE_BYTES = 64 << 10
_LARGE_COMPRESSED_BYTES = 8 << 10
_MOST_LARGE_BYTES_A_MESSAGE = 128 << 10

#: Batches without an outcome, all streams together, shared by tenants, each with what it takes up besides its body: at
#: most 16 384, however small. More are turned away. One alone may have half, since an installation may have a single
#: tenant, whose batches all wait while its receiver restarts.
_MOST_BYTES_UNDER_WAY = 128 << 20
_PARTS = 2
_BYTES_BESIDE_BODY = 8 << 10

#: A stream lasts so long, give or take a fifth, and its outcomes some seconds longer: less than the half minute that a
#: server gives to what is under way when it closes a connection for its age.
_STREAM_SECONDS = 15.0
_OPENING_SECONDS = 1.0

#: How long batches wait for the next stream: for the first one and after one that broke, and after one whose receiver
#: announced its end.
_HOPE_SECONDS = 0.25
_HOPE_AFTER_DRAINING_SECONDS = 8.0

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_RETRY_AFTER_SECONDS = 1.0

#: The breaker lets a batch try so soon, however long others stay open: a restarted receiver is back in seconds,
#: and clients wait for as long as they are told to.
_LONGEST_RESET_SECONDS = 3.0


@cache
def _calls(status: grpc.StatusCode) -> Histogram:
    return chassis_metrics.GRPC_CALLED.labels(_METHOD, status.name)


class IngestionStreams:
    """Carries batches to the receivers while `carrying()` is open."""

    def __init__(
        self,
        channel: ServiceChannel,
        *,
        streams: int,
        reset_seconds: float,
        timeout_seconds: float,
        most_bytes: int = _MOST_BYTES_UNDER_WAY,
        stream_seconds: float = _STREAM_SECONDS,
        pace_seconds: float = _PACE_SECONDS,
    ) -> None:
        self.channel = channel
        self._stub = IngestServiceStub(channel.grpc_channel)
        reset_seconds = min(reset_seconds, _LONGEST_RESET_SECONDS)
        self.breaker = breaker_of(channel.service, reset_seconds=reset_seconds, timeout_seconds=timeout_seconds)
        self._shed = metrics.SHED.labels(channel.service)
        self._timeout_seconds = timeout_seconds
        # Who has nothing under way may send a large body and some small ones.
        self._shares = Shares(most_bytes, least=most_bytes // 64, parts=_PARTS)
        self._stream_seconds = stream_seconds
        self._pace_seconds = pace_seconds
        self._streams = streams
        #: Those that are open, or soon will be.
        self._hopeful: set[int] = set()
        self._numbers = itertools.count(1)
        self._under_way = 0
        #: What waits to be sent.
        self._gathered: deque[Batch] = deque()
        self._gathered_large: deque[Batch] = deque()
        #: After the last message there were more large ones than went into it.
        self._left_large = False
        #: There is something to send, or a stream is over.
        self._news = asyncio.Event()
        #: Streams fill a message one after the other, in turn.
        self._filling = asyncio.Lock()
        #: When the last message was filled, on the event loop's clock.
        self._filled_at = float("-inf")
        self._carriers: set[asyncio.Task[None]] = set()

    async def take(
        self,
        body: bytes,
        content_encoding: str,
        door: "pb.Door.ValueType" = pb.DOOR_UNSPECIFIED,
        group: pb.PushGroup | None = None,
    ) -> pb.IngestBatchResponse:
        """What a receiver made of a batch of the current principal, in the format of its door: durable when it returns.
        `group`: whose values a push holds.

        Raises the receiver's error, Unavailable (without a stream, too much under way, or it broke: nothing is known of
        the batch) or DeadlineExceeded.
        """
        holders, size = HOLDERS.get(), len(body) + _BYTES_BESIDE_BODY
        if not self._shares.take(holders, size):
            self._shed.inc()
            raise Unavailable("Too many batches are under way.", retry_after_seconds=_RETRY_AFTER_SECONDS)
        try:
            with self.breaker.guarded():
                if not tracing.sampled():
                    return await self._outcome(body, content_encoding, door, group)
                with tracing.span(_METHOD, kind=SpanKind.CLIENT):
                    return await self._outcome(body, content_encoding, door, group)
        finally:
            self._shares.give_back(holders, size)

    async def _outcome(
        self, body: bytes, content_encoding: str, door: "pb.Door.ValueType", group: pb.PushGroup | None
    ) -> pb.IngestBatchResponse:
        batch = self._gather(body, content_encoding, door, group)
        began, status = time.monotonic(), grpc.StatusCode.OK
        self._under_way += 1
        try:
            return await batch.outcome
        except PulsegateError as error:
            status = error.grpc_status
            raise
        except asyncio.CancelledError:
            status = grpc.StatusCode.CANCELLED
            raise
        finally:
            self._under_way -= 1
            batch.leave()
            _calls(status).observe(time.monotonic() - began)

    def _gather(
        self, body: bytes, content_encoding: str, door: "pb.Door.ValueType", group: pb.PushGroup | None
    ) -> Batch:
        timeout = context.remaining_seconds(self._timeout_seconds)
        if timeout <= 0:
            raise DeadlineExceeded(f"No time was left to ask {self.channel.service}.")
        if not self._hopeful:
            raise away(self.channel.service)
        batch = Batch(next(self._numbers), body, content_encoding, door, timeout, group)
        small = len(body) <= (_LARGE_COMPRESSED_BYTES if content_encoding else _LARGE_BYTES)
        (self._gathered if small else self._gathered_large).append(batch)
        self._news.set()
        return batch

    @asynccontextmanager
    async def carrying(self) -> AsyncIterator[None]:
        """Keeps the streams open meanwhile. They connect by themselves, now or later."""
        metrics.BATCHES_UNDER_WAY.set_function(lambda: self._under_way)
        try:
            async with in_background(*(self._follow(position) for position in range(self._streams))):
                yield
        finally:
            await ended(self._carriers)

    async def _follow(self, position: int) -> None:
        """Opens one stream after the other, each as soon as the one before is over, until it is cancelled."""
        loop = asyncio.get_running_loop()
        hope, reason = _HOPE_SECONDS, ""
        while True:
            self._hopeful.add(position)
            losing_hope = loop.call_later(hope, self._lose_hope, position)
            stream = await self._opened()
            losing_hope.cancel()
            self._hopeful.add(position)
            if reason != "aged":
                self.breaker.try_again()
            reason = await self._last(stream)
            hope = _HOPE_AFTER_DRAINING_SECONDS if reason == "drained" else _HOPE_SECONDS

    async def _opened(self) -> BatchStream:
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

    async def _open(self) -> BatchStream:
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
        return BatchStream(call, self.channel.service, patience_seconds=self.breaker.patience_seconds)

    async def _last(self, stream: BatchStream) -> str:
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
        for gathered in (self._gathered, self._gathered_large):
            while gathered and not self._hopeful:
                gathered.popleft().fail(away(self.channel.service))

    async def _carry(self, stream: BatchStream) -> None:
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

    async def _next_message(self, stream: BatchStream) -> Sequence[Batch]:
        """What has gathered, once the first of it has waited for others; nothing where the stream is over meanwhile."""
        async with self._filling:
            await self._news.wait()
            if self._gathers():
                await asyncio.sleep(max(0.0, self._filled_at + self._pace_seconds - asyncio.get_running_loop().time()))
            return () if stream.over.is_set() else self._filled()

    def _gathers(self) -> bool:
        """Whether the next message waits for more: it has something, is not full, and no large ones were left."""
        something = self._gathered or self._gathered_large
        return bool(something) and not self._left_large and len(self._gathered) < _MOST_BATCHES_A_MESSAGE

    def _filled(self) -> Sequence[Batch]:
        message = _taken_from(self._gathered, _MOST_BATCHES_A_MESSAGE, _MOST_BYTES_A_MESSAGE)
        if self._gathered_large:
            message += _taken_from(self._gathered_large, _MOST_BATCHES_A_MESSAGE, _MOST_LARGE_BYTES_A_MESSAGE)
        self._left_large = bool(self._gathered_large)
        if not self._gathered and not self._left_large:
            self._news.clear()
        self._filled_at = asyncio.get_running_loop().time()
        return message


def _taken_from(gathered: deque[Batch], most: int, most_bytes: int) -> list[Batch]:
    """The first ones that somebody still waits for, until they are as many, or take as much."""
    taken: list[Batch] = []
    size = 0
    while gathered and len(taken) < most and size < most_bytes:
        batch = gathered.popleft()
        if not batch.outcome.done():
            taken.append(batch)
            size += len(batch.body)
    return taken
