"""Definitions end with their project: those of projects that auth says were deleted are deleted too.

Every project is asked about, again and again, so that nothing is missed: neither what was deleted while config was away
nor what a call that was under way has defined afterwards. A deletion that is interrupted goes on the next time.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from chassis import logs
from chassis.errors import NotFound, Unavailable
from chassis.postgres import Database
from chassis.tasks import for_ever, in_background
from services.config.domain import Actor
from services.config.operations import FEED_ROLE, Definitions
from services.config.storage import DefinitionStorage

log = logs.get(__name__)

_PAUSE_SECONDS = 60.0
#: Projects that auth is asked about at a time.
_MOST_PROJECTS = 1_000
#: Definitions that are read at a time; they may be large.
_MOST_METRICS = 50
_BEFORE_ALL = "00000000-0000-0000-0000-000000000000"


class Projects(Protocol):
    """Who knows which projects were deleted: auth."""

    async def deleted_among(self, project_ids: Sequence[str]) -> Collection[str]:
        """Those that somebody has deleted, not those that are merely not there. Raises PulsegateError."""
        ...


class DeletedProjects:
    """Forgets them while `forgetting` is open. Replicas may do the same: what is gone is gone."""

    def __init__(
        self, database: Database, storage: DefinitionStorage, definitions: Definitions, projects: Projects
    ) -> None:
        self._database = database
        self._storage = storage
        self._definitions = definitions
        self._projects = projects

    @asynccontextmanager
    async def forgetting(self) -> AsyncIterator[None]:
        async with in_background(for_ever(self._forget_all, _PAUSE_SECONDS, "definitions of deleted projects stay")):
            yield

    async def _forget_all(self) -> bool:
        """Raises Unavailable after all others where a project's could not be deleted."""
        last_id, failed = _BEFORE_ALL, None
        while projects := await self._after(last_id):
            deleted = await self._projects.deleted_among([project_id for _, project_id in projects])
            for tenant_id, project_id in projects:
                if project_id in deleted:
                    try:
                        await self._forget(tenant_id, project_id)
                    except Unavailable as error:  # its tenant may have no turn
                        failed = error
            [*_, (_, last_id)] = projects
        if failed:
            raise failed
        return False

    async def _after(self, last_id: str) -> Sequence[tuple[str, str]]:
        async with self._database.transaction(role=FEED_ROLE) as connection:
            return await self._storage.projects_after(connection, last_id, _MOST_PROJECTS)

    async def _forget(self, tenant_id: str, project_id: str) -> None:
        actor = Actor(tenant_id=tenant_id, project_id=project_id, subject="project-deletion", kind="service")
        async with self._database.transaction(tenant_id=tenant_id) as connection:
            await self._storage.delete_settings(connection, actor)
        forgotten = 0
        while page := (await self._definitions.list_page(actor, _MOST_METRICS, ""))[0]:
            for metric in page:
                with suppress(NotFound):  # somebody else was faster
                    await self._definitions.delete(actor, metric.id, version=0)
            forgotten += len(page)
        log.info("definitions of a deleted project are deleted", project_id=project_id, count=forgotten)
