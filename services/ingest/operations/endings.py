"""What a deleted definition leads to."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from itertools import chain, islice

from chassis import logs
from chassis.clock import Clock
from chassis.errors import Unavailable
from services.ingest.domain import Definition
from services.ingest.ended_definitions import EndedDefinition
from services.ingest.records import DefinitionFacts, Kind, Record
from services.ingest.tallies import Appending

log = logs.get(__name__)

#: Deletions that are not passed on twice; to pass an older one on again changes nothing.
_MOST_REMEMBERED = 10_000
#: Once so many wait for the log, whoever tells of more of them waits too.
_MOST_WAITING = 10_000
#: That are passed on together; of one project they are one record, which a frame has room for.
_MOST_TOGETHER = 1_000


class SeriesEndings:
    """Deleted definitions on their way to the log; each is tried until it is there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: Both in the order in which they came.
        self._fresh: dict[EndedDefinition, DefinitionFacts] = {}
        self._old: dict[EndedDefinition, DefinitionFacts] = {}
        self._told: dict[bytes, None] = {}
        self._any = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def add(self, definition: Definition, *, fresh: bool) -> None:
        """Called for each deletion that the feed tells, possibly more than once. Those that are not fresh, as most of a
        snapshot's, which others have mostly passed on long ago, let fresh ones go before."""
        if definition.id not in self._told:
            self._told[definition.id] = None
            if len(self._told) > _MOST_REMEMBERED:
                del self._told[next(iter(self._told))]
            ended = EndedDefinition(definition.tenant_id, definition.project_id, definition.id)
            facts = DefinitionFacts(definition.id, definition.name, definition.type, (), {})
            (self._fresh if fresh else self._old)[ended] = facts
            self._count()

    @property
    def full(self) -> bool:
        """Whether so many wait for the log that no more should be added."""
        return not self._room.is_set()

    async def room(self) -> None:
        """Returns once more may be added."""
        await self._room.wait()

    async def run(self, log_: Appending) -> None:
        """Passes deletions on, for ever. Every receiver does; once is as good as often."""
        while True:
            await self._any.wait()
            together = dict(islice(chain(self._fresh.items(), self._old.items()), _MOST_TOGETHER))
            if await self._written(log_, together):
                self._forget(together)
            else:
                await self._clock.sleep(1.0)

    def _forget(self, written: Collection[EndedDefinition]) -> None:
        for ended in written:
            self._fresh.pop(ended, None)
            self._old.pop(ended, None)
        self._count()

    def _count(self) -> None:
        waiting = len(self._fresh) + len(self._old)
        (self._any.set if waiting else self._any.clear)()
        (self._room.set if waiting < _MOST_WAITING else self._room.clear)()

    async def _written(self, log_: Appending, together: Mapping[EndedDefinition, DefinitionFacts]) -> bool:
        appending = [log_.append(record) for record in self._records(together)]
        outcomes = await asyncio.gather(*appending, return_exceptions=True)
        failures = [outcome for outcome in outcomes if outcome is not None]
        for failure in failures:
            if not isinstance(failure, Unavailable):
                raise failure
            log.warning("deletions wait for the log", count=len(together), reason=failure.message)
        return not failures

    def _records(self, together: Mapping[EndedDefinition, DefinitionFacts]) -> Iterable[Record]:
        """One for each project."""
        projects: dict[tuple[bytes, bytes], list[DefinitionFacts]] = {}
        for ended, facts in together.items():
            projects.setdefault((ended.tenant_id, ended.project_id), []).append(facts)
        for (tenant_id, project_id), definitions in projects.items():
            yield Record(
                kind=Kind.END,
                tenant_id=tenant_id,
                project_id=project_id,
                received_ms=self._clock.now_ms(),
                definitions=definitions,
            )
