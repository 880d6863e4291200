"""The feed of definitions, as ingest follows it."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY

from chassis.breakers import upstream_fault
from chassis.errors import Limited, NotFound, Unauthenticated, Unavailable
from chassis.grpc_client import connected
from chassis.ids import uuid7
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from contracts.pulsegate.config.v1 import definitions_pb2_grpc as pb_grpc
from deploy.local.servers import Postgres
from services.config.storage import DefinitionStorage
from tests.integration.config.service import Config, Feed, Person, at_a_time, counter
from tests.suite_database import Database
from tests.suite_servers import RunningServer
from tests.waiting import eventually


async def silence(feed: Feed) -> None:
    """Returns when nothing has come for a while; what was on its way comes before."""
    hearing = asyncio.ensure_future(feed.next())

    async def silent() -> bool:
        nonlocal hearing
        heard, _ = await asyncio.wait([hearing], timeout=1.5)
        if heard:
            await hearing
            hearing = asyncio.ensure_future(feed.next())
        return not heard

    await eventually(silent, what="the feed is silent")
    hearing.cancel()
    await asyncio.wait([hearing])


@pytest.mark.alone
async def test_a_watcher_gets_a_snapshot_of_all_tenants_then_each_change_soon(config: Config) -> None:
    one, other = config.person(), config.person()
    first, second = await one.create(counter()), await other.create(counter())
    async with config.watching() as feed:
        assert [metric.id for metric in await feed.snapshot()] == [first.id, second.id]

        began = time.monotonic()
        third = await one.create(counter("refunds_total"))
        change = await feed.next_change()
        assert time.monotonic() - began < 1.0
        assert (list(change.metrics), change.snapshot) == ([third], False)

        await other.delete(second.id)
        change = await feed.next_change()
        assert [metric.id for metric in change.metrics] == [second.id]
        assert change.metrics[0].HasField("deleted_at")


async def test_an_empty_snapshot_is_complete_too(config: Config) -> None:
    async with config.watching() as feed:
        assert await feed.snapshot() == []


@pytest.mark.alone
async def test_heartbeats_carry_the_revision_at_least_twice_a_second(config: Config) -> None:
    await config.person().create(counter())
    async with config.watching() as feed:
        await feed.snapshot()
        began = time.monotonic()
        beats = [await feed.next() for _ in range(5)]
        assert {(beat.revision, beat.snapshot, len(beat.metrics)) for beat in beats} == {(1, False, 0)}
        assert time.monotonic() - began < 2.5


async def test_a_resumed_watcher_gets_what_it_missed_and_no_snapshot(config: Config) -> None:
    person = config.person()
    kept = await person.create(counter())
    async with config.watching() as feed:
        await feed.snapshot()
        revision = feed.revision
    missed = await person.create(counter("refunds_total"))
    await person.delete(kept.id)
    async with config.watching(after_revision=revision) as feed:
        change = await feed.next_change()
        assert [(metric.spec.name, metric.HasField("deleted_at")) for metric in change.metrics] == [
            (missed.spec.name, False),
            (kept.spec.name, True),
        ]
        assert not change.snapshot


async def test_deletions_of_the_last_days_are_part_of_a_snapshot(config: Config) -> None:
    person = config.person()
    gone = await person.create(counter())
    await person.delete(gone.id)
    async with config.watching() as feed:
        assert [metric.HasField("deleted_at") for metric in await feed.snapshot()] == [True]


async def test_a_revision_that_the_feed_has_not_reached_begins_with_a_snapshot(config: Config) -> None:
    await config.person().create(counter())
    async with config.watching(after_revision=1_000_000) as feed:
        assert len(await feed.snapshot()) == 1


async def _kept_beside_a_forgotten_one(person: Person, database: Database) -> pb.Metric:
    """A definition at revision 1; of another one even the tombstone, at revision 3, is gone."""
    kept, gone = await person.create(counter()), await person.create(counter("refunds_total"))
    await person.delete(gone.id)
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("UPDATE config.feed SET purged_revision = 3")
        connection.execute("DELETE FROM config.metrics WHERE deleted_at IS NOT NULL")
    return kept


async def test_who_watches_beside_too_many_is_sent_elsewhere_until_one_has_left(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.config.feed._MOST_WATCHERS", 2)
    async with config.watching() as one:
        await one.snapshot()
        async with config.watching() as other:
            await other.snapshot()
            async with config.watching() as third:
                with pytest.raises(Limited, match="add replicas of config"):
                    await third.snapshot()

    async def watches() -> bool:
        async with config.watching() as late:
            with suppress(Limited):
                return await late.snapshot() == []
            return False

    await eventually(watches, what="somebody has left")


async def test_a_watcher_older_than_the_tombstones_kept_begins_with_a_snapshot(
    config: Config, database: Database
) -> None:
    person = config.person()
    kept = await _kept_beside_a_forgotten_one(person, database)
    async with config.watching(after_revision=2) as feed:
        assert [metric.id for metric in await feed.snapshot()] == [kept.id]


async def test_a_long_snapshot_comes_in_chunks_and_holds_everything_once(config: Config, database: Database) -> None:
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute(
            """
            INSERT INTO config.metrics (tenant_id, project_id, id, name, type, unit, help, labels, buckets, objectives,
                                        version, revision)
            SELECT uuidv7(), uuidv7(), uuidv7(), 'a_total', 'counter', '', 'A.', '[]', '{}', '{}', 1, n
            FROM generate_series(1, 1200) AS n
            """
        )
        connection.execute("UPDATE config.feed SET revision = 1200")
    async with config.watching() as feed:
        chunks = [await feed.next() for _ in range(3)]
        assert [len(chunk.metrics) for chunk in chunks] == [500, 500, 200]
        assert [chunk.snapshot_complete for chunk in chunks] == [False, False, True]
        assert len({metric.id for chunk in chunks for metric in chunk.metrics}) == 1200
        assert [chunk.revision for chunk in chunks] == [500, 1000, 1200]


@pytest.fixture
def large_definitions(database: Database) -> Sequence[str]:
    """The projects of 70 definitions of 250 KB, which no message could hold all together."""
    project_ids = [str(uuid7()) for _ in range(3)]
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute(
            """
            INSERT INTO config.metrics (tenant_id, project_id, id, name, type, unit, help, labels, buckets, objectives,
                                        version, revision)
            SELECT uuidv7(), (%(project_ids)s::uuid[])[n %% 3 + 1], uuidv7(), 'a_' || n || '_total', 'counter', '',
                   'A.',
                   jsonb_build_array(jsonb_build_object('name', 'plan', 'required', false, 'pattern', '',
                                                        'maxDistinct', 0, 'values', plans)),
                   '{}', '{}', 1, n
            FROM generate_series(1, 70) AS n,
                 (SELECT jsonb_agg(rpad(v::text, 200, 'x')) AS plans FROM generate_series(1, 1250) AS v) AS made
            """,
            {"project_ids": project_ids},
        )
        connection.execute("UPDATE config.feed SET revision = 70")
    return project_ids


async def test_a_snapshot_of_large_definitions_comes_in_messages_that_arrive(
    config: Config, large_definitions: Sequence[str]
) -> None:
    async with config.watching() as feed:
        assert [metric.spec.name for metric in await feed.snapshot()] == [f"a_{n}_total" for n in range(1, 71)]
        assert feed.revision == 70


async def test_changes_of_large_definitions_come_in_messages_that_arrive(
    config: Config, large_definitions: Sequence[str]
) -> None:
    seen: list[str] = []
    async with config.watching(after_revision=1) as feed:
        while feed.revision < 70:
            change = await feed.next_change()
            assert not change.snapshot
            seen += [metric.spec.name for metric in change.metrics]
            assert change.metrics[-1].spec.name == f"a_{feed.revision}_total", "where it goes on from"
    assert seen == [f"a_{n}_total" for n in range(2, 71)]


async def test_a_project_of_large_definitions_is_answered(config: Config, large_definitions: Sequence[str]) -> None:
    answers = [await config.project_definitions(project_id) for project_id in large_definitions]
    assert sum(len(answer.metrics) for answer in answers) == 70


@pytest.fixture
def many_definitions(config: Config, database: Database) -> Person:
    """Somebody in a project of a thousand definitions that have many values."""
    person = config.person()
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute(
            """
            INSERT INTO config.metrics (tenant_id, project_id, id, name, type, unit, help, labels, buckets, objectives,
                                        version, revision)
            SELECT %(tenant_id)s, %(project_id)s, uuidv7(), 'a_' || n || '_total', 'counter', '', 'A.',
                   jsonb_build_array(jsonb_build_object('name', 'plan', 'required', false, 'pattern', '',
                                                        'maxDistinct', 0, 'values', plans)),
                   '{}', '{}', 1, n
            FROM generate_series(1, 1000) AS n, (SELECT jsonb_agg(v::text) AS plans FROM generate_series(1, 800) AS v)
            """,
            {"tenant_id": person.tenant_id, "project_id": person.project_id},
        )
        connection.execute("UPDATE config.feed SET revision = 1000")
    return person


async def test_an_answer_of_many_large_definitions_is_made_in_steps_between_which_others_go_on(
    config: Config, many_definitions: Person
) -> None:
    shares = [await _longest_step(config.project_definitions(many_definitions.project_id)) for _ in range(3)]
    assert min(shares) < 0.25  # what else the thread may have done, such as a garbage collection, is in one of them


async def test_a_list_of_many_large_definitions_is_made_in_steps_between_which_others_go_on(
    many_definitions: Person,
) -> None:
    shares = [await _longest_step(many_definitions.list(page_size=500)) for _ in range(3)]
    assert min(shares) < 0.25  # as above


async def _longest_step(
    answer: Coroutine[Any, Any, pb.GetProjectDefinitionsResponse | pb.ListMetricsResponse],
) -> float:
    """The share of the loop's processor time that is spent without giving others a turn."""
    steps: list[float] = []
    asking = asyncio.create_task(answer)
    last = time.thread_time()
    while not asking.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        steps.append(now - last)
        last = now
    assert len(asking.result().metrics) > 100
    return max(steps) / sum(steps)


async def test_a_whole_project_may_be_told_without_labels(config: Config) -> None:
    person = config.person()
    created = await person.create(counter(labels=[pb.Label(name="plan", values=["free", "pro"])]))
    assert (await person.whole_project()).metrics == [created]
    created.spec.ClearField("labels")
    assert (await person.whole_project(without_labels=True)).metrics == [created]


async def test_no_more_than_three_answers_of_whole_projects_are_made_at_a_time_two_of_them_for_services(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = at_a_time(monkeypatch, "project_definitions")
    await asyncio.gather(*(config.project_definitions(str(uuid7())) for _ in range(8)))
    assert most() == 2
    for_people = [config.person().whole_project() for _ in range(4)]
    await asyncio.gather(*for_people, *(config.project_definitions(str(uuid7())) for _ in range(8)))
    assert most() == 3


async def test_services_wait_for_none_of_those_who_read_large_projects_and_who_waits_too_long_is_refused(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.timely_turns._LONGEST_WAIT_SECONDS", 0.3)
    person, reader = config.person(), config.person()
    await person.create(counter())
    known = await config.project_definitions(person.project_id)
    answered, refused_before = late(monkeypatch, "project_definitions"), turns_refused()
    first, *others = [asyncio.create_task(reader.whole_project()) for _ in range(10)]
    refused = asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0.1)
    async with asyncio.timeout(1):
        news = await config.project_definitions(person.project_id, after_revision=known.revision)
    assert (news.after_revision, len(news.metrics)) == (known.revision, 0)
    for error in await refused:
        assert isinstance(error, Unavailable)
        assert error.details == {"waitingFor": "turn"}
        assert not upstream_fault(error)
    assert turns_refused() - refused_before == len(others)
    answered.set()
    assert (await first).revision == known.revision


async def test_services_are_told_of_projects_and_changes_however_many_read_definitions(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = config.person()
    created = await person.create(counter())
    async with config.watching() as feed:
        await feed.snapshot()
        answered = late(monkeypatch, "get")
        reading = [asyncio.create_task(person.get(created.id)) for _ in range(20)]
        await eventually(lambda: asyncio.sleep(0, connections_waited_for() > 0), what="all connections are in use")
        async with asyncio.timeout(0.5):
            assert (await config.project_definitions(person.project_id)).metrics
            await feed.next()
            await feed.next()
        answered.set()
        await asyncio.gather(*reading, return_exceptions=True)


async def test_services_are_told_of_projects_and_changes_however_many_watchers_read_snapshots(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = config.person()
    await person.create(counter())
    async with AsyncExitStack() as watches:
        feed = await watches.enter_async_context(config.watching())
        await feed.snapshot()
        answered = late(monkeypatch, "feed_page")
        others = [await watches.enter_async_context(config.watching()) for _ in range(6)]
        snapshots = [asyncio.create_task(other.snapshot()) for other in others]
        await eventually(lambda: asyncio.sleep(0, watchers() == 7), what="all watch")
        async with asyncio.timeout(2):
            for _ in range(4):
                await feed.next()
            assert (await config.project_definitions(person.project_id)).metrics
        answered.set()
        assert [len(snapshot) for snapshot in await asyncio.gather(*snapshots)] == [1] * 6


def late(monkeypatch: pytest.MonkeyPatch, method: str) -> asyncio.Event:
    """This method of the storage answers once that is set."""
    original, answered = getattr(DefinitionStorage, method), asyncio.Event()

    async def waits(*arguments: Any, **named: Any) -> Any:
        await answered.wait()
        return await original(*arguments, **named)

    monkeypatch.setattr(DefinitionStorage, method, waits)
    return answered


def turns_refused() -> float:
    return REGISTRY.get_sample_value("pulsegate_turns_refused_total", {"what": "definitions are read"}) or 0.0


def watchers() -> float | None:
    return REGISTRY.get_sample_value("pulsegate_config_feed_watchers")


def connections_waited_for() -> float:
    return REGISTRY.get_sample_value("pulsegate_postgres_pool_connections", {"pool": "main", "state": "waiting"}) or 0.0


async def test_a_deletion_is_told_without_labels(config: Config) -> None:
    person = config.person()
    gone = await person.create(counter(labels=[pb.Label(name="plan", values=["free", "pro"])]))
    async with config.watching() as feed:
        await feed.snapshot()
        await person.delete(gone.id)
        [told] = (await feed.next_change()).metrics
    assert (told.id, told.spec.name, list(told.spec.labels)) == (gone.id, gone.spec.name, [])


async def test_all_watchers_see_many_changes_at_once_in_the_order_of_revisions(config: Config) -> None:
    people = [config.person() for _ in range(5)]

    async def follow() -> list[str]:
        async with config.watching() as feed:
            await feed.snapshot()
            ready.release()
            seen: list[str] = []
            revision = feed.revision
            while len(seen) < 50:
                change = await feed.next_change()
                assert change.revision > revision
                revision = change.revision
                seen += [metric.id for metric in change.metrics]
            return seen

    ready = asyncio.Semaphore(0)
    watchers = [asyncio.create_task(follow()) for _ in range(3)]
    for _ in watchers:
        await ready.acquire()
    created = await asyncio.gather(
        *(person.create(counter(f"step_{number}_total")) for person in people for number in range(10))
    )
    seen = await asyncio.gather(*watchers)
    assert seen[0] == seen[1] == seen[2]
    assert sorted(seen[0]) == sorted(metric.id for metric in created)


async def test_watchers_hear_nothing_while_the_database_is_away_and_go_on_afterwards(
    config: Config, postgres_server: RunningServer[Postgres]
) -> None:
    person = config.person()
    async with config.watching() as feed:
        await feed.snapshot()
        with postgres_server.away():
            await silence(feed)
            with pytest.raises(Unavailable):
                await person.list()

    async def answers() -> bool:
        try:
            await person.list()
        except Unavailable:
            return False
        return True

    await eventually(answers, within_seconds=60)
    async with config.watching(after_revision=feed.revision) as resumed:
        created = await person.create(counter())
        assert list((await resumed.next_change()).metrics) == [created]


async def test_a_watcher_that_leaves_is_forgotten(config: Config) -> None:
    async with config.watching() as one, config.watching() as other:
        await one.snapshot()
        await other.snapshot()
        assert watchers() == 2

    async def forgotten() -> bool:
        return watchers() == 0

    await eventually(forgotten)


async def test_a_projects_definitions_are_answered_with_the_revision_of_the_same_moment(config: Config) -> None:
    person = config.person()
    kept, gone = await person.create(counter()), await person.create(counter("refunds_total"))
    await person.delete(gone.id)
    await config.person().create(counter())
    answer = await config.project_definitions(person.project_id)
    assert (list(answer.metrics), answer.revision) == ([kept], 4)
    nobodys = await config.project_definitions(str(uuid7()))
    assert (list(nobodys.metrics), nobodys.revision) == ([], 4)


async def test_who_knows_a_project_from_before_the_tombstones_kept_is_told_all_of_it(
    config: Config, database: Database
) -> None:
    person = config.person()
    kept = await _kept_beside_a_forgotten_one(person, database)
    answer = await config.project_definitions(person.project_id, after_revision=2)
    assert (list(answer.metrics), answer.revision, answer.after_revision) == ([kept], 3, 0)


async def test_on_somebodys_behalf_only_their_project_is_answered(config: Config) -> None:
    person = config.person()
    created = await person.create(counter())
    own = config.auth.principal(person.tenant_id, person.project_id, kind="publishable", scopes=["ingest:write"])
    assert list((await config.project_definitions("", own)).metrics) == [created]
    strangers = config.auth.principal(str(uuid7()), str(uuid7()), scopes=["config:read"])
    with pytest.raises(NotFound):
        await config.project_definitions(person.project_id, strangers)


async def test_nobody_without_the_services_token_watches(config: Config) -> None:
    async with connected("config", f"127.0.0.1:{config.ports.grpc('config')}", "another-token") as channel:
        stub = pb_grpc.DefinitionFeedServiceStub(channel.grpc_channel)
        with pytest.raises(Unauthenticated):
            await anext(channel.stream(stub.WatchDefinitions, pb.WatchDefinitionsRequest()))
