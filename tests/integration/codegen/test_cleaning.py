"""Generated clients end with their project, and when nobody asks for them, and take up a bounded part of Postgres."""

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import pytest

from contracts.pulsegate.codegen.v1 import codegen_pb2
from tests.integration.codegen.service import StartCodegen
from tests.integration.codegen.upstreams import PROJECT, TENANT, Upstreams
from tests.suite_database import Database
from tests.waiting import eventually

PYTHON = codegen_pb2.LANGUAGE_PYTHON
OTHERS = "0192f0c1-0000-7000-8000-0000000000f1"
SECOND, THIRD = "0192f0c1-0000-7000-8000-0000000000f2", "0192f0c1-0000-7000-8000-0000000000f3"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.codegen.cleaning._PAUSE_SECONDS", 0.1)
    monkeypatch.setattr("services.codegen.cleaning._MOST_PROJECTS", 1)


def _projects(database: Database) -> list[str]:
    with psycopg.connect(database.superuser_dsn) as connection:
        rows = connection.execute("SELECT project_id::text FROM codegen.artifacts ORDER BY project_id").fetchall()
    return [project_id for (project_id,) in rows]


def _left(database: Database, *project_ids: str) -> Callable[[], Awaitable[bool]]:
    async def are_left() -> bool:
        return _projects(database) == list(project_ids)

    return are_left


async def test_what_nobody_asks_for_goes_where_nothing_more_is_generated(
    start_codegen: StartCodegen, database: Database
) -> None:
    async with start_codegen(artifact_retention_days=30) as codegen:
        for tenant, project in ((TENANT, PROJECT), (TENANT, SECOND), (OTHERS, THIRD)):
            await codegen.generate(language=PYTHON, tenant=tenant, project=project)
        with psycopg.connect(database.superuser_dsn) as connection:
            connection.execute(
                "UPDATE codegen.artifacts SET used_at = now() - make_interval(days => 31) WHERE project_id <> %s",
                (SECOND,),
            )
        await eventually(_left(database, SECOND), what="what is unused is gone")


async def test_the_clients_of_a_deleted_project_go_with_it_when_auth_says_so(
    start_codegen: StartCodegen, upstreams: Upstreams, database: Database
) -> None:
    upstreams.projects.away = True
    async with start_codegen() as codegen:
        for tenant, project in ((TENANT, PROJECT), (TENANT, SECOND), (OTHERS, THIRD)):
            await codegen.generate(language=PYTHON, tenant=tenant, project=project)
        upstreams.projects.deleted |= {PROJECT, THIRD}
        await asyncio.sleep(0.5)
        assert _projects(database) == [PROJECT, SECOND, THIRD], "nobody has said that they were deleted"
        upstreams.projects.away = False
        await eventually(_left(database, SECOND), what="those of deleted projects are gone")
        await codegen.generate(language=PYTHON, endpoint="https://late.example.com")
        await eventually(_left(database, SECOND), what="what a call that was under way has stored is gone")


async def test_what_a_tenant_and_each_of_its_projects_keep_is_bounded_in_bytes(
    start_codegen: StartCodegen, database: Database
) -> None:
    async with start_codegen() as codegen:
        size = len((await codegen.generate(language=PYTHON, tenant=OTHERS, project=THIRD)).content) + 1000
    async with start_codegen(artifact_bytes_per_tenant=8 * size) as codegen:
        for project in (PROJECT, SECOND):
            for number in range(4):
                newest = await codegen.generate(language=PYTHON, project=project, endpoint=f"https://{number}.example")
        assert _projects(database) == [PROJECT] * 2 + [SECOND] * 2 + [THIRD], "a quarter each"
        assert (await codegen.artifact(newest.sha256, project=SECOND)).content == newest.content
    async with start_codegen(artifact_bytes_per_tenant=4 * size) as codegen:
        for number in range(6):
            project = f"0192f0c1-0000-7000-8000-00000000010{number}"
            await codegen.generate(language=PYTHON, project=project)
        assert len(_projects(database)) == 4 + 1, "deleted projects and new ones instead of them take no more"
        assert THIRD in _projects(database), "another tenant's stay"


def test_the_role_that_sees_all_projects_sees_no_client_and_deletes_none(database: Database) -> None:
    for statement in ("SELECT content FROM artifacts", "DELETE FROM artifacts"):
        with psycopg.connect(database.dsn("codegen")) as connection:
            connection.execute("SET LOCAL ROLE codegen_cleaner")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
