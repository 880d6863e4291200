"""The aggregator's state in Postgres: loading it, and the one transaction that commits a checkpoint."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec
import numpy as np
from psycopg.errors import CheckViolation
from psycopg.rows import tuple_row

from chassis import failpoints
from chassis.errors import Unavailable
from chassis.postgres import Connection, Database
from services.ingest.columns import Ids, joined_rows
from services.ingest.domain import OTHER, GaugeMerge, MetricType, partitions_of
from services.ingest.errors import LaneLostError
from services.ingest.loading import Found, Loaded, Missing
from services.ingest.producers import ProducerKey
from services.ingest.recent import NOTHING_RECENT
from services.ingest.sealing import REWRITE_SECONDS, Checkpoint
from services.ingest.series import Family, SeriesTable, StoredSeries, encode_labels
from services.ingest.sources import SourceKey, Total
from services.ingest.storage import (
    copy_format,
    ended,
    full_projects,
    ledger,
    postgres_clock,
    producers,
    recent,
    sources,
    staging,
)
from services.ingest.storage.ended import EndedSeries
from services.ingest.storage.full_projects import FullProjects, ProjectLimits
from services.ingest.storage.leases import AGGREGATOR_ROLE, session_of
from services.ingest.windows import Window

#: Statements that look through all of a lane's rows may take so long, and so many lanes be loaded or cleared at a time.
_LOOKING_THROUGH_SECONDS = 120.0
_MOST_LOADING = 4
_MOST_CLEARING = 2

#: Rows fetched at once while a lane is loaded.
_ROWS_AT_ONCE = 5_000

_FAMILY_COLUMNS = (
    "uuid_send(definition_id), uuid_send(tenant_id), uuid_send(project_id), name, type, bounds, gauge_merge, objectives"
)
#: Labels as text: JSON costs less to read than what psycopg makes of it.
_STORED_COLUMNS = (
    "series_id, uuid_send(definition_id), labels::text, folded, value, count, buckets, timestamp_ms, created_ms,"
    " changed_ms"
)
_STORED = _STORED_COLUMNS.count(",") + 1
_labels_decoder = msgspec.json.Decoder(dict[str, str])


@dataclass(frozen=True, kw_only=True, slots=True)
class Owned:
    """A lane as its owner knows it."""

    lane: int
    epoch: int
    #: The log's sequence up to which everything is in the state.
    position: int
    lease_seconds: float
    #: Of which log the next position is; None where nothing was read yet.
    log_made_at: datetime | None = None


class Checkpoints(Protocol):
    """Where a lane's state is kept. Every method raises Unavailable where that is away."""

    async def now_ms(self) -> int:
        """The time by the clock that all owners share, Unix milliseconds."""
        ...

    async def load(
        self, lane: int, lanes: int, sinks: Sequence[str], stale_after_ms: int, *, longest_outage_ms: int
    ) -> Loaded:
        """The lane's position, its live series and the definitions that have ended.

        Live is also what stopped being so before that was delivered to each of the sinks. A sink that is new begins
        with the last commit, one that was not delivered for longer than the longest outage that long before it.
        """
        ...

    async def load_missing(self, missing: Missing) -> Found:
        """The stored windows (new ones where there are none), the stored series and the totals of sources among those
        that are missing."""
        ...

    async def commit(self, owned: Owned, checkpoint: Checkpoint, watermarks: Mapping[str, int]) -> None:
        """Stores all of it or nothing, and keeps the lane for another lease.

        `watermarks`: up to which commit each sink has been delivered; a sink that is not in it is forgotten. Raises
        LaneLostError where the lane is not this owner's, at this position.
        """
        ...

    async def drop_old(self, lane: int, lanes: int, now_ms: int, reached_ms: int) -> None:
        """Deletes lines of the ledger after three months, levels and sketches that do not count any more, and windows
        and totals of sources that were not used for eight days when what receivers took at `reached_ms` was folded:
        what the log still holds is judged by windows that are there."""
        ...

    async def note_full(self, lane: int, lanes: int, limits: ProjectLimits) -> FullProjects:
        """Counts what the lane's projects have, and tells everybody which of them may have no more."""
        ...

    async def series_of(
        self, lane: int, lanes: int, definition_ids: Collection[bytes], most: int
    ) -> Sequence[EndedSeries]:
        """The lane's series of these definitions, all of them where they are fewer than `most`."""
        ...

    async def prune(
        self, owned: Owned, lanes: int, series: Sequence[EndedSeries], forgotten: Collection[bytes]
    ) -> None:
        """Deletes series, and ended definitions that are not to be remembered, at once. Raises LaneLostError where the
        lane is not this owner's."""
        ...


class PostgresCheckpoints:
    """The schema `ingest`; see `migrations/`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: Each has its own: a lane that was taken over is not kept waiting by the clearing of others.
        self._loading = asyncio.Semaphore(_MOST_LOADING)
        self._clearing = asyncio.Semaphore(_MOST_CLEARING)

    @asynccontextmanager
    async def _looking_through(self, few_at_a_time: asyncio.Semaphore) -> AsyncIterator[Connection]:
        """A transaction whose statements read all of a lane; few at a time, so that commits find connections."""
        async with (
            few_at_a_time,
            self._database.transaction(_LOOKING_THROUGH_SECONDS, role=AGGREGATOR_ROLE) as connection,
        ):
            yield connection

    async def now_ms(self) -> int:
        return await postgres_clock.now_ms(self._database)

    async def load(
        self, lane: int, lanes: int, sinks: Sequence[str], stale_after_ms: int, *, longest_outage_ms: int
    ) -> Loaded:
        bounds = partitions_of(lane, lanes)
        async with self._looking_through(self._loading) as connection:
            cursor = await connection.execute(
                "SELECT position, commit_ms, log_made_at FROM lanes WHERE lane = %s", (lane,)
            )
            stored = await cursor.fetchone() or {"position": 0, "commit_ms": 0, "log_made_at": None}
            watermarks = await self._load_watermarks(connection, lane, dict.fromkeys(sinks, stored["commit_ms"]))
            oldest_ms = stored["commit_ms"] - longest_outage_ms
            watermarks = {sink: max(each_ms, oldest_ms) for sink, each_ms in watermarks.items()}
            delivered_ms = min(watermarks.values())
            since_ms = min(stored["commit_ms"], delivered_ms) - stale_after_ms - REWRITE_SECONDS * 1000
            ended_at_ms = await ended.load(connection, bounds)
            table, unmarked = SeriesTable(), []
            settled = [each for each, ended_ms in ended_at_ms.items() if ended_ms <= delivered_ms]
            async for series in self._stored_series(connection, bounds, since_ms, settled):
                has_ended = np.array([family.definition_id in ended_at_ms for family in series.families], np.bool_)
                table.restore(series.at(~has_ended))
                unmarked.append(table.restore(series.at(has_ended & (series.changed_ms > since_ms)), findable=False))
            return Loaded(
                **stored,
                watermarks=watermarks,
                table=table,
                live_since_ms=since_ms,
                ended=ended_at_ms,
                unmarked=joined_rows(unmarked),
                recent=await recent.load(connection, bounds, stored["commit_ms"]),
                full_of_series=(await full_projects.read(connection)).series,
            )

    async def _load_watermarks(self, connection: Connection, lane: int, new: dict[str, int]) -> dict[str, int]:
        """The sinks in `new` with what is stored of them, else with what is given there."""
        cursor = await connection.execute("SELECT sink, delivered_ms FROM sink_watermarks WHERE lane = %s", (lane,))
        stored = {row["sink"]: row["delivered_ms"] async for row in cursor}
        return {sink: stored.get(sink, begins_ms) for sink, begins_ms in new.items()}

    async def _stored_series(
        self, connection: Connection, bounds: tuple[int, int], since_ms: int, settled: Sequence[bytes]
    ) -> AsyncIterator[StoredSeries]:
        """Those that changed after `since_ms`, or have `__other__` everywhere; not those of `settled` definitions."""
        other = f"""folded AND NOT labels @? '$.* ? (@ != "{OTHER}")'"""
        condition = (
            f"partition BETWEEN %s AND %s AND (changed_ms > %s OR {other}) AND definition_id <> ALL (%s::uuid[])"
        )
        values = (*bounds, since_ms, [uuid.UUID(bytes=each) for each in settled])
        async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
            await cursor.execute(
                f"SELECT DISTINCT {_FAMILY_COLUMNS} FROM series WHERE {condition}",  # noqa: S608 - constants # nosec B608
                values,
            )
            families = {row[0]: _family(row) async for row in cursor}
        async with connection.cursor(name="stored_series", binary=True, row_factory=tuple_row) as cursor:
            await cursor.execute(
                f"SELECT {_STORED_COLUMNS} FROM series WHERE {condition}",  # noqa: S608 - constants # nosec B608
                values,
            )
            while rows := await cursor.fetchmany(_ROWS_AT_ONCE):
                yield _stored(rows, families)

    async def load_missing(self, missing: Missing) -> Found:
        windows: dict[ProducerKey, Window] = {}
        series: list[StoredSeries] = []
        totals: dict[SourceKey, list[Total]] = {}
        passing_values = NOTHING_RECENT
        async with self._database.transaction(role=AGGREGATOR_ROLE) as connection:
            if missing.producers:
                windows = await producers.load(connection, missing.producers)
            if missing.series:
                series = await self._load_series(connection, missing)
            if missing.sources:
                totals = await sources.load(connection, missing.sources)
            if passing := [series_key for each in series for series_key in each.passing]:
                passing_values = await recent.load_series(connection, passing)
        return Found(windows=windows, series=series, sources=totals, recent=passing_values)

    async def _load_series(self, connection: Connection, missing: Missing) -> list[StoredSeries]:
        async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
            await cursor.execute(
                f"""
                SELECT {_STORED_COLUMNS}, {_FAMILY_COLUMNS} FROM series
                  JOIN unnest(%s::smallint[], %s::bytea[]) AS wanted (in_partition, id)
                    ON partition = in_partition AND series_id = id
                """,  # noqa: S608 - the columns are constants # nosec B608
                tuple(map(list, zip(*missing.series, strict=True))),
            )
            rows = await cursor.fetchall()
        families = {row[_STORED]: _family(row[_STORED:]) for row in rows}
        return [_stored([row[:_STORED] for row in rows], families)] if rows else []

    async def commit(self, owned: Owned, checkpoint: Checkpoint, watermarks: Mapping[str, int]) -> None:
        async with self._database.transaction(role=AGGREGATOR_ROLE) as connection:
            await connection.execute(
                "SELECT set_config('application_name', %s, true)", (session_of(owned.lane, owned.epoch),)
            )
            cursor = await connection.execute(
                """
                UPDATE lanes SET position = %(position)s, commit_ms = %(commit_ms)s,
                       log_made_at = coalesce(%(log_made_at)s, log_made_at)
                 WHERE lane = %(lane)s AND epoch = %(epoch)s AND position = %(old)s AND commit_ms < %(commit_ms)s
                """,
                {
                    "lane": owned.lane,
                    "epoch": owned.epoch,
                    "old": owned.position,
                    "position": checkpoint.position,
                    "commit_ms": checkpoint.commit_ms,
                    "log_made_at": owned.log_made_at,
                },
            )
            if cursor.rowcount != 1:
                raise LaneLostError(f"lane {owned.lane}, epoch {owned.epoch}: no longer at position {owned.position}")
            # What is committed leaves for the sinks and, later, the log: it must be on disk, however the server is set.
            await connection.execute("SET LOCAL synchronous_commit = on")
            await self._store_made(connection, checkpoint)
            await self._store_changed(connection, checkpoint)
            await producers.store(connection, checkpoint.producers)
            await sources.store(connection, checkpoint.sources)
            await recent.add(connection, checkpoint.recent)
            await recent.add_objectives(connection, checkpoint.adopted)
            await ended.store(connection, checkpoint.ended, checkpoint.commit_ms)
            await self._store_watermarks(connection, owned.lane, watermarks)
            await ledger.add(connection, checkpoint.ledger)
            await connection.execute(
                "UPDATE lanes SET lease_until = clock_timestamp() + make_interval(secs => %s) WHERE lane = %s",
                (owned.lease_seconds, owned.lane),
            )
            if failpoints.ARMED:
                await failpoints.reached("in-commit")

    async def _store_made(self, connection: Connection, checkpoint: Checkpoint) -> None:
        if not checkpoint.made:
            return
        columns = copy_format.MADE_COLUMNS
        await connection.execute(staging.made("made_series", "series", columns))
        async with connection.cursor().copy(f"COPY made_series ({columns}) FROM STDIN WITH (FORMAT binary)") as copy:
            for part in copy_format.made_rows(checkpoint.made, checkpoint.commit_ms):
                await copy.write(part)
        await connection.execute(
            f"INSERT INTO series ({columns}) SELECT {columns} FROM made_series"  # noqa: S608 - a constant # nosec B608
        )

    async def _store_changed(self, connection: Connection, checkpoint: Checkpoint) -> None:
        if not checkpoint.changed:
            return
        await connection.execute(
            """
            CREATE TEMPORARY TABLE IF NOT EXISTS changed_series (
                partition smallint, series_id bytea, value double precision, timestamp_ms bigint, count bigint,
                buckets bigint[]
            ) ON COMMIT DELETE ROWS
            """
        )
        copying = f"COPY changed_series ({copy_format.CHANGED_COLUMNS}) FROM STDIN WITH (FORMAT binary)"
        async with connection.cursor().copy(copying) as copy:
            for part in copy_format.changed_rows(checkpoint.changed):
                await copy.write(part)
        await connection.execute(
            """
            UPDATE series SET value = c.value, count = c.count, buckets = c.buckets, timestamp_ms = c.timestamp_ms,
                   changed_ms = %s
              FROM changed_series c WHERE series.partition = c.partition AND series.series_id = c.series_id
            """,
            (checkpoint.commit_ms,),
        )

    async def _store_watermarks(self, connection: Connection, lane: int, watermarks: Mapping[str, int]) -> None:
        await connection.execute(
            """
            WITH retired AS (DELETE FROM sink_watermarks WHERE lane = %(lane)s AND sink <> ALL (%(sinks)s))
            INSERT INTO sink_watermarks (lane, sink, delivered_ms)
            SELECT %(lane)s, * FROM unnest(%(sinks)s::text[], %(delivered)s::bigint[])
            ON CONFLICT (lane, sink) DO UPDATE SET delivered_ms = excluded.delivered_ms
            """,
            {"lane": lane, "sinks": list(watermarks), "delivered": list(watermarks.values())},
        )

    async def drop_old(self, lane: int, lanes: int, now_ms: int, reached_ms: int) -> None:
        partitions = partitions_of(lane, lanes)
        async with self._database.transaction(role=AGGREGATOR_ROLE) as connection:
            await ledger.drop_old(connection, partitions, now_ms)
        await self._drop_all(recent.drop_old, partitions, now_ms)
        await self._drop_all(producers.drop_old, partitions, reached_ms)
        await self._drop_all(sources.drop_old, partitions, reached_ms)

    async def note_full(self, lane: int, lanes: int, limits: ProjectLimits) -> FullProjects:
        try:
            async with self._looking_through(self._clearing) as connection:
                await full_projects.note(connection, partitions_of(lane, lanes), limits)
                return await full_projects.read(connection)
        except CheckViolation as error:
            raise Unavailable("The database's schema is older than these limits; migrate it.") from error

    async def series_of(
        self, lane: int, lanes: int, definition_ids: Collection[bytes], most: int
    ) -> Sequence[EndedSeries]:
        async with self._looking_through(self._clearing) as connection:
            return await ended.some_series(connection, partitions_of(lane, lanes), definition_ids, most)

    async def prune(
        self, owned: Owned, lanes: int, series: Sequence[EndedSeries], forgotten: Collection[bytes]
    ) -> None:
        async with self._database.transaction(role=AGGREGATOR_ROLE) as connection:
            # Until it is done nobody else can own the lane, and nothing can be committed.
            cursor = await connection.execute(
                "SELECT FROM lanes WHERE lane = %s AND epoch = %s FOR UPDATE", (owned.lane, owned.epoch)
            )
            if cursor.rowcount != 1:
                raise LaneLostError(f"lane {owned.lane}, epoch {owned.epoch}: somebody else has it")
            await ended.delete_series(connection, series)
            await ended.forget(connection, partitions_of(owned.lane, lanes), forgotten)

    async def _drop_all(
        self,
        drop_some: Callable[[Connection, tuple[int, int], int], Awaitable[bool]],
        partitions: tuple[int, int],
        at_ms: int,
    ) -> None:
        """In transactions of their own, so that none of them takes long."""
        more = True
        while more:
            async with self._looking_through(self._clearing) as connection:
                more = await drop_some(connection, partitions, at_ms)


def _family(row: tuple[Any, ...]) -> Family:
    """A row of `_FAMILY_COLUMNS`."""
    definition_id, tenant_id, project_id, name, kind, bounds, merge, objectives = row
    return Family(
        tenant_id=tenant_id,
        project_id=project_id,
        definition_id=definition_id,
        name=name,
        type=MetricType(kind),
        bounds=tuple(bounds),
        merge=GaugeMerge(merge),
        objectives=tuple(objectives),
    )


def _stored(rows: Sequence[tuple[Any, ...]], families: Mapping[bytes, Family]) -> StoredSeries:
    """Rows of `_STORED_COLUMNS`."""
    ids, definitions, labels, folded, value, count, buckets, timestamp_ms, created_ms, changed_ms = zip(
        *rows, strict=True
    )
    own = [families[definition_id] for definition_id in definitions]
    return StoredSeries(
        ids=Ids.of(b"".join(ids)),
        families=own,
        labels=[_labels(each) for each in labels],
        folded=np.array(folded, np.bool_),
        value=np.array(value, np.float64),
        counts=[
            np.array([number, *in_buckets], np.int64) if family.type > MetricType.GAUGE else None
            for family, number, in_buckets in zip(own, count, buckets, strict=True)
        ],
        timestamp_ms=np.array(timestamp_ms, np.int64),
        created_ms=np.array(created_ms, np.int64),
        changed_ms=np.array(changed_ms, np.int64),
    )


def _labels(as_json: str) -> bytes:
    labels = _labels_decoder.decode(as_json)
    return encode_labels(tuple(text for pair in sorted(labels.items()) for text in pair))
