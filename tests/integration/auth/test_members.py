"""Members of a tenant and their roles."""

import asyncio

import psycopg
import pytest

from chassis.errors import Conflict, Forbidden, Invalid, NotFound, PulsegateError
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from services.auth.settings import Settings
from tests.integration.auth.client import AuthClient, Person, running_auth
from tests.suite_database import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")

ABSENT = "01a1fc11-be01-79f5-be4a-0f91d8d2d996"


async def add(auth: AuthClient, actor: Person, tenant: Person, person: Person, role: pb.Role.ValueType) -> pb.Member:
    request = pb.AddMemberRequest(tenant_id=tenant.tenant_id, email=person.email.upper(), role=role)
    answer: pb.AddMemberResponse = await auth.account("AddMember", request, await auth.principal(actor))
    return answer.member


async def change(auth: AuthClient, actor: Person, tenant: Person, user_id: str, role: pb.Role.ValueType) -> pb.Member:
    request = pb.UpdateMemberRequest(tenant_id=tenant.tenant_id, user_id=user_id, role=role)
    answer: pb.UpdateMemberResponse = await auth.account("UpdateMember", request, await auth.principal(actor))
    return answer.member


async def remove(auth: AuthClient, actor: Person, tenant: Person, user_id: str) -> None:
    request = pb.RemoveMemberRequest(tenant_id=tenant.tenant_id, user_id=user_id)
    await auth.account("RemoveMember", request, await auth.principal(actor))


def consent(database: Database, tenant: Person, person: Person) -> None:
    """As if the member had been invited, and had accepted."""
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute(
            "UPDATE auth.memberships SET consented = true WHERE tenant_id = %s AND user_id = %s",
            (tenant.tenant_id, person.user_id),
        )


async def members(auth: AuthClient, actor: Person, tenant: Person) -> dict[str, pb.Role.ValueType]:
    request = pb.ListMembersRequest(tenant_id=tenant.tenant_id)
    answer = await auth.account("ListMembers", request, await auth.principal(actor))
    return {member.user.email: member.role for member in answer.members}


async def test_a_known_user_becomes_a_member_with_the_roles_scopes(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    with pytest.raises(NotFound):
        await auth.principal(eve, ada.project_id)

    member = await add(auth, ada, ada, eve, pb.ROLE_EDITOR)

    assert (member.user.email, member.user.id, member.role) == (eve.email, eve.user_id, pb.ROLE_EDITOR)
    assert member.created_at.seconds > 0
    assert await members(auth, eve, ada) == {ada.email: pb.ROLE_OWNER, eve.email: pb.ROLE_EDITOR}
    assert await auth.principal(eve, ada.project_id)


async def test_where_addresses_can_be_verified_only_those_who_did_add_and_are_added(
    mailing_settings: Settings, database: Database
) -> None:
    def verify(person: Person, *, since: str | None = "now") -> None:
        with psycopg.connect(database.superuser_dsn) as connection:
            connection.execute(
                "UPDATE auth.users SET email_verified_at = %s::timestamptz WHERE id = %s", (since, person.user_id)
            )

    async with running_auth(mailing_settings) as auth:
        ada, eve, mallory = [await auth.sign_up() for _ in range(3)]
        verify(ada)
        with pytest.raises(NotFound, match="Nobody has verified"):
            await add(auth, ada, ada, eve, pb.ROLE_VIEWER)

        verify(eve)
        with pytest.raises(Forbidden, match="Verify your own"):
            await add(auth, mallory, mallory, eve, pb.ROLE_VIEWER)
        assert (await add(auth, ada, ada, eve, pb.ROLE_VIEWER)).email_verified
        verify(ada, since=None)
        assert (await change(auth, ada, ada, eve.user_id, pb.ROLE_ADMIN)).role == pb.ROLE_ADMIN
        with pytest.raises(Forbidden, match="Verify your own"):
            await change(auth, ada, ada, eve.user_id, pb.ROLE_OWNER)


async def test_members_come_in_pages(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    await add(auth, ada, ada, eve, pb.ROLE_VIEWER)
    principal = await auth.principal(ada)

    first = await auth.account("ListMembers", pb.ListMembersRequest(tenant_id=ada.tenant_id, page_size=1), principal)
    second = await auth.account(
        "ListMembers",
        pb.ListMembersRequest(tenant_id=ada.tenant_id, page_size=1, page_token=first.next_page_token),
        principal,
    )

    assert [member.user.id for member in (*first.members, *second.members)] == [ada.user_id, eve.user_id]
    assert second.next_page_token == ""


async def test_whom_nobody_knows_cannot_be_added_and_nobody_twice(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    await add(auth, ada, ada, eve, pb.ROLE_VIEWER)
    unknown = pb.AddMemberRequest(tenant_id=ada.tenant_id, email="unknown@example.com", role=pb.ROLE_VIEWER)

    with pytest.raises(Conflict):
        await add(auth, ada, ada, eve, pb.ROLE_ADMIN)
    with pytest.raises(NotFound):
        await auth.account("AddMember", unknown, await auth.principal(ada))
    with pytest.raises(Invalid):
        await add(auth, ada, ada, eve, pb.ROLE_UNSPECIFIED)

    assert (await members(auth, ada, ada))[eve.email] == pb.ROLE_VIEWER


async def test_a_tenant_does_not_exist_for_strangers(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()

    for attempt in (
        members(auth, eve, ada),
        add(auth, eve, ada, eve, pb.ROLE_OWNER),
        change(auth, eve, ada, ada.user_id, pb.ROLE_VIEWER),
        remove(auth, eve, ada, ada.user_id),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_absent_members_do_not_exist(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()

    for user_id in (eve.user_id, ABSENT, "nonsense"):
        with pytest.raises(NotFound):
            await change(auth, ada, ada, user_id, pb.ROLE_VIEWER)
        with pytest.raises(NotFound):
            await remove(auth, ada, ada, user_id)


async def test_an_admin_manages_members_but_neither_makes_nor_touches_owners(auth: AuthClient) -> None:
    ada, eve, bob = await auth.sign_up(), await auth.sign_up(), await auth.sign_up()
    await add(auth, ada, ada, eve, pb.ROLE_ADMIN)

    await add(auth, eve, ada, bob, pb.ROLE_VIEWER)
    assert (await change(auth, eve, ada, bob.user_id, pb.ROLE_ADMIN)).role == pb.ROLE_ADMIN
    for attempt in (
        change(auth, eve, ada, bob.user_id, pb.ROLE_OWNER),
        change(auth, eve, ada, eve.user_id, pb.ROLE_OWNER),
        change(auth, eve, ada, ada.user_id, pb.ROLE_VIEWER),
        remove(auth, eve, ada, ada.user_id),
    ):
        with pytest.raises(Forbidden):
            await attempt
    await remove(auth, eve, ada, bob.user_id)

    assert await members(auth, ada, ada) == {ada.email: pb.ROLE_OWNER, eve.email: pb.ROLE_ADMIN}


async def test_an_editor_manages_nobody_but_may_leave(auth: AuthClient) -> None:
    ada, eve, bob = await auth.sign_up(), await auth.sign_up(), await auth.sign_up()
    await add(auth, ada, ada, eve, pb.ROLE_EDITOR)

    for attempt in (
        add(auth, eve, ada, bob, pb.ROLE_VIEWER),
        change(auth, eve, ada, eve.user_id, pb.ROLE_VIEWER),
        remove(auth, eve, ada, ada.user_id),
    ):
        with pytest.raises(Forbidden):
            await attempt
    await remove(auth, eve, ada, eve.user_id)

    with pytest.raises(NotFound):
        await members(auth, eve, ada)


async def test_the_last_owner_can_neither_leave_nor_be_demoted(auth: AuthClient, module_database: Database) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    await add(auth, ada, ada, eve, pb.ROLE_ADMIN)

    with pytest.raises(Conflict):
        await remove(auth, ada, ada, ada.user_id)
    with pytest.raises(Conflict):
        await change(auth, ada, ada, ada.user_id, pb.ROLE_ADMIN)
    assert (await change(auth, ada, ada, ada.user_id, pb.ROLE_OWNER)).role == pb.ROLE_OWNER
    await change(auth, ada, ada, eve.user_id, pb.ROLE_OWNER)
    consent(module_database, ada, eve)
    await remove(auth, ada, ada, ada.user_id)

    assert await members(auth, eve, ada) == {eve.email: pb.ROLE_OWNER}


async def test_who_was_merely_added_does_not_become_the_last_owner(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    await add(auth, ada, ada, eve, pb.ROLE_OWNER)

    with pytest.raises(Conflict, match="Invite another owner"):
        await remove(auth, ada, ada, ada.user_id)
    with pytest.raises(Conflict, match="Invite another owner"):
        await change(auth, ada, ada, ada.user_id, pb.ROLE_VIEWER)


async def test_who_was_merely_added_leaves_whatever_becomes_of_the_tenant(
    auth: AuthClient, module_database: Database
) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    await add(auth, ada, ada, eve, pb.ROLE_OWNER)
    with psycopg.connect(module_database.superuser_dsn) as connection:
        connection.execute("DELETE FROM auth.users WHERE id = %s", (ada.user_id,))

    await remove(auth, eve, ada, eve.user_id)

    with pytest.raises(NotFound):
        await members(auth, eve, ada)


async def test_two_owners_who_demote_each_other_at_once_leave_one(auth: AuthClient, module_database: Database) -> None:
    for _ in range(5):
        ada, eve = await auth.sign_up(), await auth.sign_up()
        await add(auth, ada, ada, eve, pb.ROLE_OWNER)
        consent(module_database, ada, eve)

        outcomes = await asyncio.gather(
            change(auth, ada, ada, eve.user_id, pb.ROLE_VIEWER),
            change(auth, eve, ada, ada.user_id, pb.ROLE_VIEWER),
            return_exceptions=True,
        )

        assert sum(isinstance(outcome, PulsegateError) for outcome in outcomes) == 1
        roles = await members(auth, ada, ada)
        assert sorted(roles.values()) == [pb.ROLE_VIEWER, pb.ROLE_OWNER]


async def test_a_lost_role_counts_at_once_and_is_announced(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    await add(auth, ada, ada, eve, pb.ROLE_ADMIN)
    before = await auth.principal(eve)
    stream = auth.watch()
    await anext(stream)

    await change(auth, ada, ada, eve.user_id, pb.ROLE_VIEWER)
    await remove(auth, ada, ada, eve.user_id)

    changes = (list(beat.changed_ids) async for beat in stream if beat.changed_ids)
    assert [await anext(changes), await anext(changes)] == [[eve.user_id], [eve.user_id]]
    with pytest.raises(NotFound):
        await auth.account("CreateKey", pb.CreateKeyRequest(project_id=ada.project_id, name="late"), before)


async def test_a_person_without_any_tenant_has_nothing_but_the_account(
    auth: AuthClient, module_database: Database
) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    await add(auth, eve, eve, ada, pb.ROLE_OWNER)
    consent(module_database, eve, ada)
    await remove(auth, eve, eve, eve.user_id)
    principal = await auth.principal(eve)

    me = await auth.account("GetMe", pb.GetMeRequest(), principal)
    projects = await auth.account("ListProjects", pb.ListProjectsRequest(), principal)
    with pytest.raises(Invalid):
        await auth.account("CreateProject", pb.CreateProjectRequest(name="Shop"), principal)

    assert (me.user.email, list(me.memberships), list(projects.projects)) == (eve.email, [], [])
