"""What was read from the log is folded in portions: a backlog keeps neither a lease nor a commit waiting."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

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


class _Turns:
    """What another task sees of the loop."""

    def __init__(self) -> None:
        self.count = 0
        self.longest_gap_seconds = 0.0

    async def take(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            self.count += 1
            self.longest_gap_seconds, last = max(self.longest_gap_seconds, now - last), now


@asynccontextmanager
async def _others() -> AsyncIterator[_Turns]:
    turns = _Turns()
    taking = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    yield turns
    taking.cancel()
    with suppress(asyncio.CancelledError):
        await taking


async def test_others_have_their_turn_while_a_backlog_of_histograms_is_folded() -> None:
    store = Store()
    frames = [(at, _frame(*(_latencies(100 * part, at) for part in range(10)))) for at in range(1, 25)]
    async with _others() as others:
        spent = time.thread_time()
        async for fetch in fetches(frames):
            store.take(fetch)
        spent = time.thread_time() - spent
    assert others.count > 10
    assert others.longest_gap_seconds < spent / 3


async def test_every_record_comes_once_and_in_order_with_the_position_of_its_frame() -> None:
    orders = definition()
    frames = [
        (3 * at, _frame(*(record(delta(orders, 100.0 * at + number)) for number in range(200)))) for at in range(1, 6)
    ]
    read = [fetch async for fetch in fetches(frames)]
    assert [fetch.position for fetch in read] == [6, 12, 15]
    values = [value for fetch in read for portion in fetch.portions for value in portion.values().tolist()]
    assert values == [100.0 * at + number for at in range(1, 6) for number in range(200)]


async def test_nothing_comes_of_nothing() -> None:
    assert [fetch async for fetch in fetches([])] == []
