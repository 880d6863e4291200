"""One lane's work: own it, load its state, fold the log into it, commit, deliver; and begin anew after any error."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import Attributes

from chassis import failpoints, logs, tracing
from chassis.clock import Clock
from chassis.errors import PulsegateError, Unavailable
from chassis.tasks import heed_cancellation
from services.ingest import metrics
from services.ingest.aggregation import NOTHING_FOUND, Fetch, LaneState, Loaded
from services.ingest.commit_pace import CommitPace
from services.ingest.errors import LaneLostError, UnreadableLogError
from services.ingest.fetches import fetches
from services.ingest.fleet import Fleet
from services.ingest.housekeeping import Housekeeping
from services.ingest.label_sets import Budgets
from services.ingest.log import Log
from services.ingest.log_reader import LogReader
from services.ingest.pruning import Pruning
from services.ingest.sealing import Checkpoint
from services.ingest.settings import AggregatorSettings
from services.ingest.sinks.delivery import Deliveries, Delivery, Sink
from services.ingest.storage.checkpoints import Checkpoints, Owned
from services.ingest.storage.leases import Leases
from services.ingest.turns import in_turns, turns_of_lane

log = logs.get(__name__)

_FRAMES_AT_ONCE = 64
_FETCH_SECONDS = 0.5
#: Once the log is read to its end, it is left alone for so long: a reading costs the same for one frame and for many.
_BETWEEN_FETCHES_SECONDS = 0.1
_ACQUIRE_SECONDS = 1.0
#: A log that cannot be read will most likely not be readable in a second either.
_UNREADABLE_SECONDS = 10.0
#: Batches of one commit that get a span.
_MOST_SPANS = 64
#: At the end, how long sinks may take for what is committed; the next owner delivers the rest.
_LAST_DELIVERY_SECONDS = 3.0
#: A sink that needs longer for a commit is told in readiness. Tens of thousands of series take one second.
_SINK_LATE_SECONDS = 5.0


@dataclass(slots=True)
class _Progress:
    """What was received up to then, Unix milliseconds, is committed; 0 where another process sees to that."""

    current_ms: int = 0


class Lane:
    """Owns a lane whenever it can, for ever."""

    def __init__(
        self,
        number: int,
        settings: AggregatorSettings,
        stream: Log,
        checkpoints: Checkpoints,
        leases: Leases,
        fleet: Fleet,
        sinks: Sequence[Sink],
        clock: Clock,
        make_reader: Callable[[Log, int, int, datetime | None], LogReader] = LogReader,
    ) -> None:
        self._number = number
        self._settings = settings
        self._log = stream
        self._checkpoints = checkpoints
        self._leases = leases
        self._fleet = fleet
        self._sinks = sinks
        self._clock = clock
        self._make_reader = make_reader
        self._stopping = asyncio.Event()
        self._progress = _Progress()
        #: While the lane is owned.
        self._deliveries: Deliveries | None = None
        metrics.LOG_LAG_SECONDS.labels(number).set_function(self._lag_seconds)
        # Both are there from the start, as 0: else the first one that is lost is no increase.
        self._lost = metrics.LANES_LOST.labels(number)
        for sink, outcome in product(sinks, metrics.SINK_OUTCOMES):
            metrics.SINK_SAMPLES.labels(sink.name, outcome)
        #: Why the lane is not being worked on; empty while it is, or while another process does.
        self.trouble = "not started"

    def stop(self) -> None:
        """Commits what was read, delivers it if that is quick, gives the lane back; `run` then returns."""
        self._stopping.set()

    async def probe(self) -> None:
        """A health check: raises Unavailable while this process should work on the lane and cannot."""
        if self.trouble:
            raise Unavailable(self.trouble)

    async def probe_sink(self, name: str) -> None:
        """A health check: raises Unavailable while a sink has not taken for some seconds what this lane gives it."""
        late_seconds = self._deliveries.late_seconds(name) if self._deliveries else 0.0
        if late_seconds > _SINK_LATE_SECONDS:
            raise Unavailable(f"lane {self._number} has waited {late_seconds:.0f} s for it to take a commit")

    def _lag_seconds(self) -> float:
        current_ms = self._progress.current_ms
        return max(0.0, (self._clock.now_ms() - current_ms) / 1000) if current_ms else 0.0

    async def run(self) -> None:
        """Until `stop`."""
        while not self._stopping.is_set():
            heed_cancellation()
            try:
                epoch = await self._fleet.take(self._number)
                if epoch is not None:
                    self._progress.current_ms = self._progress.current_ms or self._clock.now_ms()
                    await self._own(epoch)
                self.trouble, self._progress.current_ms = "", 0
            except* UnreadableLogError as errors:
                log.critical(
                    "lane halted: nothing is lost, nothing goes on", lane=self._number, reason=_reasons(errors)
                )
                self._give_up(errors)
                await self._wait(_UNREADABLE_SECONDS)
            except* (PulsegateError, LaneLostError) as errors:
                log.warning("lane given up", lane=self._number, reason=_reasons(errors))
                self._give_up(errors)
            except* Exception as errors:
                log.critical("lane halted by a fault of this program", lane=self._number, exc_info=errors)
                self._give_up(errors)
                await self._wait(_UNREADABLE_SECONDS)
            await self._wait(_ACQUIRE_SECONDS)

    def _give_up(self, errors: BaseExceptionGroup[Exception]) -> None:
        self.trouble = _reasons(errors)
        self._lost.inc()

    async def _wait(self, seconds: float) -> None:
        waiting = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([waiting], timeout=seconds)
        finally:
            waiting.cancel()

    async def _own(self, epoch: int) -> None:
        metrics.LANE_OWNED.labels(self._number).set(1)
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            stack.callback(metrics.LANE_OWNED.labels(self._number).set, 0)
            for of_owner in metrics.OF_OWNED_LANE:
                stack.callback(of_owner.remove, self._number)
            stack.callback(self._fleet.gave_back, self._number)
            renewing = tasks.create_task(self._renew(epoch))
            if failpoints.ARMED:
                await failpoints.reached("lane-taken")
            work = await self._load(epoch)
            stack.push_async_callback(work.reader.close)
            self._deliveries = work.deliveries
            stack.callback(setattr, self, "_deliveries", None)
            folding = tasks.create_task(work.fold_for_ever())
            delivering = tasks.create_task(work.deliveries.run())
            housekeeping = tasks.create_task(work.housekeeping.run())
            await self._commit_until_stopped(work)
            folding.cancel()
            await work.commit()
            await work.deliveries.flushed(_LAST_DELIVERY_SECONDS)
            await work.commit()  # with the watermark
            for task in (delivering, housekeeping, renewing):
                task.cancel()
        await self._leases.release(self._number, epoch)

    async def _load(self, epoch: int) -> "_Work":
        stale_after_ms = self._settings.stale_after_seconds * 1000
        sinks = [sink.name for sink in self._sinks]
        outage_ms = self._settings.sink_oldest_seconds * 1000
        loaded = await self._checkpoints.load(
            self._number, self._settings.lanes, sinks, stale_after_ms, longest_outage_ms=outage_ms
        )
        log.info("lane owned", lane=self._number, epoch=epoch, position=loaded.position, series=len(loaded.table))
        deliveries = self._new_deliveries(loaded)
        # Nobody else knows it yet, and it may be of a million series: meanwhile the lease is renewed.
        state = await asyncio.to_thread(self._new_state, loaded, write_all=deliveries.need_all)
        reader = self._make_reader(self._log, self._number, loaded.position, loaded.log_made_at)
        owned = Owned(
            lane=self._number, epoch=epoch, position=loaded.position, lease_seconds=self._settings.lease_seconds
        )
        return _Work(
            owned, self._settings, self._log, self._checkpoints, self._clock, state, reader, deliveries, self._progress
        )

    def _new_state(self, loaded: Loaded, *, write_all: bool) -> LaneState:
        settings = self._settings
        return LaneState(
            loaded,
            Budgets(per_project=settings.most_series_per_project, per_metric=settings.most_series_per_metric),
            stale_after_ms=settings.stale_after_seconds * 1000,
            interval_ms=int(settings.commit_interval_seconds * 1000),
            write_all=write_all,
        )

    def _new_deliveries(self, loaded: Loaded) -> Deliveries:
        return Deliveries(
            [
                Delivery(
                    sink,
                    self._number,
                    self._clock,
                    delivered_ms=loaded.watermarks[sink.name],
                    most_pending=self._settings.sink_most_pending,
                    longest_seconds=self._settings.sink_oldest_seconds,
                )
                for sink in self._sinks
            ]
        )

    async def _renew(self, epoch: int) -> None:
        while True:
            await self._clock.sleep(self._settings.lease_seconds / 3)
            await self._leases.renew(self._number, epoch, self._settings.lease_seconds)
            heed_cancellation()

    async def _commit_until_stopped(self, work: "_Work") -> None:
        pace = CommitPace(self._settings.commit_interval_seconds)
        while not (self._stopping.is_set() or self._fleet.wanted_elsewhere(self._number)):
            began = self._clock.monotonic()
            series = await work.commit()
            heed_cancellation()
            if work.reading:
                self.trouble = ""
            taken = self._clock.monotonic() - began
            await self._wait(max(pace.after(series) - taken, 0.01))


def _reasons(errors: BaseExceptionGroup[Exception]) -> str:
    return "; ".join(str(error) for error in errors.exceptions)


class _Work:
    """What one ownership of a lane holds; dropped as a whole when it ends."""

    def __init__(
        self,
        owned: Owned,
        settings: AggregatorSettings,
        stream: Log,
        checkpoints: Checkpoints,
        clock: Clock,
        state: LaneState,
        reader: LogReader,
        deliveries: Deliveries,
        progress: "_Progress",
    ) -> None:
        self._lane = owned.lane
        self._owned = owned
        self._settings = settings
        self._log = stream
        self._checkpoints = checkpoints
        self._clock = clock
        self._state = state
        self.reader = reader
        self.deliveries = deliveries
        #: Frames that were read and are not folded; that are folded and not committed.
        self._unfolded_frames = self._uncommitted_frames = 0
        #: Whether the log was read, to its end or past a part of it.
        self.reading = False
        self._progress = progress
        #: Between looking up what is missing and folding, nothing may leave memory or the state.
        self._memory = asyncio.Lock()
        pruning = Pruning(owned, settings.lanes, state, checkpoints, self._memory)
        self.housekeeping = Housekeeping(owned.lane, settings, stream, checkpoints, pruning, state.label_sets, clock)
        self._traceparents: list[str] = []

    async def fold_for_ever(self) -> None:
        """Reads the log and folds it into memory. While the log is away, what is in memory goes on being written."""
        while True:
            try:
                frames = await self.reader.fetch(_FRAMES_AT_ONCE, _FETCH_SECONDS)
            except Unavailable as error:
                heed_cancellation()
                log.warning("log cannot be read", lane=self._lane, reason=error.message)
                await self._clock.sleep(_ACQUIRE_SECONDS)
                continue
            self._unfolded_frames = len(frames)
            metrics.LOG_LAG.labels(self._lane).set((self.reader.pending or 0) + self._frames_in_hand)
            heed_cancellation()
            async for fetch in fetches(frames):
                await self._fold(fetch)
            self.reading = True
            if frames and not self.reader.pending:
                await self._clock.sleep(_BETWEEN_FETCHES_SECONDS)

    @property
    def _frames_in_hand(self) -> int:
        """That were read and are not committed."""
        return self._unfolded_frames + self._uncommitted_frames

    async def _fold(self, fetch: Fetch) -> None:
        async with self._memory:
            missing = self._state.missing(fetch)
            found = await self._checkpoints.load_missing(missing) if missing else NOTHING_FOUND
            self._state.fold(fetch, found)
            self._unfolded_frames -= fetch.frames
            self._uncommitted_frames += fetch.frames
            traced = [record.traceparent for record in fetch.records if record.traceparent]
            self._traceparents += traced[: _MOST_SPANS - len(self._traceparents)]

    async def commit(self) -> int:
        """One checkpoint: stored as a whole, then offered to the sinks. Tells how many series the state got.

        Raises LaneLostError, Unavailable.
        """
        async with AsyncExitStack() as folding_waits:
            await folding_waits.enter_async_context(self._memory)
            self._state.delivered(self.deliveries.delivered_ms)
            checkpoint = await in_turns(self._state.sealing(self._clock.now_ms()), turns_of_lane())
            traceparents, self._traceparents = self._traceparents, []
            sealed_frames = self._uncommitted_frames
            if not checkpoint.forgotten:
                await folding_waits.aclose()
            committed = await self._store(checkpoint, traceparents)
        if failpoints.ARMED:
            await failpoints.reached("committed")
        self._uncommitted_frames -= sealed_frames
        self.deliveries.offer(checkpoint, committed)
        metrics.LIVE_SERIES.labels(self._lane).set(len(self._state))
        metrics.GAUGE_LEVELS.labels(self._lane).set(self._state.gauge_levels)
        self._note_progress(checkpoint)
        async with self._memory:
            self._state.producers.drop_idle(self._clock.now_ms())
            self._state.sources.drop_idle(self._clock.now_ms())
        return len(checkpoint.made) + len(checkpoint.changed)

    def _note_progress(self, checkpoint: Checkpoint) -> None:
        """How far the lane is with what receivers took: as far as the newest of a commit, or all of it."""
        behind = self.reader.pending != 0 or self._frames_in_hand
        reached_ms = min(checkpoint.newest_received_ms, checkpoint.commit_ms) if behind else checkpoint.commit_ms
        if reached_ms:
            self._progress.current_ms = reached_ms
        self.housekeeping.committed(checkpoint, reached_ms, self._owned.log_made_at)

    async def _store(self, checkpoint: Checkpoint, traceparents: Sequence[str]) -> Sequence[str]:
        """Commits within one span for each traced batch, the last one around the statements too; tells those spans."""
        attributes: Attributes = {"messaging.operation.type": "process", "pulsegate.lane": self._lane}
        spans = tracing.spans("ingest commit", traceparents, kind=SpanKind.CONSUMER, attributes=attributes)
        with metrics.COMMITS.time(), spans as committed:
            watermarks = self.deliveries.watermarks
            if failpoints.ARMED:
                await failpoints.reached("before-commit")
            owned = replace(self._owned, log_made_at=self.reader.made_at)
            await self._checkpoints.commit(owned, checkpoint, watermarks)
        self._owned = replace(owned, position=checkpoint.position)
        return committed
