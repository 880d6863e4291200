"""What the worst bodies of each door cost a receiver: no more processor time and memory than their size explains, and
nobody else waits for them.

It is the receiver's whole work on a request, whether that came through the gateway or as the gRPC call for callers
inside, but for the log.
"""

import asyncio
import gc
import sys
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

import pytest

from chassis.errors import PulsegateError
from services.ingest.decoding import decompress
from services.ingest.domain import Door
from services.ingest.operations.batches import Receiver, Taken
from tests.unit.ingest.receiving import a_sender, receiver_of
from tests.unit.ingest.worst_bodies import DEFINITIONS, WORST, Worst

#: What a machine that does other things at the same time makes of processor time.
NOISE = 4.0
#: Of which the best counts: what else the machine does is in none of the body's costs.
_TRIES = 2
#: Microseconds of processor time on a machine with nothing else to do: what a point without labels costs that is looked
#: at twice and rejected in the end, which is more than what is accepted costs.
MICROSECONDS_A_POINT = 25
#: And for a KB, decompressed: labels, values and buckets. Of OTLP's exponential histograms a bucket is a byte.
MICROSECONDS_A_KB: Mapping[Door, float] = dict.fromkeys(Door, 150) | {Door.OTLP_PROTOBUF: 600}
#: Times the size of the body that it takes up in memory at most, and bytes for each of its points besides. Memory is
#: measured on smaller bodies, because that takes its time.
MOST_MEMORY = 30
MOST_MEMORY_OF_A_POINT = 2_048
PART_FOR_MEMORY = 20


class Cost(NamedTuple):
    """Seconds of processor time."""

    total: float
    #: At a stretch.
    longest_hold: float


async def _take(receiver: Receiver, worst: Worst, body: bytes) -> None:
    sender = a_sender()
    with suppress(PulsegateError):  # refusing is an answer too
        taken = receiver.begin(sender, body, worst.encoding, worst.door, worst.group or None)
        if not isinstance(taken, Taken):
            taken = await receiver.go_on(sender, taken)
        receiver.finish(taken)


@contextmanager
def _nothing_else() -> Iterator[None]:
    """Neither what measures coverage nor the garbage of other tests."""
    tracer = sys.gettrace()
    gc.disable()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)
        gc.enable()


async def _cost(worst: Worst, body: bytes) -> Cost:
    async with receiver_of(DEFINITIONS) as (receiver, _):
        with _nothing_else():
            longest, began = 0.0, time.process_time()
            last = began
            taking = asyncio.create_task(_take(receiver, worst, body))
            while not taking.done():
                await asyncio.sleep(0)
                now = time.process_time()
                longest, last = max(longest, now - last), now
    taking.result()
    return Cost(last - began, longest)


async def _peak_bytes(worst: Worst, body: bytes) -> int:
    async with receiver_of(DEFINITIONS) as (receiver, _):
        with _nothing_else():
            tracemalloc.start()
            try:
                await _take(receiver, worst, body)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()


@pytest.mark.alone
@pytest.mark.parametrize("worst", WORST, ids=lambda worst: f"{worst.door.name.lower()}: {worst.name}")
async def test_the_worst_bodies_cost_what_their_size_explains_and_hold_nobody_up(worst: Worst) -> None:
    body = worst.make(worst.most)
    kilobytes = len(decompress(body, worst.encoding)) / 1024
    costs = [await _cost(worst, body) for _ in range(_TRIES)]
    usual = MICROSECONDS_A_POINT * worst.most + MICROSECONDS_A_KB[worst.door] * kilobytes
    assert min(cost.total for cost in costs) < NOISE * (usual / 1e6 + worst.besides_seconds)
    assert min(cost.longest_hold for cost in costs) < NOISE * worst.hold_seconds


@pytest.mark.parametrize("worst", WORST, ids=lambda worst: f"{worst.door.name.lower()}: {worst.name}")
async def test_the_worst_bodies_take_up_memory_that_their_size_explains(worst: Worst) -> None:
    points = worst.most // PART_FOR_MEMORY
    body = worst.make(points)
    size = len(decompress(body, worst.encoding))
    assert await _peak_bytes(worst, body) < MOST_MEMORY * size + MOST_MEMORY_OF_A_POINT * points + (1 << 16)
