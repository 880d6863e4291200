"""The definitions of all projects, as `config`'s feed tells them, and the confirmation before a rejection."""

import asyncio
import contextvars
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from chassis import logs
from chassis.clock import Clock
from chassis.errors import PulsegateError, Unavailable
from chassis.tasks import ended
from services.ingest import metrics
from services.ingest.clients import DefinitionChange, DefinitionClient, ProjectDefinitions
from services.ingest.domain import Definition
from services.ingest.validation import CompiledDefinition, LabelSetMemory

log = logs.get(__name__)

_RECONNECT_SECONDS = 0.5
#: A feed that says nothing for so long is dead: heartbeats come every half second.
_SILENCE_SECONDS = 5.0

_EMPTY: Mapping[str, CompiledDefinition] = {}

#: By project and name.
_Projects = dict[bytes, dict[str, CompiledDefinition]]


class Endings(Protocol):
    """Passes on which definitions were deleted, so that their series end."""

    @property
    def full(self) -> bool: ...

    def add(self, definition: Definition, *, fresh: bool) -> None: ...

    async def room(self) -> None: ...


class DefinitionTable:
    """Definitions by project and name. Kept by `follow`; asked by every batch."""

    def __init__(self, client: DefinitionClient, clock: Clock, endings: Endings) -> None:
        self._client = client
        self._clock = clock
        self._endings = endings
        self._memory = LabelSetMemory()
        self._projects: _Projects = {}
        #: Projects whose definitions were handed out since they changed last: a change is made to a copy.
        self._lent: set[bytes] = set()
        #: Revision up to which the feed has told everything.
        self._revision = 0
        #: Projects that were read at a later revision than the feed's.
        self._confirmed: dict[bytes, int] = {}
        #: Projects that let data define, as of their last confirmation.
        self._defined_by_data: set[bytes] = set()
        self._loaded = asyncio.Event()
        self._asking: dict[bytes, asyncio.Task[None]] = {}
        self._waiting: dict[bytes, asyncio.Task[None]] = {}

    @property
    def loaded(self) -> bool:
        """Whether a whole snapshot has been seen."""
        return self._loaded.is_set()

    async def probe(self) -> None:
        """A health check: definitions are known."""
        if not self.loaded:
            raise Unavailable("definitions have not been read yet")

    def of_project(self, project_id: bytes) -> Mapping[str, CompiledDefinition]:
        """The project's definitions by name; later changes are not seen in it. Raises Unavailable before the first
        snapshot."""
        if not self.loaded:
            raise Unavailable("Definitions have not been read yet.", retry_after_seconds=1.0)
        self._lent.add(project_id)
        return self._projects.get(project_id, _EMPTY)

    def lets_data_define(self, project_id: bytes) -> bool:
        """Whether data under an unknown name may define it, as of the project's last confirmation."""
        return project_id in self._defined_by_data

    async def confirm(self, project_id: bytes) -> None:
        """Reads the project's definitions as they are *now*: after this, what it lacks does not exist.

        Calls for one project share one question, which is asked after each of them came. Raises Unavailable.
        """
        if self._endings.full:
            raise Unavailable.waiting_for("log", "Too many deletions of metrics wait for the log.", 1.0)
        waiting = self._waiting.get(project_id)
        if waiting is None:
            # In a context of its own: the question is not bound by the deadline of whichever call came first.
            asking = self._ask_after(self._asking.get(project_id), project_id)
            waiting = asyncio.create_task(asking, context=contextvars.Context())
            self._waiting[project_id] = waiting
        try:
            await asyncio.shield(waiting)
        except PulsegateError as error:
            raise Unavailable.waiting_for("config", "The metric definitions cannot be confirmed now.", 1.0) from error

    async def _ask_after(self, earlier: "asyncio.Task[None] | None", project_id: bytes) -> None:
        if earlier is not None:
            await asyncio.wait([earlier])
        task = self._waiting.pop(project_id)
        self._asking[project_id] = task
        try:
            metrics.CONFIRMATIONS.inc()
            self._take(project_id, await self._read(project_id))
        finally:
            if self._asking.get(project_id) is task:
                del self._asking[project_id]

    async def _read(self, project_id: bytes) -> ProjectDefinitions:
        """What changed since; all of it where a snapshot took the table back meanwhile: changes would leave a gap."""
        after = self._known_revision(project_id)
        read = await self._client.read_project(project_id, after)
        if read.snapshot or self._known_revision(project_id) >= after:
            return read
        return await self._client.read_project(project_id, 0)

    def _known_revision(self, project_id: bytes) -> int:
        return max(self._revision, self._confirmed.get(project_id, 0))

    def _take(self, project_id: bytes, read: ProjectDefinitions) -> None:
        (self._defined_by_data.add if read.lets_data_define else self._defined_by_data.discard)(project_id)
        if read.revision <= self._known_revision(project_id):
            return
        known = self._projects.get(project_id, {})
        if read.snapshot:
            self._projects[project_id] = {}
        for change in read.changes:
            self._apply_one(change, known)
        if read.snapshot:
            self._announce_deleted(known.values(), {change.definition.id for change in read.changes})
        self._confirmed[project_id] = read.revision

    def _announce_deleted(self, known: Iterable[CompiledDefinition], living: set[bytes]) -> None:
        for compiled in known:
            if compiled.definition.id not in living:
                self._endings.add(compiled.definition, fresh=True)

    async def follow(self) -> None:
        """Follows the feed for ever, resuming where it broke off. Questions of `confirm` end with it."""
        try:
            while True:
                try:
                    await self._follow_once()
                except (PulsegateError, TimeoutError) as error:
                    log.info("definition feed broke off", reason=str(error) or "silence")
                await self._clock.sleep(_RECONNECT_SECONDS)
        finally:
            await ended([*self._asking.values(), *self._waiting.values()])

    async def _follow_once(self) -> None:
        snapshot: _Projects | None = None
        changes = self._client.watch(self._revision if self.loaded else 0)
        while True:
            async with asyncio.timeout(_SILENCE_SECONDS):
                update = await anext(changes, None)
            if update is None:
                return
            if update.snapshot:
                snapshot = {} if snapshot is None else snapshot
                self._gather(update.changes, snapshot)
                if update.snapshot_complete:
                    self._replace_all(snapshot, update.revision)
                    snapshot = None
            elif update.revision >= self._revision:
                self._apply(update.changes, update.revision)
            await self._endings.room()

    def _gather(self, changes: Sequence[DefinitionChange], snapshot: _Projects) -> None:
        """Adds a page to what was gathered of a snapshot. Deletions are nothing to gather: they hold at once."""
        for change in changes:
            definition = change.definition
            if change.deleted:
                if _has(gathered := snapshot.get(definition.project_id, {}), definition):
                    del gathered[definition.name]
                self._endings.add(definition, fresh=self._remove(definition))
            else:
                known = self._projects.get(definition.project_id, _EMPTY)
                snapshot.setdefault(definition.project_id, {})[definition.name] = self._compile(known, definition)

    def _replace_all(self, snapshot: _Projects, revision: int) -> None:
        """Definitions that were confirmed at a later revision may be newer than the snapshot: then they come with the
        changes after it. Where the feed went back, they are gone."""
        later = {project for project, at in self._confirmed.items() if at > revision >= self._revision}
        known, self._projects = self._projects, snapshot
        self._confirmed.clear()
        living = {compiled.definition.id for project in self._projects.values() for compiled in project.values()}
        for project_id, project in known.items():
            if project_id not in later:
                self._announce_deleted(project.values(), living)
        self._revision = revision
        self._loaded.set()
        log.info("definitions loaded", revision=revision, count=len(living))

    def _apply(self, changes: Sequence[DefinitionChange], revision: int) -> None:
        for change in changes:
            project_id = change.definition.project_id
            if revision > self._confirmed.get(project_id, 0):
                self._apply_one(change, self._projects.get(project_id, {}))
        self._revision = revision
        if self._confirmed:
            self._confirmed = {project: at for project, at in self._confirmed.items() if at > revision}

    def _apply_one(self, change: DefinitionChange, known: Mapping[str, CompiledDefinition]) -> None:
        if change.deleted:
            self._remove(change.definition)
            self._endings.add(change.definition, fresh=True)
        else:
            definition = change.definition
            self._own(definition.project_id)[definition.name] = self._compile(known, definition)

    def _remove(self, definition: Definition) -> bool:
        """Says whether it was there."""
        if not _has(self._projects.get(definition.project_id, _EMPTY), definition):
            return False
        del self._own(definition.project_id)[definition.name]
        return True

    def _own(self, project_id: bytes) -> dict[str, CompiledDefinition]:
        """The project's definitions, which nobody else has."""
        if project_id in self._lent:
            self._lent.remove(project_id)
            self._projects[project_id] = {**self._projects.get(project_id, {})}
        return self._projects.setdefault(project_id, {})

    def _compile(self, known: Mapping[str, CompiledDefinition], definition: Definition) -> CompiledDefinition:
        """The compiled definition that is there already, with the label sets it has seen, where nothing changed."""
        compiled = known.get(definition.name)
        if compiled is not None and compiled.definition == definition:
            return compiled
        return CompiledDefinition(definition, self._memory)


def _has(project: Mapping[str, CompiledDefinition], definition: Definition) -> bool:
    compiled = project.get(definition.name)
    return compiled is not None and compiled.definition.id == definition.id
