"""The feed of definitions: one poller a process sees that the revision moved, each watcher reads on from its own place.

Nothing is queued, so a slow watcher costs no memory and misses nothing: it pages through the table in the order of
revisions, at its own speed. A snapshot is the same walk from revision 0; a definition that changes meanwhile moves to
the end of the walk and is met again there.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from chassis import ids, logs
from chassis.errors import Limited, NotFound, Unavailable
from chassis.postgres import Connection, Database
from chassis.tasks import in_background
from services.config import metrics
from services.config.domain import Metric, ProjectSettings
from services.config.operations import FEED_ROLE
from services.config.storage import DefinitionStorage, FeedHead, FeedPage

log = logs.get(__name__)

#: How soon a change is seen, and how often a watcher hears that there is none.
POLL_SECONDS = 0.2

#: Of a message: it ends with the definition that has brought it to so many bytes. A watcher takes 16 MiB.
_MOST_METRICS = 500
_MOST_BYTES = 4 << 20
#: Of one process: each takes memory for a message while it reads, and a heartbeat with each poll.
_MOST_WATCHERS = 500
_RETRY_AFTER_SECONDS = 1.0
_PURGE_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class FeedMessage:
    """What a watcher is sent. Without metrics and outside of a snapshot it is a heartbeat."""

    revision: int
    metrics: Sequence[Metric] = ()
    snapshot: bool = False
    snapshot_complete: bool = False


class DefinitionFeed:
    """Shared by all watchers of this process."""

    def __init__(self, database: Database, storage: DefinitionStorage, poll_seconds: float = POLL_SECONDS) -> None:
        self._database = database
        self._storage = storage
        self._poll_seconds = poll_seconds
        self._polled: asyncio.Future[FeedHead | None] = asyncio.get_running_loop().create_future()
        self._turn = asyncio.Lock()
        self._stopped = False
        self._watchers = 0

    @asynccontextmanager
    async def polling(self) -> AsyncIterator[None]:
        """Keeps asking the database where the feed stands, and forgets old tombstones, while open."""
        async with in_background(self._poll(), self._purge()):
            try:
                yield
            finally:
                self.stop()

    def stop(self) -> None:
        """Ends every watch, so that the server that serves them can drain; watchers resume with another process."""
        self._stopped = True
        self._announce(None)

    async def watch(self, after_revision: int) -> AsyncIterator[FeedMessage]:
        """A snapshot unless the watcher can be resumed after its revision, then changes and heartbeats until `stop`.

        A heartbeat follows each successful poll: silence means that the database does not answer. Raises Unavailable
        where that happens while definitions are read, and Limited where so many watch that they are to ask another
        process.
        """
        with self._one_more():
            cursor = after_revision
            if not await self._can_resume(after_revision):
                cursor = 0
                async for message in self._read_on(cursor, snapshot=True):
                    yield message
                    cursor = message.revision
            while not self._stopped and (head := await asyncio.shield(self._polled)) is not None:
                if head.revision > cursor:
                    async for message in self._read_on(cursor, snapshot=False):
                        yield message
                        cursor = message.revision
                else:
                    yield FeedMessage(revision=cursor)

    async def of_project(
        self, project_id: str, after_revision: int, *, with_labels: bool
    ) -> tuple[FeedPage, ProjectSettings]:
        """What changed in a project after the revision, and its settings, as of now, for services; all its definitions
        where the feed cannot be resumed after it. Raises NotFound where the id is not one."""
        if not ids.is_uuid(project_id):
            raise NotFound("There is no such project.")
        async with self._database.transaction(role=FEED_ROLE) as connection:
            page = await self._storage.project_changes(connection, project_id, after_revision)
            if page is None:
                page = await self._storage.project_definitions(connection, project_id, with_labels=with_labels)
            return page, await self._storage.settings(connection, project_id)

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        if self._watchers >= _MOST_WATCHERS:
            raise Limited(
                f"{_MOST_WATCHERS} watch definitions here, and no more may: add replicas of config.",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self._watchers += 1
        try:
            with metrics.FEED_WATCHERS.track_inprogress():
                yield
        finally:
            self._watchers -= 1

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[Connection]:
        """A transaction for what may wait: one at a time, so that the poll and answers about projects have their own
        connections, however many watch."""
        async with self._turn, self._database.transaction(role=FEED_ROLE) as connection:
            yield connection

    async def _can_resume(self, after_revision: int) -> bool:
        async with self._in_turn() as connection:
            head = await self._storage.feed_head(connection)
        # A revision ahead of the feed's comes from a database that was since restored to an earlier state.
        return 0 < after_revision <= head.revision and after_revision >= head.purged_revision

    async def _read_on(self, after_revision: int, *, snapshot: bool) -> AsyncIterator[FeedMessage]:
        page: FeedPage | None = None
        while page is None or not page.reaches_head:
            async with self._in_turn() as connection:
                page = await self._storage.feed_page(
                    connection,
                    page.revision if page else after_revision,
                    most_metrics=_MOST_METRICS,
                    most_bytes=_MOST_BYTES,
                )
            metrics.FEED_METRICS_SENT.inc(len(page.metrics))
            yield FeedMessage(
                revision=page.revision,
                metrics=page.metrics,
                snapshot=snapshot,
                snapshot_complete=snapshot and page.reaches_head,
            )

    async def _poll(self) -> None:
        readable = True
        while True:
            try:
                async with self._database.transaction(role=FEED_ROLE) as connection:
                    head = await self._storage.feed_head(connection)
            except Unavailable as error:
                metrics.FEED_POLL_FAILURES.inc()
                if readable:
                    log.warning("feed cannot be read", reason=error.message)
                readable = False
            else:
                metrics.FEED_REVISION.set(head.revision)
                metrics.DEFINITION_BYTES.set(head.bytes)
                self._announce(head)
                readable = True
            await asyncio.sleep(self._poll_seconds)

    def _announce(self, head: FeedHead | None) -> None:
        polled, self._polled = self._polled, asyncio.get_running_loop().create_future()
        polled.set_result(head)

    async def _purge(self) -> None:
        while True:
            try:
                while purged := await self._purge_some():
                    metrics.TOMBSTONES_PURGED.inc(purged)
            except Unavailable as error:
                log.warning("old tombstones stay for another while", reason=error.message)
            await asyncio.sleep(_PURGE_SECONDS)

    async def _purge_some(self) -> int:
        async with self._in_turn() as connection:
            return await self._storage.purge_tombstones(connection)
