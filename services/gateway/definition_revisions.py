"""How new what was read of a project's definitions must be: what config's feed says of changes, whoever made them."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from chassis import logs
from chassis.clock import Clock
from chassis.errors import PulsegateError
from chassis.tasks import in_background

log = logs.get(__name__)

#: Where the feed begins that a gateway follows when it starts: what others have kept since then counts for it too.
Since = Callable[[int], Awaitable[int]]

#: Older than this, the last heartbeat says nothing.
_HEARTBEAT_SECONDS = 0.75
_SILENCE_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class DefinitionsChanged:
    """A message of config's feed; a heartbeat names no project."""

    revision: int
    project_ids: frozenset[str] = frozenset()
    #: Part of all that there is, and not of what has changed.
    snapshot: bool = False


class DefinitionFeed(Protocol):
    """config."""

    async def newest_revision(self) -> int:
        """Raises PulsegateError."""
        ...

    def watch(self, after_revision: int) -> AsyncIterator[DefinitionsChanged]:
        """The feed after a revision. Raises PulsegateError where it breaks."""
        ...


class DefinitionRevisions:
    """Follows the feed while `watching()` is open."""

    def __init__(self, feed: DefinitionFeed, clock: Clock, since: Since) -> None:
        self._feed = feed
        self._since = since
        self._clock = clock
        self._heartbeat_at = float("-inf")
        #: What was read at an earlier revision may be older than a change that this process was not told of.
        self._oldest = 0
        #: Everything up to here was told.
        self._revision = 0
        #: Of projects that changed since `_oldest`.
        self._changed_at: dict[str, int] = {}

    @property
    def revision(self) -> int | None:
        """What is read from now on holds every change up to it; None while the feed is silent."""
        return self._revision if self._clock.monotonic() - self._heartbeat_at <= _HEARTBEAT_SECONDS else None

    def is_current(self, project_id: str, revision: int) -> bool:
        """Whether what was read of a project when the feed stood at `revision` still is what there is."""
        if self.revision is None:
            return False
        return self._changed_at.get(project_id, self._oldest) <= revision <= self._revision

    def apply(self, change: DefinitionsChanged) -> None:
        """Makes a message of the feed known."""
        if change.snapshot or change.revision < self._revision:  # nothing is known of what was before
            self._changed_at.clear()
            self._oldest = change.revision
        for project_id in change.project_ids:
            self._changed_at[project_id] = change.revision
        # After a silence there may be more changes to come: only a message without any says that all were told.
        told_all = self.revision is not None or not change.project_ids
        self._revision = change.revision
        if told_all and not change.snapshot:
            self._heartbeat_at = self._clock.monotonic()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Follows the feed while open."""
        async with in_background(self._watch()):
            yield

    async def _watch(self) -> None:
        while True:
            try:
                await self._follow()
            except (PulsegateError, TimeoutError) as error:
                log.info("the feed of definitions broke off", reason=str(error) or "silence")
            await self._clock.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - spreads reconnections

    async def _follow(self) -> None:
        if not self._revision:
            self._oldest = self._revision = await self._since(await self._feed.newest_revision())
        feed = aiter(self._feed.watch(self._revision))
        while True:
            async with asyncio.timeout(_SILENCE_SECONDS):
                change = await anext(feed, None)
            if change is None:
                return
            self.apply(change)
