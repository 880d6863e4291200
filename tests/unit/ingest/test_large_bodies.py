"""While a large body is read, others are taken, and what changes meanwhile does not get into the middle of it."""

import asyncio
import time
import uuid
from contextlib import suppress
from dataclasses import replace

import pytest

from chassis import context
from chassis.errors import DeadlineExceeded, Unavailable
from chassis.principals import Principal
from services.ingest import records
from services.ingest.domain import Door, MetricType
from services.ingest.operations import batches
from services.ingest.operations.batches import Receiver, Taken, Unfinished
from tests.unit.ingest.ingestion import definition, label
from tests.unit.ingest.receiving import a_sender, receiver_of
from tests.unit.ingest.test_definitions import living
from tests.unit.ingest.worst_bodies import DEFINITIONS, slow_lines

ORDERS = definition("orders_total")
ANY = {"l0": label()}
LOAD = definition("load_seconds", MetricType.HISTOGRAM, bounds=(1.0, 2.0), labels=ANY)
LINES = 5_000
SMALL = b'{"metrics":[{"name":"orders_total","value":1}]}'


def lines(count: int) -> bytes:
    return b"\n".join([b"load_seconds:9|h|#l0:%d" % at for at in range(count)])


LARGE = lines(LINES)


async def test_small_batches_are_taken_while_a_large_body_is_read() -> None:
    async with receiver_of([ORDERS, LOAD]) as (receiver, _):
        begun = receiver.begin(a_sender(), LARGE, "", Door.STATSD)
        assert isinstance(begun, Unfinished)
        reading = asyncio.create_task(receiver.go_on(a_sender(), begun))
        meanwhile = 0
        while not reading.done():
            assert isinstance(receiver.begin(a_sender(), SMALL, ""), Taken)
            meanwhile += 1
            await asyncio.sleep(0)
        assert meanwhile > 2
        assert receiver.finish(reading.result()).accepted == LINES


async def test_a_definition_that_changes_while_a_body_is_read_is_in_its_records_once() -> None:
    async with receiver_of([LOAD]) as (receiver, config):
        begun = receiver.begin(a_sender(), LARGE, "", Door.STATSD)
        assert isinstance(begun, Unfinished)
        reading = asyncio.create_task(receiver.go_on(a_sender(), begun))
        revision = 1
        while not reading.done():
            revision += 1
            bounds = tuple(map(float, range(1, 2 + revision % 50)))
            config.tell(revision, living(definition("load_seconds", MetricType.HISTOGRAM, bounds=bounds, labels=ANY)))
            await asyncio.sleep(0)
        assert revision > 2
        taken = reading.result()
        told = [record for frame in taken.frames for each in frame.records for record in decoded(each)]
        assert sum(len(record.distributions) for record in told) == LINES
        for record in told:
            [facts] = record.definitions
            assert {len(each.buckets) for each in record.distributions} == {len(facts.bounds) + 1}


async def test_a_large_body_that_nobody_waits_for_any_more_is_not_read() -> None:
    async with receiver_of([LOAD]) as (receiver, _):
        begun = receiver.begin(a_sender(), LARGE, "", Door.STATSD)
        assert isinstance(begun, Unfinished)
        context.DEADLINE.set(time.monotonic())
        with pytest.raises(DeadlineExceeded):
            await receiver.go_on(a_sender(), begun)


async def test_a_tenant_does_not_wait_for_all_that_another_has_sent() -> None:
    one = a_sender()
    other = replace(one, tenant_id=str(uuid.uuid4()))
    async with receiver_of([LOAD]) as (receiver, _), asyncio.TaskGroup() as tasks:
        read = [tasks.create_task(read_by(receiver, one, LARGE)) for _ in range(8)]
        await tasks.create_task(read_by(receiver, other, lines(1_000)))
        assert sum(each.done() for each in read) <= 2
        for each in read:
            each.cancel()


async def test_large_bodies_that_have_asked_config_are_judged_one_at_a_time() -> None:
    judged: list[int] = []
    async with receiver_of([LOAD]) as (receiver, config):

        async def read(count: int) -> None:
            taken = await read_by(receiver, a_sender(), b"nope:1|c\n" + lines(count))
            assert len(receiver.finish(taken).rejected) == 1
            judged.append(count)

        async with asyncio.TaskGroup() as tasks:
            config.open.clear()
            for count in (LINES, 1_000):
                tasks.create_task(read(count))
            await tasks.create_task(read_by(receiver, a_sender(), lines(1_000)))  # behind both, which ask config now
            assert not judged
            config.open.set()
    assert judged == [LINES, 1_000]


async def test_a_small_body_that_takes_long_waits_its_turn_like_a_large_one() -> None:
    async with receiver_of(DEFINITIONS) as (receiver, _):
        found = receiver.begin(a_sender(), slow_lines(50), "", Door.STATSD)
        assert isinstance(found, Unfinished)
        assert found.size_bytes == 1 << 20
        assert receiver.finish(await receiver.go_on(a_sender(), found)).accepted == 50


async def test_a_body_that_takes_too_long_leaves_its_turn_to_others_and_gets_further_when_it_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "_MOST_TURN_SECONDS", 0.1)
    body, times, taken = slow_lines(400), 0, None
    async with receiver_of(DEFINITIONS) as (receiver, _):
        while taken is None and times < 200:
            times += 1
            with suppress(Unavailable):
                taken = await read_by(receiver, a_sender(), body)
        assert times > 2
        assert taken is not None
        assert receiver.finish(taken).accepted == 400


async def read_by(receiver: Receiver, sender: Principal, body: bytes) -> Taken:
    begun = receiver.begin(sender, body, "", Door.STATSD)
    assert isinstance(begun, Unfinished)
    return await receiver.go_on(sender, begun)


def decoded(encoded: bytes) -> list[records.Record]:
    return records.decode_frame(records.encode_frame([encoded]))
