"""The aggregator's state in Postgres: leases, loading, and the one transaction that commits a checkpoint."""

import json
import uuid
from typing import Protocol

from psycopg.rows import DictRow

from chassis.postgres import Connection, Database
from services.ingest.aggregation import REWRITE_SECONDS, Checkpoint, Loaded, Missing, ProducerKey, ProducerRow
from services.ingest.domain import LabelPairs, MetricType, partition_of, partitions_of
from services.ingest.errors import LaneLostError
from services.ingest.series import Sealed, Series
from services.ingest.windows import Window

#: The role whose policies cross tenants.
_ROLE = "ingest_aggregator"

#: Windows are kept for so long after their last use.
_PRODUCER_KEPT_MS = 8 * 24 * 3600 * 1000
#: So many are deleted in one statement.
_MOST_DROPPED = 20_000

#: Rows fetched at once while a lane is loaded.
_ROWS_AT_ONCE = 2_000

_SERIES_COLUMNS = (
    "partition, series_id, tenant_id, project_id, definition_id, name, type, labels, bounds,"
    " value, count, buckets, timestamp_ms, created_ms, changed_ms, folded"
)


class Checkpoints(Protocol):
    """Where a lane's state is kept. Every method raises Unavailable where that is away."""

    async def acquire(self, lane: int, owner: str, lease_seconds: float) -> int | None:
        """The epoch under which `owner` has the lane from now on; None while somebody else has it."""
        ...

    async def renew(self, lane: int, epoch: int, lease_seconds: float) -> None:
        """Keeps the lane. Raises LaneLostError."""
        ...

    async def release(self, lane: int, epoch: int) -> None:
        """Gives the lane to whoever asks next."""
        ...

    async def load(self, lane: int, lanes: int, sink: str, stale_after_ms: int) -> Loaded:
        """The lane's position, its live series and the definitions that have ended.

        Live is also what stopped being so before that was delivered to the sink.
        """
        ...

    async def load_missing(self, missing: Missing) -> tuple[dict[ProducerKey, Window], list[Series]]:
        """The stored windows (new ones where there are none) and the stored series among those that are missing."""
        ...

    async def commit(
        self, lane: int, epoch: int, old_position: int, checkpoint: Checkpoint, delivered: dict[str, int]
    ) -> None:
        """Stores all of it or nothing. Raises LaneLostError where the lane is not this owner's, at this position."""
        ...

    async def drop_old_producers(self, lane: int, lanes: int, now_ms: int) -> None:
        """Deletes windows that were not used for eight days."""
        ...


class PostgresCheckpoints:
    """The schema `ingest`; see `migrations/`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def acquire(self, lane: int, owner: str, lease_seconds: float) -> int | None:
        async with self._database.transaction(role=_ROLE) as connection:
            await connection.execute("INSERT INTO lanes (lane) VALUES (%s) ON CONFLICT DO NOTHING", (lane,))
            cursor = await connection.execute(
                """
                UPDATE lanes
                   SET epoch = epoch + 1, owner = %(owner)s,
                       lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
                 WHERE lane = %(lane)s AND (lease_until < clock_timestamp() OR owner = %(owner)s)
                RETURNING epoch
                """,
                {"lane": lane, "owner": owner, "lease": lease_seconds},
            )
            row = await cursor.fetchone()
            return row["epoch"] if row else None

    async def renew(self, lane: int, epoch: int, lease_seconds: float) -> None:
        async with self._database.transaction(role=_ROLE) as connection:
            cursor = await connection.execute(
                """
                UPDATE lanes SET lease_until = clock_timestamp() + make_interval(secs => %s)
                 WHERE lane = %s AND epoch = %s
                """,
                (lease_seconds, lane, epoch),
            )
            if cursor.rowcount != 1:
                raise LaneLostError(f"lane {lane}, epoch {epoch}: somebody else has it")

    async def release(self, lane: int, epoch: int) -> None:
        async with self._database.transaction(role=_ROLE) as connection:
            await connection.execute(
                "UPDATE lanes SET lease_until = '-infinity' WHERE lane = %s AND epoch = %s", (lane, epoch)
            )

    async def load(self, lane: int, lanes: int, sink: str, stale_after_ms: int) -> Loaded:
        bounds = partitions_of(lane, lanes)
        async with self._database.transaction(role=_ROLE) as connection:
            await connection.execute("SET LOCAL statement_timeout = '120s'")
            cursor = await connection.execute(
                """
                SELECT position, commit_ms, coalesce(delivered_ms, 0) AS delivered_ms
                  FROM lanes LEFT JOIN sink_watermarks ON sink_watermarks.lane = lanes.lane AND sink = %s
                 WHERE lanes.lane = %s
                """,
                (sink, lane),
            )
            stored = await cursor.fetchone() or {"position": 0, "commit_ms": 0, "delivered_ms": 0}
            since_ms = min(stored["commit_ms"], stored["delivered_ms"]) - stale_after_ms - REWRITE_SECONDS * 1000
            cursor = await connection.execute(
                "SELECT definition_id, ended_ms FROM ended_definitions WHERE partition BETWEEN %s AND %s", bounds
            )
            ended = {row["definition_id"].bytes: row["ended_ms"] async for row in cursor}
            return Loaded(
                **stored,
                series=await self._load_live(connection, bounds, since_ms),
                live_since_ms=since_ms,
                ended=set(ended),
                ended_ms=max(ended.values(), default=0),
                unmarked=await self._load_unmarked(connection, bounds, since_ms, stored["delivered_ms"]),
            )

    async def _load_live(self, connection: Connection, bounds: tuple[int, int], since_ms: int) -> list[Series]:
        async with connection.cursor(name="live_series") as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            await cursor.execute(
                f"""
                SELECT {_SERIES_COLUMNS} FROM series
                 WHERE partition BETWEEN %s AND %s AND (changed_ms > %s OR folded)
                   AND NOT EXISTS (SELECT FROM ended_definitions ended
                                    WHERE ended.partition = series.partition
                                      AND ended.definition_id = series.definition_id)
                """,  # noqa: S608 - the columns are a constant
                (*bounds, since_ms),
            )
            return [_series(row) async for row in cursor]

    async def _load_unmarked(
        self, connection: Connection, bounds: tuple[int, int], since_ms: int, delivered_ms: int
    ) -> list[Series]:
        columns = ", ".join(f"series.{column.strip()}" for column in _SERIES_COLUMNS.split(","))
        cursor = await connection.execute(
            f"""
            SELECT {columns} FROM series JOIN ended_definitions USING (partition, definition_id)
             WHERE partition BETWEEN %s AND %s AND changed_ms > %s AND ended_ms > %s
            """,  # noqa: S608 - the columns are a constant
            (*bounds, since_ms, delivered_ms),
        )
        return [_series(row) async for row in cursor]

    async def load_missing(self, missing: Missing) -> tuple[dict[ProducerKey, Window], list[Series]]:
        windows = {key: Window() for key in missing.producers}
        series: list[Series] = []
        async with self._database.transaction(role=_ROLE) as connection:
            if missing.producers:
                await self._load_windows(connection, windows)
            if missing.series:
                cursor = await connection.execute(
                    f"""
                    SELECT {_SERIES_COLUMNS} FROM series
                      JOIN unnest(%s::smallint[], %s::bytea[]) AS wanted (in_partition, id)
                        ON partition = in_partition AND series_id = id
                    """,  # noqa: S608 - the columns are a constant
                    tuple(map(list, zip(*missing.series, strict=True))),
                )
                series = [_series(row) async for row in cursor]
        return windows, series

    async def _load_windows(self, connection: Connection, windows: dict[ProducerKey, Window]) -> None:
        keys = list(windows)
        cursor = await connection.execute(
            """
            SELECT p.project_id, p.producer, p.floor, p.ranges, p.used_ms FROM producers p
              JOIN unnest(%s::smallint[], %s::uuid[], %s::uuid[]) AS wanted (partition, project_id, producer)
             USING (partition, project_id, producer)
            """,
            (
                [partition_of(project_id) for project_id, _ in keys],
                [uuid.UUID(bytes=project_id) for project_id, _ in keys],
                [uuid.UUID(bytes=producer) for _, producer in keys],
            ),
        )
        async for row in cursor:
            key = (row["project_id"].bytes, row["producer"].bytes)
            windows[key] = Window(row["floor"], list(row["ranges"]), row["used_ms"])

    async def commit(
        self, lane: int, epoch: int, old_position: int, checkpoint: Checkpoint, delivered: dict[str, int]
    ) -> None:
        async with self._database.transaction(role=_ROLE) as connection:
            cursor = await connection.execute(
                """
                UPDATE lanes SET position = %(position)s, commit_ms = %(commit_ms)s
                 WHERE lane = %(lane)s AND epoch = %(epoch)s AND position = %(old)s AND commit_ms < %(commit_ms)s
                """,
                {
                    "lane": lane,
                    "epoch": epoch,
                    "old": old_position,
                    "position": checkpoint.position,
                    "commit_ms": checkpoint.commit_ms,
                },
            )
            if cursor.rowcount != 1:
                raise LaneLostError(f"lane {lane}, epoch {epoch}: no longer at position {old_position}")
            # What is committed leaves for the sinks and, later, the log: it must be on disk, however the server is set.
            await connection.execute("SET LOCAL synchronous_commit = on")
            await self._store_made(connection, checkpoint)
            await self._store_changed(connection, checkpoint)
            await self._store_producers(connection, checkpoint.producers)
            await self._store_ended(connection, checkpoint)
            await self._store_watermarks(connection, lane, delivered)

    async def _store_made(self, connection: Connection, checkpoint: Checkpoint) -> None:
        if not checkpoint.made:
            return
        await connection.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS made_series (LIKE ingest.series) ON COMMIT DELETE ROWS"
        )
        async with connection.cursor().copy(f"COPY made_series ({_SERIES_COLUMNS}) FROM STDIN") as copy:
            for sealed in checkpoint.made:
                await copy.write_row(_row(sealed, checkpoint.commit_ms))
        await connection.execute(
            f"INSERT INTO series ({_SERIES_COLUMNS}) SELECT {_SERIES_COLUMNS} FROM made_series"  # noqa: S608
        )

    async def _store_changed(self, connection: Connection, checkpoint: Checkpoint) -> None:
        if not checkpoint.changed:
            return
        await connection.execute(
            """
            CREATE TEMPORARY TABLE IF NOT EXISTS changed_series (
                partition smallint, series_id bytea, value double precision, count bigint, buckets bigint[],
                timestamp_ms bigint
            ) ON COMMIT DELETE ROWS
            """
        )
        async with connection.cursor().copy("COPY changed_series FROM STDIN WITH (FORMAT binary)") as copy:
            copy.set_types(["int2", "bytea", "float8", "int8", "int8[]", "int8"])
            for series, value, observations, buckets, timestamp_ms in checkpoint.changed:
                await copy.write_row((series.partition, series.id, value, observations, buckets, timestamp_ms))
        await connection.execute(
            """
            UPDATE series SET value = c.value, count = c.count, buckets = c.buckets, timestamp_ms = c.timestamp_ms,
                   changed_ms = %s
              FROM changed_series c WHERE series.partition = c.partition AND series.series_id = c.series_id
            """,
            (checkpoint.commit_ms,),
        )

    async def _store_producers(self, connection: Connection, rows: list[ProducerRow]) -> None:
        if not rows:
            return
        await connection.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS seen_producers (LIKE ingest.producers) ON COMMIT DELETE ROWS"
        )
        async with connection.cursor().copy("COPY seen_producers FROM STDIN WITH (FORMAT binary)") as copy:
            copy.set_types(["int2", "uuid", "uuid", "uuid", "int8", "int8[]", "int8"])
            for row in rows:
                project_id, producer = row.key
                await copy.write_row(
                    (
                        partition_of(project_id),
                        uuid.UUID(bytes=row.tenant_id),
                        uuid.UUID(bytes=project_id),
                        uuid.UUID(bytes=producer),
                        row.floor,
                        row.ranges,
                        row.used_ms,
                    )
                )
        await connection.execute(
            """
            INSERT INTO producers SELECT * FROM seen_producers
            ON CONFLICT (partition, project_id, producer) DO UPDATE
               SET floor = excluded.floor, ranges = excluded.ranges, used_ms = excluded.used_ms
            """
        )

    async def _store_ended(self, connection: Connection, checkpoint: Checkpoint) -> None:
        for tenant_id, project_id, definition_id in checkpoint.ended:
            await connection.execute(
                "INSERT INTO ended_definitions (partition, tenant_id, definition_id, ended_ms)"
                " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (
                    partition_of(project_id),
                    uuid.UUID(bytes=tenant_id),
                    uuid.UUID(bytes=definition_id),
                    checkpoint.commit_ms,
                ),
            )

    async def _store_watermarks(self, connection: Connection, lane: int, delivered: dict[str, int]) -> None:
        for sink, delivered_ms in delivered.items():
            await connection.execute(
                """
                INSERT INTO sink_watermarks (lane, sink, delivered_ms) VALUES (%s, %s, %s)
                ON CONFLICT (lane, sink) DO UPDATE SET delivered_ms = excluded.delivered_ms
                """,
                (lane, sink, delivered_ms),
            )

    async def drop_old_producers(self, lane: int, lanes: int, now_ms: int) -> None:
        dropped = _MOST_DROPPED
        while dropped == _MOST_DROPPED:
            dropped = await self._drop_old_producers(lane, lanes, now_ms)

    async def _drop_old_producers(self, lane: int, lanes: int, now_ms: int) -> int:
        async with self._database.transaction(role=_ROLE) as connection:
            cursor = await connection.execute(
                """
                DELETE FROM producers WHERE ctid = ANY (ARRAY(
                    SELECT ctid FROM producers WHERE partition BETWEEN %s AND %s AND used_ms < %s LIMIT %s))
                """,
                (*partitions_of(lane, lanes), now_ms - _PRODUCER_KEPT_MS, _MOST_DROPPED),
            )
            return cursor.rowcount


def _row(sealed: Sealed, commit_ms: int) -> tuple[object, ...]:
    series = sealed.series
    return (
        series.partition,
        series.id,
        uuid.UUID(bytes=series.tenant_id),
        uuid.UUID(bytes=series.project_id),
        uuid.UUID(bytes=series.definition_id),
        series.name,
        int(series.type),
        json.dumps(dict(zip(series.labels[::2], series.labels[1::2], strict=True)), ensure_ascii=False),
        list(series.bounds),
        sealed.value,
        sealed.observations,
        sealed.buckets,
        sealed.timestamp_ms,
        commit_ms,
        commit_ms,
        series.folded,
    )


def _series(row: DictRow) -> Series:
    labels: dict[str, str] = row["labels"]
    pairs: LabelPairs = tuple(text for name in sorted(labels) for text in (name, labels[name]))
    series = Series(
        id=bytes(row["series_id"]),
        tenant_id=row["tenant_id"].bytes,
        project_id=row["project_id"].bytes,
        definition_id=row["definition_id"].bytes,
        name=str(row["name"]),
        type=MetricType(row["type"]),
        labels=pairs,
        bounds=tuple(row["bounds"]),
    )
    for field in ("value", "count", "timestamp_ms", "created_ms", "changed_ms"):
        setattr(series, field, row[field])
    series.buckets = list(row["buckets"])
    series.stored = True
    return series
