"""Definitions end with their project, whenever config hears of its deletion."""

import asyncio
from uuid import UUID

import pytest

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from services.config.domain import Actor
from services.config.operations import Definitions
from services.ingest.clients import ConfigClient
from services.ingest.definitions import DefinitionTable
from services.ingest.operations.endings import SeriesEndings
from tests.integration.config.service import WRITER, Config, Person, StandInProjects, StartConfig, counter
from tests.waiting import eventually

NAMES = ("a_total", "b_total", "c_total")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.config.deleted_projects._PAUSE_SECONDS", 0.1)
    monkeypatch.setattr("services.config.deleted_projects._MOST_PROJECTS", 2)
    monkeypatch.setattr("services.config.deleted_projects._MOST_METRICS", 2)


async def defined(person: Person) -> Person:
    for name in NAMES:
        await person.create(counter(name))
    return person


async def gone(person: Person) -> None:
    async def empty() -> bool:
        return not (await person.list()).metrics

    await eventually(empty, what="the definitions are deleted")


async def test_receivers_forget_the_definitions_of_a_deleted_project_and_of_no_other(config: Config) -> None:
    deleted, *others = [await defined(config.person()) for _ in range(4)]
    others.append(await defined(config.person(tenant_id=deleted.tenant_id)))
    table = DefinitionTable(ConfigClient(config.channel), SystemClock(), SeriesEndings(SystemClock()))
    following = asyncio.create_task(table.follow())

    async def known() -> bool:
        return table.loaded

    async def forgotten() -> bool:
        return not table.of_project(UUID(deleted.project_id).bytes)

    await eventually(known, what="the receiver knows the definitions")
    assert set(table.of_project(UUID(deleted.project_id).bytes)) == set(NAMES)
    async with config.watching() as feed:
        await feed.snapshot()
        config.projects.deleted.add(deleted.project_id)
        told: list[pb.Metric] = []
        while len(told) < len(NAMES):
            told += (await feed.next_change()).metrics
    assert all(metric.HasField("deleted_at") for metric in told)
    assert {metric.spec.name for metric in told} == set(NAMES)
    assert {metric.project_id for metric in told} == {deleted.project_id}
    await eventually(forgotten, what="the receiver has forgotten them")
    for other in others:
        assert set(table.of_project(UUID(other.project_id).bytes)) == set(NAMES)
        assert len((await other.list()).metrics) == len(NAMES)
    following.cancel()
    await asyncio.wait([following])


async def test_what_was_deleted_while_config_or_auth_was_away_is_forgotten_later(start_config: StartConfig) -> None:
    projects = StandInProjects()  # type: ignore[abstract]  # only what config calls
    async with start_config(projects=projects) as config:
        person, kept = await defined(config.person()), await defined(config.person())
    projects.deleted.add(person.project_id)
    projects.away = True
    async with start_config(projects=projects) as config:
        person, kept = [config.person(tenant_id=one.tenant_id, project_id=one.project_id) for one in (person, kept)]
        await asyncio.sleep(0.5)
        assert len((await person.list()).metrics) == len(NAMES), "nobody has said that it was deleted"
        projects.away = False
        await gone(person)
        assert len((await kept.list()).metrics) == len(NAMES)


async def test_what_cannot_be_deleted_now_holds_up_no_other(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    held_up, other = sorted([await defined(config.person()) for _ in range(2)], key=lambda person: person.project_id)
    delete = Definitions.delete

    async def delete_others(definitions: Definitions, actor: Actor, metric_id: str, version: int) -> None:
        if actor.project_id == held_up.project_id:
            raise Unavailable("Too many definitions are changed at this moment.")
        await delete(definitions, actor, metric_id, version)

    with monkeypatch.context() as patch:
        patch.setattr(Definitions, "delete", delete_others)
        config.projects.deleted |= {held_up.project_id, other.project_id}
        await gone(other)
        assert len((await held_up.list()).metrics) == len(NAMES)
    await gone(held_up)


async def test_what_a_call_that_was_under_way_defines_afterwards_is_forgotten_too(config: Config) -> None:
    person = config.person()
    config.projects.deleted.add(person.project_id)
    await person.create(counter())
    await gone(person)


async def test_the_settings_of_a_deleted_project_go_with_it(config: Config) -> None:
    admin = config.person(scopes=(*WRITER, "keys:write"))
    await admin.let_data_define(True)

    async def reset() -> bool:
        return not await admin.lets_data_define()

    config.projects.deleted.add(admin.project_id)
    await eventually(reset, what="the settings are gone")


async def test_the_audit_log_says_why_they_were_deleted(config: Config) -> None:
    person = config.person()
    await person.create(counter())
    config.projects.deleted.add(person.project_id)
    [_, entry] = await config.audit.arrived(2)
    assert (entry["action"], entry["actor"]["id"]) == ("metric.deleted", "project-deletion")
