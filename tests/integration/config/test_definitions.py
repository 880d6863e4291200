"""Definitions over gRPC and real Postgres: what people and their programs do with them."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from aiohttp import ClientSession
from prometheus_client import REGISTRY
from psycopg.rows import dict_row

from chassis.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated, Unavailable, VersionMismatch
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from tests.integration.config.service import Config, Person, StartConfig, at_a_time, counter
from tests.suite_database import Database
from tests.waiting import eventually


async def test_a_new_metric_is_answered_with_its_defaults_and_found_again(config: Config) -> None:
    person = config.person()
    created = await person.create(
        pb.MetricSpec(
            name="response_seconds",
            type=pb.METRIC_TYPE_HISTOGRAM,
            unit="seconds",
            help="Time to the last byte.",
            labels=[pb.Label(name="route", required=True, pattern="/[a-z/]*", max_distinct=50), pb.Label(name="tier")],
        )
    )
    assert created.version == 1
    assert (created.tenant_id, created.project_id) == (person.tenant_id, person.project_id)
    assert list(created.spec.buckets) == [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
    assert created.spec.labels[0].max_distinct == 50
    assert await person.get(created.id) == created


@pytest.mark.parametrize(
    ("metric_type", "name", "expected"),
    [
        (pb.METRIC_TYPE_GAUGE, "queue_depth", {"gauge_merge": pb.GAUGE_MERGE_LAST}),
        (pb.METRIC_TYPE_SUMMARY, "latency_seconds", {"objectives": [0.5, 0.9, 0.99]}),
        (pb.METRIC_TYPE_COUNTER, "jobs_total", {}),
        (pb.METRIC_TYPE_HISTOGRAM, "load_seconds", {"native_histogram": True}),
    ],
)
async def test_defaults_belong_to_the_type(
    config: Config, metric_type: pb.MetricType.ValueType, name: str, expected: dict[str, object]
) -> None:
    native = bool(expected.get("native_histogram"))
    spec = pb.MetricSpec(name=name, type=metric_type, help="A metric.", native_histogram=native)
    created = await config.person().create(spec)
    filled_in = pb.MetricSpec(name=name, type=metric_type, help="A metric.", **expected)  # type: ignore[arg-type]
    assert created.spec == filled_in


async def test_a_list_pages_in_the_order_of_creation(config: Config) -> None:
    person = config.person()
    names = [f"step_{number}_total" for number in range(5)]
    for name in names:
        await person.create(counter(name))
    await config.person(tenant_id=person.tenant_id).create(counter("of_another_project_total"))

    found, token = [], ""
    while True:
        page = await person.list(page_size=2, page_token=token)
        assert len(page.metrics) <= 2
        found += [metric.spec.name for metric in page.metrics]
        token = page.next_page_token
        if not token:
            break
    assert found == names


async def test_a_page_of_large_definitions_ends_by_their_bytes_and_all_come(config: Config) -> None:
    person, names = config.person(), [f"step_{number}_total" for number in range(12)]
    large = [pb.Label(name="plan", values=[f"{number:0200}" for number in range(1_000)])]
    for name in names:
        await person.create(counter(name, labels=large))
    pages = [await person.list(page_size=500)]
    while pages[-1].next_page_token:
        pages.append(await person.list(page_size=500, page_token=pages[-1].next_page_token))
    assert [metric.spec.name for page in pages for metric in page.metrics] == names
    assert [len(page.metrics) for page in pages] == [6, 6]


async def test_lists_are_read_in_turns_four_at_a_time_of_each_tenant_one(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = config.person()
    most = at_a_time(monkeypatch, "list_after")
    await asyncio.gather(*(person.list(page_size=size) for size in range(1, 6)))
    assert most() == 1
    await asyncio.gather(*(config.person().list() for _ in range(10)))
    assert most() == 4


async def test_page_sizes_out_of_range_and_made_up_tokens_are_refused(config: Config) -> None:
    for size, token in ((501, ""), (-1, ""), (0, "made-up"), (0, "////")):
        with pytest.raises(Invalid):
            await config.person().list(page_size=size, page_token=token)


async def test_every_fault_of_a_definition_is_named_at_once(config: Config) -> None:
    spec = pb.MetricSpec(
        name="latency_ms",
        help="",
        labels=[pb.Label(name="ok"), pb.Label(name="le"), pb.Label(name="ok", values=["__other__"], max_distinct=-1)],
    )
    with pytest.raises(Invalid) as caught:
        await config.person().create(spec)
    assert caught.value.details is not None
    fields = caught.value.details["fields"]
    assert set(fields) == {
        "type",
        "name",
        "help",
        "labels[1].name",
        "labels[2].name",
        "labels[2].values[0]",
        "labels[2].maxDistinct",
    }
    assert "latency_seconds" in fields["name"]
    assert await config.person().check(spec) == fields


async def test_a_check_changes_nothing_and_says_nothing_of_what_depends_on_a_missing_type(config: Config) -> None:
    person = config.person()
    assert await person.check(counter()) == {}
    assert set(await person.check(pb.MetricSpec(name="x", help="x", buckets=[1], objectives=[0.5]))) == {"type"}
    assert not (await person.list()).metrics
    with pytest.raises(Forbidden):
        await config.person(scopes=("config:read",)).check(counter())


async def test_a_name_is_taken_once_in_a_project_also_when_everybody_asks_at_once(config: Config) -> None:
    person = config.person()
    outcomes = await asyncio.gather(*(person.create(counter()) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(outcome, pb.Metric) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 9
    assert (await config.person(tenant_id=person.tenant_id).create(counter())).spec.name == "checkouts_total"


async def test_the_limit_of_definitions_holds_exactly_also_when_everybody_asks_at_once(
    start_config: StartConfig,
) -> None:
    async with start_config(most_metrics_per_project=3) as config:
        person = config.person()
        outcomes = await asyncio.gather(
            *(person.create(counter(f"step_{number}_total")) for number in range(8)), return_exceptions=True
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, Invalid)]
        assert {error.code for error in refused} == {"METRIC_LIMIT_REACHED"}
        assert len(refused) == 5
        kept = (await person.list()).metrics
        await person.delete(kept[0].id)
        await person.create(counter("room_again_total"))


async def test_the_bytes_of_a_projects_definitions_are_limited(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.config.operations.MOST_BYTES_PER_PROJECT", 5_000)
    person = config.person()
    plans = [f"plan {number:03}" for number in range(400)]
    kept = await person.create(counter(labels=[pb.Label(name="plan", values=plans[:200])]))
    wider = counter(labels=[pb.Label(name="plan", values=plans)])
    for refused in (person.create(counter("a_total", labels=wider.labels)), person.update(kept.id, wider, 1)):
        with pytest.raises(Invalid) as caught:
            await refused
        assert (caught.value.code, caught.value.details) == ("METRIC_LIMIT_REACHED", {"limit": 5_000})
        assert "bytes" in caught.value.message
    assert list((await person.list()).metrics) == [kept]
    assert await config.person().create(counter("of_another_project_total"))
    monkeypatch.setattr("services.config.operations.MOST_BYTES_PER_PROJECT", 500)
    assert (await person.update(kept.id, counter(labels=[pb.Label(name="plan")]), 1)).version == 2  # it shrinks
    monkeypatch.setattr("services.config.operations.MOST_BYTES_PER_PROJECT", 5_000)
    await person.delete(kept.id)
    assert await person.create(counter("room_again_total", labels=kept.spec.labels))


async def test_the_bytes_of_a_tenants_definitions_are_limited_over_all_its_projects(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.config.operations.MOST_BYTES_PER_TENANT", 5_000)
    one = config.person()
    other = config.person(tenant_id=one.tenant_id)
    plans = [f"plan {number:03}" for number in range(400)]
    large = counter(labels=[pb.Label(name="plan", values=plans[:250])])
    kept, small = await one.create(large), await other.create(counter())
    for refused in (
        other.create(counter("a_total", labels=large.labels)),
        other.update(small.id, large, 1),
        one.update(kept.id, counter(labels=[pb.Label(name="plan", values=plans)]), 1),
    ):
        with pytest.raises(Invalid) as caught:
            await refused
        assert (caught.value.code, caught.value.details) == ("METRIC_LIMIT_REACHED", {"limit": 5_000})
        assert "tenant" in caught.value.message
    assert await config.person().create(large), "another tenant has room of its own"
    await one.delete(kept.id)
    assert await other.create(counter("room_again_total", labels=large.labels))


async def test_the_bytes_of_all_definitions_are_limited_and_what_is_there_goes_on(start_config: StartConfig) -> None:
    plans = [f"plan {number:03}" for number in range(400)]
    large = counter(labels=[pb.Label(name="plan", values=plans[:250])])
    async with start_config(most_definition_bytes=8_000) as config:
        one, two, three = [config.person() for _ in range(3)]
        [kept, _] = [await person.create(large) for person in (one, two)]
        small = await three.create(counter())
        for refused in (
            config.person().create(large),
            three.update(small.id, large, 1),
            one.update(kept.id, counter(labels=[pb.Label(name="plan", values=plans)]), 1),
        ):
            with pytest.raises(Invalid) as caught:
                await refused
            assert (caught.value.code, caught.value.details) == ("DEFINITIONS_FULL", {"limit": 8_000})
        told = await config.project_definitions(one.project_id)
        assert [list(told.metrics), list((await one.list()).metrics)] == [[kept], [kept]]
        await eventually(nearly_full, what="the gauges tell of it")
    async with start_config(most_definition_bytes=1_000) as config:
        again = config.person(tenant_id=one.tenant_id, project_id=one.project_id)
        assert (await again.update(kept.id, counter(labels=[pb.Label(name="plan")]), 1)).version == 2  # it shrinks


async def test_a_few_tenants_that_take_what_they_can_leave_something_for_the_next(start_config: StartConfig) -> None:
    large = [pb.Label(name="plan", values=[f"{number:040}" for number in range(1_000)])]
    async with start_config(most_definition_bytes=1 << 20) as config:
        people = [config.person() for _ in range(4)]
        kept = [await taken_by(person, large) for person in people]
        assert [len(taken) for taken in kept] == [4, 2, 2, 1]
        assert await config.person().create(counter())
        assert (
            await people[0].update(kept[0][0].id, counter("a0_total", labels=[pb.Label(name="plan")]), 1)
        ).version == 2


async def test_who_makes_definitions_and_deletes_them_again_and_again_is_stopped_and_nobody_else(
    start_config: StartConfig, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.config.domain.LEAST_BYTES_PER_TENANT", 600)
    monkeypatch.setattr("services.config.storage._MOST_FORGOTTEN", 3)
    monkeypatch.setattr("services.config.feed._PURGE_SECONDS", 0.1)
    async with start_config(most_definition_bytes=20_000) as config:
        person, other = config.person(), config.person()
        changed, gone = [await person.create(counter(name)) for name in ("changed_total", "gone_total")]
        assert 10 <= await deleted_by(person) <= 20, "they take a sixth"
        with pytest.raises(Invalid, match="PULSEGATE_DEFINITIONS_BYTES") as caught:
            await config.person(tenant_id=person.tenant_id).create(counter())
        assert caught.value.code == "DELETED_METRIC_LIMIT_REACHED"
        longer = counter("changed_total", help="A longer text than the one before, by a few bytes.")
        assert (await person.update(changed.id, longer, 1)).version == 2
        await person.delete(gone.id)
        assert await deleted_by(other) >= 2, "somebody else has room, if less"
        await forgotten(database)
        assert await person.create(counter("room_again_total"))
        with psycopg.connect(database.superuser_dsn) as connection:
            assert connection.execute("SELECT deleted_bytes FROM config.feed").fetchall() == [(0,)]
            assert connection.execute("SELECT sum(deleted_bytes) FROM config.tenant_bytes").fetchall() == [(0,)]


async def deleted_by(person: Person) -> int:
    """How many definitions somebody makes and deletes until making one is refused."""
    deleted = 0
    while True:
        try:
            made = await person.create(counter(f"a{deleted}_total"))
        except Invalid as error:
            assert error.code == "DELETED_METRIC_LIMIT_REACHED"  # noqa: PT017 - of the one that ends it
            return deleted
        await person.delete(made.id)
        deleted += 1


async def forgotten(database: Database) -> None:
    """Waits until all that is deleted is forgotten, as if it had been so for eight days."""

    async def none_left() -> bool:
        with psycopg.connect(database.superuser_dsn) as connection:
            return connection.execute("SELECT FROM config.metrics WHERE deleted_at IS NOT NULL").rowcount == 0

    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("UPDATE config.metrics SET deleted_at = deleted_at - interval '8 days 1 second'")
    await eventually(none_left, what="what was deleted is forgotten")


async def test_a_tombstone_has_nothing_of_what_may_be_large(config: Config, database: Database) -> None:
    person, large = config.person(), {"help": "é" * 1000, "labels": [pb.Label(name="plan", values=["free", "pro"])]}
    specs = [
        counter("a_seconds", type=pb.METRIC_TYPE_HISTOGRAM, unit="seconds", buckets=range(1, 101), **large),
        counter("b_seconds", type=pb.METRIC_TYPE_SUMMARY, unit="seconds", objectives=[0.5, 0.9], **large),
    ]
    for spec in specs:
        await person.delete((await person.create(spec)).id)
    async with config.watching() as feed:
        told = [metric.spec for metric in await feed.snapshot()]
    assert told == [pb.MetricSpec(name=spec.name, type=spec.type, unit="seconds") for spec in specs]
    with psycopg.connect(database.superuser_dsn) as connection:
        assert connection.execute("SELECT max(bytes) < 230 FROM config.metrics").fetchall() == [(True,)]


async def taken_by(person: Person, labels: Sequence[pb.Label]) -> Sequence[pb.Metric]:
    """Definitions that somebody makes until one is refused."""
    made: list[pb.Metric] = []
    while True:
        try:
            made.append(await person.create(counter(f"a{len(made)}_total", labels=labels)))
        except Invalid as error:
            assert error.code == "METRIC_LIMIT_REACHED"  # noqa: PT017 - of the one that ends it
            assert "PULSEGATE_DEFINITIONS_BYTES" in error.message  # noqa: PT017 - as above
            return made


async def nearly_full() -> bool:
    taken = REGISTRY.get_sample_value("pulsegate_config_definition_bytes") or 0.0
    return 0.8 < taken / (REGISTRY.get_sample_value("pulsegate_config_definition_bytes_limit") or 1.0) < 1


async def test_texts_optional_labels_and_wider_values_change_in_place(config: Config) -> None:
    person = config.person()
    created = await person.create(counter(labels=[pb.Label(name="plan", values=["free"], max_distinct=5)]))
    wider = counter(
        help="Checkouts that were paid.",
        labels=[pb.Label(name="plan", values=["free", "pro"]), pb.Label(name="region")],
    )
    updated = await person.update(created.id, wider, created.version)
    assert (updated.version, updated.spec) == (2, wider)
    assert updated.id == created.id
    assert updated.updated_at.ToNanoseconds() > created.updated_at.ToNanoseconds()


async def test_a_change_that_changes_nothing_makes_no_version(config: Config) -> None:
    person = config.person()
    created = await person.create(counter())
    assert await person.update(created.id, counter(), 1) == created


@pytest.mark.parametrize(
    ("changed", "member"),
    [
        ({"name": "payments_total"}, "name"),
        ({"type": pb.METRIC_TYPE_GAUGE}, "type"),
        ({"labels": []}, "labels"),
        (
            {"labels": [pb.Label(name="plan", values=["free"]), pb.Label(name="new", required=True)]},
            "labels[1].required",
        ),
        ({"labels": [pb.Label(name="plan", values=["pro"])]}, "labels[0].values"),
    ],
)
async def test_a_change_that_would_break_series_is_a_conflict_that_names_the_member(
    config: Config, changed: dict[str, Any], member: str
) -> None:
    person = config.person()
    labels = [pb.Label(name="plan", values=["free", "pro"])]
    created = await person.create(counter(labels=labels))
    with pytest.raises(Conflict) as caught:
        await person.update(created.id, counter(**{"labels": labels, **changed}), 1)
    assert caught.value.details is not None
    assert member in caught.value.details["fields"]
    assert "new definition" in caught.value.message
    assert await person.get(created.id) == created


async def test_of_changes_at_once_to_one_version_exactly_one_wins(config: Config) -> None:
    person = config.person()
    created = await person.create(counter())
    outcomes = await asyncio.gather(
        *(person.update(created.id, counter(help=f"Text {number}."), 1) for number in range(10)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, pb.Metric) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, VersionMismatch) for outcome in outcomes) == 9


async def test_a_deleted_metric_is_gone_and_its_name_free(config: Config) -> None:
    person = config.person()
    created = await person.create(counter())
    with pytest.raises(VersionMismatch):
        await person.delete(created.id, version=7)
    await person.delete(created.id, version=1)
    for gone in (person.get(created.id), person.delete(created.id), person.update(created.id, counter(), 2)):
        with pytest.raises(NotFound):
            await gone
    assert not (await person.list()).metrics
    again = await person.create(counter())
    assert (again.version, again.id != created.id) == (1, True)


async def test_a_name_is_used_again_only_when_everybody_knows_of_the_deletion(config: Config) -> None:
    person = config.person()
    created = await person.create(counter())
    await person.delete(created.id, version=1)
    deleted_at = time.monotonic()
    await person.create(counter())
    assert time.monotonic() - deleted_at > 0.9


async def test_a_deletion_holds_up_no_other_name(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    person = config.person()
    created = await person.create(counter())
    await person.delete(created.id, version=1)
    monkeypatch.setattr("services.config.operations._DELETION_ARRIVES_SECONDS", 3600.0)
    assert await person.create(counter("of_another_name_total"))


@asynccontextmanager
async def deletion_held_open(person: Person, database: Database) -> AsyncIterator[None]:
    """A deletion that has a revision and is written, but does not end before the block does."""
    async with await psycopg.AsyncConnection.connect(database.superuser_dsn) as blocker:
        created = await person.create(counter())
        await blocker.execute("LOCK TABLE config.metric_versions IN SHARE MODE")
        deleting = asyncio.create_task(person.delete(created.id))
        await eventually(lambda: waiting(database, "metric_versions"), what="a deletion that waits")
        yield
        await blocker.commit()
        await deleting


async def waiting(database: Database, table: str, least_seconds: float = 0.0) -> bool:
    """Whether a statement about the table waits for a lock, in a transaction that is so old."""
    async with await psycopg.AsyncConnection.connect(database.superuser_dsn) as connection:
        cursor = await connection.execute(
            """
            SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
               AND query ~ %s AND clock_timestamp() - xact_start > make_interval(secs => %s)
            """,
            (table, least_seconds),
        )
        return await cursor.fetchone() is not None


async def test_a_name_that_is_asked_for_while_its_deletion_is_under_way_waits_for_everybody_too(
    config: Config, database: Database
) -> None:
    person = config.person()
    async with deletion_held_open(person, database):
        creating = asyncio.create_task(person.create(counter()))
        await eventually(lambda: waiting(database, "UPDATE feed"), what="a creation that waits")
        released_at = time.monotonic()
    await creating
    assert time.monotonic() - released_at > 0.9


async def test_a_name_whose_deletion_took_long_is_used_again_only_when_everybody_knows(
    config: Config, database: Database
) -> None:
    person = config.person()
    async with deletion_held_open(person, database):
        await eventually(lambda: waiting(database, "metric_versions", 1.2), what="a deletion that waits for long")
        released_at = time.monotonic()
    await person.create(counter())
    assert time.monotonic() - released_at > 0.9


async def test_changes_that_wait_for_each_other_keep_nobody_from_what_is_defined(
    config: Config, database: Database
) -> None:
    person, ready = config.person(), f"http://127.0.0.1:{config.ports.operations('config')}/health/ready"
    created = [await person.create(counter(f"step_{number}_total")) for number in range(20)]
    changed = [counter(metric.spec.name, help="Changed.") for metric in created]
    async with (
        ClientSession() as session,
        config.watching() as feed,
        await psycopg.AsyncConnection.connect(database.superuser_dsn) as blocker,
    ):
        await feed.snapshot()
        await blocker.execute("SELECT FROM config.feed FOR UPDATE")
        changes = [
            asyncio.create_task(person.update(metric.id, spec, 1))
            for metric, spec in zip(created, changed, strict=True)
        ]
        await eventually(lambda: waiting(database, "UPDATE feed"), what="a change that waits")
        for _ in range(12):  # for longer than a health check waits for a connection
            began = time.monotonic()
            await config.project_definitions(person.project_id)
            await person.get(created[0].id)
            await feed.next()
            async with session.get(ready) as response:
                assert response.status == 200
            assert time.monotonic() - began < 0.5
            await asyncio.sleep(0.25)
        await blocker.rollback()
        outcomes = await asyncio.gather(*changes, return_exceptions=True)
        refused = [each.details for each in outcomes if isinstance(each, Unavailable)]
        assert refused == [{"waitingFor": "turn"}] * len(refused), "those whose turn did not come in time"
        versions = [each.version for each in outcomes if not isinstance(each, BaseException)]
        assert versions == [2] * (len(created) - len(refused))
        assert versions


async def test_changes_take_turns_of_which_a_tenant_has_two(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    most = at_a_time(monkeypatch, "next_revision")
    person = config.person()
    others = [config.person(tenant_id=person.tenant_id) for _ in range(8)]
    await asyncio.gather(*(each.create(counter()) for each in (person, *others)))
    assert most() == 2
    await asyncio.gather(*(config.person().create(counter()) for _ in range(12)))
    assert most() == 4


async def test_each_change_keeps_who_when_and_what(config: Config, database: Database) -> None:
    person = config.person()
    created = await person.create(counter())
    await person.update(created.id, counter(help="A better text."), 1)
    await person.delete(created.id)
    with psycopg.connect(database.superuser_dsn, row_factory=dict_row) as connection:
        kept = connection.execute("SELECT * FROM config.metric_versions ORDER BY version").fetchall()
    assert [(row["version"], row["action"]) for row in kept] == [(1, "created"), (2, "updated"), (3, "deleted")]
    assert [row["spec"]["help"] for row in kept] == ["Checkouts completed.", "A better text.", ""]
    assert {(str(row["tenant_id"]), row["changed_by_kind"]) for row in kept} == {(person.tenant_id, "secret")}
    assert all(row["changed_by"] for row in kept)


async def test_the_latest_versions_of_a_definition_are_kept(
    config: Config, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.config.storage._VERSIONS_KEPT", 3)
    person = config.person()
    other, changed = await person.create(counter("other_total")), await person.create(counter())
    for version in range(1, 6):
        await person.update(changed.id, counter(help=f"Text {version}."), version)
    with psycopg.connect(database.superuser_dsn) as connection:
        rows = connection.execute("SELECT metric_id::text, version FROM config.metric_versions").fetchall()
    assert sorted(rows) == [(other.id, 1), *((changed.id, version) for version in (4, 5, 6))]


async def test_another_tenants_and_another_projects_metrics_do_not_exist(config: Config) -> None:
    owner = config.person()
    created = await owner.create(counter())
    strangers = [config.person(), config.person(tenant_id=owner.tenant_id), config.person(project_id=owner.project_id)]
    for stranger in strangers:
        assert not (await stranger.list()).metrics
        for call in (
            stranger.get(created.id),
            stranger.update(created.id, counter(help="Taken over."), 1),
            stranger.delete(created.id),
        ):
            with pytest.raises(NotFound):
                await call
    assert await owner.get(created.id) == created


async def test_ids_that_are_no_ids_do_not_exist(config: Config) -> None:
    for metric_id in ("", "1", "'; DROP TABLE metrics; --", "\x00"):
        with pytest.raises(NotFound):
            await config.person().get(metric_id)


async def test_reading_and_writing_need_their_scopes(config: Config) -> None:
    reader = config.person(scopes=("config:read",))
    writer = config.person(tenant_id=reader.tenant_id, project_id=reader.project_id, scopes=("config:write",))
    created = await writer.create(counter())
    assert await reader.get(created.id) == created
    for refused in (
        reader.create(counter()),
        reader.update(created.id, counter(), 1),
        reader.delete(created.id),
        writer.get(created.id),
        writer.list(),
    ):
        with pytest.raises(Forbidden) as caught:
            await refused
        assert caught.value.code == "INSUFFICIENT_SCOPE"


async def test_without_a_project_nothing_is_answered(config: Config) -> None:
    with pytest.raises(Unauthenticated):
        await config.person(project_id="").list()
