"""Deleted definitions in Postgres, the table `ended_definitions`, and what goes with them."""

import uuid
from collections.abc import Collection, Sequence
from typing import NamedTuple

from psycopg.sql import SQL, Identifier

from chassis.postgres import Connection
from services.ingest.domain import partition_of
from services.ingest.ended_definitions import EndedDefinition


class EndedSeries(NamedTuple):
    """A series of a definition that was deleted."""

    definition_id: bytes
    partition: int
    series_id: bytes


async def load(connection: Connection, partitions: tuple[int, int]) -> dict[bytes, int]:
    """The commit that ended each definition of these partitions, first and last."""
    cursor = await connection.execute(
        "SELECT definition_id, ended_ms FROM ended_definitions WHERE partition BETWEEN %s AND %s", partitions
    )
    return {row["definition_id"].bytes: row["ended_ms"] async for row in cursor}


async def store(connection: Connection, ended: Sequence[EndedDefinition], commit_ms: int) -> None:
    """Keeps which definitions a commit has ended, in its transaction."""
    if not ended:
        return
    await connection.execute(
        "INSERT INTO ended_definitions (partition, tenant_id, definition_id, ended_ms)"
        " SELECT *, %s FROM unnest(%s::smallint[], %s::uuid[], %s::uuid[])"
        " ON CONFLICT (partition, definition_id) DO UPDATE SET ended_ms = excluded.ended_ms",
        (
            commit_ms,
            [partition_of(each.project_id) for each in ended],
            _uuids([each.tenant_id for each in ended]),
            _uuids([each.definition_id for each in ended]),
        ),
    )


async def some_series(
    connection: Connection, partitions: tuple[int, int], definition_ids: Collection[bytes], most: int
) -> list[EndedSeries]:
    """Series of these definitions, all of them where they are fewer than `most`."""
    cursor = await connection.execute(
        "SELECT definition_id, partition, series_id FROM series"
        " WHERE partition BETWEEN %s AND %s AND definition_id = ANY (%s::uuid[]) LIMIT %s",
        (*partitions, _uuids(definition_ids), most),
    )
    return [EndedSeries(row["definition_id"].bytes, row["partition"], row["series_id"]) async for row in cursor]


async def delete_series(connection: Connection, series: Sequence[EndedSeries]) -> None:
    """Deletes series, and what they are made of that passes with time."""
    keys = ([each.partition for each in series], [each.series_id for each in series])
    statement = SQL(
        """
        DELETE FROM {} USING unnest(%s::smallint[], %s::bytea[]) AS gone (in_partition, id)
         WHERE partition = in_partition AND series_id = id
        """
    )
    for table in ("gauge_levels", "summary_sketches", "series"):
        await connection.execute(statement.format(Identifier(table)), keys)


async def forget(connection: Connection, partitions: tuple[int, int], definition_ids: Collection[bytes]) -> None:
    """Forgets that these definitions have ended."""
    await connection.execute(
        "DELETE FROM ended_definitions WHERE partition BETWEEN %s AND %s AND definition_id = ANY (%s::uuid[])",
        (*partitions, _uuids(definition_ids)),
    )


def _uuids(identities: Collection[bytes]) -> list[uuid.UUID]:
    return [uuid.UUID(bytes=each) for each in identities]
