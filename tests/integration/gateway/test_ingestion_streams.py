"""Streams of batches before played receivers, over real gRPC."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import REGISTRY

from chassis import context, grpc_client, metrics
from chassis.breakers import NotAsked
from chassis.errors import DeadlineExceeded, Internal, Malformed, PulsegateError, Unavailable
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from deploy.local.layout import Ports
from services.gateway.ingestion_streams import IngestionStreams
from services.gateway.shares import HOLDERS
from tests.integration.gateway.fakes import PROJECT, SERVICE_TOKEN, TENANT, PlayedAuth, PlayedReceiver, PlayedServer
from tests.integration.gateway.fakes import receiver_registration as registration
from tests.waiting import eventually


@dataclass(frozen=True)
class Carried:
    """Streams under test, and the receivers at their other end."""

    streams: IngestionStreams
    receivers: list[PlayedReceiver]
    servers: list[PlayedServer]
    principal: str

    @property
    def receiver(self) -> PlayedReceiver:
        return self.receivers[0]

    async def take(self, body: bytes = b"{}", content_encoding: str = "") -> pb.IngestBatchResponse:
        context.PRINCIPAL_TOKEN.set(self.principal)
        return await self.streams.take(body, content_encoding)

    async def outcome_of(self, body: bytes = b"{}") -> str:
        """`accepted`, or the code of the error."""
        try:
            await self.take(body)
        except PulsegateError as error:
            return error.code
        return "accepted"

    async def works(self) -> bool:
        return await self.outcome_of() == "accepted"

    @asynccontextmanager
    async def restarted(self, position: int) -> AsyncIterator[None]:
        """As a receiver does it: it asks its callers to go elsewhere, answers them, ends, and is back afterwards."""
        receiver = self.receivers[position]
        receiver.draining.set()
        async with self.servers[position].away():
            receiver.draining.clear()
            yield


Start = Callable[..., AbstractAsyncContextManager[Carried]]


@pytest.fixture
def start(port_blocks: Callable[[], Ports]) -> Start:
    @asynccontextmanager
    async def carrying(
        receivers: int = 1, streams: int = 1, drain_seconds: float = 0, **settings: Any
    ) -> AsyncIterator[Carried]:
        auth, first = PlayedAuth(), port_blocks().public
        played = [PlayedReceiver(auth) for _ in range(receivers)]
        servers = [
            PlayedServer(first + position, [registration(receiver)], auth, drain_seconds=drain_seconds)
            for position, receiver in enumerate(played)
        ]
        for server in servers:
            await server.start()
        address = "ipv4:" + ",".join(f"127.0.0.1:{first + position}" for position in range(receivers))
        principal = auth.principal(TENANT, PROJECT, scopes=["ingest:write"])
        try:
            async with grpc_client.connected("ingest", address, SERVICE_TOKEN) as channel:
                settings = {"reset_seconds": 30.0, "timeout_seconds": 5.0, **settings}
                carrier = IngestionStreams(channel, streams=streams, **settings)
                async with carrier.carrying():
                    tested = Carried(carrier, played, servers, principal)
                    await eventually(lambda: streams_in_use(streams), what="the streams are open")
                    yield tested
        finally:
            for server in servers:
                await server.stop()

    return carrying


@pytest.fixture
async def carried(start: Start) -> AsyncIterator[Carried]:
    async with start() as started:
        yield started


def answering_by(answers: dict[bytes, Awaitable[Any] | Any]) -> Callable[[pb.StreamedBatch], Awaitable[Any]]:
    """What a batch with this body is answered: a message, an error, or what an awaitable gives."""

    async def answer(batch: pb.StreamedBatch) -> Any:
        found = answers[batch.body]
        if isinstance(found, BaseException):
            raise found
        return found if isinstance(found, pb.IngestBatchResponse) else await found

    return answer


async def never(_batch: pb.StreamedBatch) -> pb.IngestBatchResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def test_what_comes_together_travels_together_and_is_answered_each(carried: Carried) -> None:
    async def count(batch: pb.StreamedBatch) -> pb.IngestBatchResponse:
        return pb.IngestBatchResponse(accepted=json.loads(batch.body))

    carried.receiver.answers["IngestBatch"] = count
    answers = await asyncio.gather(*(carried.take(b"%d" % number) for number in range(1, 101)))
    assert [answer.accepted for answer in answers] == list(range(1, 101))
    assert carried.receiver.messages == [64, 36]
    assert carried.receiver.opened == 1


async def test_a_batch_after_a_pause_goes_at_once_and_those_that_follow_soon_gather(start: Start) -> None:
    async with start(pace_seconds=0.5) as carried:
        await carried.take()
        assert carried.receiver.messages == [1]
        for count in (5, 7):
            await asyncio.gather(*(carried.take() for _ in range(count)))
        assert carried.receiver.messages == [1, 5, 7]


async def test_a_message_is_bounded_in_bytes(carried: Carried) -> None:
    await asyncio.gather(*(carried.take(b"x" * 60_000) for _ in range(40)))
    assert carried.receiver.messages == [18, 18, 4]


async def test_what_is_large_goes_last_and_little_of_it_at_a_time(start: Start) -> None:
    async with start(pace_seconds=0.1) as carried:
        await carried.take()
        order: list[bytes] = []

        async def note(batch: pb.StreamedBatch) -> pb.IngestBatchResponse:
            order.append(batch.body[:1])
            return pb.IngestBatchResponse(accepted=1)

        carried.receiver.answers["IngestBatch"] = note
        large = [b"L" * 600_000, b"M" * 100_000, b"N" * 100_000]
        compressed = carried.take(b"C" * 10_000, "gzip")
        await asyncio.gather(compressed, *(carried.take(body) for body in (*large, b"s", b"t")))
        assert carried.receiver.messages == [1, 4, 2]
        assert order == [b"s", b"t", b"C", b"L", b"M", b"N"]


async def test_large_ones_that_are_left_do_not_wait_for_others(start: Start) -> None:
    async with start(pace_seconds=2.0) as carried:
        await carried.take()
        began = time.monotonic()
        await asyncio.gather(*(carried.take(b"L" * 200_000) for _ in range(20)))
        assert carried.receiver.messages == [1] * 21
        assert time.monotonic() - began < 4.0, "one pace before the first of them"


async def test_outcomes_come_in_any_order(carried: Carried) -> None:
    slow = asyncio.get_running_loop().create_future()
    carried.receiver.answers["IngestBatch"] = answering_by(
        {b"slow": slow, b"wrong": Malformed("no", code="MALFORMED_JSON"), b"fast": pb.IngestBatchResponse(accepted=2)}
    )
    waiting = asyncio.create_task(carried.take(b"slow"))
    assert (await carried.take(b"fast")).accepted == 2
    with pytest.raises(Malformed) as caught:
        await carried.take(b"wrong")
    assert caught.value.code == "MALFORMED_JSON"
    assert not waiting.done()
    slow.set_result(pb.IngestBatchResponse(accepted=1))
    assert (await waiting).accepted == 1


async def test_a_receiver_is_told_of_each_batch_what_it_must_know(carried: Carried) -> None:
    context.CORRELATION_ID.set("abc-1")
    context.DEADLINE.set(time.monotonic() + 2)
    await carried.take(b"body", "gzip")
    (seen,) = carried.receiver.requests("StreamBatches")
    assert (seen.body, seen.content_encoding, seen.correlation_id) == (b"body", "gzip", "abc-1")
    assert 1000 < seen.timeout_milliseconds <= 2000
    assert carried.receiver.seen[0].principal is not None


async def test_each_batch_has_its_own_deadline(carried: Carried) -> None:
    carried.receiver.answers["IngestBatch"] = answering_by(
        {b"slow": never(pb.StreamedBatch()), b"fast": pb.IngestBatchResponse(accepted=1)}
    )
    context.DEADLINE.set(time.monotonic() + 0.3)
    slow = asyncio.create_task(carried.take(b"slow"))
    await asyncio.sleep(0)
    context.DEADLINE.set(None)
    while not slow.done():
        assert (await carried.take(b"fast")).accepted == 1
    with pytest.raises(DeadlineExceeded):
        await slow
    assert carried.receiver.opened == 1
    context.DEADLINE.set(time.monotonic() - 1)
    with pytest.raises(DeadlineExceeded):
        await carried.take(b"fast")


async def test_a_batch_that_was_left_little_time_ends_nobody_elses(carried: Carried) -> None:
    """Its client took the time, whose body came late: the receiver has hardly been asked."""

    async def after_a_while(_batch: pb.StreamedBatch) -> pb.IngestBatchResponse:
        await asyncio.sleep(0.1)
        return pb.IngestBatchResponse(accepted=1)

    carried.receiver.answers["IngestBatch"] = after_a_while
    others = [asyncio.create_task(carried.outcome_of()) for _ in range(5)]
    context.DEADLINE.set(time.monotonic() + 0.05)
    assert await carried.outcome_of() == "DEADLINE_EXCEEDED"
    await eventually(lambda: sent(carried, 6), what="it was sent with the others")
    assert await asyncio.gather(*others) == ["accepted"] * 5
    assert carried.receiver.opened == 1


@pytest.mark.parametrize("size", [1, 60_000])
async def test_over_a_bound_batches_are_turned_away_at_once(start: Start, size: int) -> None:
    async with start(most_bytes=4 * (size + (8 << 10))) as carried:
        carried.receiver.answers["IngestBatch"] = never
        waiting = [asyncio.create_task(carried.take(b"x" * size)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as caught:
            await carried.take(b"x" * size)
        assert caught.value.retry_after_seconds == 1
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        carried.receiver.answers["IngestBatch"] = pb.IngestBatchResponse(accepted=1)
        assert (await carried.take(b"x" * size)).accepted == 1


async def test_batches_of_one_tenant_leave_room_for_those_of_others(start: Start) -> None:
    async with start(most_bytes=64 * (100 + (8 << 10))) as carried:
        carried.receiver.answers["IngestBatch"] = never

        async def under_way(tenant: str) -> int:
            """As many as are taken, which wait."""
            HOLDERS.set((tenant,))
            tasks = [asyncio.create_task(carried.take(b"x" * 100)) for _ in range(64)]
            await asyncio.sleep(0)
            turned_away = [task for task in tasks if task.done()]
            assert {type(task.exception()) for task in turned_away} == {Unavailable}
            waiting.extend(task for task in tasks if not task.done())
            return len(tasks) - len(turned_away)

        waiting: list[asyncio.Task[pb.IngestBatchResponse]] = []
        assert [await under_way(tenant) for tenant in "abcde"] == [32, 8, 4, 3, 2]
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        carried.receiver.answers["IngestBatch"] = pb.IngestBatchResponse(accepted=1)
        assert [await carried.outcome_of() for _ in range(20)] == ["accepted"] * 20


async def test_a_cancelled_request_is_forgotten(carried: Carried) -> None:
    release = asyncio.get_running_loop().create_future()
    carried.receiver.answers["IngestBatch"] = answering_by(
        {b"slow": release, b"fast": pb.IngestBatchResponse(accepted=1)}
    )
    cancelled = asyncio.create_task(carried.take(b"slow"))
    await carried.take(b"fast")
    cancelled.cancel()
    await asyncio.wait([cancelled])
    release.set_result(pb.IngestBatchResponse(accepted=7))
    assert (await carried.take(b"fast")).accepted == 1
    assert carried.receiver.opened == 1


async def test_a_stream_that_breaks_leaves_nothing_unanswered_and_is_opened_anew(carried: Carried) -> None:
    carried.receiver.answers["IngestBatch"] = never
    waiting = [asyncio.create_task(carried.outcome_of()) for _ in range(3)]
    await eventually(lambda: sent(carried, 3), what="the batches are sent")
    async with carried.servers[0].away():
        assert await asyncio.gather(*waiting) == ["SERVICE_UNAVAILABLE"] * 3
        await eventually(lambda: refused_at_once(carried), what="without a stream batches are refused at once")
        carried.receiver.answers["IngestBatch"] = pb.IngestBatchResponse(accepted=1)
    await eventually(carried.works, within_seconds=3, what="a stream is open again")


async def sent(carried: Carried, count: int) -> bool:
    return sum(len(receiver.seen) for receiver in carried.receivers) >= count


async def refused_at_once(carried: Carried) -> bool:
    began = time.monotonic()
    assert await carried.outcome_of() == "SERVICE_UNAVAILABLE"
    return time.monotonic() - began < 0.05


async def test_batches_wait_for_the_next_stream_when_the_receiver_announces_its_end(start: Start) -> None:
    async with start(drain_seconds=5) as carried:
        release = asyncio.get_running_loop().create_future()
        carried.receiver.answers["IngestBatch"] = answering_by(
            {b"old": release, b"new": pb.IngestBatchResponse(accepted=2)}
        )
        old = asyncio.create_task(carried.take(b"old"))
        await eventually(lambda: sent(carried, 1), what="the batch is sent")
        restarting = asyncio.create_task(restart(carried))
        await eventually(lambda: streams_in_use(0), what="nothing more is sent")
        new = asyncio.create_task(carried.take(b"new"))
        release.set_result(pb.IngestBatchResponse(accepted=1))
        assert (await old).accepted == 1
        await restarting
        assert (await new).accepted == 2


async def restart(carried: Carried) -> None:
    async with carried.restarted(0):
        pass


async def streams_in_use(count: int) -> bool:
    return REGISTRY.get_sample_value("pulsegate_gateway_ingestion_streams") == count


async def test_an_old_stream_is_followed_by_a_new_one_without_a_gap(start: Start) -> None:
    async with start(stream_seconds=0.1) as carried:
        outcomes: set[str] = set()

        async def many_streams() -> bool:
            outcomes.update(await asyncio.gather(*(carried.outcome_of() for _ in range(20))))
            return carried.receiver.opened > 10

        await eventually(many_streams, what="streams are renewed")
        assert outcomes == {"accepted"}
        assert carried.receiver.open_streams <= 3


async def test_two_receivers_restart_under_load_and_no_batch_fails(start: Start) -> None:
    async def after_a_while(_batch: pb.StreamedBatch) -> pb.IngestBatchResponse:
        await asyncio.sleep(0.02)
        return pb.IngestBatchResponse(accepted=1)

    async with start(2, streams=2, drain_seconds=5) as carried:
        for receiver in carried.receivers:
            receiver.answers["IngestBatch"] = after_a_while
        outcomes: list[str] = []
        stop = asyncio.Event()

        async def client() -> None:
            while not stop.is_set():
                outcomes.append(await carried.outcome_of())

        async with asyncio.TaskGroup() as clients:
            for _ in range(16):
                clients.create_task(client())
            for position in (0, 1, 0, 1):
                async with carried.restarted(position):
                    await sent_more(carried.receivers[1 - position])
            stop.set()
        assert set(outcomes) == {"accepted"}


async def sent_more(receiver: PlayedReceiver) -> None:
    before = len(receiver.seen)

    async def more() -> bool:
        return len(receiver.seen) > before

    await eventually(more, what="the other one serves")


async def test_a_receiver_that_hangs_is_left_for_another(start: Start) -> None:
    async with start(2, timeout_seconds=0.5) as carried:
        hanging = next(receiver for receiver in carried.receivers if receiver.open_streams)
        hanging.answers["IngestBatch"] = never
        outcomes = await asyncio.gather(*(carried.outcome_of() for _ in range(20)))
        assert set(outcomes) <= {"DEADLINE_EXCEEDED", "SERVICE_UNAVAILABLE"}
        assert "DEADLINE_EXCEEDED" in outcomes
        await eventually(carried.works, within_seconds=5, what="the other one serves")


async def test_a_receiver_that_takes_up_no_stream_is_away(start: Start) -> None:
    async with start() as carried:
        carried.receiver.greeting.clear()
        async with carried.servers[0].away():
            pass
        await eventually(lambda: refused_at_once(carried), what="batches are refused at once")
        carried.receiver.greeting.set()
        await eventually(carried.works, within_seconds=5, what="a stream is open again")


async def test_the_breaker_opens_when_half_of_the_batches_fail_and_other_streams_try_again(carried: Carried) -> None:
    carried.receiver.answers["IngestBatch"] = Internal("broken")
    assert [await carried.outcome_of() for _ in range(6)] == ["INTERNAL"] * 5 + ["SERVICE_UNAVAILABLE"]
    assert metrics.BREAKER_OPEN.labels("ingest")._value.get() == 1
    assert len(carried.receiver.seen) == 5
    carried.receiver.answers["IngestBatch"] = pb.IngestBatchResponse(accepted=1)
    async with carried.servers[0].away():
        pass
    await eventually(carried.works, within_seconds=3, what="the breaker is closed again")


async def test_while_the_breaker_is_open_clients_are_told_to_come_back_within_seconds(start: Start) -> None:
    async with start(reset_seconds=30.0) as carried:
        carried.receiver.answers["IngestBatch"] = Internal("broken")
        assert {await carried.outcome_of() for _ in range(5)} == {"INTERNAL"}
        with pytest.raises(NotAsked) as caught:
            await carried.take()
        assert 0 < (caught.value.retry_after_seconds or 0) <= 3


async def test_batches_that_are_wrong_open_no_breaker(carried: Carried) -> None:
    carried.receiver.answers["IngestBatch"] = Malformed("no", code="MALFORMED_JSON")
    assert {await carried.outcome_of() for _ in range(20)} == {"MALFORMED_JSON"}
