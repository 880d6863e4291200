"""The watch feed: one reader of the database a process, shared by all streams.

A heartbeat says "nothing has changed up to now", so it goes out only after a reading that succeeded, and that quickly:
a slow answer would vouch for a past moment. Silence means "ask anew".
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chassis import logs
from chassis.errors import Unavailable
from chassis.postgres import Database
from chassis.tasks import in_background
from services.auth import metrics
from services.auth.storage.feed import CLEANER_ROLE, EXPIRIES, FEED_ROLE, MOST_DELETED, Change, FeedStorage

log = logs.get(__name__)

#: Between two readings; a change reaches every stream within this time and the reading's own.
_POLL_SECONDS = 0.2
#: A reading that takes longer is given up, unheard.
_SLOWEST_READING_SECONDS = 0.5
#: Changes kept for streams that resume; past that they start anew.
_MOST_CHANGES = 10_000
_CLEANING_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Beat:
    """One message of the feed; a heartbeat where nothing changed."""

    revision: int
    changed_ids: tuple[str, ...] = ()
    #: The stream could not resume: everything cached is void.
    reset: bool = False


class CredentialFeed:
    """Reads the feed while `reading` is open, and hands it to any number of streams."""

    def __init__(self, database: Database, storage: FeedStorage) -> None:
        self._database = database
        self._storage = storage
        self._changes: deque[Change] = deque(maxlen=_MOST_CHANGES)
        #: The newest revision read; 0 before the first reading.
        self._revision = 0
        self._failing = False
        self._stopped = False
        self._next_reading = asyncio.Event()

    async def watch(self, after_revision: int) -> AsyncIterator[Beat]:
        """Changes after a revision in their order, and a heartbeat after each reading without any.

        Begins with a reset where it cannot resume, as after revision 0. Ends when the process stops.
        """
        metrics.FEED_STREAMS.inc()
        try:
            position = after_revision
            while await self._reading_done():
                for beat in self._since(position):
                    yield beat  # meanwhile more may be read
                    position = beat.revision
        finally:
            metrics.FEED_STREAMS.dec()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Reads while open, then ends all streams."""
        async with in_background(self._keep_reading(), self._keep_clean()):
            try:
                yield
            finally:
                self._stopped = True
                self._next_reading.set()

    async def read(self) -> None:
        """One reading. Raises Unavailable or TimeoutError where it does not succeed quickly."""
        async with asyncio.timeout(_SLOWEST_READING_SECONDS):
            async with self._database.transaction(role=FEED_ROLE) as connection:
                newest, changes = await self._storage.read(connection, self._revision, _MOST_CHANGES)
        if not self._follows(newest, changes):
            self._changes.clear()
        self._changes.extend(changes)
        self._revision = newest
        metrics.FEED_REVISION.set(newest)
        done, self._next_reading = self._next_reading, asyncio.Event()
        done.set()

    async def clean(self) -> None:
        """Deletes what has expired, however much that is. Raises Unavailable where some of it stays."""
        failed = None
        for table in EXPIRIES:
            try:
                await self._clean(table)
            except Unavailable as error:
                failed = error
        if failed:
            raise failed

    async def _clean(self, table: str) -> None:
        deleted = MOST_DELETED
        while deleted >= MOST_DELETED:
            async with self._database.transaction(role=CLEANER_ROLE) as connection:
                deleted = await self._storage.delete_expired(connection, table)
            metrics.EXPIRED_ROWS.labels(table).inc(deleted)

    def _follows(self, newest: int, changes: Sequence[Change]) -> bool:
        """Whether nothing lies between what was read before and now: no gap, and no database of an earlier time."""
        return newest - self._revision == len(changes)

    def _since(self, position: int) -> list[Beat]:
        oldest = self._changes[0].revision if self._changes else self._revision + 1
        if not oldest - 1 <= position <= self._revision:
            return [Beat(revision=self._revision, reset=True)]
        missed = [change for change in self._changes if change.revision > position]
        beats = [Beat(revision=change.revision, changed_ids=change.changed_ids) for change in missed]
        return beats or [Beat(revision=self._revision)]

    async def _reading_done(self) -> bool:
        await self._next_reading.wait()
        return not self._stopped

    async def _keep_reading(self) -> None:
        while True:
            began = asyncio.get_running_loop().time()
            failing = False
            try:
                await self.read()
            except (Unavailable, TimeoutError) as error:
                failing = True
                if not self._failing:
                    log.warning("feed not read", reason=str(error) or type(error).__name__)
            self._failing = failing
            metrics.FEED_POLLS.labels("failed" if failing else "ok").inc()
            spent = asyncio.get_running_loop().time() - began
            await asyncio.sleep(max(0.0, _POLL_SECONDS - spent) if not failing else _POLL_SECONDS)

    async def _keep_clean(self) -> None:
        while True:
            try:
                await self.clean()
            except Unavailable as error:
                log.warning("expired rows not deleted", reason=str(error))
            await asyncio.sleep(_CLEANING_SECONDS)
