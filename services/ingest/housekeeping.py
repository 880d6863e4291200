"""What a lane's owner clears away: from the log what was committed, from the state what nobody needs any more."""

from collections import deque
from datetime import datetime
from itertools import count

from chassis import logs
from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.tasks import heed_cancellation
from services.ingest.label_sets import LabelSets
from services.ingest.log import Log
from services.ingest.pruning import Pruning
from services.ingest.sealing import Checkpoint
from services.ingest.settings import AggregatorSettings
from services.ingest.storage.checkpoints import Checkpoints
from services.ingest.storage.full_projects import ProjectLimits

log = logs.get(__name__)

_SECONDS = 10.0
#: The state is swept once in so many rounds.
_ROUNDS_BETWEEN_SWEEPS = 60
#: Above this fill the log gives up what is committed without waiting for it to get old: better than refusing batches.
_CROWDED = 0.5


class Housekeeping:
    """For one ownership of a lane."""

    def __init__(
        self,
        lane: int,
        settings: AggregatorSettings,
        stream: Log,
        checkpoints: Checkpoints,
        pruning: Pruning,
        label_sets: LabelSets,
        clock: Clock,
    ) -> None:
        self._lane = lane
        self._settings = settings
        self._log = stream
        self._checkpoints = checkpoints
        self._pruning = pruning
        self._label_sets = label_sets
        self._clock = clock
        #: When commits were noted, in seconds of the monotonic clock (their own time may be the future's), and their
        #: positions, until they are old enough to be purged from the log.
        self._commits: deque[tuple[float, int]] = deque()
        self._purgeable = 0
        self._purged = 0
        #: Of which log they are.
        self._log_made_at: datetime | None = None
        self._reached_ms = 0

    def committed(self, checkpoint: Checkpoint, reached_ms: int, log_made_at: datetime | None) -> None:
        """Notes a commit. `reached_ms`: what receivers took before then is committed, Unix ms; 0: as before.
        `log_made_at`: of which log its position is; None where nothing was read yet."""
        self._commits.append((self._clock.monotonic(), checkpoint.position))
        self._log_made_at = log_made_at
        self._reached_ms = reached_ms or self._reached_ms

    async def run(self) -> None:
        """For ever, every ten seconds; the state every ten minutes."""
        for number in count(1):
            await self._clock.sleep(_SECONDS)
            try:
                await self._purge()
                if number % _ROUNDS_BETWEEN_SWEEPS == 0:
                    await self._sweep()
            except Unavailable as error:
                log.warning("housekeeping waits", lane=self._lane, reason=error.message)
            heed_cancellation()

    async def _purge(self) -> None:
        crowded = await self._log.fill() > _CROWDED
        keep_seconds = 0.0 if crowded else self._settings.log_keep_seconds
        while self._commits and self._commits[0][0] <= self._clock.monotonic() - keep_seconds:
            self._purgeable = self._commits.popleft()[1]
        if self._purgeable > self._purged:
            await self._log.purge(self._lane, self._purgeable, self._log_made_at)
            self._purged = self._purgeable

    async def _sweep(self) -> None:
        """Time is what the lane has reached, not what the clock says: the log may hold retries that are hours old, and
        they are judged by windows of that time. Where this machine's clock and Postgres' differ it is no later than the
        earlier of the two: one that was ahead for a moment would have all forgotten."""
        settings = self._settings
        if self._reached_ms:
            now_ms = min(self._clock.now_ms(), await self._checkpoints.now_ms())
            reached_ms = min(self._reached_ms, now_ms)
            await self._checkpoints.drop_old(self._lane, settings.lanes, now_ms, reached_ms)
            limits = ProjectLimits(
                producers=settings.most_producers_per_project,
                sources=settings.most_sources_per_project,
                series=settings.most_stored_series_per_project,
            )
            full = await self._checkpoints.note_full(self._lane, settings.lanes, limits)
            self._label_sets.full_projects = full.series
            await self._pruning.prune(reached_ms)
