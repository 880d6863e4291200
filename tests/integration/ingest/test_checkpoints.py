"""The state in Postgres: what is committed is loaded as it was, fast, and a commit costs what changed."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import numpy as np
import pytest

from chassis import postgres
from chassis.errors import Unavailable
from chassis.postgres import Connection
from services.ingest import recent
from services.ingest.aggregation import LaneState
from services.ingest.domain import OTHER, GaugeMerge, MetricType
from services.ingest.errors import LaneLostError
from services.ingest.fetches import Fetch
from services.ingest.label_sets import Budgets
from services.ingest.loading import NOTHING_FOUND, Missing
from services.ingest.records import Record
from services.ingest.sealing import Checkpoint
from services.ingest.series import SeriesTable
from services.ingest.storage import full_projects
from services.ingest.storage import recent as recent_storage
from services.ingest.storage.checkpoints import Owned, PostgresCheckpoints
from services.ingest.storage.full_projects import ProjectLimits
from services.ingest.storage.leases import Leases
from services.ingest.windows import MOST_GAPS
from tests.stepping import at_once
from tests.suite_database import Database
from tests.unit.ingest.ingestion import (
    DAY_MS,
    NOW_MS,
    PROJECT,
    Told,
    definition,
    delta,
    delta_of,
    ended,
    label,
    record,
    totals,
)
from tests.waiting import eventually

COUNTER = definition("orders_total", labels={"plan": label(max_distinct=2)})
GAUGE = definition("depth", MetricType.GAUGE)
HISTOGRAM = definition("load_seconds", MetricType.HISTOGRAM, bounds=(0.005, 1.0, 1e300))
NATIVE = definition("wait_seconds", MetricType.NATIVE_HISTOGRAM)
SUMMARY = definition("size_bytes", MetricType.SUMMARY, objectives=(0.5, 0.99))
SESSIONS = definition("sessions", MetricType.GAUGE, gauge_merge=GaugeMerge.SUM)
SINK = "remote_write"


class StoredLane:
    """Lane 0 of one in a real database. `restart` drops what is in memory."""

    def __init__(self, database: postgres.Database, checkpoints: PostgresCheckpoints, epoch: int) -> None:
        self.database = database
        self.checkpoints = checkpoints
        self.leases = Leases(database)
        self.epoch = epoch
        self.now_ms = NOW_MS
        self.state: LaneState
        self.table: SeriesTable
        self._position = 0

    async def restart(self) -> None:
        loaded = await self.checkpoints.load(0, 1, [SINK], DAY_MS, longest_outage_ms=7 * DAY_MS)
        self.table, self._position = loaded.table, loaded.position
        budgets = Budgets(per_project=10**9, per_metric=10**9, per_tenant=10**9, per_lane=10**9)
        self.state = LaneState(loaded, budgets, stale_after_ms=DAY_MS, interval_ms=1000)

    async def fold(self, *records: Record) -> None:
        fetch = Fetch(records, self.state.position + len(records))
        missing = self.state.missing(fetch)
        self.state.fold(fetch, await self.checkpoints.load_missing(missing) if missing else NOTHING_FOUND)

    async def commit(self) -> Checkpoint:
        self.now_ms += 1000
        checkpoint = at_once(self.state.sealing(self.now_ms))
        delivered = {SINK: checkpoint.commit_ms}
        await self.checkpoints.commit(self.owned(self._position), checkpoint, delivered)
        self._position = checkpoint.position
        return checkpoint

    def owned(self, position: int, lease_seconds: float = 60.0) -> Owned:
        return Owned(lane=0, epoch=self.epoch, position=position, lease_seconds=lease_seconds)

    def contents(self) -> set[tuple[object, ...]]:
        """All that a table has of each series."""
        table = self.table
        rows = np.flatnonzero(table.present[: table.size])
        families = [table.families[number] for number in table.family[rows].tolist()]
        return {
            (
                identity,
                family.tenant_id,
                family.project_id,
                family.name,
                family.type,
                family.bounds,
                family.merge,
                family.objectives,
                table.label_pairs(row),
                bool(table.folded[row]),
                float(table.value[row]),
                None if (counts := table.counts.get(row)) is None else tuple(counts.tolist()),
                int(table.timestamp_ms[row]),
                int(table.created_ms[row]),
                int(table.changed_ms[row]),
                None if (quantiles := table.quantiles.get(row)) is None else tuple(quantiles.tolist()),
                tuple(sorted(table.levels.of(np.array([row]))[0].tolist())),
            )
            for identity, family, row in zip(table.ids(rows).each(), families, rows.tolist(), strict=True)
        }


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[StoredLane]:
    async with postgres.connected(database.dsn("ingest"), most_connections=1) as connected:
        checkpoints = PostgresCheckpoints(connected)
        epoch = await Leases(connected).acquire(0, 1, "test", 300.0)
        assert epoch is not None
        lane = StoredLane(connected, checkpoints, epoch)
        await lane.restart()
        yield lane


def many(first: int, count: int) -> list[Record]:
    """New counter series with three labels, a hundred to a batch."""
    free = definition("visits_total")
    return [
        record(
            *(
                delta(free, 1.0, region=f"eu-{n % 13}", user=f"user-{n:08d}", zone=str(n % 7))
                for n in range(at, at + 100)
            )
        )
        for at in range(first, first + count, 100)
    ]


async def test_what_is_committed_is_loaded_as_it_was(database: Database) -> None:
    notes = ['"quoted"', "back\\slash", "new\nline", "\U0001f600 é", "{}", "'; DROP TABLE series; --", "\\N"]
    async with opened(database) as lane:
        await lane.fold(
            record(
                *(delta_of(COUNTER, {"plan": note, "zone": ""}, 1.5) for note in notes),
                delta(GAUGE, -1e-300, NOW_MS - 5),
                delta(HISTOGRAM, 0.001, b="2", a="1"),
                delta(SUMMARY, 2.0),
                *(delta(NATIVE, value, zone=str(value)) for value in (-2.0, 0.0, 5.0)),
                delta(SESSIONS, 0.5, NOW_MS),
                producer=b"A" * 16,
                sequence=7,
                floor=3,
            )
        )
        await lane.commit()
        first = lane.contents()
        await lane.restart()
        at_once(recent.settle(lane.table, lane.now_ms))
        assert lane.contents() == first
        assert any(OTHER in str(each) for each in first)
        await lane.fold(
            record(
                delta(GAUGE, 9.0, NOW_MS),
                delta(HISTOGRAM, 0.002, b="2", a="1"),
                delta(SUMMARY, -3.0),
                delta(NATIVE, 1e9, zone="5.0"),
            ),
            record(delta(SESSIONS, 4.0, NOW_MS)),
            record(delta(COUNTER, 1.0), producer=b"A" * 16, sequence=7),
        )
        await lane.commit()
        second = lane.contents()
        assert len(second) == len(first)
        assert second != first
        await lane.restart()
        at_once(recent.settle(lane.table, lane.now_ms))
        assert lane.contents() == second
        assert sorted(lane.table.levels.of(lane.table.of_family(SESSIONS.id))[0].tolist()) == [0.5, 4.0]


async def test_what_passes_with_time_leaves_the_database_when_it_does_not_count_any_more(database: Database) -> None:
    async with opened(database) as lane:
        await lane.fold(record(delta(SUMMARY, 2.0), delta(SESSIONS, 4.0, NOW_MS)))
        await lane.commit()
        for minutes, left in ((9, True), (30, False)):
            await lane.checkpoints.drop_old(0, 1, NOW_MS + minutes * 60_000, NOW_MS)
            async with lane.database.transaction(role="ingest_aggregator") as connection:
                stored = await recent_storage.load(connection, (0, 255), NOW_MS)
            assert (bool(stored.levels), bool(stored.sketches)) == (left, left)


async def test_objectives_reach_series_that_were_stored_without(database: Database) -> None:
    async with opened(database) as lane:
        await lane.fold(record(delta(dataclasses.replace(SUMMARY, objectives=()), 2.0)))
        await lane.commit()
        await lane.fold(record(delta(SUMMARY, 2.0)))
        await lane.commit()
        await lane.restart()
        assert [family.objectives for family in lane.table.families] == [SUMMARY.objectives]


async def test_a_quiet_series_and_a_window_come_back_when_they_are_named(database: Database) -> None:
    batch = record(delta(COUNTER, 5.0), delta(HISTOGRAM, 0.5), producer=b"A" * 16, sequence=1)
    async with opened(database) as lane:
        await lane.fold(batch)
        await lane.commit()
        lane.now_ms += DAY_MS + 60_000
        await lane.commit()
        assert len(lane.state) == 0
        await lane.commit()
        await lane.fold(batch)
        assert len(lane.state) == 0, "the window knew the batch"
        await lane.fold(record(delta(COUNTER, 2.0), delta(HISTOGRAM, 0.5), producer=b"A" * 16, sequence=2))
        checkpoint = await lane.commit()
        assert checkpoint.changed.value.tolist() == [7.0, 1.0]
        assert [counts.tolist() for counts in checkpoint.changed.counts if counts is not None] == [[2, 2, 0, 0, 0]]


async def test_windows_come_back_with_all_their_gaps(database: Database) -> None:
    sequences = {b"A" * 16: [1], b"B" * 16: [2, 4, 5, 2**62], b"C" * 16: list(range(2, 2 + 2 * MOST_GAPS, 2))}
    async with opened(database) as lane:
        await lane.fold(
            *(
                record(producer=producer, sequence=sequence)
                for producer, in_order in sequences.items()
                for sequence in in_order
            )
        )
        stored = {row.key: (row.floor, list(row.ranges), row.used_ms) for row in (await lane.commit()).producers}
        await lane.restart()
        found = await lane.checkpoints.load_missing(Missing(set(stored) | {(PROJECT, b"D" * 16)}, set(), set()))
        loaded = {key: (each.floor, list(each.ranges), each.used_ms) for key, each in found.windows.items()}
        assert loaded == {**stored, (PROJECT, b"D" * 16): (1, [], 0)}


async def test_of_quiet_series_those_are_loaded_that_have_other_everywhere(database: Database) -> None:
    limited = definition("visits_total", labels={"page": label(max_distinct=1), "user": label(max_distinct=1)})
    label_sets = [("/", "ann"), ("/", "bob"), ("/cart", "bob"), ("/cart", "cy")]
    async with opened(database) as lane:
        await lane.fold(record(*(delta(limited, page=page, user=user) for page, user in label_sets)))
        await lane.commit()
        lane.now_ms += DAY_MS + 60_000
        await lane.commit()
        other, part = ("page", OTHER, "user", OTHER), ("page", "/", "user", OTHER)
        for restarts in (False, True):
            if restarts:
                await lane.restart()
            rows = np.flatnonzero(lane.table.present[: lane.table.size]).tolist()
            assert [(lane.table.label_pairs(row), lane.table.value[row]) for row in rows] == [(other, 2.0)]
        await lane.fold(record(delta(limited, page="/", user="ann"), delta(limited, page="/", user="bob")))
        checkpoint = await lane.commit()
        assert (len(checkpoint.made), checkpoint.changed.value.tolist()) == (0, [2.0, 2.0])
        rows = np.flatnonzero(lane.table.present[: lane.table.size]).tolist()
        assert part in {lane.table.label_pairs(row) for row in rows}


async def test_totals_of_sources_come_back_when_they_are_named_and_are_kept_for_eight_days(database: Database) -> None:
    tell = Told(HISTOGRAM, "h", 1, 1.5, [1, 0, 0, 2])
    told = totals(Told(COUNTER, "a", 1, 5.0), Told(COUNTER, "b", 1, 7.0), tell)
    async with opened(database) as lane:
        await lane.fold(told)
        await lane.commit()
        await lane.restart()
        await lane.fold(told, totals(Told(COUNTER, "a", 2, 6.0), tell._replace(at=2, value=2.0, buckets=[2, 0, 0, 2])))
        checkpoint = await lane.commit()
        assert sorted(checkpoint.changed.value.tolist()) == [2.0, 13.0]
        assert {(row.source[:1], row.value, *row.counts) for row in checkpoint.sources} == {
            (b"a", 6.0),
            (b"h", 2.0, 4, 2, 0, 0, 2),
        }
        for days, left in [(8, 3), (9, 0)]:
            await lane.restart()
            await lane.checkpoints.drop_old(0, 1, NOW_MS + days * DAY_MS, NOW_MS + days * DAY_MS)
            missing = lane.state.missing(Fetch([told], lane.state.position))
            found = await lane.checkpoints.load_missing(missing)
            assert sum(map(len, found.sources.values())) == left
            assert len(found.sources) == 3


async def test_series_of_deleted_definitions_are_loaded_only_while_their_end_is_not_delivered(
    database: Database,
) -> None:
    async with opened(database) as lane:
        await lane.fold(record(delta(COUNTER), delta(GAUGE, 1.0, NOW_MS)))
        await lane.commit()
        await lane.fold(ended(COUNTER))
        sealed = at_once(lane.state.sealing(lane.now_ms + 1000))
        await lane.checkpoints.commit(lane.owned(1), sealed, {SINK: lane.now_ms})
        loaded = await lane.checkpoints.load(0, 1, [SINK], DAY_MS, longest_outage_ms=7 * DAY_MS)
        assert (len(loaded.table), loaded.unmarked.size) == (1, 1)
        assert loaded.table.families[loaded.table.family[loaded.unmarked[0]]].name == "orders_total"
        await lane.restart()
        await lane.commit()
        loaded = await lane.checkpoints.load(0, 1, [SINK], DAY_MS, longest_outage_ms=7 * DAY_MS)
        assert (len(loaded.table), loaded.unmarked.size) == (1, 0)


async def test_definitions_that_one_record_has_ended_are_stored_together_each_with_its_latest_end(
    database: Database,
) -> None:
    async with opened(database) as lane:
        await lane.fold(record(delta(COUNTER)), ended(COUNTER, GAUGE))
        first_ms = (await lane.commit()).commit_ms
        await lane.fold(record(delta(COUNTER)), ended(COUNTER, HISTOGRAM))  # COUNTER's are late: they end once more
        again_ms = (await lane.commit()).commit_ms
        loaded = await lane.checkpoints.load(0, 1, [SINK], DAY_MS, longest_outage_ms=7 * DAY_MS)
        assert loaded.ended == {COUNTER.id: again_ms, GAUGE.id: first_ms, HISTOGRAM.id: again_ms}


async def test_a_sink_that_is_away_for_too_long_holds_no_series_of_that_time_back(database: Database) -> None:
    async with opened(database) as lane:
        await lane.fold(record(delta(COUNTER)))
        last_delivered = {SINK: (await lane.commit()).commit_ms, "gone": lane.now_ms}
        for day in range(1, 12):
            lane.now_ms += DAY_MS
            await lane.fold(record(delta(GAUGE, 1.0, lane.now_ms, day=str(day))))
            sealed = at_once(lane.state.sealing(lane.now_ms))
            await lane.checkpoints.commit(lane.owned(day), sealed, last_delivered)
        loaded = await lane.checkpoints.load(0, 1, [SINK, "gone"], DAY_MS, longest_outage_ms=7 * DAY_MS)
        assert loaded.delivered_ms == loaded.commit_ms - 7 * DAY_MS
        assert len(loaded.table) == 9, "those of the last seven days, and what was live then"


async def test_only_the_owner_at_the_position_it_knows_can_commit(database: Database) -> None:
    async with opened(database) as lane, opened(database) as later:
        await lane.fold(record(delta(COUNTER)))
        with pytest.raises(LaneLostError):
            await lane.commit()
        await later.fold(record(delta(COUNTER)))
        sealed = at_once(later.state.sealing(NOW_MS + 1000))
        with pytest.raises(LaneLostError):
            await later.checkpoints.commit(later.owned(5), sealed, {})
        await later.checkpoints.commit(later.owned(0), sealed, {})


async def test_a_commit_cannot_go_back_in_time(database: Database) -> None:
    async with opened(database) as lane:
        sealed = [at_once(lane.state.sealing(NOW_MS)), at_once(lane.state.sealing(NOW_MS + 1000))]
        await lane.checkpoints.commit(lane.owned(0), sealed[1], {})
        with pytest.raises(LaneLostError):
            await lane.checkpoints.commit(lane.owned(0), sealed[0], {})


class LookedAtCheckpoints(PostgresCheckpoints):
    """Runs something in the middle of each commit, on its connection."""

    def __init__(self, database: postgres.Database, look: Callable[[Connection], Awaitable[None]]) -> None:
        super().__init__(database)
        self._look = look

    async def _store_watermarks(self, connection: Connection, lane: int, watermarks: Mapping[str, int]) -> None:
        await super()._store_watermarks(connection, lane, watermarks)
        await self._look(connection)


async def test_a_commit_is_on_disk_however_the_server_is_set(database: Database) -> None:
    seen: list[str] = []

    async def look(connection: Connection) -> None:
        cursor = await connection.execute("SHOW synchronous_commit")
        seen.extend([row["synchronous_commit"] async for row in cursor])

    async with opened(database) as lane:
        async with lane.database.transaction() as connection:
            await connection.execute("SET SESSION synchronous_commit = off")
        lane.checkpoints = LookedAtCheckpoints(lane.database, look)
        await lane.commit()
    assert seen == ["on"]


async def test_a_commit_that_takes_longer_than_the_lease_keeps_the_lane(database: Database) -> None:
    async with opened(database) as other, opened(database) as lane:

        async def let_the_lease_run_out(connection: Connection) -> None:
            await connection.execute("UPDATE lanes SET lease_until = '-infinity' WHERE lane = 0")
            await other.leases.renew(0, lane.epoch, 60.0)  # does not wait for the commit

        lane.checkpoints = LookedAtCheckpoints(lane.database, let_the_lease_run_out)
        await lane.commit()
        assert await other.leases.acquire(0, 1, "another", 60.0) is None
        with pytest.raises(LaneLostError):
            await other.leases.renew(0, other.epoch, 60.0)


async def test_a_hundred_thousand_series_are_loaded_quickly_and_a_commit_reads_only_what_changed(
    database: Database,
) -> None:
    count = 100_000
    async with opened(database) as lane:
        for first in range(0, count, 20_000):
            await lane.fold(*many(first, 20_000))
            await lane.commit()
        began = time.monotonic()
        await lane.restart()
        assert len(lane.state) == count
        assert time.monotonic() - began < 15.0, "a million take ten times as long"
        before = await reads_of_series(lane)
        assert before >= count, "loading looks through all"
        for _ in range(3):
            await lane.fold(*many(0, 500))
            assert len((await lane.commit()).changed) == 500
        assert await reads_of_series(lane) == before, "no commit has looked through all series"


async def test_a_lane_is_loaded_while_others_are_cleared(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = asyncio.Event()

    async def note(_connection: Connection, _partitions: tuple[int, int], _limits: ProjectLimits) -> None:
        await let_go.wait()

    monkeypatch.setattr(full_projects, "note", note)
    limits = ProjectLimits(producers=1, sources=1, series=1)
    async with postgres.connected(database.dsn("ingest")) as connected, asyncio.TaskGroup() as clearing:
        checkpoints = PostgresCheckpoints(connected)
        for lane in range(8):
            clearing.create_task(checkpoints.note_full(lane, 8, limits))
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(2.0):
                await checkpoints.load(0, 8, [SINK], DAY_MS, longest_outage_ms=7 * DAY_MS)
        finally:
            let_go.set()


async def reads_of_series(lane: StoredLane) -> int:
    """How many rows the sequential scans of `series` have read so far, over the only connection."""
    async with lane.database.transaction(role="ingest_aggregator") as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
    async with lane.database.transaction(role="ingest_aggregator") as connection:
        cursor = await connection.execute("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'series'")
        row = await cursor.fetchone()
        assert row is not None
        return int(row["seq_tup_read"])


async def test_an_owner_that_freezes_in_the_middle_of_a_commit_lets_the_lane_go(database: Database) -> None:
    frozen, thaw = asyncio.Event(), asyncio.Event()

    async def freeze(_connection: Connection) -> None:
        frozen.set()
        await thaw.wait()

    async with opened(database) as other, opened(database) as lane:
        await lane.leases.renew(0, lane.epoch, 0.0)
        lane.checkpoints = LookedAtCheckpoints(lane.database, freeze)
        committing = asyncio.create_task(lane.commit())
        await frozen.wait()
        began = time.monotonic()

        async def taken() -> bool:
            try:
                return await other.leases.acquire(0, 1, "another", 60.0) is not None
            except Unavailable:
                return False

        await eventually(taken, within_seconds=10.0, what="another owner has the lane")
        assert time.monotonic() - began < 10.0
        thaw.set()
        with pytest.raises((LaneLostError, Unavailable)):
            await committing


@pytest.mark.parametrize(
    ("taker", "lease_seconds"), [("another", 0.0), ("test", 60.0)], ids=["lease is over", "lost its connection"]
)
async def test_an_owner_that_freezes_while_the_server_waits_for_its_rows_is_ended(
    database: Database, taker: str, lease_seconds: float
) -> None:
    frozen, thaw = asyncio.Event(), asyncio.Event()

    async def freeze(connection: Connection) -> None:
        await connection.execute("CREATE TEMPORARY TABLE half_sent (number int)")
        async with connection.cursor().copy("COPY half_sent FROM STDIN"):
            frozen.set()
            await thaw.wait()

    async with opened(database) as other, opened(database) as lane:
        await lane.leases.renew(0, lane.epoch, lease_seconds)
        lane.checkpoints = LookedAtCheckpoints(lane.database, freeze)
        committing = asyncio.create_task(lane.commit())
        await frozen.wait()
        began = time.monotonic()
        assert await other.leases.acquire(0, 1, taker, 60.0) is not None
        assert time.monotonic() - began < 3.0
        thaw.set()
        with pytest.raises(Unavailable):
            await committing


@pytest.mark.parametrize("late", [False, True])
async def test_an_owner_that_lives_is_not_ended_in_a_commit_that_takes_longer_than_its_lease(
    database: Database, late: bool
) -> None:
    begun = asyncio.Event()

    async def until_another_waits(connection: Connection) -> None:
        async def waits() -> bool:
            cursor = await connection.execute(
                "SELECT FROM pg_locks WHERE NOT granted AND transactionid = pg_current_xact_id()::xid"
            )
            return cursor.rowcount > 0

        begun.set()
        await eventually(waits, what="another waits for the commit")

    async with opened(database) as other, opened(database) as lane:
        await lane.leases.attend("test", 1, 60.0, late=late)
        await lane.leases.renew(0, lane.epoch, 0.0)
        lane.checkpoints = LookedAtCheckpoints(lane.database, until_another_waits)
        committing = asyncio.create_task(lane.commit())
        await begun.wait()
        assert await other.leases.acquire(0, 1, "another", 60.0) is None
        await committing
