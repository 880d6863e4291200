"""The use cases. Each owns its transaction; a change takes its revision in the same one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from chassis import ids, pages
from chassis.errors import Conflict, NotFound, VersionMismatch
from chassis.postgres import Connection, Database
from chassis.timely_turns import TimelyTurns
from services.config import changes, metrics
from services.config.audit import AuditTrail
from services.config.domain import (
    MOST_BYTES_PER_PROJECT,
    MOST_BYTES_PER_TENANT,
    Action,
    Actor,
    Limits,
    Metric,
    MetricDraft,
    MetricSpec,
    Size,
)
from services.config.errors import DefinitionsFull, PartOfTenantFull, TooManyBytes, TooManyDeleted, TooManyMetrics
from services.config.storage import DefinitionStorage
from services.config.validation import validated

#: The role that reads the definitions of all tenants.
FEED_ROLE = "config_feed"

#: Of a page of a list: it ends with the definition that has brought it to so many. They take over ten times as much
#: memory where they are very many short values.
_MOST_BYTES_PER_PAGE = 1 << 20

#: A deletion refuses new data everywhere within this time.
_DELETION_ARRIVES_SECONDS = 1.0


class Definitions:
    """Metric definitions of one project at a time: the actor's.

    From when a change takes its revision until its transaction ends, no other change of anybody can take one. So
    `update` and `delete` take it last; `create` takes it first: the project's metrics are counted under the same lock,
    and the bytes of the project, the tenant and all, which `update` counts too. Who waits for it has a connection, so
    changes take turns, by tenant.
    """

    def __init__(
        self, database: Database, storage: DefinitionStorage, trail: AuditTrail, limits: Limits, turns: TimelyTurns
    ) -> None:
        self._database = database
        self._storage = storage
        self._trail = trail
        self._limits = limits
        self._turns = turns

    async def create(self, actor: Actor, draft: MetricDraft) -> Metric:
        """The new definition. Raises Invalid, Conflict (the name is taken), TooManyMetrics, TooManyBytes,
        PartOfTenantFull, DefinitionsFull, TooManyDeleted."""
        spec = validated(draft)
        arrived = await self._let_deletion_arrive(actor, spec.name)
        while (metric := await self._created(actor, spec, arrived)) is None:
            arrived = await self._let_deletion_arrive(actor, spec.name)
        metrics.DEFINITIONS_CHANGED.labels(Action.CREATED).inc()
        return metric

    async def _created(self, actor: Actor, spec: MetricSpec, arrived: int | None) -> Metric | None:
        """None where a metric of that name was deleted at another revision than `arrived`, of which everybody knows."""
        async with self._changing(actor) as connection:
            revision = await self._storage.next_revision(connection)
            # Whatever deleted before has ended now: deletions take a revision too.
            if await self._storage.recent_deletion(connection, actor, spec.name) not in (None, arrived):
                return None
            metric = await self._storage.insert(connection, actor, str(ids.uuid7()), spec, revision)
            if metric is None:
                raise Conflict(
                    f'The project already has a metric "{spec.name}".',
                    details={"fields": {"name": "is taken"}},
                )
            size = await self._storage.size(connection, actor)
            if size.definitions > self._limits.metrics_per_project:
                raise TooManyMetrics(self._limits.metrics_per_project)
            self._require_few_bytes(size)
            self._require_few_deleted(size)
            await self._storage.record_version(connection, actor, metric, Action.CREATED)
            await self._trail.of_metric(connection, actor, metric, Action.CREATED)
        return metric

    async def _let_deletion_arrive(self, actor: Actor, name: str) -> int | None:
        """Waits until everybody knows that the last metric of that name is gone: else what is sent right after the
        creation could still be taken for the old one. The deletion's revision; None where there is none to wait for.

        From when it is seen here: its transaction may have ended long after it wrote when that was. And before the
        creation's own transaction, in which all changes of all projects wait.
        """
        async with self._database.transaction(tenant_id=actor.tenant_id) as connection:
            revision = await self._storage.recent_deletion(connection, actor, name)
        if revision is not None:
            await asyncio.sleep(_DELETION_ARRIVES_SECONDS)
        return revision

    async def get(self, actor: Actor, metric_id: str) -> Metric:
        """The definition. Raises NotFound, also for another project's."""
        async with self._database.transaction(tenant_id=actor.tenant_id) as connection:
            return await self._found(connection, actor, metric_id)

    async def list_page(self, actor: Actor, page_size: int, page_token: str) -> tuple[Sequence[Metric], str]:
        """A page of the project's definitions, oldest first, and the next page's token, empty at the end. Large ones
        fill a page before it has as many as are asked for."""
        most_metrics, last_id = pages.page_size(page_size), pages.id_before(page_token)
        async with self._database.transaction(tenant_id=actor.tenant_id) as connection:
            page, is_last = await self._storage.list_after(
                connection, actor, last_id, most_metrics=most_metrics, most_bytes=_MOST_BYTES_PER_PAGE
            )
        return page, "" if is_last else pages.token_after(page[-1].id)

    async def update(self, actor: Actor, metric_id: str, draft: MetricDraft, version: int) -> Metric:
        """The definition after a change in place, or as it was where nothing would change; confirms a provisional one.

        Raises NotFound, VersionMismatch (`version` is not the current one), Conflict (not in place), Invalid,
        TooManyBytes, PartOfTenantFull, DefinitionsFull.
        """
        async with self._changing(actor) as connection:
            old = await self._found(connection, actor, metric_id, for_update=True)
            _require_version(old, version)
            changes.refuse_other_kind(old.spec, draft)
            spec = validated(draft)
            changes.refuse_breaking(old.spec, spec)
            if spec == old.spec and not old.provisional:
                return old
            revision = await self._storage.next_revision(connection)
            before = await self._storage.size(connection, actor)
            metric = await self._storage.update(connection, metric_id, spec, revision)
            size = await self._storage.size(connection, actor)
            if size.bytes > before.bytes:  # one that was too large already may shrink
                self._require_few_bytes(size)
            await self._storage.record_version(connection, actor, metric, Action.UPDATED)
            await self._trail.of_metric(connection, actor, metric, Action.UPDATED, old.spec)
        metrics.DEFINITIONS_CHANGED.labels(Action.UPDATED).inc()
        return metric

    async def delete(self, actor: Actor, metric_id: str, version: int) -> None:
        """Deletes the definition; `version` 0 stands for whichever is current. Raises NotFound, VersionMismatch."""
        async with self._changing(actor) as connection:
            old = await self._found(connection, actor, metric_id, for_update=True)
            if version:
                _require_version(old, version)
            revision = await self._storage.next_revision(connection)
            metric = await self._storage.mark_deleted(connection, metric_id, revision)
            await self._storage.record_version(connection, actor, metric, Action.DELETED)
            await self._trail.of_metric(connection, actor, metric, Action.DELETED)
        metrics.DEFINITIONS_CHANGED.labels(Action.DELETED).inc()

    @asynccontextmanager
    async def _changing(self, actor: Actor) -> AsyncIterator[Connection]:
        async with (
            self._turns.one(actor.tenant_id),
            self._database.transaction(tenant_id=actor.tenant_id) as connection,
        ):
            yield connection

    async def _found(self, connection: Connection, actor: Actor, metric_id: str, *, for_update: bool = False) -> Metric:
        metric = None
        if ids.is_uuid(metric_id):
            metric = await self._storage.get(connection, actor, metric_id, for_update=for_update)
        if metric is None:
            raise NotFound("There is no such metric in this project.")
        return metric

    def _require_few_bytes(self, size: Size) -> None:
        """After a change, which is undone where the definitions of the project, of the tenant, or all that there are
        have become too large."""
        if size.bytes > MOST_BYTES_PER_PROJECT:
            raise TooManyBytes("project", size.bytes, MOST_BYTES_PER_PROJECT)
        if size.tenant_bytes > MOST_BYTES_PER_TENANT:
            raise TooManyBytes("tenant", size.tenant_bytes, MOST_BYTES_PER_TENANT)
        if size.all_bytes > self._limits.all_bytes:
            raise DefinitionsFull(self._limits.all_bytes)
        if size.tenant_bytes > (most := self._limits.tenant_bytes(size.all_bytes)):
            raise PartOfTenantFull(size.tenant_bytes, most)

    def _require_few_deleted(self, size: Size) -> None:
        """After a creation: who makes definitions and deletes them again and again leaves ever more of them behind."""
        if size.tenant_deleted_bytes > (most := self._limits.tenant_deleted_bytes(size.all_deleted_bytes)):
            raise TooManyDeleted(size.tenant_deleted_bytes, most)


def _require_version(metric: Metric, version: int) -> None:
    if metric.version != version:
        raise VersionMismatch(
            f"The metric has been changed meanwhile: it is at version {metric.version}.",
            details={"version": metric.version},
        )
