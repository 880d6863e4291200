"""What a deleted definition leads to."""

import asyncio

from chassis import logs
from chassis.clock import Clock
from chassis.errors import Unavailable
from services.ingest.domain import Definition
from services.ingest.records import DefinitionFacts, Kind, Record
from services.ingest.tallies import Appending

log = logs.get(__name__)

#: Deletions that are not passed on twice; to pass an older one on again changes nothing.
_MOST_REMEMBERED = 10_000


class SeriesEndings:
    """Deleted definitions on their way to the log; each is tried until it is there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: asyncio.Queue[Definition] = asyncio.Queue()
        #: In the order in which they came.
        self._told: dict[bytes, None] = {}

    def add(self, definition: Definition) -> None:
        """Called for each deletion that the feed tells, possibly more than once."""
        if definition.id not in self._told:
            self._told[definition.id] = None
            if len(self._told) > _MOST_REMEMBERED:
                del self._told[next(iter(self._told))]
            self._queue.put_nowait(definition)

    async def run(self, log_: Appending) -> None:
        """Passes deletions on, for ever. Every receiver does; once is as good as often."""
        while True:
            definition = await self._queue.get()
            while not await self._written(log_, definition):
                await self._clock.sleep(1.0)

    async def _written(self, log_: Appending, definition: Definition) -> bool:
        try:
            await log_.append(self._record(definition))
        except Unavailable as error:
            log.warning("deletion waits for the log", definition=definition.name, reason=error.message)
            return False
        return True

    def _record(self, definition: Definition) -> Record:
        return Record(
            kind=Kind.END,
            tenant_id=definition.tenant_id,
            project_id=definition.project_id,
            received_ms=self._clock.now_ms(),
            definitions=[DefinitionFacts(definition.id, definition.name, definition.type, definition.bounds, {})],
        )
