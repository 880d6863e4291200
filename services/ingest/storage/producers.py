"""The windows of producers in Postgres: the table `producers`."""

import uuid
from collections.abc import Collection, Sequence

from psycopg.rows import tuple_row

from chassis.postgres import Connection
from services.ingest.domain import REMEMBERED_MS, partition_of
from services.ingest.producers import ProducerKey, ProducerRow
from services.ingest.storage import copy_format, staging
from services.ingest.windows import Window

_COLUMNS = copy_format.PRODUCER_COLUMNS
#: So many are deleted in one statement.
_MOST_DROPPED = 20_000


async def load(connection: Connection, keys: Collection[ProducerKey]) -> dict[ProducerKey, Window]:
    """The window of each producer; an empty one for those that are new."""
    windows = {key: Window() for key in keys}
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(
            """
            SELECT uuid_send(p.project_id), uuid_send(p.producer), p.floor, array_send(p.ranges), p.used_ms
              FROM producers p
              JOIN unnest(%s::smallint[], %s::uuid[], %s::uuid[]) AS wanted (partition, project_id, producer)
             USING (partition, project_id, producer)
            """,
            (
                [partition_of(project_id) for project_id, _ in windows],
                [uuid.UUID(bytes=project_id) for project_id, _ in windows],
                [uuid.UUID(bytes=producer) for _, producer in windows],
            ),
        )
        async for project_id, producer, floor, ranges, used_ms in cursor:
            windows[project_id, producer] = Window(floor, copy_format.numbers_of(ranges), used_ms)
    return windows


async def store(connection: Connection, rows: Sequence[ProducerRow]) -> None:
    """Keeps what changed, in the transaction of the commit that counted it."""
    if not rows:
        return
    await connection.execute(staging.made("seen_producers", "producers", _COLUMNS))
    async with connection.cursor().copy(f"COPY seen_producers ({_COLUMNS}) FROM STDIN WITH (FORMAT binary)") as copy:
        for part in copy_format.producer_rows(rows):
            await copy.write(part)
    await connection.execute(
        f"""
        INSERT INTO producers ({_COLUMNS}) SELECT {_COLUMNS} FROM seen_producers
        ON CONFLICT (partition, project_id, producer) DO UPDATE
           SET floor = excluded.floor, ranges = excluded.ranges, used_ms = excluded.used_ms
        """  # noqa: S608 - a constant # nosec B608
    )


async def drop_old(connection: Connection, partitions: tuple[int, int], reached_ms: int) -> bool:
    """Deletes windows of these partitions, first and last, that were not used for long when what receivers took at
    `reached_ms` was folded; says whether there may be more."""
    cursor = await connection.execute(
        """
        DELETE FROM producers WHERE used_ms < %(before)s AND ctid = ANY (ARRAY(
            SELECT ctid FROM producers WHERE partition BETWEEN %(first)s AND %(last)s AND used_ms < %(before)s
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
