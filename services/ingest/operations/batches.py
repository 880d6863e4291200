"""Taking a batch: what a receiver is for."""

import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.principals import Principal
from services.ingest import doors, metrics
from services.ingest.admission import Admission
from services.ingest.auto_definition import AutoDefinition, explained
from services.ingest.batch_records import encoded_records
from services.ingest.decoding import MOST_BODY_BYTES, Batch, decode, decompress
from services.ingest.definitions import DefinitionTable
from services.ingest.domain import MOST_POINTS_IN_REQUEST, Door, Fault, Outcome, PushGroup
from services.ingest.doors.exposition import Push
from services.ingest.durable_outcomes import BatchId, DurableOutcomes
from services.ingest.fair_turns import FairTurns, Room
from services.ingest.log_writer import Frame, LaneWriters
from services.ingest.point_validation import validate_points
from services.ingest.tallies import Tallies
from services.ingest.turns import Steps, TooMuchWork, Turns, begun, in_turns
from services.ingest.validation import Validated, remembered, validate

T = TypeVar("T")

#: Metrics and data points that may wait for config or the state, already decoded, shared by tenants; and as how many
#: more each batch counts.
_MOST_RECONSIDERED = 100_000
_BESIDE_METRICS = 10
#: Bytes, decompressed, that are read at once, without a turn for others: some milliseconds of the doors' worst bodies
#: and of the worst metrics, which cost less. Values that patterns must match may take far longer: see below.
_MOST_POINT_BYTES_AT_ONCE = 16 << 10
_MOST_METRIC_BYTES_AT_ONCE = 64 << 10
#: How long others wait for a body of no more bytes, and what one that takes longer counts as when turns are shared.
_LONGEST_AT_ONCE_SECONDS = 0.02
_SLOW_BYTES = 1 << 20
#: Work in one turn: three times that of the worst body whose values no pattern must match.
_MOST_TURN_SECONDS = 2.5
#: Bodies that may wait until they are read, shared by tenants.
_MOST_WAITING_BYTES = 64 << 20
#: Pushes are numbered by the clock, and by one more where it is no later than the last one's. From ten minutes ahead
#: they are refused: then the numbers were those of a clock that was wrong.
_MOST_AHEAD_NS = 9 * 60 * 1_000_000_000


@dataclass(slots=True)
class Taken:
    """A batch that was looked at: its outcome, once the frames that carry it, where there are any, are on disk."""

    outcome: Outcome
    whose: tuple[bytes, bytes]
    #: Of the metrics in the batch, in order, where the ledger needs them; empty where one could not be read.
    names: Sequence[str] = ()
    frames: Sequence[Frame] = ()
    batch_id: BatchId | None = None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What is left to do for a body that others must not wait for."""

    steps: Steps[Taken | Batch]
    #: Of the body, decompressed, or what it counts as.
    size_bytes: int


class Receiver:
    """Takes batches: each is durable, or refused whole, before its outcome is told.

    `begin` does the work and never waits; what takes long, or cannot be decided without config, is for `go_on`.
    `finish` tells the outcome when the log has the batch. `take` is all of that for a single batch.
    """

    def __init__(
        self,
        definitions: DefinitionTable,
        auto_definition: AutoDefinition,
        writers: LaneWriters,
        tallies: Tallies,
        admission: Admission,
        clock: Clock,
    ) -> None:
        self._definitions = definitions
        self._auto_definition = auto_definition
        self._writers = writers
        self._tallies = tallies
        self._admission = admission
        self._clock = clock
        self._durable = DurableOutcomes()
        #: When the last push arrived.
        self._pushed_ns = 0
        largest_batch = MOST_POINTS_IN_REQUEST + _BESIDE_METRICS
        self._reconsidered = Room(_MOST_RECONSIDERED, largest_batch, _too_many_reconsidered)
        self._large_bodies = FairTurns(_MOST_WAITING_BYTES, MOST_BODY_BYTES)

    async def take(
        self,
        principal: Principal,
        body: bytes,
        content_encoding: str,
        door: Door = Door.METRICS,
        group: PushGroup | None = None,
    ) -> Outcome:
        """What became of the batch; with nothing accepted, nothing was kept.

        Raises the errors of `doors.decode`, TooManyProducers, Unavailable where definitions cannot be confirmed,
        LogUnavailable.
        """
        taken = self.begin(principal, body, content_encoding, door, group)
        if not isinstance(taken, Taken):
            taken = await self.go_on(principal, taken)
        for frame in taken.frames:
            await frame.stored()
        return self.finish(taken)

    def begin(
        self,
        principal: Principal,
        body: bytes,
        content_encoding: str,
        door: Door = Door.METRICS,
        group: PushGroup | None = None,
    ) -> Taken | Batch | Unfinished:
        """Looks at the batch and puts it into a frame of the log.

        Returns what is for `go_on`: what is left to do where that takes long, the batch itself where a newer definition
        might change what is to be rejected, or where it is new to a project that is full. Raises like `take`.
        """
        principal.require("ingest:write")
        plain = decompress(body, content_encoding)
        push = self._push(group) if group is not None else None
        if len(plain) > (_MOST_METRIC_BYTES_AT_ONCE if door is Door.METRICS else _MOST_POINT_BYTES_AT_ONCE):
            return Unfinished(self._look_at(principal, plain, door, push), len(plain))
        if door is Door.METRICS:
            found = self._look_at_metrics(principal, decode(plain, ""))
        else:
            found = begun(self._look_at(principal, plain, door, push), _LONGEST_AT_ONCE_SECONDS)
        return found if isinstance(found, Taken | Batch) else Unfinished(found, max(len(plain), _SLOW_BYTES))

    def _look_at_metrics(self, principal: Principal, batch: Batch) -> Taken | Batch | Steps[Taken | Batch]:
        """`_look_at` without its steps for the common batch, which they would cost more than they are worth."""
        if (early := self._early(principal, batch)) is not None:
            return early
        part = remembered(batch, self._definitions.of_project(_uuid_bytes(principal.project_id)))
        if part is None:
            return begun(self._judge(principal, batch), _LONGEST_AT_ONCE_SECONDS)
        taken, worth_keeping = self._judged(principal, batch, (part,))
        return (
            self._kept(principal, batch, taken, encoded_records(_whose(principal), batch, part, self._clock.now_ms()))
            if worth_keeping
            else taken
        )

    def _look_at(self, principal: Principal, plain: bytes, door: Door, push: Push | None) -> Steps[Taken | Batch]:
        batch = yield from doors.decode(plain, door, push)
        if (early := self._early(principal, batch)) is not None:
            return early
        return (yield from self._judge(principal, batch))

    def _judge(
        self, principal: Principal, batch: Batch, refused_sources: Collection[bytes] = ()
    ) -> Steps[Taken | Batch]:
        """The batch itself where a newer definition might change what is to be rejected."""
        parts = yield from self._validate(principal, batch, refused_sources)
        if any(part.rejections and part.curable for part in parts):
            return batch
        return (yield from self._keep(principal, batch, parts))

    def _judge_finally(
        self, principal: Principal, batch: Batch, refused_sources: Collection[bytes], undefined: Mapping[str, str]
    ) -> Steps[Taken]:
        parts = yield from self._validate(principal, batch, refused_sources)
        if undefined:
            for part in parts:
                part.rejections = [explained(each, batch.points, undefined) for each in part.rejections]
        return (yield from self._keep(principal, batch, parts))

    def _early(self, principal: Principal, batch: Batch) -> Taken | Batch | None:
        """What becomes of a batch that need not be looked at, or not yet."""
        if (known := self._durable.get(_batch_id(principal, batch))) and known.size == len(batch.metrics):
            return Taken(replace(known, duplicate=True), _whose(principal), self._names(principal, batch))
        held_back = self._admission.holds_back(_uuid_bytes(principal.project_id), batch, principal.kind)
        return batch if held_back else None

    def _push(self, group: PushGroup) -> Push:
        now_ns = self._clock.now_ms() * 1_000_000
        ahead = self._pushed_ns - now_ns > _MOST_AHEAD_NS  # the clock was
        self._pushed_ns = now_ns if ahead else max(now_ns, self._pushed_ns + 1)
        return Push(group, self._pushed_ns)

    async def go_on(self, principal: Principal, found: Batch | Unfinished) -> Taken:
        """Takes what `begin` has returned. Raises like `take`, and Unavailable where too much waits."""
        if isinstance(found, Batch):
            return await self._reconsider(principal, found)
        taken = await self._work(principal, found.size_bytes, found.steps)
        return taken if isinstance(taken, Taken) else await self._reconsider(principal, taken, found.size_bytes)

    async def _work(self, principal: Principal, large_bytes: int, steps: Steps[T]) -> T:
        """What the steps come to, in a turn of their own where they are for a body that is large."""
        if not large_bytes:
            return await in_turns(steps)
        async with self._large_bodies.turn(principal.tenant_id, large_bytes):
            try:
                return await in_turns(steps, Turns(most_seconds=_MOST_TURN_SECONDS))
            except TooMuchWork as error:  # the label sets that it came to are remembered: the next time it gets further
                raise Unavailable.waiting_for("turn", "This request takes too long to read.", 1.0) from error

    async def _reconsider(self, principal: Principal, batch: Batch, large_bytes: int = 0) -> Taken:
        """Like `begin`, without what a full project has no room for, and with the definitions as config has them now
        where these might change what is to be rejected. `large_bytes`: of its body, 0 where that is not large.

        Raises TooManyProducers, Unavailable where config or the state must be asked and is away, or too much waits.
        """
        size = len(batch.points) + len(batch.metrics) + _BESIDE_METRICS
        with self._reconsidered.taken(principal.tenant_id, size):
            project_id, kind, refused = _uuid_bytes(principal.project_id), principal.kind, frozenset[bytes]()
            if self._admission.concerns(project_id, kind):  # then the batch may be good as it is
                refused = await self._admission.refused_sources(principal.tenant_id, project_id, batch, kind)
                taken = await self._work(principal, large_bytes, self._judge(principal, batch, refused))
                if isinstance(taken, Taken):
                    return taken
            undefined = await self._confirm(principal, batch)
            return await self._work(principal, large_bytes, self._judge_finally(principal, batch, refused, undefined))

    async def _confirm(self, principal: Principal, batch: Batch) -> Mapping[str, str]:
        """Why metrics that are not defined were not made from the data, by name."""
        tenant_id, project_id = _whose(principal)
        await self._definitions.confirm(project_id)
        if not batch.points:
            return {}
        return await self._auto_definition.define(tenant_id, project_id, batch.points, principal.kind)

    def _validate(
        self, principal: Principal, batch: Batch, refused_sources: Collection[bytes] = ()
    ) -> Steps[Sequence[Validated]]:
        """What was sent, in parts that are a record each."""
        definitions = self._definitions.of_project(_uuid_bytes(principal.project_id))
        now_ms = self._clock.now_ms()
        if batch.points:
            return (yield from validate_points(batch.points, definitions, now_ms, refused_sources))
        return ((yield from validate(batch, definitions, now_ms)),)

    def _keep(self, principal: Principal, batch: Batch, parts: Sequence[Validated]) -> Steps[Taken]:
        taken, worth_keeping = self._judged(principal, batch, parts)
        if not worth_keeping:
            return taken
        encoded: list[bytes] = []
        for part in parts:
            encoded += encoded_records(_whose(principal), batch, part, self._clock.now_ms()) if part.accepted else ()
            yield
        return self._kept(principal, batch, taken, encoded)

    def _judged(self, principal: Principal, batch: Batch, parts: Sequence[Validated]) -> tuple[Taken, bool]:
        """The outcome, and whether there is something that is not known to be durable already."""
        duplicate = _batch_id(principal, batch) in self._durable
        rejected = tuple([rejection for part in parts for rejection in part.rejections])
        outcome = Outcome(accepted=sum([part.accepted for part in parts]), rejected=rejected, duplicate=duplicate)
        names = self._names(principal, batch) if duplicate or rejected else ()
        return Taken(outcome, _whose(principal), names), bool(outcome.accepted) and not duplicate

    def _kept(self, principal: Principal, batch: Batch, taken: Taken, encoded: Sequence[bytes]) -> Taken:
        """Puts the records into frames."""
        writer = self._writers.of(_uuid_bytes(principal.project_id))
        taken.frames = tuple(dict.fromkeys([writer.put(record) for record in encoded]))  # each once, in order
        taken.batch_id = _batch_id(principal, batch) if batch.producer else None
        return taken

    def _names(self, principal: Principal, batch: Batch) -> list[str]:
        """Of all that the batch brought; a point's is that of its definition, where there is one."""
        if not batch.points:
            return [metric.metric if isinstance(metric, Fault) else metric.name for metric in batch.metrics]
        defined = self._definitions.of_project(_uuid_bytes(principal.project_id))
        return [
            "" if isinstance(point, Fault) else next(filter(defined.__contains__, point.names), point.names[0])
            for point in batch.points
        ]

    def finish(self, taken: Taken) -> Outcome:
        """The outcome of a batch whose frames are on disk. Raises LogUnavailable where one is not, or maybe not."""
        for frame in taken.frames:
            frame.check()
        if taken.batch_id is not None:
            self._durable.remember(taken.batch_id, taken.outcome)
        _count(taken.outcome)
        if taken.names:
            self._tally(taken)
        return taken.outcome

    def _tally(self, taken: Taken) -> None:
        """For the ledger, which learns of other batches by folding them."""
        rejected = {rejection.index for rejection in taken.outcome.rejected}
        defined = self._definitions.of_project(taken.whose[1])
        for rejection in taken.outcome.rejected:
            name = taken.names[rejection.index]
            self._tallies.rejected(taken.whose, name, rejection.code, rejection.message, defined=name in defined)
        if taken.outcome.duplicate:
            for index, name in enumerate(taken.names):
                if index not in rejected:
                    self._tallies.duplicate(taken.whose, name, defined=name in defined)


def _too_many_reconsidered() -> Unavailable:
    return Unavailable.waiting_for("config", "Too many metrics wait for their definitions.", 1.0)


def _batch_id(principal: Principal, batch: Batch) -> BatchId:
    return _uuid_bytes(principal.project_id), batch.producer, batch.sequence


def _whose(principal: Principal) -> tuple[bytes, bytes]:
    return _uuid_bytes(principal.tenant_id), _uuid_bytes(principal.project_id)


@lru_cache(maxsize=65_536)
def _uuid_bytes(text: str) -> bytes:
    return uuid.UUID(text).bytes


def _count(outcome: Outcome) -> None:
    result = "duplicate" if outcome.duplicate else "accepted" if outcome.accepted else "rejected"
    metrics.BATCHES.labels(result).inc()
    if not outcome.duplicate:
        metrics.METRICS_ACCEPTED.inc(outcome.accepted)
    for code, count in Counter([rejection.code for rejection in outcome.rejected]).items():
        metrics.METRICS_REJECTED.labels(code).inc(count)
