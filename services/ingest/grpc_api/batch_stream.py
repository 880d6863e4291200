"""A caller's stream of batches: many under way at once, each answered as soon as its outcome is known."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from opentelemetry.trace import Span, SpanKind

from chassis import context, logs, metrics, tracing
from chassis.errors import DeadlineExceeded, Internal, PulsegateError, Unauthenticated, to_wire
from chassis.principals import Principal, PrincipalVerifier
from chassis.tasks import ended
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from services.ingest.decoding import Batch
from services.ingest.grpc_api.outcomes import door_of, group_of, render
from services.ingest.log_writer import Frame
from services.ingest.operations.batches import Receiver, Taken, Unfinished
from services.ingest.turns import LONGEST_TURN_SECONDS

log = logs.get(__name__)

#: A stream is asked to make room for the next one before its connection gets too old for the server, so that callers
#: spread over new receivers. Give or take a quarter, lest all do so at once.
_LONGEST_SECONDS = 200.0


class BatchStream:
    """One stream. The common batch costs no task: it is looked at when it arrives and answered with its frame."""

    def __init__(self, receiver: Receiver, verifier: PrincipalVerifier, draining: asyncio.Event) -> None:
        self._receiver = receiver
        self._verifier = verifier
        self._draining = draining
        #: Batches without an outcome.
        self._under_way = 0
        #: Those of them that wait for a frame to be on disk.
        self._waiting: dict[Frame, list[tuple[int, Taken]]] = {}
        self._outcomes: list[pb.StreamedOutcome] = []
        self._more_to_come = True
        self._drain_asked = False
        #: Set from the start: the first response greets the caller, who knows then that the stream is open.
        self._news = asyncio.Event()
        self._news.set()
        self._tasks = asyncio.TaskGroup()

    async def serve(self, requests: AsyncIterator[pb.StreamBatchesRequest]) -> AsyncIterator[pb.StreamBatchesResponse]:
        """Answers until the caller has closed its side and has every outcome, or is gone."""
        try:
            async with self._tasks:
                tasks = [self._tasks.create_task(self._read(requests)), self._tasks.create_task(self._ask_to_drain())]
                try:
                    while self._more_to_come or self._under_way or self._outcomes:
                        await self._news.wait()
                        self._news.clear()
                        outcomes, self._outcomes = self._outcomes, []
                        yield pb.StreamBatchesResponse(outcomes=outcomes, draining=self._drain_asked)
                finally:
                    await ended(tasks)
        except* GeneratorExit:
            pass  # nobody listens any more: what was under way is cancelled

    async def _read(self, requests: AsyncIterator[pb.StreamBatchesRequest]) -> None:
        async for request in requests:
            arrived = turn_began = time.monotonic()
            for batch in request.batches:
                if time.monotonic() - turn_began > LONGEST_TURN_SECONDS:  # cheap batches share a turn
                    await asyncio.sleep(0)
                    turn_began = time.monotonic()
                self._under_way += 1
                self._receive(batch, arrived + batch.timeout_milliseconds / 1000)
        self._more_to_come = False
        self._news.set()

    async def _ask_to_drain(self) -> None:
        try:
            async with asyncio.timeout(_LONGEST_SECONDS * random.uniform(0.75, 1.25)):  # noqa: S311
                await self._draining.wait()
        except TimeoutError:
            pass  # old enough
        self._drain_asked = True
        self._news.set()

    def _receive(self, batch: pb.StreamedBatch, deadline: float) -> None:
        context.CORRELATION_ID.set(batch.correlation_id)
        principal = self._verifier.known(batch.principal)
        if principal is None or not principal.project_id:
            self._tasks.create_task(self._receive_slowly(batch, self._taken_of_stranger(batch, deadline), deadline))
            return
        try:
            taken = self._begin(principal, batch, deadline)
        except Exception as error:  # noqa: BLE001 - the edge of the service: told to the caller, by kind
            self._refuse(batch.number, error)
            return
        if isinstance(taken, Taken):
            self._await_frames(batch.number, taken)
        else:
            self._tasks.create_task(self._receive_slowly(batch, self._go_on(principal, batch, taken), deadline))

    async def _taken_of_stranger(self, batch: pb.StreamedBatch, deadline: float) -> Taken:
        """For a principal that was not seen before."""
        principal = await self._verifier.verify(batch.principal)
        if not principal.project_id:
            raise Unauthenticated("This call needs a principal of a project.")
        taken = self._begin(principal, batch, deadline)
        return taken if isinstance(taken, Taken) else await self._go_on(principal, batch, taken)

    async def _go_on(self, principal: Principal, batch: pb.StreamedBatch, begun: Batch | Unfinished) -> Taken:
        if not batch.traceparent:
            return await self._receiver.go_on(principal, begun)
        with tracing.span("go on with batch", carrier={"traceparent": batch.traceparent}):
            taken = await self._receiver.go_on(principal, begun)
            _trace_publishing(taken)
            return taken

    async def _receive_slowly(
        self, batch: pb.StreamedBatch, taking: Coroutine[Any, Any, Taken], deadline: float
    ) -> None:
        """For what must wait for another service before the batch can be taken."""
        context.DEADLINE.set(deadline)
        try:
            taken = await taking
        except Exception as error:  # noqa: BLE001 - the edge of the service: told to the caller, by kind
            self._refuse(batch.number, error)
        else:
            self._await_frames(batch.number, taken)

    def _begin(self, principal: Principal, batch: pb.StreamedBatch, deadline: float) -> Taken | Batch | Unfinished:
        """Nobody waits for a batch whose deadline has passed: it is not even decoded."""
        if time.monotonic() > deadline:
            raise DeadlineExceeded("The receiver came to this batch too late.")
        door = door_of(batch.door)
        group = group_of(batch) if door else None
        if not batch.traceparent:
            return self._receiver.begin(principal, batch.body, batch.content_encoding, door, group)
        with tracing.span("receive batch", kind=SpanKind.SERVER, carrier={"traceparent": batch.traceparent}):
            taken = self._receiver.begin(principal, batch.body, batch.content_encoding, door, group)
            if isinstance(taken, Taken):
                _trace_publishing(taken)
            return taken

    def _await_frames(self, number: int, taken: Taken) -> None:
        """Waits for the first frame that is not settled, and again until none is left."""
        frame = next((frame for frame in taken.frames if not frame.settled), None)
        if frame is None:
            self._finish(number, taken)
            return
        waiting = self._waiting.get(frame)
        if waiting is None:
            waiting = self._waiting[frame] = []
            frame.when_settled(self._settled)
        waiting.append((number, taken))

    def _settled(self, frame: Frame) -> None:
        for number, taken in self._waiting.pop(frame):
            self._await_frames(number, taken)

    def _finish(self, number: int, taken: Taken) -> None:
        try:
            outcome = self._receiver.finish(taken)
        except PulsegateError as error:
            self._refuse(number, error)
        else:
            self._tell(pb.StreamedOutcome(number=number, response=render(outcome)))

    def _refuse(self, number: int, error: Exception) -> None:
        if not isinstance(error, PulsegateError):
            log.error("batch failed", exc_info=error)
            error = Internal("Something went wrong inside Pulsegate.")
        metrics.ERRORS.labels(error.code).inc()
        self._tell(pb.StreamedOutcome(number=number, error=to_wire(error)))

    def _tell(self, outcome: pb.StreamedOutcome) -> None:
        self._under_way -= 1
        self._outcomes.append(outcome)
        self._news.set()


def _trace_publishing(taken: Taken) -> None:
    """Spans until the log has the frames that carry a batch, or has them not; children of the current one."""
    for frame in taken.frames:
        attributes = {"messaging.system": "nats", "messaging.operation.type": "send"}
        frame.when_settled(_ending(tracing.begun("ingest publish", kind=SpanKind.PRODUCER, attributes=attributes)))


def _ending(span: Span) -> Callable[[Frame], None]:
    return lambda _: span.end()
