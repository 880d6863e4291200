"""What config tells the services that enforce definitions: the real one, and ingestion's stand-in."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from chassis import grpc_client
from chassis.ids import uuid7
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from deploy.local.layout import Ports
from services.config.app import running
from services.config.settings import Settings
from tests.integration.config.service import SERVICE_TOKEN, Config, counter
from tests.integration.ingest import upstreams as stand_ins
from tests.suite_database import Database


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A feed under test, and the changes that it has to tell."""

    config: Config
    project_id: str
    define: Callable[[str], Awaitable[pb.Metric]]
    change: Callable[[pb.Metric, str], Awaitable[pb.Metric]]
    delete: Callable[[pb.Metric], Awaitable[None]]


@pytest.fixture(params=["real", "stand-in"])
async def subject(
    request: pytest.FixtureRequest, database: Database, port_blocks: Callable[[], Ports]
) -> AsyncIterator[Subject]:
    async with AsyncExitStack() as stack:
        upstreams = await stack.enter_async_context(stand_ins.serving())
        ports = port_blocks()
        if request.param == "real":
            yield await _real(stack, upstreams, database, ports)
        else:
            yield await _stand_in(stack, upstreams, ports)


async def _real(stack: AsyncExitStack, upstreams: stand_ins.Upstreams, database: Database, ports: Ports) -> Subject:
    settings = Settings(
        host="127.0.0.1",
        operations_port=ports.operations("config"),
        grpc_port=ports.grpc("config"),
        service_token=SERVICE_TOKEN,
        log_level="info",
        otlp_endpoint=None,
        drain_seconds=5.0,
        dsn=database.dsn("config"),
        auth_address=upstreams.address,
        most_metrics_per_project=2000,
        most_definition_bytes=64 << 20,
    )
    address = f"127.0.0.1:{settings.grpc_port}"
    channel = await stack.enter_async_context(grpc_client.connected("config", address, SERVICE_TOKEN))
    await stack.enter_async_context(running(settings))
    config = Config(channel=channel, auth=upstreams.auth, ports=ports)
    person = config.person()

    async def define(name: str) -> pb.Metric:
        return await person.create(counter(name))

    async def change(metric: pb.Metric, text: str) -> pb.Metric:
        return await person.update(metric.id, counter(metric.spec.name, help=text), metric.version)

    async def delete(metric: pb.Metric) -> None:
        await person.delete(metric.id)

    return Subject(config=config, project_id=person.project_id, define=define, change=change, delete=delete)


async def _stand_in(stack: AsyncExitStack, upstreams: stand_ins.Upstreams, ports: Ports) -> Subject:
    channel = await stack.enter_async_context(grpc_client.connected("config", upstreams.address, SERVICE_TOKEN))
    config, tenant_id, project_id = upstreams.config, str(uuid7()), str(uuid7())

    async def define(name: str) -> pb.Metric:
        return config.define(tenant_id, project_id, name)

    async def change(metric: pb.Metric, text: str) -> pb.Metric:
        return config.define(tenant_id, project_id, metric.spec.name, help=text)

    async def delete(metric: pb.Metric) -> None:
        config.delete(metric)

    return Subject(
        config=Config(channel=channel, auth=upstreams.auth, ports=ports),
        project_id=project_id,
        define=define,
        change=change,
        delete=delete,
    )


async def test_a_feed_begins_with_a_snapshot_of_what_there_is(subject: Subject) -> None:
    async with subject.config.watching() as feed:
        assert await feed.snapshot() == []
    made = [await subject.define(name) for name in ("orders_total", "visits_total")]
    async with subject.config.watching() as feed:
        assert [metric.id for metric in await feed.snapshot()] == [metric.id for metric in made]


async def test_changes_follow_in_the_order_of_revisions(subject: Subject) -> None:
    async with subject.config.watching() as feed:
        await feed.snapshot()
        before, seen = feed.revision, []
        made = await subject.define("orders_total")
        seen.append(await feed.next_change())
        changed = await subject.change(made, "Orders that were paid.")
        seen.append(await feed.next_change())
        await subject.delete(changed)
        seen.append(await feed.next_change())
    assert not any(message.snapshot for message in seen)
    revisions = [before, *(message.revision for message in seen)]
    assert revisions == sorted(set(revisions))
    told = [metric for message in seen for metric in message.metrics]
    assert {(metric.id, metric.spec.name, metric.project_id) for metric in told} == {
        (made.id, "orders_total", subject.project_id)
    }
    assert [metric.version for metric in told[:2]] == [1, 2]
    assert [metric.spec.help for metric in told[1:2]] == ["Orders that were paid."]
    assert [metric.HasField("deleted_at") for metric in told] == [False, False, True]


async def test_a_name_that_is_defined_again_is_another_metric(subject: Subject) -> None:
    first = await subject.define("orders_total")
    await subject.delete(first)
    second = await subject.define("orders_total")
    assert second.id != first.id
    async with subject.config.watching() as feed:
        told = {metric.id: metric.HasField("deleted_at") for metric in await feed.snapshot()}
    assert told == {first.id: True, second.id: False}


async def test_heartbeats_carry_the_revision_and_nothing_else(subject: Subject) -> None:
    await subject.define("orders_total")
    async with subject.config.watching() as feed:
        await feed.snapshot()
        revision, began = feed.revision, time.monotonic()
        beats = [await feed.next() for _ in range(4)]
    assert {(beat.revision, beat.snapshot, len(beat.metrics)) for beat in beats} == {(revision, False, 0)}
    assert time.monotonic() - began < 4  # at least one a second


async def test_a_feed_that_is_resumed_tells_what_was_missed_and_no_more(subject: Subject) -> None:
    kept, gone = await subject.define("orders_total"), await subject.define("visits_total")
    async with subject.config.watching() as feed:
        await feed.snapshot()
        revision = feed.revision
    missed = await subject.define("refunds_total")
    await subject.delete(gone)
    async with subject.config.watching(after_revision=revision) as feed:
        told: dict[str, bool] = {}
        while len(told) < 2:
            message = await feed.next_change()
            assert not message.snapshot
            told |= {metric.id: metric.HasField("deleted_at") for metric in message.metrics}
    assert kept.id not in told
    assert told == {missed.id: False, gone.id: True}


async def test_who_knows_a_project_up_to_a_revision_is_told_what_changed_since(subject: Subject) -> None:
    kept, gone = await subject.define("orders_total"), await subject.define("visits_total")
    before = await subject.config.project_definitions(subject.project_id)
    nothing = await subject.config.project_definitions(subject.project_id, after_revision=before.revision)
    assert (list(nothing.metrics), nothing.after_revision) == ([], before.revision)
    await subject.delete(gone)
    made = await subject.define("refunds_total")
    news = await subject.config.project_definitions(subject.project_id, after_revision=before.revision)
    assert {metric.id: metric.HasField("deleted_at") for metric in news.metrics} == {gone.id: True, made.id: False}
    assert (news.after_revision, news.revision > before.revision) == (before.revision, True)
    ahead = await subject.config.project_definitions(subject.project_id, after_revision=news.revision + 1)
    assert ({metric.id for metric in ahead.metrics}, ahead.after_revision) == ({kept.id, made.id}, 0)


async def test_a_project_is_answered_as_of_now_without_what_was_deleted(subject: Subject) -> None:
    kept, gone = await subject.define("orders_total"), await subject.define("visits_total")
    before = await subject.config.project_definitions(subject.project_id)
    await subject.delete(gone)
    after = await subject.config.project_definitions(subject.project_id)
    assert {metric.id for metric in before.metrics} == {kept.id, gone.id}
    assert [metric.id for metric in after.metrics] == [kept.id]
    assert after.revision > before.revision
    assert list((await subject.config.project_definitions(str(uuid7()))).metrics) == []
