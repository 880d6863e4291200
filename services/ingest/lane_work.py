"""The work on a lane while it is owned: fold the log into its state, commit, offer to the sinks."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import Attributes

from chassis import failpoints, logs, tracing
from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.tasks import heed_cancellation
from services.ingest import metrics
from services.ingest.aggregation import LaneState
from services.ingest.fetches import Fetch, fetches
from services.ingest.housekeeping import Housekeeping
from services.ingest.loading import NOTHING_FOUND
from services.ingest.log import Log
from services.ingest.log_reader import LogReader
from services.ingest.pruning import Pruning
from services.ingest.sealing import Checkpoint
from services.ingest.settings import AggregatorSettings
from services.ingest.sinks.delivery import Deliveries
from services.ingest.storage.checkpoints import Checkpoints, Owned
from services.ingest.turns import in_turns, turns_of_lane

log = logs.get(__name__)

_FRAMES_AT_ONCE = 64
_FETCH_SECONDS = 0.5
#: Once the log is read to its end, it is left alone for so long: a reading costs the same for one frame and for many.
_BETWEEN_FETCHES_SECONDS = 0.1
#: A log that is away is asked again after so long.
_RETRY_SECONDS = 1.0
#: Batches of one commit that get a span.
_MOST_SPANS = 64


@dataclass(slots=True)
class Progress:
    """What was received up to then, Unix milliseconds, is committed; 0 where another process sees to that."""

    current_ms: int = 0


class LaneWork:
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
        progress: Progress,
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
        #: Set while folding waits for the next commit; as each commit has taken its copy of the state.
        self.commit_wanted = asyncio.Event()
        self._sealed = asyncio.Event()
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
                await self._clock.sleep(_RETRY_SECONDS)
                continue
            self._unfolded_frames = len(frames)
            metrics.LOG_LAG.labels(self._lane).set((self.reader.pending or 0) + self._frames_in_hand)
            heed_cancellation()
            async for fetch in fetches(frames):
                await self._fold(fetch)
                if self._state.producers.many_dirty:
                    self._sealed.clear()
                    self.commit_wanted.set()
                    await self._sealed.wait()
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
            now_ms = self._clock.now_ms()
            checkpoint = await in_turns(self._state.sealing(now_ms), turns_of_lane())
            traceparents, self._traceparents = self._traceparents, []
            sealed_frames = self._uncommitted_frames
            self.commit_wanted.clear()
            self._sealed.set()
            if not checkpoint.forgotten:
                await folding_waits.aclose()
            committed = await self._store(checkpoint, traceparents)
        if failpoints.ARMED:
            await failpoints.reached("committed")
        self._uncommitted_frames -= sealed_frames
        self.deliveries.offer(checkpoint, committed)
        metrics.LIVE_SERIES.labels(self._lane).set(len(self._state))
        metrics.SERIES_FILL.labels(self._lane).set(self._state.label_sets.fill)
        metrics.FULL_TENANTS.labels(self._lane).set(self._state.label_sets.full_tenants)
        metrics.GAUGE_LEVELS.labels(self._lane).set(self._state.gauge_levels)
        self._note_progress(checkpoint, now_ms)
        async with self._memory:
            self._state.producers.drop_idle(self._clock.now_ms())
            self._state.sources.drop_idle(self._clock.now_ms())
        return len(checkpoint.made) + len(checkpoint.changed)

    def _note_progress(self, checkpoint: Checkpoint, now_ms: int) -> None:
        """How far the lane is with what receivers took: as far as the newest of a commit, or all of it. Not by the
        commit's timestamp, which stays ahead where a clock once was."""
        behind = self.reader.pending != 0 or self._frames_in_hand
        reached_ms = min(checkpoint.newest_received_ms, now_ms) if behind else now_ms
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
