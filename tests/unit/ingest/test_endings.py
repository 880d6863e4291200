"""Deleted definitions on their way to the log."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from chassis.tasks import in_background
from services.ingest import records
from services.ingest.domain import Definition
from services.ingest.operations.endings import SeriesEndings
from services.ingest.records import DefinitionFacts, Kind, Record
from tests.moved_clock import MovedClock
from tests.unit.ingest.ingestion import NOW_MS, PROJECT, TENANT, definition
from tests.unit.ingest.test_ledger import KeptLog
from tests.waiting import eventually

ORDERS, DEPTH = definition("orders_total"), definition("depth")


class LogAwayAtFirst(KeptLog):
    """Not there when the first record comes."""

    def __init__(self) -> None:
        super().__init__()
        self.away = True

    async def append(self, record: Record) -> None:
        try:
            await super().append(record)
        finally:
            self.away = False


class LogAway(KeptLog):
    """Not there until the test says so; counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.away, self.asked = True, 0

    async def append(self, record: Record) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        await super().append(record)


def ending(*of: Definition, received_ms: int = NOW_MS) -> Record:
    """One record for definitions of one project."""
    return Record(
        kind=Kind.END,
        tenant_id=of[0].tenant_id,
        project_id=of[0].project_id,
        received_ms=received_ms,
        definitions=[DefinitionFacts(each.id, each.name, each.type, (), {}) for each in of],
    )


def many(count: int, name: str = "old") -> list[Definition]:
    return [definition(f"{name}_{number}_total", id=f"{name}{number:012}".encode()[-16:]) for number in range(count)]


def written(log: KeptLog, count: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many definitions are in the log."""

    async def there() -> bool:
        return sum(len(record.definitions) for record in log.records) >= count

    return there


@asynccontextmanager
async def passing_on(
    log: KeptLog, fresh: Sequence[Definition] = (), old: Sequence[Definition] = ()
) -> AsyncIterator[SeriesEndings]:
    endings = SeriesEndings(MovedClock(NOW_MS / 1000))
    for each in old:
        endings.add(each, fresh=False)
    for each in fresh:
        endings.add(each, fresh=True)
    async with in_background(endings.run(log)):
        yield endings


async def test_a_deletion_is_tried_until_the_log_has_it_and_is_written_once_however_often_it_is_told() -> None:
    log = LogAwayAtFirst()
    async with passing_on(log, fresh=[ORDERS, ORDERS, DEPTH]) as endings:
        await eventually(written(log, 2), what="both deletions are in the log")
        endings.add(ORDERS, fresh=False)
        endings.add(last := definition("last_total"), fresh=True)
        await eventually(written(log, 3), what="the last one is in the log")
    assert log.records == [
        ending(ORDERS, DEPTH, received_ms=NOW_MS + 1000),
        ending(last, received_ms=NOW_MS + 1000),
    ]


async def test_many_deletions_of_a_project_are_few_records_that_a_frame_has_room_for() -> None:
    log, bounds = KeptLog(), tuple(number / 7 for number in range(100))
    old = [replace(each, name=each.name.rjust(200, "x"), bounds=bounds) for each in many(2_500)]
    others = replace(ORDERS, project_id=b"P" * 16)
    async with passing_on(log, old=[*old, others]):
        await eventually(written(log, 2_501), what="all deletions are in the log")
    assert [len(record.definitions) for record in log.records] == [1_000, 1_000, 500, 1]
    assert {(record.tenant_id, record.project_id) for record in log.records[:3]} == {(TENANT, PROJECT)}
    assert log.records[3] == ending(others)
    assert [facts.id for record in log.records[:3] for facts in record.definitions] == [each.id for each in old]
    assert max(len(records.encode(record)) for record in log.records) < 1 << 18


async def test_fresh_deletions_go_before_those_of_a_snapshot_that_wait_also_after_a_failure() -> None:
    log, old = LogAway(), many(1_500)
    async with passing_on(log, old=old) as endings:

        async def tried() -> bool:
            return log.asked > 1

        await eventually(tried, what="the log is asked")
        endings.add(ORDERS, fresh=True)
        log.away = False
        await eventually(written(log, 1_501), what="all deletions are in the log")
    assert [[facts.id for facts in record.definitions] for record in log.records] == [
        [ORDERS.id, *(each.id for each in old[:999])],
        [each.id for each in old[999:]],
    ]


async def test_while_so_many_wait_for_the_log_there_is_no_room_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ingest.operations.endings._MOST_WAITING", 3)
    log = LogAway()
    async with passing_on(log, old=[ORDERS]) as endings:
        endings.add(DEPTH, fresh=True)
        await endings.room()
        endings.add(definition("third_total"), fresh=True)
        assert endings.full
        waiting = asyncio.create_task(endings.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        log.away = False
        await waiting
        assert (endings.full, len(log.records)) == (False, 1)


async def test_what_is_wrong_with_the_log_besides_is_not_kept_quiet() -> None:
    class Broken(KeptLog):
        async def append(self, record: Record) -> None:
            raise ZeroDivisionError

    endings = SeriesEndings(MovedClock())
    endings.add(ORDERS, fresh=True)
    with pytest.raises(ZeroDivisionError):
        await endings.run(Broken())
