"""Invitations: mailed, accepted once by whom they are for, revoked, replaced, and never above the inviter's role."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from chassis.errors import Conflict, Forbidden, Invalid, Limited, NotFound
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1 import invitations_pb2 as pb
from services.auth.settings import Settings
from tests.integration.auth.client import PASSWORD, AuthClient, Person, running_auth
from tests.integration.auth.clocks import MovableClock
from tests.integration.auth.forging_issuer import ForgingIssuer
from tests.integration.auth.locks import until_somebody_waits_for_a_lock
from tests.integration.auth.mail_folder import Mails
from tests.integration.auth.sign_ons import add_provider, person_of, sign_on
from tests.integration.auth.test_members import add, remove
from tests.integration.auth.test_provisioning import make_token, principal_of, set_active, told
from tests.integration.auth.test_provisioning import remove as remove_provisioned
from tests.suite_database import Database
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVITED = "You are invited"
VIEWER, EDITOR = accounts_pb2.ROLE_VIEWER, accounts_pb2.ROLE_EDITOR
ADMIN, OWNER = accounts_pb2.ROLE_ADMIN, accounts_pb2.ROLE_OWNER


@pytest.fixture
def mails(tmp_path: Path) -> Mails:
    return Mails(tmp_path / "mails")


@pytest_asyncio.fixture(loop_scope="module")
async def auth(settings: Settings, mails: Mails, clock: MovableClock) -> AsyncIterator[AuthClient]:
    async with running_auth(settings, clock, mail_folder=mails.folder, most_connections=20) as client:
        yield client


async def invite(
    auth: AuthClient, actor: Person, tenant: Person, email: str, role: accounts_pb2.Role.ValueType = EDITOR
) -> pb.Invitation:
    request = pb.CreateInvitationRequest(tenant_id=tenant.tenant_id, email=email, role=role)
    answer: pb.CreateInvitationResponse = await auth.invitation(
        "CreateInvitation", request, await auth.principal(actor)
    )
    return answer.invitation


async def accept(auth: AuthClient, person: Person, token: str) -> accounts_pb2.Membership:
    request = pb.AcceptInvitationRequest(token=token)
    answer: pb.AcceptInvitationResponse = await auth.invitation(
        "AcceptInvitation", request, await auth.principal(person)
    )
    return answer.membership


async def revoke(auth: AuthClient, actor: Person, tenant: Person, invitation_id: str) -> None:
    request = pb.RevokeInvitationRequest(tenant_id=tenant.tenant_id, invitation_id=invitation_id)
    await auth.invitation("RevokeInvitation", request, await auth.principal(actor))


async def listed(auth: AuthClient, actor: Person, tenant: Person, page_size: int = 50) -> pb.ListInvitationsResponse:
    request = pb.ListInvitationsRequest(tenant_id=tenant.tenant_id, page_size=page_size)
    answer: pb.ListInvitationsResponse = await auth.invitation("ListInvitations", request, await auth.principal(actor))
    return answer


async def joined(auth: AuthClient, mails: Mails, owner: Person, role: accounts_pb2.Role.ValueType) -> Person:
    """Somebody who became a member of the owner's tenant."""
    person = await auth.sign_up()
    await invite(auth, owner, owner, person.email, role)
    await accept(auth, person, await mails.token(person.email, INVITED))
    return person


async def test_who_is_invited_becomes_a_member_at_once_and_once(
    auth: AuthClient, mails: Mails, database: Database
) -> None:
    ada, eve = await auth.sign_up(tenant_name="{Engines} & Sons"), await auth.sign_up()
    invitation = await invite(auth, ada, ada, eve.email.upper())
    token = await mails.token(eve.email.upper(), INVITED)
    with pytest.raises(NotFound):
        await auth.principal(eve, ada.project_id)
    stream = auth.watch()
    await anext(stream)

    async with await psycopg.AsyncConnection.connect(database.superuser_dsn) as connection:
        # As somebody does who changes roles: until then all four have found the invitation.
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"roles of {ada.tenant_id}",)
        )
        attempts = [asyncio.create_task(accept(auth, eve, token)) for _ in range(4)]
        await until_somebody_waits_for_a_lock(database, many=4)
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)

    [membership] = [outcome for outcome in outcomes if isinstance(outcome, accounts_pb2.Membership)]
    assert sum(isinstance(outcome, Invalid) for outcome in outcomes) == 3
    assert (membership.tenant.id, membership.tenant.name) == (ada.tenant_id, "{Engines} & Sons")
    assert membership.role == invitation.role == EDITOR
    assert invitation.expires_at.seconds - invitation.created_at.seconds == 7 * 86_400
    assert await auth.principal(eve, ada.project_id)
    changes = (list(beat.changed_ids) async for beat in stream if beat.changed_ids)
    assert await anext(changes) == [eve.user_id]
    assert (await listed(auth, ada, ada)).invitations == []


async def test_an_address_without_an_account_signs_up_and_accepts(auth: AuthClient, mails: Mails) -> None:
    ada = await auth.sign_up()
    await invite(auth, ada, ada, "newcomer@example.com", VIEWER)
    token = await mails.token("newcomer@example.com", INVITED)

    newcomer = await auth.sign_up("newcomer@example.com")

    assert (await accept(auth, newcomer, token)).role == VIEWER


async def test_who_was_added_to_very_many_tenants_becomes_a_member_of_others_by_their_own_will_alone(
    auth: AuthClient, mails: Mails, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.operations.members.MOST_UNASKED_MEMBERSHIPS", 2)
    eve, bob, *owners = [await auth.sign_up() for _ in range(6)]

    async with await psycopg.AsyncConnection.connect(database.superuser_dsn) as connection:
        await connection.execute("SELECT FROM auth.feed FOR UPDATE")  # the last step of a change
        adding = [asyncio.create_task(add(auth, owner, owner, eve, ADMIN)) for owner in owners]
        await until_somebody_waits_for_a_lock(database, len(owners))
    outcomes = await asyncio.gather(*adding, return_exceptions=True)

    added = [owner for owner, outcome in zip(owners, outcomes, strict=True) if isinstance(outcome, accounts_pb2.Member)]
    refused = [owner for owner in owners if owner not in added]
    told = [str(outcome) for outcome in outcomes if isinstance(outcome, Conflict)]
    assert told == 2 * ["This user was added to as many tenants as others may add them to. Invite them instead."]
    with pytest.raises(Conflict, match="is a member already"):
        await add(auth, added[0], added[0], eve, ADMIN)
    await add(auth, refused[0], refused[0], bob, ADMIN)
    await invite(auth, refused[0], refused[0], eve.email, ADMIN)
    assert await accept(auth, eve, await mails.token(eve.email, INVITED))
    await remove(auth, eve, added[0], eve.user_id)
    await add(auth, refused[1], refused[1], eve, ADMIN)
    me = await auth.account("GetMe", accounts_pb2.GetMeRequest(), await auth.principal(eve))
    assert {membership.tenant.id for membership in me.memberships} == {
        person.tenant_id for person in (eve, *owners) if person != added[0]
    }


async def test_nobody_joins_a_suspended_tenant_and_the_invitation_keeps(
    auth: AuthClient, mails: Mails, database: Database
) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    await invite(auth, ada, ada, eve.email)
    token = await mails.token(eve.email, INVITED)
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        setting = "UPDATE auth.tenants SET suspended_at = CASE WHEN %s THEN now() END WHERE id = %s"
        connection.execute(setting, (True, ada.tenant_id))
        with pytest.raises(Forbidden) as refused:
            await accept(auth, eve, token)
        connection.execute(setting, (False, ada.tenant_id))

    assert refused.value.code == "TENANT_SUSPENDED"
    assert (await accept(auth, eve, token)).tenant.id == ada.tenant_id


async def test_an_invitation_is_for_its_address_alone(auth: AuthClient, mails: Mails) -> None:
    ada, eve, mallory = await auth.sign_up(), await auth.sign_up(), await auth.sign_up()
    await invite(auth, ada, ada, eve.email)
    token = await mails.token(eve.email, INVITED)

    with pytest.raises(Forbidden):
        await accept(auth, mallory, token)
    with pytest.raises(Invalid) as unknown:
        await accept(auth, eve, token[:-1])

    assert unknown.value.code == "INVALID_TOKEN"
    assert await accept(auth, eve, token)


async def test_an_invitation_ends_by_time_by_revocation_and_by_a_newer_one(
    auth: AuthClient, mails: Mails, clock: MovableClock
) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    await invite(auth, ada, ada, eve.email)
    replaced = await mails.token(eve.email, INVITED)
    newer = await invite(auth, ada, ada, eve.email, VIEWER)
    revoked = await mails.token(eve.email, INVITED, 2)
    assert [one.id for one in (await listed(auth, ada, ada)).invitations] == [newer.id]
    with pytest.raises(Invalid):
        await accept(auth, eve, replaced)
    await revoke(auth, ada, ada, newer.id)
    with pytest.raises(Invalid):
        await accept(auth, eve, revoked)
    await invite(auth, ada, ada, eve.email)
    expired = await mails.token(eve.email, INVITED, 3)

    await clock.advance(timedelta(days=7))

    ada, eve = await _signed_in_again(auth, ada), await _signed_in_again(auth, eve)
    with pytest.raises(Invalid):
        await accept(auth, eve, expired)
    assert (await listed(auth, ada, ada)).invitations == []


async def _signed_in_again(auth: AuthClient, person: Person) -> Person:
    answer = await auth.account("SignIn", accounts_pb2.SignInRequest(email=person.email, password=PASSWORD))
    return replace(person, access_token=answer.session.access_token)


async def test_nobody_invites_or_revokes_above_their_own_role(auth: AuthClient, mails: Mails) -> None:
    ada = await auth.sign_up()
    admin, editor = await joined(auth, mails, ada, ADMIN), await joined(auth, mails, ada, EDITOR)
    to_owner = await invite(auth, ada, ada, "owner@example.com", OWNER)

    for actor, role in ((admin, OWNER), (editor, VIEWER)):
        with pytest.raises(Forbidden):
            await invite(auth, actor, ada, "friend@example.com", role)
    with pytest.raises(Forbidden):  # which would make the owner's invitation void
        await invite(auth, admin, ada, "owner@example.com", VIEWER)
    with pytest.raises(Forbidden):
        await revoke(auth, admin, ada, to_owner.id)
    with pytest.raises(Forbidden):
        await listed(auth, editor, ada)

    by_admin = await invite(auth, admin, ada, "friend@example.com", ADMIN)
    await revoke(auth, admin, ada, by_admin.id)
    assert [one.email for one in (await listed(auth, admin, ada)).invitations] == ["owner@example.com"]


async def test_nobody_makes_what_is_offered_above_their_own_role_void_by_adding_whom_it_is_for(
    auth: AuthClient, mails: Mails
) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    admin = await joined(auth, mails, ada, ADMIN)
    await invite(auth, ada, ada, eve.email.upper(), OWNER)
    token = await mails.token(eve.email.upper(), INVITED)

    with pytest.raises(Forbidden):
        await add(auth, admin, ada, eve, VIEWER)

    assert (await accept(auth, eve, token)).role == OWNER


async def test_another_tenants_invitations_are_not_found(auth: AuthClient) -> None:
    ada, mallory = await auth.sign_up(), await auth.sign_up()
    invitation = await invite(auth, ada, ada, "friend@example.com")

    for attempt in (
        invite(auth, mallory, ada, "friend@example.com"),
        listed(auth, mallory, ada),
        revoke(auth, mallory, ada, invitation.id),
        revoke(auth, mallory, mallory, invitation.id),
        revoke(auth, mallory, mallory, "nonsense"),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert [one.id for one in (await listed(auth, ada, ada)).invitations] == [invitation.id]


async def test_members_are_not_invited_and_addresses_are_checked(auth: AuthClient, mails: Mails) -> None:
    ada = await auth.sign_up()
    eve = await joined(auth, mails, ada, EDITOR)

    with pytest.raises(Conflict):
        await invite(auth, ada, ada, eve.email)
    with pytest.raises(Invalid):
        await invite(auth, ada, ada, "=?utf-8?q?a=0D=0ABcc=3Ab?=@example.com")


@pytest.mark.parametrize("leaves", [False, True])
async def test_who_is_added_and_goes_again_is_not_brought_back_by_what_was_offered_before(
    auth: AuthClient, mails: Mails, database: Database, leaves: bool
) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    offered = await invite(auth, ada, ada, eve.email.upper(), ADMIN)
    token = await mails.token(eve.email.upper(), INVITED)

    await add(auth, ada, ada, eve, VIEWER)

    assert (await listed(auth, ada, ada)).invitations == []
    with pytest.raises(Invalid):  # nor are they raised by it meanwhile
        await accept(auth, eve, token)
    await remove(auth, eve if leaves else ada, ada, eve.user_id)
    with pytest.raises(Invalid):
        await accept(auth, eve, token)
    [revoked] = told(database, ada, "invitation.revoked")
    assert (revoked["target"]["id"], revoked["actor"]["id"]) == (offered.id, ada.user_id)
    assert revoked["details"] == {"role": "admin"}


async def test_who_comes_in_through_a_provider_has_no_invitation_left_to_accept(
    auth: AuthClient, mails: Mails, database: Database, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    offered = await invite(auth, ada, ada, "Bob@example.com", ADMIN)
    token = await mails.token("Bob@example.com", INVITED)
    provider = await add_provider(auth, ada, forger.url)
    eve = await sign_on(auth, forger, provider, email="bob@example.com")
    await set_active(auth, await principal_of(auth, await make_token(auth, ada, provider)), eve.user.id, active=False)
    bob = await auth.sign_up("bob@example.com")

    with pytest.raises(Invalid):
        await accept(auth, bob, token)

    [revoked] = told(database, ada, "invitation.revoked")
    assert (revoked["target"]["id"], revoked["actor"]["id"]) == (offered.id, provider.id)


@pytest.mark.parametrize(
    ("end", "left_before"),
    [
        ("deactivated", False),
        ("deactivated", True),
        ("removed by the provider", False),
        ("removed by the provider", True),
        ("removed by an admin", False),
        ("left", False),
    ],
)
async def test_whoever_is_put_out_cannot_come_in_again_by_an_invitation_to_their_address(
    auth: AuthClient, mails: Mails, database: Database, forger: ForgingIssuer, end: str, left_before: bool
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    provisioner = await principal_of(auth, await make_token(auth, ada, provider))
    eve = person_of(await sign_on(auth, forger, provider, email="bob@example.com"), ada)
    if left_before:
        await remove(auth, eve, ada, eve.user_id)
    offered = await invite(auth, ada, ada, "Bob@example.com", ADMIN)
    token = await mails.token("Bob@example.com", INVITED)

    if end == "deactivated":
        await set_active(auth, provisioner, eve.user_id, active=False)
    elif end == "removed by the provider":
        await remove_provisioned(auth, provisioner, eve.user_id)
    else:
        await remove(auth, eve if end == "left" else ada, ada, eve.user_id)

    bob = await auth.sign_up("bob@example.com")
    with pytest.raises(Invalid):
        await accept(auth, bob, token)
    [revoked] = told(database, ada, "invitation.revoked")
    assert revoked["target"]["id"] == offered.id


async def test_open_invitations_are_bounded_and_come_in_pages(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    for number in range(100):
        await invite(auth, ada, ada, f"guest-{number}@example.com")

    with pytest.raises(Conflict):
        await invite(auth, ada, ada, "one-too-many@example.com")
    await invite(auth, ada, ada, "guest-7@example.com", VIEWER)

    page = await listed(auth, ada, ada, page_size=60)
    assert len(page.invitations) == 60
    assert page.next_page_token


async def test_an_address_gets_so_many_mails_a_day_and_no_more_whoever_invites_it(
    auth: AuthClient, clock: MovableClock
) -> None:
    ada, mallory = await auth.sign_up(), await auth.sign_up()
    for _ in range(3):
        await invite(auth, ada, ada, "guest@example.com")
    for _ in range(2):
        await revoke(auth, mallory, mallory, (await invite(auth, mallory, mallory, "Guest@example.com")).id)

    for actor in (ada, mallory):
        with pytest.raises(Limited) as refused:
            await invite(auth, actor, actor, "guest@example.com")
        assert refused.value.details == {"limit": "invitations"}
    await invite(auth, ada, ada, "friend@example.com")

    await clock.advance(timedelta(days=1))
    ada = await _signed_in_again(auth, ada)
    assert await invite(auth, ada, ada, "guest@example.com")


async def test_a_tenant_mails_so_many_a_day_and_no_more(auth: AuthClient, database: Database) -> None:
    ada = await auth.sign_up()
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute(
            "INSERT INTO auth.invitation_mails SELECT gen_random_uuid(), %s, 'guest-' || number, now() + interval '1h'"
            " FROM generate_series(1, 200) AS number",
            (ada.tenant_id,),
        )

    with pytest.raises(Limited):
        await invite(auth, ada, ada, "guest@example.com")


async def test_where_addresses_can_be_verified_only_those_who_did_invite(
    mailing_settings: Settings, database: Database
) -> None:
    async with running_auth(mailing_settings) as auth:
        ada = await auth.sign_up()
        with pytest.raises(Forbidden, match="Verify your own"):
            await invite(auth, ada, ada, "guest@example.com")

        with psycopg.connect(database.superuser_dsn) as connection:
            connection.execute("UPDATE auth.users SET email_verified_at = now()")

        assert await invite(auth, ada, ada, "guest@example.com")


async def test_who_signs_in_through_a_provider_invites_where_an_owner_of_the_tenant_is_verified(
    mailing_settings: Settings, database: Database, forger: ForgingIssuer
) -> None:
    async with running_auth(mailing_settings) as auth:
        ada, bob = await auth.sign_up(), await auth.sign_up()
        provider = await add_provider(auth, ada, forger.url, default_role=ADMIN)
        eve = person_of(await sign_on(auth, forger, provider), ada)
        with pytest.raises(Forbidden, match="an owner of the tenant"):
            await invite(auth, eve, ada, "guest@example.com")

        with psycopg.connect(database.superuser_dsn) as connection:
            connection.execute("UPDATE auth.users SET email_verified_at = now() WHERE id = %s", (ada.user_id,))
            connection.execute(
                "INSERT INTO auth.memberships (tenant_id, user_id, role, created_at) VALUES (%s, %s, 'admin', now())",
                (ada.tenant_id, bob.user_id),
            )

        assert await invite(auth, eve, ada, "guest@example.com")
        with pytest.raises(Forbidden):  # for whose address nobody vouches
            await invite(auth, bob, ada, "guest@example.com")


async def test_an_invitation_names_who_sends_it_by_a_verified_address_alone(
    auth: AuthClient, mails: Mails, database: Database, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up(tenant_name="Engines")
    provider = await add_provider(auth, ada, forger.url, default_role=ADMIN)
    eve = person_of(await sign_on(auth, forger, provider, email="security@bigbank.example"), ada)

    async def text_from(inviter: Person) -> str:
        guest = f"{uuid4()}@example.com"
        await invite(auth, inviter, ada, guest)
        await mails.token(guest, INVITED)
        [text] = mails.texts(guest, INVITED)
        return text

    assert "Somebody invites you to Engines" in await text_from(eve)
    assert "Somebody invites you to Engines" in await text_from(ada)
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("UPDATE auth.users SET email_verified_at = now() WHERE id = %s", (ada.user_id,))
    assert f"{ada.email} invites you to Engines" in await text_from(ada)


async def test_an_invitation_that_was_revoked_before_its_mail_left_is_not_sent(
    settings: Settings, database: Database, clock: MovableClock, tmp_path: Path
) -> None:
    def unwanted() -> float:
        labels = {"purpose": "invitation", "result": "unwanted"}
        return REGISTRY.get_sample_value("pulsegate_auth_mails_total", labels) or 0.0

    before = unwanted()
    async with running_auth(settings, clock) as auth:
        ada = await auth.sign_up()
        invitation = await invite(auth, ada, ada, "friend@example.com")
        await revoke(auth, ada, ada, invitation.id)
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("UPDATE auth.mails SET due_at = now()")
    async with running_auth(settings, clock, mail_folder=tmp_path):

        async def dropped() -> bool:
            return unwanted() == before + 1

        await eventually(dropped)
    assert Mails(tmp_path).tokens("friend@example.com", INVITED) == []


async def test_who_accepts_has_two_tenants_which_both_hear_of_them(
    auth: AuthClient, mails: Mails, database: Database
) -> None:
    ada = await auth.sign_up()
    eve = await joined(auth, mails, ada, ADMIN)
    await _signed_in_again(auth, eve)
    with pytest.raises(Invalid) as refused:
        await auth.account("CreateProject", accounts_pb2.CreateProjectRequest(name="Shop"), await auth.principal(eve))
    assert refused.value.details == {"fields": {"tenantId": "is required, since you belong to 2 tenants"}}

    with psycopg.connect(database.superuser_dsn) as connection:
        query = "SELECT tenant_id::text FROM auth.audit_entries WHERE document::json ->> 'action' = 'sign_in.succeeded'"
        told = connection.execute(query).fetchall()
    assert sorted(told) == sorted([(ada.tenant_id,), (eve.tenant_id,)])


async def test_what_becomes_of_invitations_is_in_the_audit_log_without_the_address(
    auth: AuthClient, mails: Mails, database: Database
) -> None:
    ada = await auth.sign_up()
    unwanted = await invite(auth, ada, ada, "nobody@example.com")
    await revoke(auth, ada, ada, unwanted.id)
    eve = await joined(auth, mails, ada, EDITOR)

    with psycopg.connect(database.superuser_dsn) as connection:
        query = "SELECT document::json FROM auth.audit_entries WHERE tenant_id = %s AND sequence > 3 ORDER BY sequence"
        entries = [entry for (entry,) in connection.execute(query, (ada.tenant_id,)).fetchall()]
    assert [(entry["action"], entry["actor"]["id"], entry["details"]["role"]) for entry in entries] == [
        ("invitation.created", ada.user_id, "editor"),
        ("invitation.revoked", ada.user_id, "editor"),
        ("invitation.created", ada.user_id, "editor"),
        ("invitation.accepted", eve.user_id, "editor"),
    ]
    assert entries[0]["target"]["id"] == entries[1]["target"]["id"] == unwanted.id
    assert "@" not in str(entries)
