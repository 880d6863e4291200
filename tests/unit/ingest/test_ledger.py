"""The delivery ledger: what is committed, what is a duplicate, what was folded and what was rejected."""

import asyncio
import json

import msgspec

from services.ingest.domain import MOST_NAME_LENGTH, MetricType
from services.ingest.errors import LogUnavailable
from services.ingest.ledger import HOUR_MS, Counts, LedgerKey, LedgerLines
from services.ingest.operations.batches import Taken
from services.ingest.records import Kind, Record, Tally, encode
from services.ingest.tallies import Tallies
from tests.moved_clock import MovedClock
from tests.unit.ingest.ingestion import NOW_MS, PROJECT, TENANT, definition, delta, label, record, validated
from tests.unit.ingest.lane_store import Store
from tests.unit.ingest.receiving import a_sender, receiver_of

ORDERS = definition("orders_total", labels={"plan": label()})
DEPTH = definition("depth", MetricType.GAUGE)
LOAD = definition("load_seconds", MetricType.HISTOGRAM, bounds=(0.1, 1.0))
HOUR = NOW_MS // HOUR_MS * HOUR_MS
WHOSE = TENANT, PROJECT


def line(metric: str, hour_ms: int = HOUR) -> LedgerKey:
    return LedgerKey(TENANT, PROJECT, metric, hour_ms)


def committed(lines: LedgerLines) -> dict[LedgerKey, tuple[int, int, int]]:
    return {key: (each.committed, each.duplicate, each.folded) for key, each in lines.counts.items()}


def tallied(*tallies: Tally, received_ms: int = NOW_MS) -> Record:
    return msgspec.structs.replace(record(received_ms=received_ms), kind=Kind.TALLY, tallies=list(tallies))


def test_each_metric_of_a_batch_counts_under_its_name_and_the_hour_that_it_came_in() -> None:
    store = Store()
    store.fold(
        record(delta(ORDERS, plan="pro"), delta(ORDERS, plan="free"), delta(LOAD), delta(DEPTH)),
        record(delta(ORDERS, plan="pro"), received_ms=NOW_MS + HOUR_MS),
    )
    assert committed(store.commit(NOW_MS).ledger) == {
        line("orders_total"): (2, 0, 0),
        line("load_seconds"): (1, 0, 0),
        line("depth"): (1, 0, 0),
        line("orders_total", HOUR + HOUR_MS): (1, 0, 0),
    }
    assert store.commit(NOW_MS + 1000).ledger == LedgerLines(), "each is committed once"


def test_observations_of_one_label_set_count_as_the_metrics_that_they_came_in() -> None:
    batch = validated([LOAD], *[{"name": "load_seconds", "value": [0.1, 2.0]}] * 3)
    [(_, distribution)] = batch.distributions.values()
    assert (distribution.metrics, distribution.count) == (3, 6)
    store = Store()
    sent = record(delta(LOAD), delta(ORDERS))
    store.fold(msgspec.structs.replace(sent, distributions=[msgspec.structs.replace(sent.distributions[0], metrics=3)]))
    assert committed(store.commit(NOW_MS).ledger) == {line("load_seconds"): (3, 0, 0), line("orders_total"): (1, 0, 0)}


def test_a_batch_that_is_there_again_is_a_duplicate_with_all_its_metrics() -> None:
    store = Store()
    batch = record(delta(ORDERS, plan="pro"), delta(ORDERS, plan="free"), delta(LOAD), producer=b"A" * 16, sequence=1)
    store.fold(batch, batch)
    store.fold(batch)
    assert committed(store.commit(NOW_MS).ledger) == {line("orders_total"): (2, 4, 0), line("load_seconds"): (1, 2, 0)}


def test_what_a_crash_undoes_is_counted_when_it_is_read_again() -> None:
    store = Store()
    store.fold(record(delta(ORDERS)))
    store.crash()
    store.fold(record(delta(ORDERS)))
    assert committed(store.commit(NOW_MS).ledger) == {line("orders_total"): (1, 0, 0)}


def test_label_sets_over_a_budget_are_committed_and_folded() -> None:
    store = Store(per_metric=2)
    store.fold(*(record(delta(ORDERS, plan=f"plan-{number}")) for number in range(5)))
    counted = store.commit(NOW_MS).ledger.counts[line("orders_total")]
    assert counted.committed == 5
    assert 3 <= counted.folded <= 4


def test_a_receivers_tallies_are_added_and_what_postgres_cannot_keep_is_replaced() -> None:
    store = Store()
    store.fold(
        record(delta(ORDERS)),
        tallied(Tally("orders_total", "", 2, ""), Tally("nope", "METRIC_NOT_DEFINED", 3, "no metric 'a\x00b'")),
        tallied(Tally("nope", "METRIC_NOT_DEFINED", 1, "the last one"), received_ms=NOW_MS + 1),
    )
    lines = store.commit(NOW_MS).ledger
    assert lines.counts == {line("orders_total"): Counts(committed=1, duplicate=2)}
    rejected = lines.rejected[line("nope"), "METRIC_NOT_DEFINED"]
    assert (rejected.count, rejected.example, rejected.last_ms) == (4, "the last one", NOW_MS + 1)
    store.fold(tallied(Tally("x\x00", "C", 1, "a\x00b")))
    [(key, _)] = store.commit(NOW_MS + 1000).ledger.rejected
    assert key.metric == "x\N{REPLACEMENT CHARACTER}"


class KeptLog:
    """A log that keeps records, or is away."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.away = False

    async def append(self, record: Record) -> None:
        if self.away:
            raise LogUnavailable("away")
        self.records.append(record)


async def told(tallies: Tallies, log: KeptLog) -> list[Tally]:
    """What is written when a receiver is asked to stop."""
    async with tallies.told_to(log):
        pass
    return [tally for each in log.records for tally in each.tallies]


class StillClock(MovedClock):
    """No time passes: nothing is written before the end."""

    def __init__(self) -> None:
        super().__init__(NOW_MS / 1000)

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


async def test_a_receiver_that_stops_writes_what_it_has_counted() -> None:
    tallies, log = Tallies(StillClock()), KeptLog()
    for message in ("first", "last"):
        tallies.rejected(WHOSE, "nope", "METRIC_NOT_DEFINED", message, defined=False)
    for name in ("orders_total", "orders_total", "depth"):
        tallies.duplicate(WHOSE, name, defined=True)
    assert sorted(await told(tallies, log), key=lambda tally: tally.metric) == [
        Tally("depth", "", 1, ""),
        Tally("nope", "METRIC_NOT_DEFINED", 2, "last"),
        Tally("orders_total", "", 2, ""),
    ]
    assert {(each.kind, each.tenant_id, each.project_id) for each in log.records} == {(Kind.TALLY, TENANT, PROJECT)}


async def test_names_without_end_share_one_line() -> None:
    tallies = Tallies(StillClock())
    for number in range(3_000):
        tallies.rejected(WHOSE, f"name_{number}", "METRIC_NOT_DEFINED", "", defined=False)
    tallies.rejected(WHOSE, "no\x00name", "METRIC_NOT_DEFINED", "", defined=False)
    counts = {tally.metric: tally.count for tally in await told(tallies, KeptLog())}
    assert len(counts) == 201
    assert counts[""] == 2_801


async def test_names_that_nobody_defined_take_no_line_of_those_that_are_defined() -> None:
    tallies = Tallies(StillClock())
    async with receiver_of([LOAD], tallies=tallies) as (receiver, _):
        for name in (*(f"junk_{number}" for number in range(1_000)), LOAD.name):
            body = json.dumps({"metrics": [{"name": name, "value": {}}]}).encode()
            taken = receiver.begin(a_sender(), body, "")
            assert isinstance(taken, Taken)
            assert [each.code for each in receiver.finish(taken).rejected] == ["METRIC_MALFORMED"]
    names = {tally.metric for tally in await told(tallies, KeptLog())}
    assert len(names) == 202
    assert LOAD.name in names


async def test_names_that_a_retry_brings_take_no_line_of_those_that_are_defined_either() -> None:
    """It is known by its producer and sequence alone."""
    tallies = Tallies(StillClock())
    async with receiver_of([DEPTH], tallies=tallies) as (receiver, _):
        for name in (DEPTH.name, *(f"junk_{number}" for number in range(1_000)), DEPTH.name):
            batch = {"producer": "c0ffee00-0000-4000-8000-000000000000", "sequence": 1}
            body = json.dumps({**batch, "metrics": [{"name": name, "value": 1}]}).encode()
            taken = receiver.begin(a_sender(), body, "")
            assert isinstance(taken, Taken)
            assert receiver.finish(taken).accepted == 1
    counts = {tally.metric: tally.count for tally in await told(tallies, KeptLog())}
    assert len(counts) == 202
    assert (counts[DEPTH.name], counts[""]) == (1, 800)


async def test_all_names_that_are_defined_have_lines_of_their_own_in_records_that_a_frame_has_room_for() -> None:
    tallies, log = Tallies(StillClock()), KeptLog()
    names = [f"{number}".rjust(MOST_NAME_LENGTH, "n") for number in range(2_500)]
    for name in names:
        tallies.duplicate(WHOSE, name, defined=True)
    for name in names:
        tallies.rejected(WHOSE, name, "METRIC_MALFORMED", "\N{GRINNING FACE}" * 1_000, defined=True)
    counts = [(tally.metric, tally.code, tally.count) for tally in await told(tallies, log)]
    assert sorted(counts) == sorted((name, code, 1) for name in names for code in ("", "METRIC_MALFORMED"))
    assert max(len(encode(each)) for each in log.records) < 512 * 1024
    store = Store()
    store.fold(*log.records)
    lines = store.commit(NOW_MS).ledger
    assert lines.counts == {line(name): Counts(duplicate=1) for name in names}
    assert {key: each.count for (key, _), each in lines.rejected.items()} == {line(name): 1 for name in names}


async def test_what_the_log_may_have_is_not_told_again() -> None:
    tallies, log = Tallies(StillClock()), KeptLog()
    tallies.duplicate(WHOSE, "orders_total", defined=True)
    log.away = True
    await told(tallies, log)
    log.away = False
    assert await told(tallies, log) == []
