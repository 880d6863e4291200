"""Operators: who is one, and what they set; tenants that are suspended and resumed."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from chassis.errors import Forbidden, Invalid, NotFound, PulsegateError, Unauthenticated
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1 import operators_pb2 as pb
from contracts.pulsegate.auth.v1.limits_pb2 import Limits
from services.auth.settings import Settings
from tests.integration.auth.client import PASSWORD, AuthClient, Person, running_auth
from tests.suite_database import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADDRESS = "operator@example.com"
ABSENT = "01a1fc11-be01-79f5-be4a-0f91d8d2d996"


@pytest_asyncio.fixture(loop_scope="module")
async def auth(settings: Settings) -> AsyncIterator[AuthClient]:
    async with running_auth(settings, operators=("second@example.com", ADDRESS.upper())) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def operator(auth: AuthClient, database: Database) -> Person:
    person = await auth.sign_up(ADDRESS)
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("UPDATE auth.users SET email_verified_at = now()")
    return person


async def update(auth: AuthClient, actor: Person, tenant_id: str, **wanted: Any) -> pb.OperatedTenant:
    request = pb.UpdateTenantRequest(tenant_id=tenant_id, **wanted)
    answer: pb.UpdateTenantResponse = await auth.operate("UpdateTenant", request, await auth.principal(actor))
    return answer.tenant


async def tenants(auth: AuthClient, actor: Person, **page: Any) -> pb.ListTenantsResponse:
    answer: pb.ListTenantsResponse = await auth.operate(
        "ListTenants", pb.ListTenantsRequest(**page), await auth.principal(actor)
    )
    return answer


async def test_an_operator_is_who_has_verified_an_address_on_the_list(auth: AuthClient, database: Database) -> None:
    somebody, operator = await auth.sign_up(), await auth.sign_up(ADDRESS)

    for person in (somebody, operator):
        for attempt in (tenants(auth, person), update(auth, person, somebody.tenant_id, suspended=True)):
            with pytest.raises(Forbidden):
                await attempt
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("UPDATE auth.users SET email_verified_at = now()")
    with pytest.raises(Forbidden):
        await tenants(auth, somebody)
    assert [one.id for one in (await tenants(auth, operator)).tenants] == [somebody.tenant_id, operator.tenant_id]


async def test_whose_session_has_ended_operates_nothing(auth: AuthClient, operator: Person, database: Database) -> None:
    principal = await auth.principal(operator)
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("UPDATE auth.sessions SET revoked_at = now()")

    with pytest.raises(Unauthenticated):
        await auth.operate("UpdateTenant", pb.UpdateTenantRequest(tenant_id=operator.tenant_id, plan="free"), principal)


async def test_tenants_come_in_pages_with_their_plans(auth: AuthClient, operator: Person) -> None:
    ada = await auth.sign_up(tenant_name="Engines")

    first = await tenants(auth, operator, page_size=1)
    [second] = (await tenants(auth, operator, page_size=1, page_token=first.next_page_token)).tenants

    assert [one.id for one in first.tenants] == [operator.tenant_id]
    assert (second.id, second.name, second.plan) == (ada.tenant_id, "Engines", "enterprise")
    assert not second.HasField("suspended_at")


async def test_a_plan_is_announced_and_holds_at_once(auth: AuthClient, operator: Person) -> None:
    ada = await auth.sign_up()
    key = (await auth.create_key(ada, scopes=["ingest:write"])).token
    stream = auth.watch()
    await anext(stream)

    await update(auth, operator, ada.tenant_id, plan="enterprise")
    assert (await update(auth, operator, ada.tenant_id, plan="free")).plan == "free"

    changes = (list(beat.changed_ids) async for beat in stream if beat.changed_ids)
    assert await anext(changes) == [ada.tenant_id]
    assert (await auth.authenticate(key=key)).plan == "free"
    for tenant_id, plan, error in (
        (ada.tenant_id, "platinum", Invalid),
        (ABSENT, "free", NotFound),
        ("x", "free", NotFound),
    ):
        with pytest.raises(error):
            await update(auth, operator, tenant_id, plan=plan)


async def test_a_tenants_own_limits_are_announced_and_hold_for_keys_and_people(
    auth: AuthClient, operator: Person
) -> None:
    ada = await auth.sign_up()
    key = (await auth.create_key(ada, scopes=["ingest:write"])).token
    wanted = Limits(writes_per_hour=7, ingestion_per_minute=12)
    stream = auth.watch()
    await anext(stream)

    async def known() -> list[Limits | None]:
        me = await auth.account("GetMe", accounts_pb2.GetMeRequest(), await auth.principal(ada))
        token = await auth.authenticate(key=key)
        session = await auth.authenticate(access_token=ada.access_token, project_id=ada.project_id)
        return [holder.limits if holder.HasField("limits") else None for holder in (token, session, me.memberships[0])]

    assert await known() == [None] * 3
    assert (await update(auth, operator, ada.tenant_id, limits=wanted)).limits == wanted
    changes = (list(beat.changed_ids) async for beat in stream if beat.changed_ids)
    assert await anext(changes) == [ada.tenant_id]
    assert (await update(auth, operator, ada.tenant_id, plan="free")).limits == wanted
    assert [one.limits for one in (await tenants(auth, operator)).tenants if one.id == ada.tenant_id] == [wanted]
    assert await known() == [wanted] * 3
    assert not (await update(auth, operator, ada.tenant_id, limits=Limits())).HasField("limits")
    assert await known() == [None] * 3
    for wrong in (-1, 10**12):
        with pytest.raises(Invalid):
            await update(auth, operator, ada.tenant_id, limits=Limits(reads_per_hour=wrong))
    with pytest.raises(Forbidden):
        await update(auth, ada, ada.tenant_id, limits=wanted)


async def test_a_suspended_tenant_answers_nobody_until_it_is_resumed(auth: AuthClient, operator: Person) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    add = accounts_pb2.AddMemberRequest(tenant_id=ada.tenant_id, email=eve.email, role=accounts_pb2.ROLE_EDITOR)
    await auth.account("AddMember", add, await auth.principal(ada))
    key = (await auth.create_key(ada, scopes=["ingest:write"])).token
    own = await auth.principal(ada)
    of_tenant: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        lambda: auth.authenticate(key=key),
        lambda: auth.principal(ada, ada.project_id),
        lambda: auth.principal(eve, ada.project_id),
        lambda: auth.account("ListMembers", accounts_pb2.ListMembersRequest(tenant_id=ada.tenant_id), own),
        lambda: auth.account("ListKeys", accounts_pb2.ListKeysRequest(project_id=ada.project_id), own),
        lambda: auth.create_key(ada),
    ]

    suspended = await update(auth, operator, ada.tenant_id, suspended=True)
    again = await update(auth, operator, ada.tenant_id, suspended=True)

    assert suspended.suspended_at == again.suspended_at
    for call in of_tenant:
        with pytest.raises(PulsegateError) as refused:
            await call()
        assert refused.value.code == "TENANT_SUSPENDED"
    assert await auth.principal(eve, eve.project_id)
    me = await auth.account("GetMe", accounts_pb2.GetMeRequest(), own)
    assert [(one.tenant.id, one.suspended) for one in me.memberships] == [(ada.tenant_id, True)]
    everything = accounts_pb2.ListProjectsRequest()
    seen = [await auth.account("ListProjects", everything, await auth.principal(person)) for person in (ada, eve)]
    assert [[project.id for project in answer.projects] for answer in seen] == [[], [eve.project_id]]
    await auth.account("SignIn", accounts_pb2.SignInRequest(email=ada.email, password=PASSWORD))
    resumed = await update(auth, operator, ada.tenant_id, suspended=False)
    assert not resumed.HasField("suspended_at")
    for call in of_tenant:
        await call()


async def test_the_operators_role_sees_and_changes_nothing_but_names_and_plans(
    auth: AuthClient, operator: Person, database: Database
) -> None:
    await auth.create_key(operator)
    with psycopg.connect(database.dsn("auth")) as connection:
        connection.execute("SET LOCAL ROLE auth_operator")
        for statement in (
            *(f"SELECT FROM {table}" for table in ("users", "memberships", "projects", "keys", "sessions", "mails")),
            "UPDATE tenants SET name = 'x'",
            "DELETE FROM tenants",
            "INSERT INTO tenants (id, name, plan, created_at) VALUES (uuidv7(), 'x', 'free', now())",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(statement.encode())


async def test_what_an_operator_does_to_a_tenant_is_in_the_tenants_audit_log(
    auth: AuthClient, operator: Person, database: Database
) -> None:
    ada = await auth.sign_up()
    for suspended in (True, True, False):
        await update(auth, operator, ada.tenant_id, plan="basic", suspended=suspended)
    await update(auth, operator, ada.tenant_id, limits=Limits(reads_per_hour=5))

    with psycopg.connect(database.superuser_dsn) as connection:
        query = "SELECT document::json FROM auth.audit_entries WHERE tenant_id = %s AND sequence > 3 ORDER BY sequence"
        entries = [entry for (entry,) in connection.execute(query, (ada.tenant_id,)).fetchall()]
    assert [entry["details"] for entry in entries] == [
        {"plan": "basic", "suspended": True},
        {"plan": "basic", "suspended": False},
        {"plan": "basic", "suspended": False, "readsPerHour": 5},
    ]
    assert {(entry["action"], entry["actor"]["kind"], entry["actor"]["id"]) for entry in entries} == {
        ("tenant.operated", "operator", operator.user_id)
    }
