"""What cumulative sources stood at last, in Postgres: the table `sources`."""

import uuid
from collections.abc import Collection, Sequence

from chassis.postgres import Connection
from services.ingest.domain import REMEMBERED_MS, partition_of
from services.ingest.sources import SourceKey, SourceRow, Total
from services.ingest.storage import staging

_COLUMNS = "partition, tenant_id, project_id, source, definition_id, taken_ns, value, counts, used_ms"
#: So many are deleted in one statement.
_MOST_DROPPED = 20_000


async def load(connection: Connection, keys: Collection[SourceKey]) -> dict[SourceKey, list[Total]]:
    """What each source has told, whichever definition; nothing for those that are new."""
    found: dict[SourceKey, list[Total]] = {key: [] for key in keys}
    cursor = await connection.execute(
        """
        SELECT s.project_id, s.source, s.definition_id, s.taken_ns, s.value, s.counts, s.used_ms FROM sources s
          JOIN unnest(%s::smallint[], %s::uuid[], %s::bytea[]) AS wanted (partition, project_id, source)
         USING (partition, project_id, source)
        """,
        (
            [partition_of(project_id) for project_id, _ in found],
            [uuid.UUID(bytes=project_id) for project_id, _ in found],
            [source for _, source in found],
        ),
    )
    async for row in cursor:
        total = Total(row["definition_id"].bytes, row["taken_ns"], row["value"], row["counts"], row["used_ms"])
        found[row["project_id"].bytes, row["source"]].append(total)
    return found


async def store(connection: Connection, rows: Sequence[SourceRow]) -> None:
    """Keeps what changed, in the transaction of the commit that added it up."""
    if not rows:
        return
    await connection.execute(staging.made("seen_sources", "sources", _COLUMNS))
    async with connection.cursor().copy(f"COPY seen_sources ({_COLUMNS}) FROM STDIN WITH (FORMAT binary)") as copy:
        copy.set_types(["int2", "uuid", "uuid", "bytea", "uuid", "int8", "float8", "int8[]", "int8"])
        for row in rows:
            await copy.write_row(
                (
                    partition_of(row.project_id),
                    uuid.UUID(bytes=row.tenant_id),
                    uuid.UUID(bytes=row.project_id),
                    row.source,
                    uuid.UUID(bytes=row.definition_id),
                    row.taken_ns,
                    row.value,
                    list(row.counts),
                    row.used_ms,
                )
            )
    await connection.execute(
        f"""
        INSERT INTO sources ({_COLUMNS}) SELECT {_COLUMNS} FROM seen_sources
        ON CONFLICT (partition, project_id, source, definition_id) DO UPDATE
           SET taken_ns = excluded.taken_ns, value = excluded.value, counts = excluded.counts,
               used_ms = excluded.used_ms
        """  # noqa: S608 - a constant # nosec B608
    )


async def drop_old(connection: Connection, partitions: tuple[int, int], reached_ms: int) -> bool:
    """Deletes totals of these partitions, first and last, that were not used for long when what receivers took at
    `reached_ms` was folded; says whether there may be more."""
    cursor = await connection.execute(
        """
        DELETE FROM sources WHERE used_ms < %(before)s AND ctid = ANY (ARRAY(
            SELECT ctid FROM sources WHERE partition BETWEEN %(first)s AND %(last)s AND used_ms < %(before)s
             LIMIT %(most)s))
        """,
        {
            "first": partitions[0],
            "last": partitions[1],
            "before": reached_ms - REMEMBERED_MS,  # looked at again where a commit has used it meanwhile
            "most": _MOST_DROPPED,
        },
    )
    return cursor.rowcount == _MOST_DROPPED
