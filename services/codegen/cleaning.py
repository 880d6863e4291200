"""Artifacts end with their project, and when nobody has asked for them in a long time.

Every project is looked at, again and again, so that nothing is missed: neither what was deleted while codegen was away
nor what a call that was under way has stored afterwards.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from chassis import logs
from chassis.postgres import Database
from chassis.tasks import for_ever, in_background
from services.codegen.domain import Retention
from services.codegen.storage import CLEANER_ROLE, ArtifactStorage, ProjectOfArtifacts

log = logs.get(__name__)

_PAUSE_SECONDS = 300.0
#: Projects that are looked at, and that auth is asked about, at a time.
_MOST_PROJECTS = 1_000
_BEFORE_ALL = "00000000-0000-0000-0000-000000000000"


class Projects(Protocol):
    """Who knows which projects were deleted: auth."""

    async def deleted_among(self, project_ids: Sequence[str]) -> Collection[str]:
        """Those that somebody has deleted, not those that are merely not there. Raises PulsegateError."""
        ...


class Cleaning:
    """Deletes them while `going_on` is open. Replicas may do the same: what is gone is gone."""

    def __init__(
        self, database: Database, artifacts: ArtifactStorage, projects: Projects, retention: Retention
    ) -> None:
        self._database = database
        self._artifacts = artifacts
        self._projects = projects
        self._retention = retention

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        async with in_background(for_ever(self._clean_all, _PAUSE_SECONDS, "generated clients stay that should go")):
            yield

    async def _clean_all(self) -> bool:
        last_id = _BEFORE_ALL
        while projects := await self._after(last_id):
            for project in projects:
                if project.has_unused:
                    await self._prune(project.tenant_id)
            deleted = await self._projects.deleted_among([project.project_id for project in projects])
            for project in projects:
                if project.project_id in deleted:
                    await self._forget(project)
            last_id = projects[-1].project_id
        return False

    async def _after(self, last_id: str) -> Sequence[ProjectOfArtifacts]:
        async with self._database.transaction(role=CLEANER_ROLE) as connection:
            return await self._artifacts.projects_after(connection, last_id, _MOST_PROJECTS, self._retention.unused_for)

    async def _prune(self, tenant_id: str) -> None:
        async with self._database.transaction(tenant_id=tenant_id) as connection:
            await self._artifacts.prune(connection, tenant_id, self._retention)

    async def _forget(self, project: ProjectOfArtifacts) -> None:
        async with self._database.transaction(tenant_id=project.tenant_id) as connection:
            count = await self._artifacts.delete_all(connection, project.project_id)
        log.info("generated clients of a deleted project are deleted", project_id=project.project_id, count=count)
