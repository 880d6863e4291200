"""The ledger between real servers: what clients sent is what it says, for the project alone."""

import dataclasses
import time
import uuid
from typing import Any

import psycopg
import pytest

from chassis import context, grpc_client
from chassis.errors import Forbidden, Invalid, PulsegateError, Unavailable
from chassis.ids import uuid7
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from contracts.pulsegate.ingest.v1.ingest_pb2_grpc import LedgerServiceStub
from services.ingest.domain import partition_of
from services.ingest.ledger import HOUR_MS
from tests.integration.ingest.pipeline import PATIENCE_SECONDS, SERVICE_TOKEN, Pipeline
from tests.waiting import eventually

Told = dict[str, dict[str, Any]]


async def ask(pipeline: Pipeline, method: str, request: Any, *scopes: str) -> Any:
    """One question for the pipeline's project."""
    principal = pipeline.upstreams.auth.principal(pipeline.tenant_id, pipeline.project_id, scopes=list(scopes))
    address = f"127.0.0.1:{pipeline.receiver_settings.grpc_port}"
    token = context.PRINCIPAL_TOKEN.set(principal)
    try:
        async with grpc_client.connected("ingest", address, SERVICE_TOKEN) as channel:
            return await channel.call(getattr(LedgerServiceStub(channel.grpc_channel), method), request)
    finally:
        context.PRINCIPAL_TOKEN.reset(token)


async def told(pipeline: Pipeline, metric: str = "") -> Told:
    """All hours together, by metric."""
    now_ms = int(time.time() * 1000)
    request = pb.GetLedgerRequest(from_ms=now_ms - HOUR_MS, to_ms=now_ms + HOUR_MS, metric=metric)
    answer: pb.GetLedgerResponse = await ask(pipeline, "GetLedger", request, "usage:read")
    found: Told = {}
    for line in answer.lines:
        counts = found.setdefault(line.metric, {"rejected": {}})
        for name in ("received", "accepted", "duplicate", "committed", "folded"):
            counts[name] = counts.get(name, 0) + getattr(line, name)
        for code, count in line.rejected.items():
            counts["rejected"][code] = counts["rejected"].get(code, 0) + count
    return found


async def expect(pipeline: Pipeline, metric: str, **expected: Any) -> None:
    last: Told = {}

    async def says() -> bool:
        nonlocal last
        last = await told(pipeline)
        return metric in last and {name: last[metric][name] for name in expected} == expected

    try:
        await eventually(says, within_seconds=PATIENCE_SECONDS)
    except AssertionError:
        raise AssertionError(f"{last}, not {expected}") from None


async def test_what_was_sent_is_what_the_ledger_says(reading: Pipeline) -> None:
    reading.define("orders_total")
    reading.define("load_seconds", "histogram", buckets=[1])
    producer = str(uuid7())
    batch: list[dict[str, Any]] = [{"name": "orders_total", "value": 1}, {"name": "load_seconds", "value": [0.5, 2]}]
    values: list[Any] = [-1, "NaN", {}]
    wrong = [{"name": "orders_total", "value": value} for value in values]
    async with reading.running():
        for _ in range(3):
            await reading.send(*batch, *wrong, producer=producer, sequence=1)
        with pytest.raises(PulsegateError):
            await reading.send_bytes(b"{")
        await reading.send({"name": "missing_total", "value": 1})
        await expect(
            reading,
            "orders_total",
            received=12,
            accepted=3,
            rejected={"VALUE_NEGATIVE": 3, "VALUE_NOT_FINITE": 3, "METRIC_MALFORMED": 3},
            duplicate=2,
            committed=1,
            folded=0,
        )
        await expect(reading, "load_seconds", received=3, accepted=3, duplicate=2, committed=1)
        await expect(reading, "missing_total", received=1, accepted=0, rejected={"METRIC_NOT_DEFINED": 1})
        assert set(await told(reading, "load_seconds")) == {"load_seconds"}
        rejections: pb.ListRejectionsResponse = await ask(
            reading, "ListRejections", pb.ListRejectionsRequest(), "usage:read"
        )
        last = {(each.metric, each.code): each for each in rejections.rejections}
        codes = {"VALUE_NEGATIVE", "VALUE_NOT_FINITE", "METRIC_MALFORMED"}
        assert last.keys() == {*(("orders_total", code) for code in codes), ("missing_total", "METRIC_NOT_DEFINED")}
        assert "missing_total" in last["missing_total", "METRIC_NOT_DEFINED"].example


async def test_what_is_over_a_budget_is_accepted_and_told_as_a_limit(reading: Pipeline) -> None:
    reading.define("visits_total", labels=[{"name": "page", "max_distinct": 2}])
    async with reading.receiver():
        for pages, accepted in ((5, 5), (7, 12)):  # with a takeover between them
            async with reading.aggregator():
                batch = [{"name": "visits_total", "value": 1, "labels": {"page": f"p{each}"}} for each in range(pages)]
                await reading.send(*batch)
                await expect(reading, "visits_total", accepted=accepted)
        await expect(reading, "visits_total", received=12, committed=12, folded=8, rejected={})
        told_of: pb.ListRejectionsResponse = await ask(
            reading, "ListRejections", pb.ListRejectionsRequest(), "usage:read"
        )
        (only,) = told_of.rejections
        assert (only.metric, only.code, only.count) == ("visits_total", "CARDINALITY_LIMIT", 8)
        assert time.time() * 1000 - only.last_ms < 2 * HOUR_MS


async def test_a_batch_that_reaches_the_log_twice_is_committed_once(reading: Pipeline) -> None:
    reading.define("orders_total")
    producer = str(uuid7())
    for _ in range(3):  # each receiver is a new one, that does not remember
        async with reading.running():
            await reading.send({"name": "orders_total", "value": 1}, producer=producer, sequence=1)
    async with reading.running():
        await expect(reading, "orders_total", accepted=3, duplicate=2, committed=1)


async def test_a_long_answer_comes_in_pages(reading: Pipeline) -> None:
    fill = """
        INSERT INTO ingest.ledger (partition, tenant_id, project_id, metric, hour_ms, committed, duplicate, folded)
        SELECT %s, %s, %s, 'metric_' || mod(n, 3) || '_total', n / 3 * 3600000::bigint, n, 0, 0
          FROM generate_series(0, 10000) AS n
    """
    partition = partition_of(uuid.UUID(reading.project_id).bytes)
    with psycopg.connect(reading.database.superuser_dsn) as connection:
        connection.execute(fill, (partition, reading.tenant_id, reading.project_id))
    request = pb.GetLedgerRequest(to_ms=10_000 * HOUR_MS)
    pages: list[list[tuple[int, str, int]]] = []
    async with reading.receiver():
        while not pages or request.page_token:
            page: pb.GetLedgerResponse = await ask(reading, "GetLedger", request, "usage:read")
            pages.append([(-line.hour_ms, line.metric, line.committed) for line in page.lines])
            request.page_token = page.next_page_token
        for token in ("AAAA", "MS8AYQ", "OTk5OTk5OTk5OTk5OTk5OTk5OTkvYQ", "\u00e9"):
            with pytest.raises(Invalid):
                await ask(reading, "GetLedger", pb.GetLedgerRequest(page_token=token), "usage:read")
    assert [len(lines) for lines in pages] == [5_000, 5_000, 1]
    lines = [line for page in pages for line in page]
    assert lines == sorted(lines)
    assert {committed for *_, committed in lines} == set(range(10_001))


async def test_the_last_rejections_are_found_among_the_newest_counts(reading: Pipeline) -> None:
    fill = """
        INSERT INTO ingest.rejections
               (partition, tenant_id, project_id, metric, hour_ms, code, rejected, example, last_ms)
        SELECT %s, %s, %s, 'metric_' || n / 100000 || '_total', n * 3600000::bigint, 'LABEL_UNKNOWN', 1, '', n
          FROM generate_series(0, 199999) AS n
    """
    partition = partition_of(uuid.UUID(reading.project_id).bytes)
    with psycopg.connect(reading.database.superuser_dsn) as connection:
        connection.execute(fill, (partition, reading.tenant_id, reading.project_id))
    async with reading.receiver():
        answer: pb.ListRejectionsResponse = await ask(
            reading, "ListRejections", pb.ListRejectionsRequest(), "usage:read"
        )
    assert [(each.metric, each.count) for each in answer.rejections] == [("metric_1_total", 100_000)]


async def test_only_the_project_itself_and_who_may_read_usage_is_told(reading: Pipeline) -> None:
    reading.define("orders_total")
    stranger = dataclasses.replace(reading, tenant_id=str(uuid7()))
    neighbour = dataclasses.replace(reading, project_id=str(uuid7()))
    async with reading.running():
        await reading.send({"name": "orders_total", "value": 1})
        await expect(reading, "orders_total", committed=1)
        assert await told(stranger) == {}
        assert await told(neighbour) == {}
        with pytest.raises(Forbidden):
            await ask(reading, "GetLedger", pb.GetLedgerRequest(), "query:read")


async def test_without_a_database_batches_are_taken_and_questions_are_not_answered(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with pipeline.running():
        assert (await pipeline.send({"name": "orders_total", "value": 1})).accepted == 1
        with pytest.raises(Unavailable, match="PULSEGATE_POSTGRES_DSN"):
            await ask(pipeline, "ListRejections", pb.ListRejectionsRequest(), "usage:read")


async def test_what_came_through_another_door_is_under_the_names_of_its_definitions(reading: Pipeline) -> None:
    reading.define("orders_total", labels=[{"name": "plan"}])
    reading.define("render_seconds", "histogram", buckets=[1.0])
    lines = b"orders:1|c\norders:1|c|#host:a\nrender:5|ms\nrender:7|ms\nrender:5|ms|#host:a\nunknown:1|c\nbroken"
    async with reading.running():
        answer = await reading.send_bytes(lines, door=pb.DOOR_STATSD)
        assert (answer.accepted, len(answer.rejected)) == (3, 4)
        await expect(reading, "orders_total", received=2, committed=1, rejected={"LABEL_UNKNOWN": 1})
        await expect(reading, "render_seconds", received=3, committed=2, rejected={"LABEL_UNKNOWN": 1})
        await expect(reading, "unknown_total", received=1, rejected={"METRIC_NOT_DEFINED": 1})
        await expect(reading, "", received=1, rejected={"METRIC_MALFORMED": 1})
