"""Deleted definitions on their way to the log."""

from chassis.tasks import in_background
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


async def test_a_deletion_is_tried_until_the_log_has_it_and_is_written_once_however_often_it_is_told() -> None:
    endings, log = SeriesEndings(MovedClock(NOW_MS / 1000)), LogAwayAtFirst()
    for deleted in (ORDERS, ORDERS, DEPTH):
        endings.add(deleted)

    async def both_written() -> bool:
        return len(log.records) >= 2

    async with in_background(endings.run(log)):
        await eventually(both_written, what="both deletions are in the log")
    assert log.records == [
        Record(
            kind=Kind.END,
            tenant_id=TENANT,
            project_id=PROJECT,
            received_ms=NOW_MS + 1000,
            definitions=[DefinitionFacts(each.id, each.name, each.type, (), {})],
        )
        for each in (ORDERS, DEPTH)
    ]
