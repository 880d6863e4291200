"""The audit log's entries of config: written with each change, sent to auth, which seals them.

An entry waits in the transaction of its change and stays until auth has confirmed it: neither a killed process nor an
absent auth loses one. It may be sent twice, which auth notices by its id.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from chassis import audit, logs
from chassis.audit import Party
from chassis.postgres import Connection, Database
from chassis.tasks import for_ever, in_background
from services.config import metrics
from services.config.audit_storage import SENDER_ROLE, AuditOutboxStorage, WaitingEntry
from services.config.domain import Action, Actor, Metric, MetricSpec, ProjectSettings

log = logs.get(__name__)

_POLL_SECONDS = 0.5
_MOST_AT_A_TIME = 100


class AuditTrail:
    """A step of every operation that changes something, in its transaction."""

    def __init__(self, outbox: AuditOutboxStorage) -> None:
        self._outbox = outbox

    async def of_metric(
        self, connection: Connection, actor: Actor, metric: Metric, action: Action, before: MetricSpec | None = None
    ) -> None:
        """A definition that was created, updated or deleted; its whole text is in its history."""
        details: dict[str, Any] = {
            "type": metric.spec.type.value,
            "version": metric.version,
            "changed": [] if before is None else _changed(before, metric.spec),
        }
        target = Party(kind="metric", id=metric.id, name=metric.spec.name)
        await self._tell(connection, actor, f"metric.{action.value}", target, details, metric.updated_at)

    async def of_settings(
        self, connection: Connection, actor: Actor, before: ProjectSettings, settings: ProjectSettings
    ) -> None:
        target = Party(kind="project", id=actor.project_id)
        details = {"autoDefinition": settings.auto_definition, "before": {"autoDefinition": before.auto_definition}}
        await self._tell(connection, actor, "project_settings.changed", target, details, datetime.now(UTC))

    async def _tell(
        self,
        connection: Connection,
        actor: Actor,
        action: str,
        target: Party,
        details: Mapping[str, Any],
        at: datetime,
    ) -> None:
        entry = audit.Entry(
            tenant_id=actor.tenant_id,
            project_id=actor.project_id,
            at=at,
            service="config",
            action=action,
            actor=Party(kind=actor.kind, id=actor.subject),
            target=target,
            details=details,
        )
        await self._outbox.insert(connection, entry)


def _changed(before: MetricSpec, after: MetricSpec) -> list[str]:
    """The members that differ, as their author writes them."""
    return [name for name in ("unit", "help", "labels") if getattr(before, name) != getattr(after, name)]


class AuditLog(Protocol):
    """Who seals entries: auth."""

    async def record(self, entries: Sequence[WaitingEntry]) -> None:
        """Keeps each entry once, however often it comes. Raises PulsegateError."""
        ...


class AuditSender:
    """Sends what waits while `sending` is open. Replicas may send the same: it is kept once."""

    def __init__(self, database: Database, outbox: AuditOutboxStorage, audit_log: AuditLog) -> None:
        self._database = database
        self._outbox = outbox
        self._audit_log = audit_log

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        async with in_background(for_ever(self._send, _POLL_SECONDS, "audit entries wait")):
            yield

    async def _send(self) -> bool:
        """Whether there may be more. Not within a transaction: auth may be slow."""
        async with self._database.transaction(role=SENDER_ROLE) as connection:
            entries = await self._outbox.oldest(connection, _MOST_AT_A_TIME)
            metrics.AUDIT_WAITING.set(await self._outbox.waiting(connection) if entries else 0)
        if entries:
            await self._audit_log.record(entries)
            async with self._database.transaction(role=SENDER_ROLE) as connection:
                await self._outbox.delete(connection, [entry.id for entry in entries])
        return len(entries) == _MOST_AT_A_TIME
