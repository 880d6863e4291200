"""Which projects have as many producers, sources or series as they may have: the table `full_projects`."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass, field

from psycopg.sql import SQL, Identifier

from chassis.postgres import Connection
from services.ingest.domain import partition_of


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectLimits:
    """What the state keeps of one project at most: then new producers and sources are refused, label sets folded."""

    producers: int
    #: Of cumulative sources, one for each of their series.
    sources: int
    #: Live and quiet.
    series: int

    @property
    def publishable_producers(self) -> int:
        """With so many, whoever sent them, new ones of publishable keys are refused: whoever visits a page has its key,
        and must not take the room of the project's own services."""
        return self.producers // 2

    @property
    def publishable_sources(self) -> int:
        """The same of sources."""
        return self.sources // 2


@dataclass(frozen=True, kw_only=True, slots=True)
class FullProjects:
    """Ids of projects that may have no more of these."""

    producers: Collection[bytes] = field(default_factory=frozenset)
    publishable_producers: Collection[bytes] = field(default_factory=frozenset)
    sources: Collection[bytes] = field(default_factory=frozenset)
    publishable_sources: Collection[bytes] = field(default_factory=frozenset)
    series: Collection[bytes] = field(default_factory=frozenset)


async def note(connection: Connection, partitions: tuple[int, int], limits: ProjectLimits) -> None:
    """Counts what projects of these partitions, first and last, have, and keeps which of them are full."""
    await connection.execute("DELETE FROM full_projects WHERE partition BETWEEN %s AND %s", partitions)
    full_at = {
        "producers": {"producers": limits.producers, "publishable_producers": limits.publishable_producers},
        "sources": {"sources": limits.sources, "publishable_sources": limits.publishable_sources},
        "series": {"series": limits.series},
    }
    for counted, most in full_at.items():
        # Of what there is most of, counted by the primary key alone; the tenant is looked up for the few that are full.
        statement = SQL(
            """
            INSERT INTO full_projects (partition, tenant_id, project_id, what)
            SELECT partition, (SELECT tenant_id FROM {counted} AS one
                                WHERE (one.partition, one.project_id) = (many.partition, many.project_id) LIMIT 1),
                   project_id, what
              FROM (SELECT partition, project_id, count(*) AS there FROM {counted} WHERE partition BETWEEN %s AND %s
                     GROUP BY partition, project_id) AS many
              JOIN unnest(%s::text[], %s::bigint[]) AS full_at (what, most) ON there >= most
            ON CONFLICT DO NOTHING
            """
        )
        values = (*partitions, list(most), list(most.values()))
        await connection.execute(statement.format(counted=Identifier(counted)), values)


async def read(connection: Connection) -> FullProjects:
    """All of them, which a connection of the runtime role sees where its setting `app.full_projects` is `all`."""
    cursor = await connection.execute("SELECT project_id, what FROM full_projects")
    rows = [(row["project_id"].bytes, row["what"]) async for row in cursor]
    return FullProjects(
        producers=frozenset(project_id for project_id, what in rows if what == "producers"),
        publishable_producers=frozenset(project_id for project_id, what in rows if what == "publishable_producers"),
        sources=frozenset(project_id for project_id, what in rows if what == "sources"),
        publishable_sources=frozenset(project_id for project_id, what in rows if what == "publishable_sources"),
        series=frozenset(project_id for project_id, what in rows if what == "series"),
    )


async def has_producer(connection: Connection, project_id: bytes, producer: bytes) -> bool:
    """Whether the state knows it. The connection's tenant must be the project's."""
    cursor = await connection.execute(
        "SELECT 1 FROM producers WHERE partition = %s AND project_id = %s AND producer = %s",
        (partition_of(project_id), uuid.UUID(bytes=project_id), uuid.UUID(bytes=producer)),
    )
    return await cursor.fetchone() is not None


async def known_sources(connection: Connection, project_id: bytes, sources: Collection[bytes]) -> set[bytes]:
    """Those that the state knows. The connection's tenant must be the project's."""
    cursor = await connection.execute(
        "SELECT DISTINCT source FROM sources WHERE partition = %s AND project_id = %s AND source = ANY (%s)",
        (partition_of(project_id), uuid.UUID(bytes=project_id), list(sources)),
    )
    return {row["source"] async for row in cursor}
