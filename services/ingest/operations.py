"""The receiver's one use case: take a batch."""

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Sequence

from chassis import logs, tracing
from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.principals import Principal
from services.ingest import decoding, metrics, records
from services.ingest.decoding import Batch
from services.ingest.definitions import DefinitionTable
from services.ingest.domain import Definition, Outcome, lane_of, partition_of
from services.ingest.log import LogWriter
from services.ingest.records import Kind, MetricDelta, Record
from services.ingest.validation import Validated, validate

log = logs.get(__name__)

#: Batches remembered as durable, so that a quick retry does not travel through the log again.
_MOST_REMEMBERED = 100_000

_BatchId = tuple[bytes, bytes, int]


class Receiver:
    """Takes batches: each is durable, or refused whole, before `take` returns."""

    def __init__(self, definitions: DefinitionTable, writers: Sequence[LogWriter], clock: Clock) -> None:
        self._definitions = definitions
        self._writers = writers
        self._clock = clock
        self._durable: OrderedDict[_BatchId, None] = OrderedDict()

    async def take(self, principal: Principal, body: bytes, content_encoding: str) -> Outcome:
        """What became of the batch; with nothing accepted, nothing was kept.

        Raises the errors of `decoding.decode`, Unavailable where definitions cannot be confirmed, LogUnavailable.
        """
        principal.require("ingest:write")
        batch = decoding.decode(body, content_encoding)
        project_id = uuid.UUID(principal.project_id).bytes
        validated = await self._validate(batch, project_id)
        duplicate = False
        if validated.accepted:
            tenant_id = uuid.UUID(principal.tenant_id).bytes
            duplicate = await self._keep(batch, validated.metrics, tenant_id, project_id)
        _count(validated, duplicate=duplicate)
        return Outcome(accepted=validated.accepted, rejected=tuple(validated.rejections), duplicate=duplicate)

    async def _validate(self, batch: Batch, project_id: bytes) -> Validated:
        now_ms = self._clock.now_ms()
        definitions = self._definitions.of_project(project_id)
        validated = validate(batch, definitions, now_ms)
        if not validated.curable:
            return validated
        await self._definitions.confirm(project_id)
        return validate(batch, self._definitions.of_project(project_id), now_ms)

    async def _keep(self, batch: Batch, deltas: list[MetricDelta], tenant_id: bytes, project_id: bytes) -> bool:
        """Makes the batch durable. Whether it was known to be so already."""
        batch_id = (project_id, batch.producer, batch.sequence)
        if batch.producer and batch_id in self._durable:
            return True
        carrier: dict[str, str] = {}
        tracing.inject(carrier)
        record = Record(
            version=records.VERSION,
            kind=Kind.DELTA,
            tenant_id=tenant_id,
            project_id=project_id,
            producer=batch.producer,
            sequence=batch.sequence,
            floor=batch.floor,
            received_ms=self._clock.now_ms(),
            metrics=deltas,
            traceparent=carrier.get("traceparent", ""),
        )
        await self._writer_of(project_id).append(records.encode(record))
        if batch.producer:
            self._remember(batch_id)
        return False

    def _remember(self, batch_id: _BatchId) -> None:
        self._durable[batch_id] = None
        if len(self._durable) > _MOST_REMEMBERED:
            self._durable.popitem(last=False)

    def _writer_of(self, project_id: bytes) -> LogWriter:
        return self._writers[lane_of(partition_of(project_id), len(self._writers))]

    async def end_series(self, definition: Definition) -> None:
        """Tells the aggregator that a definition was deleted. Every receiver does; once is as good as often."""
        record = Record(
            version=records.VERSION,
            kind=Kind.END,
            tenant_id=definition.tenant_id,
            project_id=definition.project_id,
            producer=b"",
            sequence=0,
            floor=0,
            received_ms=self._clock.now_ms(),
            metrics=[MetricDelta(definition.id, definition.name, definition.type, definition.bounds, {}, [])],
        )
        await self._writer_of(definition.project_id).append(records.encode(record))


class SeriesEndings:
    """Deleted definitions on their way to the log; each is tried until it is there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: asyncio.Queue[Definition] = asyncio.Queue()
        self._told: set[bytes] = set()

    def add(self, definition: Definition) -> None:
        """Called for each deletion that the feed tells, possibly more than once."""
        if definition.id not in self._told:
            self._told.add(definition.id)
            self._queue.put_nowait(definition)

    async def run(self, receiver: Receiver) -> None:
        """Passes deletions on, for ever."""
        while True:
            definition = await self._queue.get()
            while not await self._told_log(receiver, definition):
                await self._clock.sleep(1.0)

    async def _told_log(self, receiver: Receiver, definition: Definition) -> bool:
        try:
            await receiver.end_series(definition)
        except Unavailable as error:
            log.warning("deletion waits for the log", definition=definition.name, reason=error.message)
            return False
        return True


def _count(validated: Validated, *, duplicate: bool) -> None:
    outcome = "duplicate" if duplicate else "accepted" if validated.accepted else "rejected"
    metrics.BATCHES.labels(outcome).inc()
    if not duplicate:
        metrics.METRICS_ACCEPTED.inc(validated.accepted)
    for rejection in validated.rejections:
        metrics.METRICS_REJECTED.labels(rejection.code).inc()
