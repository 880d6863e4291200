"""Projects of a person's tenants."""

import asyncio
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chassis.errors import Forbidden, Invalid, NotFound, Unauthenticated
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from tests.integration.auth.client import AuthClient, Person
from tests.integration.auth.locks import until_somebody_waits_for_a_lock
from tests.suite_database import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")

RUNBOOK = Path(__file__).parents[3] / "docs/runbooks/PulsegateDefinitionsFull.md"

ABSENT = "01a1fc11-be01-79f5-be4a-0f91d8d2d996"


async def create(auth: AuthClient, person: Person, name: str, tenant_id: str = "") -> pb.Project:
    answer: pb.CreateProjectResponse = await auth.account(
        "CreateProject", pb.CreateProjectRequest(name=name, tenant_id=tenant_id), await auth.principal(person)
    )
    return answer.project


async def join(auth: AuthClient, owner: Person, person: Person, role: pb.Role.ValueType) -> None:
    request = pb.AddMemberRequest(tenant_id=owner.tenant_id, email=person.email, role=role)
    await auth.account("AddMember", request, await auth.principal(owner))


async def names(auth: AuthClient, person: Person, tenant_id: str = "") -> list[str]:
    answer = await auth.account(
        "ListProjects", pb.ListProjectsRequest(tenant_id=tenant_id), await auth.principal(person)
    )
    return [project.name for project in answer.projects]


async def test_a_project_is_made_renamed_and_deleted(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    principal = await auth.principal(ada)
    made = await create(auth, ada, "  Shop ")

    renamed = await auth.account("UpdateProject", pb.UpdateProjectRequest(project_id=made.id, name="Store"), principal)
    got = await auth.account("GetProject", pb.GetProjectRequest(project_id=made.id), principal)
    await auth.account("DeleteProject", pb.DeleteProjectRequest(project_id=made.id), principal)

    assert (made.name, renamed.project.name, got.project) == ("Shop", "Store", renamed.project)
    assert made.tenant_id == ada.tenant_id
    assert made.created_at.seconds > 0
    assert await names(auth, ada) == ["Default"]
    for method, request in (
        ("GetProject", pb.GetProjectRequest(project_id=made.id)),
        ("DeleteProject", pb.DeleteProjectRequest(project_id=made.id)),
    ):
        with pytest.raises(NotFound):
            await auth.account(method, request, principal)


async def test_a_tenant_has_as_many_projects_as_its_plan_allows_also_when_everybody_asks_at_once(
    auth: AuthClient, module_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.operations.projects.MOST_PROJECTS", {"enterprise": 3, "free": 2})
    ada, eve = await auth.sign_up(), await auth.sign_up()

    outcomes = await asyncio.gather(
        *(create(auth, ada, f"project {number}") for number in range(6)), return_exceptions=True
    )

    refused = [error for error in outcomes if isinstance(error, Invalid)]
    assert [(error.code, error.details) for error in refused] == 4 * [("PROJECT_LIMIT_REACHED", {"limit": 3})]
    assert len(await names(auth, ada)) == 3
    await create(auth, eve, "of another tenant")
    await auth.account("DeleteProject", pb.DeleteProjectRequest(project_id=ada.project_id), await auth.principal(ada))
    await create(auth, ada, "room again")
    with psycopg.connect(module_database.superuser_dsn) as operator:
        operator.execute("UPDATE auth.tenants SET plan = 'free' WHERE id = %s", (ada.tenant_id,))
    with pytest.raises(Invalid):
        await create(auth, ada, "beyond the smaller plan")
    assert len(await names(auth, ada)) == 3, "what is there stays"


async def test_pages_hold_every_project_once_from_the_oldest(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    principal = await auth.principal(ada)
    made = ["Default", *[(await create(auth, ada, f"project {number}")).name for number in range(4)]]

    pages: list[list[str]] = []
    token = ""
    while not pages or token:
        request = pb.ListProjectsRequest(page_size=2, page_token=token)
        answer = await auth.account("ListProjects", request, principal)
        pages.append([project.name for project in answer.projects])
        token = answer.next_page_token

    assert pages == [made[:2], made[2:4], made[4:]]


@pytest.mark.parametrize(
    "request_",
    [
        pb.ListProjectsRequest(page_size=501),
        pb.ListProjectsRequest(page_size=-1),
        pb.ListProjectsRequest(page_token="nonsense"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(auth: AuthClient, request_: pb.ListProjectsRequest) -> None:
    principal = await auth.principal(await auth.sign_up())

    with pytest.raises(Invalid):
        await auth.account("ListProjects", request_, principal)


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "two\nlines", "nul\0"])
async def test_a_name_that_nobody_could_read_is_refused(auth: AuthClient, name: str) -> None:
    ada = await auth.sign_up()

    with pytest.raises(Invalid) as refused:
        await create(auth, ada, name)

    assert refused.value.details == {"fields": {"name": "must be 1 to 100 printable characters"}}


async def test_whom_others_add_to_their_tenant_makes_projects_in_their_own_unless_they_say_otherwise(
    auth: AuthClient,
) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    await join(auth, ada, eve, pb.ROLE_ADMIN)

    own = await create(auth, eve, "Own")
    await auth.account("DeleteProject", pb.DeleteProjectRequest(project_id=own.id), await auth.principal(eve))
    await create(auth, eve, "Shop", ada.tenant_id)

    assert own.tenant_id == eve.tenant_id
    assert await names(auth, eve) == ["Default", "Default", "Shop"]
    assert await names(auth, eve, ada.tenant_id) == ["Default", "Shop"]
    assert await names(auth, ada) == ["Default", "Shop"]


async def test_another_tenants_projects_do_not_exist(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    principal = await auth.principal(eve)

    for project_id in (ada.project_id, ABSENT, "nonsense", ""):
        for method, request in (
            ("GetProject", pb.GetProjectRequest(project_id=project_id)),
            ("UpdateProject", pb.UpdateProjectRequest(project_id=project_id, name="mine")),
            ("DeleteProject", pb.DeleteProjectRequest(project_id=project_id)),
        ):
            with pytest.raises(NotFound):
                await auth.account(method, request, principal)
    for tenant_id in (ada.tenant_id, ABSENT, "nonsense"):
        with pytest.raises(NotFound):
            await names(auth, eve, tenant_id)
        with pytest.raises(NotFound):
            await create(auth, eve, "mine", tenant_id)
    assert await names(auth, ada) == ["Default"]


async def test_an_editor_sees_projects_but_changes_none(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    await join(auth, ada, eve, pb.ROLE_EDITOR)
    principal = await auth.principal(eve)

    assert await names(auth, eve, ada.tenant_id) == ["Default"]
    for method, request in (
        ("CreateProject", pb.CreateProjectRequest(tenant_id=ada.tenant_id, name="Shop")),
        ("UpdateProject", pb.UpdateProjectRequest(project_id=ada.project_id, name="Shop")),
        ("DeleteProject", pb.DeleteProjectRequest(project_id=ada.project_id)),
    ):
        with pytest.raises(Forbidden) as refused:
            await auth.account(method, request, principal)
        assert refused.value.message == "This takes the role admin; yours in this tenant is editor."


async def test_a_key_sees_its_own_project_where_it_may_read_and_no_other(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    other = await create(auth, ada, "Other")
    reading = (await auth.authenticate(key=(await auth.create_key(ada, scopes=["config:read"])).token)).principal
    writing = (await auth.authenticate(key=(await auth.create_key(ada, scopes=["ingest:write"])).token)).principal
    own = pb.GetProjectRequest(project_id=ada.project_id)

    assert (await auth.account("GetProject", own, reading)).project.name == "Default"
    with pytest.raises(Forbidden) as refused:
        await auth.account("GetProject", own, writing)
    with pytest.raises(NotFound):
        await auth.account("GetProject", pb.GetProjectRequest(project_id=other.id), reading)

    assert refused.value.code == "INSUFFICIENT_SCOPE"


async def test_a_key_of_a_deleted_project_finds_nothing(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    reading = (await auth.authenticate(key=(await auth.create_key(ada, scopes=["config:read"])).token)).principal
    principal = await auth.principal(ada)
    await auth.account("DeleteProject", pb.DeleteProjectRequest(project_id=ada.project_id), principal)

    with pytest.raises(NotFound):
        await auth.account("GetProject", pb.GetProjectRequest(project_id=ada.project_id), reading)


async def test_services_are_told_which_projects_were_deleted_and_of_none_that_is_merely_not_there(
    auth: AuthClient,
) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    await auth.account("DeleteProject", pb.DeleteProjectRequest(project_id=ada.project_id), await auth.principal(ada))

    asked = [eve.project_id, ABSENT, "nonsense", ada.project_id]
    answer = await auth.account("FindDeletedProjects", pb.FindDeletedProjectsRequest(project_ids=asked))

    assert list(answer.project_ids) == [ada.project_id]


async def test_the_statement_of_the_runbook_deletes_a_tenants_projects_as_its_admins_would(
    auth: AuthClient, module_database: Database
) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    projects = [ada.project_id, (await create(auth, ada, "Shop")).id]
    [statement] = re.findall("```sql\n(.*?)```", RUNBOOK.read_text(), re.DOTALL)

    with psycopg.connect(module_database.superuser_dsn) as operator:
        operator.execute(statement.replace("…", ada.tenant_id))

    answer = await auth.account(
        "FindDeletedProjects", pb.FindDeletedProjectsRequest(project_ids=[*projects, eve.project_id])
    )
    assert sorted(answer.project_ids) == sorted(projects)
    assert (await names(auth, ada), await names(auth, eve)) == ([], ["Default"])


async def test_deleting_a_project_stops_its_keys(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    key = await auth.create_key(ada)
    stream = auth.watch()
    await anext(stream)

    await auth.account("DeleteProject", pb.DeleteProjectRequest(project_id=ada.project_id), await auth.principal(ada))

    changed = await anext(beat.changed_ids async for beat in stream if beat.changed_ids)
    assert list(changed) == [ada.project_id], "of which the verdict on each of its keys depends"
    with pytest.raises(Unauthenticated) as refused:
        await auth.authenticate(key=key.token)
    assert refused.value.code == "INVALID_API_KEY"


@pytest.mark.parametrize(
    ("method", "request_class"),
    [
        ("UpdateProject", pb.UpdateProjectRequest),
        ("DeleteProject", pb.DeleteProjectRequest),
        ("CreateKey", pb.CreateKeyRequest),
    ],
)
async def test_a_project_that_somebody_else_is_deleting_does_not_exist(
    auth: AuthClient, module_database: Database, method: str, request_class: type[Any]
) -> None:
    ada = await auth.sign_up()
    principal = await auth.principal(ada)
    request = request_class(project_id=ada.project_id)
    if method != "DeleteProject":
        request.name = "Shop"
    if method == "CreateKey":
        request.kind = pb.KEY_KIND_SECRET

    with psycopg.connect(module_database.superuser_dsn) as deleting:
        deleting.execute("DELETE FROM auth.projects WHERE id = %s", (ada.project_id,))
        waiting = asyncio.create_task(auth.account(method, request, principal))
        await until_somebody_waits_for_a_lock(module_database)
        deleting.commit()

        with pytest.raises(NotFound):
            await waiting


async def test_keys_that_are_rotated_while_their_project_is_deleted_end_with_it(auth: AuthClient) -> None:
    for _ in range(3):
        ada = await auth.sign_up()
        principal = await auth.principal(ada)
        keys = [(await auth.create_key(ada)).key.id for _ in range(6)]
        rotations = [
            auth.account("RotateKey", pb.RotateKeyRequest(project_id=ada.project_id, key_id=key), principal)
            for key in keys
        ]
        deletion = auth.account("DeleteProject", pb.DeleteProjectRequest(project_id=ada.project_id), principal)
        *rotated, deleted = await asyncio.gather(*rotations, deletion, return_exceptions=True)
        assert not isinstance(deleted, BaseException), deleted
        refused = [answer for answer in rotated if isinstance(answer, BaseException)]
        assert all(isinstance(error, NotFound) for error in refused), refused
