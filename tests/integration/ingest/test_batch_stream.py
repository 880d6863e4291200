"""The stream of batches from a gateway: many under way at once, each with its own outcome."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from chassis import grpc_client
from chassis.errors import PulsegateError, from_wire
from chassis.ids import uuid7
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from contracts.pulsegate.ingest.v1 import ingest_pb2_grpc
from deploy.local.servers import Nats
from services.ingest import app
from services.ingest.operations import batches
from tests.integration.ingest.pipeline import SERVICE_TOKEN, Pipeline
from tests.suite_servers import RunningServer


class Caller:
    """A gateway's end of a stream."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[Any, Any]", principal: str) -> None:
        self.call = call
        self._principal = principal
        self._number = 0
        self.draining = asyncio.Event()

    def batch(self, *metrics: Any, **changes: Any) -> pb.StreamedBatch:
        self._number += 1
        body = json.dumps({"metrics": metrics, "producer": str(uuid7()), "sequence": 1}).encode()
        fields = {"body": body, "principal": self._principal, "timeout_milliseconds": 5000, **changes}
        return pb.StreamedBatch(number=self._number, **fields)

    async def send(self, *batches: pb.StreamedBatch) -> None:
        await self.call.write(pb.StreamBatchesRequest(batches=batches))

    async def outcomes(self, count: int) -> dict[int, pb.StreamedOutcome]:
        """The next outcomes, by number."""
        found: dict[int, pb.StreamedOutcome] = {}
        async with asyncio.timeout(20):
            while len(found) < count:
                found |= {outcome.number: outcome for outcome in await self._read()}
        return found

    async def _read(self) -> list[pb.StreamedOutcome]:
        response = await self.call.read()
        assert isinstance(response, pb.StreamBatchesResponse)
        if response.draining:
            self.draining.set()
        return list(response.outcomes)

    async def asked_to_drain(self) -> None:
        async with asyncio.timeout(20):
            while not self.draining.is_set():
                assert await self._read() == []


@asynccontextmanager
async def calling(pipeline: Pipeline, **claims: Any) -> AsyncIterator[Caller]:
    address = f"127.0.0.1:{pipeline.receiver_settings.grpc_port}"
    async with grpc_client.connected("ingest", address, SERVICE_TOKEN) as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel.grpc_channel)
        call = stub.StreamBatches(metadata=channel._metadata())
        principal = pipeline.upstreams.auth.principal(
            pipeline.tenant_id, pipeline.project_id, scopes=claims.get("scopes", ["ingest:write"])
        )
        yield Caller(call, principal)
        call.cancel()


def order(value: int = 1) -> dict[str, Any]:
    return {"name": "orders_total", "value": value}


def error_of(outcome: pb.StreamedOutcome) -> PulsegateError:
    assert outcome.WhichOneof("result") == "error"
    return from_wire(outcome.error)


async def test_each_batch_of_a_message_has_its_outcome(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with pipeline.running(), calling(pipeline) as caller:
        good = [caller.batch(order(), {"name": "unknown_total", "value": 1}) for _ in range(50)]
        broken = caller.batch(body=b"{")
        stranger = caller.batch(order(), principal="not.a.principal")
        await caller.send(*good, broken, stranger)
        outcomes = await caller.outcomes(52)
        for batch in good:
            response = outcomes[batch.number].response
            assert (response.accepted, [each.code for each in response.rejected]) == (1, ["METRIC_NOT_DEFINED"])
        assert error_of(outcomes[broken.number]).code == "MALFORMED_JSON"
        assert error_of(outcomes[stranger.number]).code == "UNAUTHENTICATED"
        await pipeline.expect("orders_total{$project}", 50)


async def test_a_principal_without_the_scope_or_the_project_is_refused(pipeline: Pipeline) -> None:
    auth = pipeline.upstreams.auth
    async with pipeline.receiver(), calling(pipeline, scopes=["query:read"]) as caller:
        nowhere = caller.batch(order(), principal=auth.principal("", "", scopes=["ingest:write"]))
        scopeless = caller.batch(order())
        for _ in range(2):  # the second time the principals are known
            await caller.send(nowhere, scopeless)
            outcomes = await caller.outcomes(2)
            assert error_of(outcomes[nowhere.number]).code == "UNAUTHENTICATED"
            assert error_of(outcomes[scopeless.number]).code == "INSUFFICIENT_SCOPE"


async def test_where_a_receivers_clock_is_far_ahead_no_key_is_called_wrong(pipeline: Pipeline) -> None:
    principal = pipeline.upstreams.auth.principal(
        pipeline.tenant_id, pipeline.project_id, scopes=["ingest:write"], seconds=120 - 150
    )
    async with pipeline.receiver(), calling(pipeline) as caller:
        late = caller.batch(order(), principal=principal)
        await caller.send(late)
        error = error_of((await caller.outcomes(1))[late.number])
        assert (error.http_status, error.details, error.retry_after_seconds) == (503, {"waitingFor": "clock"}, 1.0)


async def test_a_batch_that_must_be_confirmed_holds_up_no_other(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with pipeline.receiver(), calling(pipeline) as caller:
        await caller.send(caller.batch(order()))
        await caller.outcomes(1)
        with pipeline.upstreams.config.hanging():
            doubtful, plain = caller.batch({"name": "unknown_total", "value": 1}), caller.batch(order())
            await caller.send(doubtful, plain)
            assert set(await caller.outcomes(1)) == {plain.number}
        assert set(await caller.outcomes(1)) == {doubtful.number}


async def test_no_more_than_so_much_waits_for_config(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_MOST_RECONSIDERED", 15)  # a batch counts as ten metrics more than it has
    async with pipeline.receiver(), calling(pipeline) as caller:
        unknown = {"name": "unknown_total", "value": 1}
        with pipeline.upstreams.config.hanging():
            waiting, refused = caller.batch(unknown, unknown), caller.batch(unknown, unknown)
            await caller.send(waiting, refused)
            outcomes = await caller.outcomes(1)
            assert set(outcomes) == {refused.number}
            error = error_of(outcomes[refused.number])
            assert (error.http_status, error.retry_after_seconds) == (503, 1.0)
        assert set(await caller.outcomes(1)) == {waiting.number}
        again = caller.batch(unknown, unknown)
        await caller.send(again)
        assert (await caller.outcomes(1))[again.number].WhichOneof("result") == "response"


async def test_a_batch_that_nobody_waits_for_any_more_is_not_taken(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with pipeline.receiver(), calling(pipeline) as caller:
        for _ in range(2):  # the second time the principal is known
            late, plain = caller.batch(order(), timeout_milliseconds=0), caller.batch(order())
            await caller.send(late, plain)
            outcomes = await caller.outcomes(2)
            assert error_of(outcomes[late.number]).code == "DEADLINE_EXCEEDED"
            assert outcomes[plain.number].response.accepted == 1


async def test_a_log_that_does_not_answer_refuses_with_a_time_to_try_again(
    pipeline: Pipeline, nats_server: RunningServer[Nats]
) -> None:
    pipeline.define("orders_total")
    async with pipeline.receiver(), calling(pipeline) as caller:
        with nats_server.paused():
            batch = caller.batch(order())
            await caller.send(batch)
            error = error_of((await caller.outcomes(1))[batch.number])
        assert (error.http_status, error.retry_after_seconds) == (503, 1.0)


async def test_a_receiver_that_stops_asks_first_and_answers_everything(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    receiver = app.receiver(pipeline.receiver_settings)
    await receiver.__aenter__()
    await pipeline.expect_readiness("receiver", "ready")
    async with calling(pipeline) as caller:
        await caller.send(caller.batch(order()))
        await caller.outcomes(1)
        stopping = asyncio.create_task(receiver.__aexit__(None, None, None))
        await caller.asked_to_drain()
        batches = [caller.batch(order()) for _ in range(10)]
        await caller.send(*batches)
        await caller.call.done_writing()
        outcomes = await caller.outcomes(10)
        assert all(outcome.response.accepted == 1 for outcome in outcomes.values())
        assert await caller.call.read() is grpc.aio.EOF
        await stopping


async def test_a_caller_that_goes_away_leaves_the_others_alone(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with pipeline.receiver(), calling(pipeline) as staying:
        async with calling(pipeline) as leaving:
            await leaving.send(*(leaving.batch(order()) for _ in range(20)))
        await staying.send(staying.batch(order()))
        [outcome] = (await staying.outcomes(1)).values()
        assert outcome.response.accepted == 1


async def test_only_services_may_open_a_stream(pipeline: Pipeline) -> None:
    address = f"127.0.0.1:{pipeline.receiver_settings.grpc_port}"
    async with pipeline.receiver(), grpc.aio.insecure_channel(address) as channel:
        call = ingest_pb2_grpc.IngestServiceStub(channel).StreamBatches()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
