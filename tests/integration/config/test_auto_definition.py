"""Definitions that data makes, over gRPC and real Postgres: only where a project lets it, and within limits."""

import asyncio

import pytest

from chassis.errors import Forbidden, NotFound
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from services.config.auto_definition import MOST_A_MINUTE
from tests.integration.config.service import WRITER, Config, Person, StartConfig, counter

ADMIN = (*WRITER, "keys:write")


def gauge(name: str) -> pb.MetricSpec:
    return pb.MetricSpec(name=name, type=pb.METRIC_TYPE_GAUGE, labels=[pb.Label(name="queue")])


async def made(config: Config, person: Person, *specs: pb.MetricSpec) -> int:
    return await config.define_from_data(person.tenant_id, person.project_id, *specs)


async def test_only_who_may_make_keys_decides_and_only_for_the_own_project(config: Config) -> None:
    admin = config.person(scopes=ADMIN)
    editor = config.person(tenant_id=admin.tenant_id, project_id=admin.project_id)
    assert not await editor.lets_data_define()
    with pytest.raises(Forbidden):
        await editor.let_data_define(True)
    await admin.let_data_define(True)
    assert await editor.lets_data_define()
    assert (await config.project_definitions(admin.project_id)).settings.auto_definition
    for other in (config.person(), config.person(tenant_id=admin.tenant_id)):
        assert not await other.lets_data_define()
        assert await made(config, other, gauge("depth")) == 0
    await admin.let_data_define(False)
    assert await made(config, admin, gauge("depth")) == 0
    with pytest.raises(NotFound):
        await config.define_from_data("", "", gauge("depth"))


async def test_what_data_made_is_provisional_until_somebody_writes_it(config: Config) -> None:
    admin = config.person(scopes=ADMIN)
    await admin.let_data_define(True)
    await admin.create(counter())
    async with config.watching() as feed:
        await feed.snapshot()
        assert await made(config, admin, gauge("depth"), counter(), gauge("no good name"), gauge("load_msec")) == 1
        [told] = (await feed.next_change()).metrics
    [_, depth] = (await admin.list()).metrics
    assert told == depth
    assert (depth.spec.name, depth.provisional, depth.version) == ("depth", True, 1)
    assert [label.name for label in depth.spec.labels] == ["queue"]
    confirmed = await admin.update(depth.id, depth.spec, 1)
    assert (confirmed.provisional, confirmed.version) == (False, 2)
    assert (await admin.update(depth.id, depth.spec, 2)).version == 2


async def test_a_name_that_was_just_deleted_is_not_made_anew_by_data(config: Config) -> None:
    admin = config.person(scopes=ADMIN)
    await admin.let_data_define(True)
    assert await made(config, admin, gauge("depth")) == 1
    [depth] = (await admin.list()).metrics
    await admin.delete(depth.id)
    assert await made(config, admin, gauge("depth")) == 0


async def test_what_is_not_made_is_said_why_and_what_is_there_is_not_among_it(config: Config) -> None:
    admin = config.person(scopes=ADMIN)
    asked = [gauge("depth"), gauge("no good name"), gauge("load_msec"), gauge("x" * 5000)]
    assert not (await config.come_of_data(admin.tenant_id, admin.project_id, *asked)).refused
    await admin.let_data_define(True)
    gone = await admin.create(counter("gone_total"))
    await admin.delete(gone.id)
    asked += [counter("gone_total"), *(gauge(f"g{number}") for number in range(MOST_A_MINUTE))]

    answer = await config.come_of_data(admin.tenant_id, admin.project_id, *asked)

    assert answer.made == MOST_A_MINUTE - 1
    reasons = {spec.name: spec.reason for spec in answer.refused}
    over = [f"g{number}" for number in range(MOST_A_MINUTE - 2, MOST_A_MINUTE)]
    assert list(reasons) == ["no good name", "load_msec", "x" * 5000, *over, "gone_total"]
    assert reasons["no good name"].startswith("name ")
    assert len(reasons["x" * 5000]) <= 301
    assert reasons["gone_total"] == "A metric of this name was deleted within the last minute."
    assert reasons[f"g{MOST_A_MINUTE - 1}"].startswith(f"Data may make {MOST_A_MINUTE} definitions a minute")
    again = await config.come_of_data(admin.tenant_id, admin.project_id, gauge("depth"))
    assert (again.made, list(again.refused)) == (0, [])


async def test_the_limits_hold_exactly_also_when_everybody_asks_at_once(start_config: StartConfig) -> None:
    async with start_config(most_metrics_per_project=160) as config:
        admin, full = config.person(scopes=ADMIN), config.person(scopes=ADMIN)
        await admin.let_data_define(True)
        asked = [made(config, admin, *(gauge(f"g{each}_{number}") for number in range(40))) for each in range(4)]
        assert sum(await asyncio.gather(*asked)) == MOST_A_MINUTE
        await full.let_data_define(True)
        for number in range(118):
            await full.create(counter(f"c{number}_total"))
        assert await made(config, full, *(gauge(f"g{number}") for number in range(5))) == 2, "three quarters are taken"
        await full.create(counter("of_a_person_total"))


@pytest.mark.parametrize(("bound", "same_project"), [("PROJECT", True), ("TENANT", True), ("TENANT", False)])
async def test_data_makes_no_more_where_three_quarters_of_the_bytes_are_taken(
    config: Config, monkeypatch: pytest.MonkeyPatch, bound: str, same_project: bool
) -> None:
    monkeypatch.setattr(f"services.config.auto_definition.MOST_BYTES_PER_{bound}", 4_000)
    admin = config.person(scopes=ADMIN)
    await admin.let_data_define(True)
    assert await made(config, admin, gauge("depth")) == 1
    other = admin if same_project else config.person(tenant_id=admin.tenant_id)
    await other.create(counter(labels=[pb.Label(name="plan", values=[f"plan {number:03}" for number in range(230)])]))
    answer = await config.come_of_data(admin.tenant_id, admin.project_id, gauge("load"))
    assert (answer.made, [spec.name for spec in answer.refused]) == (0, ["load"])
    assert "bytes" in answer.refused[0].reason


async def test_data_makes_no_more_where_three_quarters_of_what_all_leave_to_a_tenant_are_taken(
    start_config: StartConfig,
) -> None:
    large = [pb.Label(name="plan", values=[f"{number:040}" for number in range(1_000)])]
    async with start_config(most_definition_bytes=1 << 20) as config:
        admin = config.person(scopes=ADMIN)
        await admin.let_data_define(True)
        for number in range(4):
            await admin.create(counter(f"a{number}_total", labels=large))
        assert await made(config, admin, gauge("load")) == 0
        assert await admin.create(counter()), "the rest is for people"


async def test_data_makes_no_more_where_three_quarters_of_what_deleted_definitions_may_take_are_taken(
    start_config: StartConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.config.domain.LEAST_BYTES_PER_TENANT", 600)
    async with start_config(most_definition_bytes=20_000) as config:
        admin = config.person(scopes=ADMIN)
        await admin.let_data_define(True)
        for number in range(14):
            await admin.delete((await admin.create(counter(f"c{number}_total"))).id)
            if number == 10:
                assert await made(config, admin, gauge("depth")) == 1
        assert await made(config, admin, gauge("load")) == 0
        assert await admin.create(counter()), "the rest is for people"


async def test_data_makes_no_more_where_three_quarters_of_what_all_tenants_may_have_are_taken(
    start_config: StartConfig,
) -> None:
    async with start_config(most_definition_bytes=4_000) as config:
        admin = config.person(scopes=ADMIN)
        await admin.let_data_define(True)
        plans = [f"plan {number:03}" for number in range(230)]
        await config.person().create(counter(labels=[pb.Label(name="plan", values=plans)]))
        assert await made(config, admin, gauge("load")) == 0
        assert await admin.create(counter()), "the rest is for people"
