"""Projects that let data define: unknown names become provisional definitions, within limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chassis import ids
from chassis.errors import NotFound
from chassis.postgres import Connection, Database
from chassis.timely_turns import TimelyTurns
from services.config import metrics
from services.config.audit import AuditTrail
from services.config.domain import (
    MOST_BYTES_PER_PROJECT,
    MOST_BYTES_PER_TENANT,
    Action,
    Actor,
    Limits,
    MetricDraft,
    MetricSpec,
    ProjectSettings,
)
from services.config.storage import DefinitionStorage
from services.config.validation import faults, validated

#: Definitions that data may make in a project within a minute.
MOST_A_MINUTE = 100

#: Of the definitions that a project may have, and of the bytes that it, its tenant and all may have, this part is there
#: for data; the rest is left for people. The last hundred may bring the bytes over it, but never to all that there are.
_PART_FOR_DATA = 0.75

#: As `MetricDraft.help` of what data has made.
PROVISIONAL_HELP = "Provisional: made from data that came. Say here what it measures."

_LONGEST_REASON = 300
_TOO_MANY = (
    f"Data may make {MOST_A_MINUTE} definitions a minute, and three quarters of those that a project may have, in"
    " number and in bytes, and its tenant and all tenants in bytes, deleted ones apart; and as many there are."
)
_JUST_DELETED = "A metric of this name was deleted within the last minute."


@dataclass(frozen=True, kw_only=True)
class FromData:
    """What came of drafts."""

    made: int
    #: Why, by name, those were not made that are not valid or over a limit.
    refused: Mapping[str, str]


class AutoDefinition:
    """What owners and admins of a project have decided, and the definitions that follow from it."""

    def __init__(
        self, database: Database, storage: DefinitionStorage, trail: AuditTrail, limits: Limits, turns: TimelyTurns
    ) -> None:
        """`turns`: shared with `Definitions`."""
        self._database = database
        self._storage = storage
        self._trail = trail
        self._limits = limits
        self._turns = turns

    async def settings(self, actor: Actor) -> ProjectSettings:
        """Those of the actor's project."""
        async with self._database.transaction(tenant_id=actor.tenant_id) as connection:
            return await self._storage.settings(connection, actor.project_id)

    async def change_settings(self, actor: Actor, settings: ProjectSettings) -> ProjectSettings:
        """Keeps and returns them."""
        async with (
            self._turns.one(actor.tenant_id),
            self._database.transaction(tenant_id=actor.tenant_id) as connection,
        ):
            before = await self._storage.settings(connection, actor.project_id)
            await self._storage.set_settings(connection, actor, settings)
            if settings != before:
                await self._trail.of_settings(connection, actor, before, settings)
        return settings

    async def define(self, tenant_id: str, project_id: str, drafts: Sequence[MetricDraft]) -> FromData:
        """Defines those that are valid and new, as far as the limits allow. Raises NotFound.

        Nothing is made under a name that was deleted within the last minute: whoever deleted it may still be at it.
        """
        if not (ids.is_uuid(tenant_id) and ids.is_uuid(project_id)):
            raise NotFound("There is no such project.")
        refused = {draft.name: _said(wrong) for draft in drafts if (wrong := faults(draft))}
        specs = [validated(draft) for draft in drafts if draft.name not in refused]
        actor = Actor(tenant_id=tenant_id, project_id=project_id, subject="auto-definition", kind="service")
        async with self._turns.one(tenant_id), self._database.transaction(tenant_id=tenant_id) as connection:
            if not (await self._storage.settings(connection, project_id)).auto_definition:
                return FromData(made=0, refused={})
            # A first look without the lock that all changes of all projects share.
            room = await self._room(connection, actor) if specs else 0
            if room:
                await self._storage.next_revision(connection)
                room = await self._room(connection, actor)
            refused |= dict.fromkeys([spec.name for spec in specs[room:]], _TOO_MANY)
            made = [await self._made(connection, actor, spec, refused) for spec in specs[:room]]
        metrics.DEFINITIONS_CHANGED.labels(Action.CREATED).inc(sum(made))
        return FromData(made=sum(made), refused=refused)

    async def _room(self, connection: Connection, actor: Actor) -> int:
        size = await self._storage.size(connection, actor)
        taken = max(
            size.bytes / MOST_BYTES_PER_PROJECT,
            size.tenant_bytes / MOST_BYTES_PER_TENANT,
            size.tenant_bytes / self._limits.tenant_bytes(size.all_bytes),
            size.all_bytes / self._limits.all_bytes,
            size.tenant_deleted_bytes / self._limits.tenant_deleted_bytes(size.all_deleted_bytes),
        )
        if taken >= _PART_FOR_DATA:
            return 0
        new = await self._storage.made_from_data(connection, actor)
        most = int(self._limits.metrics_per_project * _PART_FOR_DATA)
        return max(0, min(most - size.definitions, MOST_A_MINUTE - new))

    async def _made(self, connection: Connection, actor: Actor, spec: MetricSpec, refused: dict[str, str]) -> bool:
        if await self._storage.recent_deletion(connection, actor, spec.name) is not None:
            refused[spec.name] = _JUST_DELETED
            return False
        revision = await self._storage.next_revision(connection)
        metric = await self._storage.insert(connection, actor, str(ids.uuid7()), spec, revision, provisional=True)
        if metric is None:
            return False
        await self._storage.record_version(connection, actor, metric, Action.CREATED)
        await self._trail.of_metric(connection, actor, metric, Action.CREATED)
        return True


def _said(wrong: Mapping[str, str]) -> str:
    text = "; ".join(f"{member} {fault}" for member, fault in wrong.items())
    return f"{text[:_LONGEST_REASON]}…" if len(text) > _LONGEST_REASON else f"{text}."
