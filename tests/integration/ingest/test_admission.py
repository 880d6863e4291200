"""Projects that have as many producers or sources as they may: what is new is refused before it is acknowledged."""

import dataclasses
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from prometheus_client import REGISTRY

from chassis import postgres
from chassis.errors import PulsegateError
from chassis.ids import uuid7
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from services.ingest import admission, metrics
from services.ingest.storage.checkpoints import PostgresCheckpoints
from services.ingest.storage.full_projects import ProjectLimits
from tests.integration.ingest.pipeline import PATIENCE_SECONDS, Pipeline
from tests.integration.ingest.test_doors import totals_of
from tests.waiting import eventually


@asynccontextmanager
async def full(pipeline: Pipeline, what: str, **most: int) -> AsyncIterator[None]:
    """With a receiver that knows that the project may have no more of these than it has."""
    async with postgres.connected(pipeline.database.dsn("ingest")) as database:
        limits = dataclasses.replace(ProjectLimits(producers=10**9, sources=10**9, series=10**9), **most)
        await PostgresCheckpoints(database).note_full(0, 1, limits)

    metrics.FULL_PROJECTS.clear()

    async def known() -> bool:
        return bool(REGISTRY.get_sample_value("pulsegate_ingest_full_projects", {"what": what}))

    async with pipeline.receiver():
        await eventually(known, within_seconds=PATIENCE_SECONDS, what="the receiver knows")
        yield


@contextmanager
def config_away(pipeline: Pipeline) -> Iterator[None]:
    """Questions fail meanwhile: what needs none goes on."""
    pipeline.upstreams.config.broken = True
    try:
        yield
    finally:
        pipeline.upstreams.config.broken = False


async def push(pipeline: Pipeline, body: bytes, key: str = "secret") -> pb.IngestBatchResponse:
    group = pb.PushGroup(labels=["job", "nightly"])
    return await pipeline.send_bytes(body, door=pb.DOOR_PUSH_TEXT, group=group, key=key)


async def test_a_new_producer_is_refused_and_those_that_are_known_go_on(reading: Pipeline) -> None:
    reading.define("orders_total")
    one = {"name": "orders_total", "value": 1}
    producer = str(uuid7())
    async with reading.aggregator():
        async with reading.receiver():
            await reading.send(one, producer=producer, sequence=1)
            await reading.expect("orders_total{$project}", 1)
        async with full(reading, "producers", producers=1):
            with pytest.raises(PulsegateError) as refused:
                await reading.send(one, producer=str(uuid7()), sequence=1)
            assert (refused.value.http_status, refused.value.code) == (429, "QUOTA_EXCEEDED")
            assert refused.value.retry_after_seconds
            with config_away(reading):
                for sequence in (1, 2, 2):  # the first of them was counted by another receiver
                    await reading.send(one, producer=producer, sequence=sequence)
                await reading.send(one)
            other = dataclasses.replace(reading, tenant_id=str(uuid7()), project_id=str(uuid7()))
            other.define("orders_total")
            await other.send(one, producer=str(uuid7()), sequence=1)
            await reading.expect("orders_total{$project}", 3)
            await other.expect("orders_total{$project}", 1)
    async with reading.aggregator(), full(reading, "producers", producers=1):  # another owner, another receiver
        await reading.send(one, producer=producer, sequence=2)
        await reading.send(one, producer=producer, sequence=3)
        await reading.expect("orders_total{$project}", 4)


async def test_publishable_keys_leave_half_of_the_producers_to_secret_ones(reading: Pipeline) -> None:
    reading.define("orders_total")
    pages = [str(uuid7()) for _ in range(10)]

    async def send(producer: str, sequence: int, key: str) -> None:
        one = [{"name": "orders_total", "value": 1}]
        body = json.dumps({"producer": producer, "sequence": sequence, "metrics": one}).encode()
        await reading.send_bytes(body, key=key)

    async with reading.aggregator():
        async with reading.receiver():
            for page in pages:  # those before the count are taken
                await send(page, 1, "publishable")
            await reading.expect("orders_total{$project}", 10)
        async with full(reading, "publishable_producers", producers=11):
            with pytest.raises(PulsegateError) as refused:
                await send(str(uuid7()), 1, "publishable")
            assert (refused.value.http_status, refused.value.code) == (429, "QUOTA_EXCEEDED")
            await send(str(uuid7()), 1, "secret")
            await send(pages[0], 2, "publishable")
            await reading.expect("orders_total{$project}", 12)


async def test_totals_of_new_sources_are_refused_and_those_that_are_known_go_on(reading: Pipeline) -> None:
    reading.define("orders_total")
    reading.define("depth", "gauge")
    now_ms = int(time.time() * 1000)
    async with reading.aggregator():
        async with reading.receiver():
            await reading.send_bytes(totals_of("a", 5, now_ms), door=pb.DOOR_OTLP_PROTOBUF)
            await reading.expect("orders_total{$project}", 5)
        async with full(reading, "sources", sources=1):
            answer = await reading.send_bytes(totals_of("b", 1, now_ms), door=pb.DOOR_OTLP_PROTOBUF)
            assert (answer.accepted, answer.rejected[0].code) == (0, "SOURCE_LIMIT_REACHED")
            for _ in range(2):
                answer = await reading.send_bytes(totals_of("a", 7, now_ms + 1), door=pb.DOOR_OTLP_PROTOBUF)
                assert answer.accepted == 1
            with config_away(reading):
                answer = await push(reading, b"depth 4\norders_total 1\n")  # untyped: the first may be a total, too
                assert [(each.index, each.code) for each in answer.rejected] == [(1, "SOURCE_LIMIT_REACHED")]
            await reading.send({"name": "orders_total", "value": 1}, producer=str(uuid7()), sequence=1)
            await reading.expect("orders_total{$project}", 8)


async def test_publishable_keys_leave_half_of_the_sources_to_secret_ones(reading: Pipeline) -> None:
    reading.define("orders_total")
    now_ms = int(time.time() * 1000)

    async def rejected(source: str, orders: int, key: str) -> list[str]:
        body = totals_of(source, orders, now_ms + orders)
        answer = await reading.send_bytes(body, door=pb.DOOR_OTLP_PROTOBUF, key=key)
        return [each.code for each in answer.rejected if each.index == 0]

    async with reading.aggregator():
        async with reading.receiver():
            assert await rejected("a", 5, "publishable") == []
            await reading.expect("orders_total{$project}", 5)
        async with full(reading, "publishable_sources", sources=2):
            assert await rejected("b", 10, "publishable") == ["SOURCE_LIMIT_REACHED"]
            assert await rejected("c", 100, "secret") == []
            assert await rejected("a", 6, "publishable") == []
            assert await rejected("a", 7, "secret") == []
            await reading.expect("orders_total{$project}", 107)


async def test_what_publishable_keys_bring_at_once_is_bounded_before_it_is_counted(
    reading: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading.define("orders_total", labels=[{"name": "instance"}])
    monkeypatch.setattr(admission, "_MOST_NEW_SOURCES", 1_000)

    async def codes(first: int, sources: int, key: str) -> set[str]:
        lines = "\n".join(f'orders_total{{instance="{number}"}} 1' for number in range(first, first + sources))
        answer = await push(reading, lines.encode() + b"\n", key)
        return {each.code for each in answer.rejected}

    async with reading.running():
        assert await codes(0, 5, "publishable") == set()
        await reading.expect("sum(orders_total{$project})", 5)
        assert await codes(5, 10_000, "publishable") == {"SOURCE_LIMIT_REACHED"}
        assert await codes(0, 6, "publishable") == {"SOURCE_LIMIT_REACHED"}, "the sixth is new"
        assert await codes(5, 2, "secret") == set()
        await reading.expect("sum(orders_total{$project})", 7)
