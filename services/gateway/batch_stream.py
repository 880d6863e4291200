"""One stream of batches to a receiver, and the batches that travel in it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import msgspec

from chassis import context, logs, tracing
from chassis.errors import DeadlineExceeded, Internal, PulsegateError, Unavailable, from_wire
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb

log = logs.get(__name__)

_RETRY_AFTER_SECONDS = 1.0


class Batch:
    """A batch and who waits for its outcome."""

    __slots__ = (
        "body",
        "content_encoding",
        "correlation_id",
        "deadline",
        "door",
        "group",
        "number",
        "outcome",
        "principal",
        "sent_at",
        "stream",
        "timer",
        "traceparent",
    )

    def __init__(
        self,
        number: int,
        body: bytes,
        content_encoding: str,
        door: "pb.Door.ValueType",
        timeout_seconds: float,
        group: pb.PushGroup | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.body = body
        self.content_encoding = content_encoding
        self.door = door
        self.group = group
        #: On the event loop's clock, like `sent_at`.
        self.deadline = loop.time() + timeout_seconds
        self.principal = context.PRINCIPAL_TOKEN.get()
        self.correlation_id = context.CORRELATION_ID.get()
        self.traceparent = tracing.sampled_traceparent()
        self.outcome: asyncio.Future[pb.IngestBatchResponse] = loop.create_future()
        self.timer = loop.call_at(self.deadline, self._expire)
        self.stream: BatchStream | None = None
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
            group=self.group,
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


class BatchStream:
    """One stream, from when a receiver has taken it up to its last outcome."""

    def __init__(self, call: Any, service: str, *, patience_seconds: float) -> None:
        """`patience_seconds`: a batch that waited for less says nothing about the receiver."""
        self._call = call
        self._service = service
        self._patience_seconds = patience_seconds
        self._heard_at = 0.0
        self._given_up = False
        self.under_way: dict[int, Batch] = {}
        #: Nothing more is sent.
        self.over = asyncio.Event()
        #: Why: `drained`, `aged`, `broken` or `silent`.
        self.reason = ""

    def end(self, reason: str) -> None:
        """Sends nothing more."""
        if not self.over.is_set():
            self.reason = reason
            self.over.set()

    def doubt(self, batch: Batch) -> None:
        """Gives the stream up where it has said nothing while a batch waited in vain: the receiver hangs.

        Others wait in it too: a client that left its batch little time must not end theirs.
        """
        hurried = asyncio.get_running_loop().time() - batch.sent_at < self._patience_seconds
        if not hurried and self._heard_at < batch.sent_at and not self.over.is_set():
            self.end("silent")
            self.give_up()

    def give_up(self) -> None:
        """Breaks the stream."""
        self._given_up = True
        self._call.cancel()

    async def send(self, batches: Sequence[Batch]) -> None:
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
                batch.fail(away(self._service))

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


def away(service: str) -> Unavailable:
    return Unavailable(f"{service} is away.", retry_after_seconds=_RETRY_AFTER_SECONDS)


def _error_in(encoded: bytes, service: str) -> PulsegateError:
    try:
        return from_wire(encoded)
    except msgspec.DecodeError:
        return Internal(f"{service} answered an error that cannot be read.")
