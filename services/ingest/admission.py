"""Which producers and cumulative sources a receiver takes: all, but new ones of projects that have as many as they may.

What was acknowledged counts, so this is asked before; it costs the batches of such projects alone. They are counted
every ten minutes: for publishable keys a project is also full where these have brought very many since.
"""

from collections import OrderedDict
from collections.abc import Collection

from chassis import logs
from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.postgres import Database
from services.ingest import metrics
from services.ingest.decoding import Batch
from services.ingest.definitions import DefinitionTable
from services.ingest.domain import MetricType
from services.ingest.errors import TooManyProducers
from services.ingest.newcomers import Newcomers
from services.ingest.point_validation import defined_as
from services.ingest.points import Point
from services.ingest.storage import full_projects
from services.ingest.storage.full_projects import FullProjects

log = logs.get(__name__)

_SECONDS = 5.0
#: Producers and sources of full projects that are remembered to be known to the state.
_MOST_REMEMBERED = 200_000
#: When a client may find room: that is made every ten minutes, of what was not used for eight days.
_RETRY_AFTER_SECONDS = 600.0
#: What publishable keys bring a project in ten minutes before it is full for them; a hundredth of what it may have.
_MOST_NEW_PRODUCERS = 100_000
_MOST_NEW_SOURCES = 50_000

_NONE = FullProjects()


class Admission:
    """Holds what is new to a full project back until the state was asked. Without a database everything is taken."""

    def __init__(self, database: Database | None, definitions: DefinitionTable, clock: Clock) -> None:
        self._database = database
        self._definitions = definitions
        self._clock = clock
        self._full = _NONE
        self._new_producers = Newcomers("producers", _MOST_NEW_PRODUCERS, clock)
        self._new_sources = Newcomers("sources", _MOST_NEW_SOURCES, clock)
        #: Projects with producers and sources that the state is known to know, the one that was used last at the end.
        self._known: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()

    async def follow(self) -> None:
        """Learns of full projects, for ever. While the state is away, those that were known stay."""
        while self._database is not None:
            try:
                await self._learn(self._database)
            except Unavailable as error:
                log.warning("which projects are full cannot be read", reason=error.message)
            await self._clock.sleep(_SECONDS)

    async def _learn(self, database: Database) -> None:
        async with database.transaction(full_projects="all") as connection:
            self._full = await full_projects.read(connection)
        metrics.FULL_PROJECTS.labels("producers").set(len(self._full.producers))
        metrics.FULL_PROJECTS.labels("publishable_producers").set(len(self._full.publishable_producers))
        metrics.FULL_PROJECTS.labels("sources").set(len(self._full.sources))
        metrics.FULL_PROJECTS.labels("publishable_sources").set(len(self._full.publishable_sources))
        metrics.FULL_PROJECTS.labels("series").set(len(self._full.series))

    def holds_back(self, project_id: bytes, batch: Batch, key_kind: str) -> bool:
        """Whether the batch is for `refused_sources` first. `key_kind`: of the key that sends it, as `Principal.kind`.
        It never waits."""
        if key_kind != "secret":
            self._new_producers.note(project_id, [batch.producer] if batch.producer else ())
            self._new_sources.note(project_id, self._sources(project_id, batch))
        producer = self._unknown_producer(project_id, batch, key_kind)
        return bool(producer or self._unknown_sources(project_id, batch, key_kind))

    def concerns(self, project_id: bytes, key_kind: str) -> bool:
        """Whether batches of the project that such a key sends may be held back. It never waits."""
        return self._is_full_of_producers(project_id, key_kind) or self._is_full_of_sources(project_id, key_kind)

    def _is_full_of_producers(self, project_id: bytes, key_kind: str) -> bool:
        return project_id in self._full.producers or (
            key_kind != "secret"
            and (project_id in self._full.publishable_producers or self._new_producers.are_many(project_id))
        )

    def _is_full_of_sources(self, project_id: bytes, key_kind: str) -> bool:
        return project_id in self._full.sources or (
            key_kind != "secret"
            and (project_id in self._full.publishable_sources or self._new_sources.are_many(project_id))
        )

    def _unknown_producer(self, project_id: bytes, batch: Batch, key_kind: str) -> bytes:
        if not batch.producer or not self._is_full_of_producers(project_id, key_kind):
            return b""
        return b"" if self._is_known(project_id, batch.producer) else batch.producer

    def _unknown_sources(self, project_id: bytes, batch: Batch, key_kind: str) -> set[bytes]:
        if not batch.points or not self._is_full_of_sources(project_id, key_kind):
            return set()
        return {source for source in self._sources(project_id, batch) if not self._is_known(project_id, source)}

    def _sources(self, project_id: bytes, batch: Batch) -> set[bytes]:
        return {
            point.origin.source
            for point in batch.points
            if isinstance(point, Point) and point.origin is not None and not self._is_level(project_id, point)
        }

    def _is_level(self, project_id: bytes, point: Point) -> bool:
        """Whether what may be a total, as what is untyped in a push, is a gauge's level, which the state keeps of no
        source."""
        if MetricType.GAUGE not in point.types:
            return False
        compiled = defined_as(point, self._definitions.of_project(project_id))
        return compiled is not None and compiled.is_gauge

    async def refused_sources(self, tenant_id: str, project_id: bytes, batch: Batch, key_kind: str) -> frozenset[bytes]:
        """The sources in the batch whose totals cannot be taken.

        Raises TooManyProducers where its producer is one too many, Unavailable where the state cannot be asked.
        """
        producer = self._unknown_producer(project_id, batch, key_kind)
        sources = self._unknown_sources(project_id, batch, key_kind)
        if self._database is None or not (producer or sources):
            return frozenset()
        try:
            async with self._database.transaction(tenant_id=tenant_id) as connection:
                if producer:
                    if not await full_projects.has_producer(connection, project_id, producer):
                        raise TooManyProducers(_RETRY_AFTER_SECONDS)
                    self._remember(project_id, [producer])
                known = await full_projects.known_sources(connection, project_id, sources) if sources else set()
        except Unavailable as error:
            message = "Whether the project has room for what is new cannot be told now."
            raise Unavailable.waiting_for("postgres", message, 1.0) from error
        self._remember(project_id, known)
        return frozenset(sources - known)

    def _is_known(self, project_id: bytes, identity: bytes) -> bool:
        known = (project_id, identity) in self._known
        if known:
            self._known.move_to_end((project_id, identity))
        return known

    def _remember(self, project_id: bytes, identities: Collection[bytes]) -> None:
        self._known |= dict.fromkeys((project_id, identity) for identity in identities)
        while len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)
