"""When pushes were taken, which orders the totals of a group."""

from services.ingest.domain import Door, MetricType
from services.ingest.operations.batches import Receiver, Taken
from tests.moved_clock import MovedClock
from tests.unit.ingest.ingestion import NOW_MS, definition
from tests.unit.ingest.receiving import a_sender, receiver_of

ROWS = definition("rows_total", MetricType.COUNTER)
HOURS = 3 * 3600


def _refused(receiver: Receiver) -> list[str]:
    taken = receiver.begin(
        a_sender(), b"# TYPE rows_total counter\nrows_total 1\n", "", Door.PUSH_TEXT, {"job": "nightly"}
    )
    assert isinstance(taken, Taken)
    return [each.code for each in taken.outcome.rejected]


async def test_pushes_keep_their_order_while_a_clock_is_set_back_a_little() -> None:
    clock = MovedClock(NOW_MS / 1000)
    async with receiver_of([ROWS], clock=clock) as (receiver, _):
        first = receiver._push({"job": "nightly"})
        clock.seconds -= 3
        assert receiver._push({"job": "nightly"}).arrived_ns > first.arrived_ns


async def test_a_push_while_the_clock_was_ahead_has_none_refused_once_it_is_right() -> None:
    clock = MovedClock(NOW_MS / 1000)
    async with receiver_of([ROWS], clock=clock) as (receiver, _):
        for seconds in (0, HOURS, -HOURS, 0):
            clock.seconds += seconds
            assert _refused(receiver) == []
