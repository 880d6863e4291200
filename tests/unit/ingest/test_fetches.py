"""What was read from the log is folded in portions: a backlog keeps neither a lease nor a commit waiting."""

import asyncio

from chassis.tasks import in_background
from services.ingest import records
from services.ingest.domain import MetricType
from services.ingest.fetches import fetches
from services.ingest.records import Record
from tests.unit.ingest.ingestion import Told, definition, delta, label, record, totals
from tests.unit.ingest.lane_store import Store

_LATENCIES = definition(
    "x_seconds", MetricType.HISTOGRAM, labels={"u": label()}, bounds=tuple(map(float, range(1, 16)))
)


def _latencies(first: int, at: int) -> Record:
    """Totals of a hundred histograms."""
    told = (
        Told(_LATENCIES, f"s{first + number}", at, 5.0 * at, [at] * 16, labels=("u", str(first + number)))
        for number in range(100)
    )
    return totals(*told)


def _frame(*each: Record) -> bytes:
    return records.encode_frame([records.encode(one) for one in each])


async def _count_turns(turns: list[None]) -> None:
    while True:
        await asyncio.sleep(0.001)
        turns.append(None)


async def test_others_have_their_turn_while_a_backlog_of_histograms_is_folded() -> None:
    store = Store()
    frames = [(at, _frame(*(_latencies(100 * part, at) for part in range(10)))) for at in range(1, 25)]
    turns: list[None] = []
    portions = []
    async with in_background(_count_turns(turns)):
        async for fetch in fetches(frames):
            store.take(fetch)
            portions.append(fetch.frames)
    assert portions == [2] * 12, "of a thousand histograms each"
    assert len(turns) >= len(portions)


async def test_every_record_comes_once_and_in_order_with_the_position_of_its_frame() -> None:
    orders = definition()
    frames = [
        (3 * at, _frame(*(record(delta(orders, 100.0 * at + number)) for number in range(200)))) for at in range(1, 6)
    ]
    read = [fetch async for fetch in fetches(frames)]
    assert [(fetch.position, fetch.frames) for fetch in read] == [(6, 2), (12, 2), (15, 1)]
    values = [value for fetch in read for portion in fetch.portions for value in portion.values().tolist()]
    assert values == [100.0 * at + number for at in range(1, 6) for number in range(200)]


async def test_nothing_comes_of_nothing() -> None:
    assert [fetch async for fetch in fetches([])] == []
