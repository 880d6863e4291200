"""Levels of gauges and sketches of summaries in Postgres; part of what `checkpoints.py` commits and loads."""

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from psycopg.rows import tuple_row

from chassis.postgres import Connection
from services.ingest.columns import Ids
from services.ingest.gauge_levels import KEPT_MS
from services.ingest.recent import Recent, StoredLevels, StoredSketch
from services.ingest.series import Family
from services.ingest.storage import copy_format, staging
from services.ingest.summary_windows import MINUTE_MS, MINUTES

#: So many rows are deleted in one statement.
_MOST_DROPPED = 20_000
#: So many are fetched at once.
_ROWS_AT_ONCE = 5_000

_LEVEL_COLUMNS = "partition, series_id, uuid_send(tenant_id), uuid_send(reporter), timestamp_ms, as_of_ms, level"
_SKETCH_COLUMNS = "partition, series_id, uuid_send(tenant_id), minute, bins"


async def load(connection: Connection, partitions: tuple[int, int], now_ms: int) -> Recent:
    """What still counts at that time, of these partitions, the first and the last one."""
    return Recent(
        await _levels(connection, "partition BETWEEN %s AND %s AND as_of_ms > %s", (*partitions, now_ms - KEPT_MS)),
        await _sketches(
            connection, "partition BETWEEN %s AND %s AND minute > %s", (*partitions, _last_minute_gone(now_ms))
        ),
    )


async def load_series(connection: Connection, wanted: Sequence[tuple[int, bytes]]) -> Recent:
    """All that there is of some series, given by partitions and ids."""
    named = tuple(map(list, zip(*wanted, strict=True)))
    condition = "(partition, series_id) IN (SELECT * FROM unnest(%s::smallint[], %s::bytea[]))"
    return Recent(await _levels(connection, condition, named), await _sketches(connection, condition, named))


async def _levels(connection: Connection, condition: str, values: Sequence[object]) -> list[StoredLevels]:
    levels = []
    async with connection.cursor(name="stored_levels", binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(
            f"SELECT {_LEVEL_COLUMNS} FROM gauge_levels WHERE {condition}",  # noqa: S608 - constants # nosec B608
            values,
        )
        while rows := await cursor.fetchmany(_ROWS_AT_ONCE):
            levels.append(_in_columns(rows))
    return levels


async def _sketches(connection: Connection, condition: str, values: Sequence[object]) -> list[StoredSketch]:
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(
            f"SELECT {_SKETCH_COLUMNS} FROM summary_sketches WHERE {condition}",  # noqa: S608 - constants # nosec B608
            values,
        )
        return [StoredSketch(*row) async for row in cursor]


def _in_columns(rows: Sequence[tuple[Any, ...]]) -> StoredLevels:
    """Rows of `_LEVEL_COLUMNS`."""
    partition, series, tenants, reporters, timestamp_ms, as_of_ms, level = zip(*rows, strict=True)
    return StoredLevels(
        partition=np.array(partition, np.int16),
        series=Ids.of(b"".join(series)),
        tenants=np.frombuffer(b"".join(tenants), "V16"),
        reporters=Ids.of(b"".join(reporters)),
        timestamp_ms=np.array(timestamp_ms, np.int64),
        as_of_ms=np.array(as_of_ms, np.int64),
        level=np.array(level, np.float64),
    )


async def add(connection: Connection, recent: Recent) -> None:
    """Stores what a commit brings, over what was there of the same reporters and minutes."""
    for levels in recent.levels:
        await _add_levels(connection, levels)
    if recent.sketches:
        await _add_sketches(connection, recent.sketches)


async def _add_levels(connection: Connection, levels: StoredLevels) -> None:
    columns = copy_format.LEVEL_COLUMNS
    await connection.execute(staging.made("reported_levels", "gauge_levels", columns))
    async with connection.cursor().copy(f"COPY reported_levels ({columns}) FROM STDIN WITH (FORMAT binary)") as copy:
        await copy.write(copy_format.level_rows(levels))
    await connection.execute(
        f"""
        INSERT INTO gauge_levels ({columns}) SELECT {columns} FROM reported_levels
        ON CONFLICT (partition, series_id, reporter) DO UPDATE
           SET timestamp_ms = excluded.timestamp_ms, as_of_ms = excluded.as_of_ms, level = excluded.level
        """  # noqa: S608 - a constant # nosec B608
    )


async def _add_sketches(connection: Connection, sketches: Sequence[StoredSketch]) -> None:
    columns = "partition, series_id, tenant_id, minute, bins"
    await connection.execute(staging.made("observed_sketches", "summary_sketches", columns))
    copying = f"COPY observed_sketches ({columns}) FROM STDIN WITH (FORMAT binary)"
    async with connection.cursor().copy(copying) as copy:
        copy.set_types(["int2", "bytea", "uuid", "int8", "bytea"])
        for partition, series_id, tenant_id, minute, bins in sketches:
            await copy.write_row((partition, series_id, uuid.UUID(bytes=tenant_id), minute, bins))
    await connection.execute(
        f"""
        INSERT INTO summary_sketches ({columns}) SELECT {columns} FROM observed_sketches
        ON CONFLICT (partition, series_id, minute) DO UPDATE SET bins = excluded.bins
        """  # noqa: S608 - a constant # nosec B608
    )


async def add_objectives(connection: Connection, families: Sequence[Family]) -> None:
    """Stores the objectives of definitions whose stored series have none."""
    for family in families:
        await connection.execute(
            "UPDATE series SET objectives = %s WHERE partition = %s AND definition_id = %s",
            (list(family.objectives), family.partition, uuid.UUID(bytes=family.definition_id)),
        )


async def drop_old(connection: Connection, partitions: tuple[int, int], now_ms: int) -> bool:
    """Deletes some of what does not count any more; returns whether there may be more of it."""
    wanted = {"first": partitions[0], "last": partitions[1], "most": _MOST_DROPPED}
    # The age stands twice: it is looked at again where a commit has changed the row meanwhile.
    levels = await connection.execute(
        """
        DELETE FROM gauge_levels WHERE as_of_ms <= %(oldest)s AND ctid = ANY (ARRAY(
            SELECT ctid FROM gauge_levels WHERE partition BETWEEN %(first)s AND %(last)s AND as_of_ms <= %(oldest)s
             LIMIT %(most)s))
        """,
        {**wanted, "oldest": now_ms - 2 * KEPT_MS},
    )
    sketches = await connection.execute(
        """
        DELETE FROM summary_sketches WHERE minute <= %(oldest)s AND ctid = ANY (ARRAY(
            SELECT ctid FROM summary_sketches WHERE partition BETWEEN %(first)s AND %(last)s AND minute <= %(oldest)s
             LIMIT %(most)s))
        """,
        {**wanted, "oldest": _last_minute_gone(now_ms) - MINUTES},
    )
    return _MOST_DROPPED in (levels.rowcount, sketches.rowcount)


def _last_minute_gone(now_ms: int) -> int:
    return now_ms // MINUTE_MS - MINUTES
