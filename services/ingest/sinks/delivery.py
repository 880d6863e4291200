"""One lane's way to one sink: committed values in order, until it has them; knows up to which commit it has.

What was handed to the sink's writer is delivered as it is; what still waits may be coalesced, to one sample a series
every 15 s where the sink keeps their times, else to the newest. A sink that is away for too long, or while too many
series end, starts over, as a new one does.
"""

import asyncio
from asyncio.timeouts import Timeout
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import Attributes

from chassis import logs, tracing
from chassis import metrics as chassis_metrics
from chassis.clock import Clock
from services.ingest import metrics
from services.ingest.samples import Samples
from services.ingest.sealing import Checkpoint
from services.ingest.sinks.attempts import upstream
from services.ingest.sinks.backlog import Backlog

log = logs.get(__name__)

#: In an outage one sample a series is kept for each of these.
_COALESCED_MS = 15_000
#: So many commits may wait before they are coalesced.
_BEHIND = 5
#: Batches of one delivery that get a span.
_MOST_SPANS = 64
#: What an entry takes of memory besides its samples: each of its spans and exemplars, and everything else.
_SPAN_BYTES = 112
_EXEMPLAR_BYTES = 384
_ENTRY_BYTES = 2048


class Writer(Protocol):
    """Gets one lane's samples taken by one sink."""

    @property
    def keeps_history(self) -> bool:
        """Whether samples are kept with their times. A sink that has the newest values alone is to be given all live
        series anew by each owner of a lane."""
        ...

    async def write(self, samples: Samples) -> None:
        """Returns when each sample was taken or put aside, however long that takes; they are in order of time."""
        ...


class Sink(Protocol):
    """A place where committed values go."""

    @property
    def name(self) -> str: ...
    def writer(self, lane: int, clock: Clock) -> Writer: ...


@dataclass
class _Entry:
    """The samples of one commit, or of several that were coalesced."""

    commit_ms: int
    #: Written with the time of a commit: only the newest of a series counts.
    ordinary: Samples
    #: With a time of their own, first zeros and stale markers: all of them count.
    special: Samples
    #: The commit's spans, one for each traced batch.
    traceparents: list[str]
    #: How much memory it takes.
    held_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self._weigh()

    def _weigh(self) -> None:
        besides = _SPAN_BYTES * len(self.traceparents) + _EXEMPLAR_BYTES * len(self.ordinary.exemplars)
        self.held_bytes = _ENTRY_BYTES + besides + self.ordinary.held_bytes + self.special.held_bytes

    def absorb(self, later: "_Entry") -> None:
        table = self.ordinary.table
        self.commit_ms = later.commit_ms
        self.ordinary = Samples.joined(table, (self.ordinary, later.ordinary)).latest()
        self.special = Samples.joined(table, (self.special, later.special))
        self.traceparents += later.traceparents[: _MOST_SPANS - len(self.traceparents)]
        self._weigh()

    @property
    def parting_bytes(self) -> int:
        """Of samples that no later ones replace: special ones, and the last ones of series that ended."""
        ended = ~self.ordinary.table.live[self.ordinary.rows]
        return self.special.held_bytes + self.ordinary.at(ended).held_bytes

    def in_time(self) -> Samples:
        """All of them by time, so that each series' samples are in order."""
        return Samples.joined(self.ordinary.table, (self.special, self.ordinary)).in_time()


class Delivery:
    """One lane's way to one sink."""

    def __init__(
        self, sink: Sink, lane: int, clock: Clock, backlog: Backlog, *, delivered_ms: int, longest_seconds: float
    ) -> None:
        """`backlog`: shared with other lanes and sinks. `longest_seconds`: without any delivery for so long the sink
        starts over."""
        self.sink = sink.name
        self._lane = lane
        self._make_writer = partial(sink.writer, lane, clock)
        self._writer = self._make_writer()
        self._clock = clock
        #: Every commit up to here is delivered.
        self.delivered_ms = delivered_ms
        #: What earlier owners have committed up to here needs no delivery.
        self.begins_after_ms = delivered_ms if self._writer.keeps_history else -1
        self._backlog = backlog
        self._longest_seconds = longest_seconds
        self._entries: deque[_Entry] = deque()
        #: The one that is being delivered: what was sent of it must not change any more.
        self._under_way: _Entry | None = None
        #: Since when, on the monotonic clock, and what ends it early.
        self._began = 0.0
        self._patience: Timeout | None = None
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._count()

    def offer(self, commit_ms: int, samples: Samples, traceparents: Sequence[str] = ()) -> None:
        """Takes what a commit made deliverable, and its spans; it never waits."""
        self._entries.append(self._entry(commit_ms, samples, traceparents))
        if len(self._entries) > _BEHIND:
            self._coalesce()
        self._count()
        self._make_room()
        if self._patience is not None and self._is_too_much():
            self._patience.reschedule(0.0)
            self._patience = None
        self._idle.clear()
        self._arrived.set()

    @property
    def late_seconds(self) -> float:
        """For how long the sink has not taken what it is being given."""
        return self._clock.monotonic() - self._began if self._under_way else 0.0

    def _entry(self, commit_ms: int, samples: Samples, traceparents: Sequence[str]) -> _Entry:
        if not self._writer.keeps_history:
            return _Entry(commit_ms, samples.in_time().latest(), samples.at(slice(0)), list(traceparents))
        ordinary = samples.at_ms == commit_ms
        return _Entry(commit_ms, samples.at(ordinary), samples.at(~ordinary), list(traceparents))

    def _coalesce(self) -> None:
        last = self._entries.pop()
        before = self._entries[-1]
        together = before.commit_ms // _COALESCED_MS == last.commit_ms // _COALESCED_MS
        if together or not self._writer.keeps_history:
            before.absorb(last)
        else:
            self._entries.append(last)

    def _make_room(self) -> None:
        while len(self._entries) > 1 and self._backlog.waiting.too_many_of(self):
            oldest = self._entries.popleft()
            oldest.absorb(self._entries.popleft())
            self._entries.appendleft(oldest)
            self._count()
            log.warning("outage is long: older samples are coalesced further", sink=self.sink)
        parting = sum(entry.parting_bytes for entry in self._entries) if self._backlog.waiting.too_many else 0
        self._backlog.parting.count(self, parting)

    def _is_too_much(self) -> bool:
        too_late = self._clock.monotonic() - self._began > self._longest_seconds
        return too_late or self._backlog.parting.too_many_of(self)

    def _count(self) -> None:
        pending = [*([self._under_way] if self._under_way else []), *self._entries]
        held_bytes = sum(entry.held_bytes for entry in pending)
        self._backlog.waiting.count(self, held_bytes)
        metrics.SINK_PENDING.labels(self.sink, self._lane).set(held_bytes)
        oldest_ms = pending[0].commit_ms if pending else self._clock.now_ms()
        metrics.SINK_DELAY.labels(self.sink, self._lane).set(max(0, self._clock.now_ms() - oldest_ms) / 1000)

    async def run(self) -> None:
        """Delivers for ever."""
        try:
            while True:
                await self._arrived.wait()
                entry = self._under_way = self._entries.popleft()
                if await self._is_written(entry):
                    self.delivered_ms = entry.commit_ms
                else:
                    self._start_over([entry, *self._entries])
                self._under_way = None
                self._count()
                if not self._entries:
                    self._arrived.clear()
                    self._idle.set()
        finally:
            self._backlog.leave(self)
            metrics.SINK_PENDING.remove(self.sink, self._lane)
            metrics.SINK_DELAY.remove(self.sink, self._lane)
            # Nobody would close it: the next owner's is another one, perhaps elsewhere.
            chassis_metrics.BREAKER_OPEN.remove(upstream(self.sink, self._lane))

    async def _is_written(self, entry: _Entry) -> bool:
        """True when the sink has it, False where that is given up."""
        self._began = self._clock.monotonic()
        patience = asyncio.timeout(None)
        attributes: Attributes = {"pulsegate.sink": self.sink, "pulsegate.lane": self._lane}
        spans = tracing.spans("ingest delivery", entry.traceparents, kind=SpanKind.CLIENT, attributes=attributes)
        try:
            async with patience as self._patience:
                with spans:
                    await self._writer.write(entry.in_time())
        except TimeoutError:
            if not patience.expired():
                raise
            return False
        finally:
            self._patience = None
        return True

    def _start_over(self, given_up: Sequence[_Entry]) -> None:
        """Nothing refers to the rows of ended series from here on. Live ones are written again within 30 seconds."""
        lost = sum(int(samples.widths.sum()) for entry in given_up for samples in (entry.ordinary, entry.special))
        metrics.SINK_SAMPLES.labels(self.sink, "given_up").inc(lost)
        log.error("sink was away for too long: it starts over", sink=self.sink, lane=self._lane, samples=lost)
        self.delivered_ms = given_up[-1].commit_ms
        self._entries.clear()
        self._backlog.parting.count(self, 0)
        self._writer = self._make_writer()

    async def flushed(self) -> None:
        """Returns when everything offered was delivered, or given up."""
        await self._idle.wait()


class Deliveries:
    """One lane's ways to all sinks. None of them waits for another."""

    def __init__(self, each: Sequence[Delivery]) -> None:
        self._each = each

    @property
    def watermarks(self) -> dict[str, int]:
        """Up to which commit each sink has been delivered."""
        return {delivery.sink: delivery.delivered_ms for delivery in self._each}

    @property
    def delivered_ms(self) -> int:
        """Every commit up to this one is delivered, to all sinks."""
        return min(delivery.delivered_ms for delivery in self._each)

    @property
    def need_all(self) -> bool:
        """Whether a sink is to be given every live series with an owner's first commit."""
        return any(delivery.begins_after_ms < 0 for delivery in self._each)

    def late_seconds(self, sink: str) -> float:
        """For how long that sink has not taken what it is being given."""
        return max(delivery.late_seconds for delivery in self._each if delivery.sink == sink)

    def offer(self, checkpoint: Checkpoint, traceparents: Sequence[str]) -> None:
        """Takes what a commit made deliverable, and its spans; it never waits."""
        for delivery in self._each:
            samples = checkpoint.samples_for(delivery.begins_after_ms)
            delivery.offer(checkpoint.commit_ms, samples, traceparents)

    async def run(self) -> None:
        """Delivers for ever."""
        async with asyncio.TaskGroup() as tasks:
            for delivery in self._each:
                tasks.create_task(delivery.run())

    async def flushed(self, within_seconds: float) -> bool:
        """Whether every sink had everything offered in that time."""
        try:
            async with asyncio.timeout(within_seconds):
                for delivery in self._each:
                    await delivery.flushed()
        except TimeoutError:
            return False
        return True
