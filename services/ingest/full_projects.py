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


@dataclass(frozen=True, kw_only=True, slots=True)
class FullProjects:
    """Ids of projects that may have no more of these."""

    producers: Collection[bytes] = field(default_factory=frozenset)
    sources: Collection[bytes] = field(default_factory=frozenset)
    series: Collection[bytes] = field(default_factory=frozenset)


async def note(connection: Connection, partitions: tuple[int, int], limits: ProjectLimits) -> None:
    """Counts what projects of these partitions, first and last, have, and keeps which of them are full."""
    await connection.execute("DELETE FROM full_projects WHERE partition BETWEEN %s AND %s", partitions)
    for what, most in (("producers", limits.producers), ("sources", limits.sources), ("series", limits.series)):
        # Of what there is most of, counted by the primary key alone; the tenant is looked up for the few that are full.
        statement = SQL(
            """
            INSERT INTO full_projects (partition, tenant_id, project_id, what)
            SELECT partition, (SELECT tenant_id FROM {counted} AS one
                                WHERE (one.partition, one.project_id) = (many.partition, many.project_id) LIMIT 1),
                   project_id, {what}
              FROM (SELECT partition, project_id FROM {counted} WHERE partition BETWEEN %s AND %s
                     GROUP BY partition, project_id HAVING count(*) >= %s) AS many
            ON CONFLICT DO NOTHING
            """
        )
        await connection.execute(statement.format(counted=Identifier(what), what=what), (*partitions, most))


async def read(connection: Connection) -> FullProjects:
    """All of them, which a connection of the runtime role sees where its setting `app.full_projects` is `all`."""
    cursor = await connection.execute("SELECT project_id, what FROM full_projects")
    rows = [(row["project_id"].bytes, row["what"]) async for row in cursor]
    return FullProjects(
        producers=frozenset(project_id for project_id, what in rows if what == "producers"),
        sources=frozenset(project_id for project_id, what in rows if what == "sources"),
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
