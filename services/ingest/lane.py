"""One lane's work: own it, load its state, fold the log into it, commit, deliver; and begin anew after any error."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from itertools import product

from chassis import failpoints, logs
from chassis.clock import Clock
from chassis.errors import PulsegateError, Unavailable
from chassis.tasks import heed_cancellation
from services.ingest import metrics
from services.ingest.aggregation import LaneState
from services.ingest.commit_pace import CommitPace
from services.ingest.errors import LaneLostError, UnreadableLogError
from services.ingest.fleet import Fleet
from services.ingest.label_sets import Budgets
from services.ingest.lane_work import LaneWork, Progress
from services.ingest.loading import Loaded
from services.ingest.log import Log
from services.ingest.log_reader import LogReader
from services.ingest.settings import AggregatorSettings
from services.ingest.sinks.backlog import Backlog
from services.ingest.sinks.delivery import Deliveries, Delivery, Sink
from services.ingest.storage.checkpoints import Checkpoints, Owned
from services.ingest.storage.leases import Leases

log = logs.get(__name__)

_ACQUIRE_SECONDS = 1.0
#: A log that cannot be read will most likely not be readable in a second either.
_UNREADABLE_SECONDS = 10.0
#: At the end, how long sinks may take for what is committed; the next owner delivers the rest.
_LAST_DELIVERY_SECONDS = 3.0
#: A sink that needs longer for a commit is told in readiness. Tens of thousands of series take one second.
_SINK_LATE_SECONDS = 5.0


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
        backlog: Backlog,
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
        self._backlog = backlog
        self._clock = clock
        self._make_reader = make_reader
        self._stopping = asyncio.Event()
        self._progress = Progress()
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

    async def _wait(self, seconds: float, *events: asyncio.Event) -> None:
        """For so long at most: until `stop`, or until one of the events."""
        waiting = [asyncio.create_task(event.wait()) for event in (self._stopping, *events)]
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()

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

    async def _load(self, epoch: int) -> LaneWork:
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
        return LaneWork(
            owned, self._settings, self._log, self._checkpoints, self._clock, state, reader, deliveries, self._progress
        )

    def _new_state(self, loaded: Loaded, *, write_all: bool) -> LaneState:
        settings = self._settings
        return LaneState(
            loaded,
            Budgets(
                per_project=settings.most_series_per_project,
                per_metric=settings.most_series_per_metric,
                per_tenant=settings.most_series_per_tenant,
                per_lane=settings.most_series_per_lane,
            ),
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
                    self._backlog,
                    delivered_ms=loaded.watermarks[sink.name],
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

    async def _commit_until_stopped(self, work: LaneWork) -> None:
        pace = CommitPace(self._settings.commit_interval_seconds)
        while not (self._stopping.is_set() or self._fleet.wanted_elsewhere(self._number)):
            began = self._clock.monotonic()
            series = await work.commit()
            heed_cancellation()
            if work.reading:
                self.trouble = ""
            taken = self._clock.monotonic() - began
            await self._wait(max(pace.after(series) - taken, 0.01), work.commit_wanted)


def _reasons(errors: BaseExceptionGroup[Exception]) -> str:
    return "; ".join(str(error) for error in errors.exceptions)
