"""Whom an admin has removed stays out, whatever kind of provider vouches for them, until an admin lets them in."""

import asyncio
from typing import Any

import jwt
import psycopg
import pytest

from chassis.errors import Forbidden, Invalid, NotFound, Unauthenticated
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from tests.integration.auth.client import AuthClient, Person
from tests.integration.auth.directories import add_directory, of_liar, refusal, sign_in
from tests.integration.auth.forging_issuer import ForgingIssuer
from tests.integration.auth.locks import until_somebody_waits_for_a_lock
from tests.integration.auth.lying_directory import LyingDirectory
from tests.integration.auth.saml_sign_ons import add_saml, answer_to, begin_saml, complete_saml, saml_refused
from tests.integration.auth.sign_ons import (
    ADMIN,
    EDITOR,
    add_provider,
    begin,
    complete,
    person_of,
    redeem,
    refused,
    sign_on,
)
from tests.suite_database import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def remove(auth: AuthClient, actor: Person, user_id: str) -> None:
    request = accounts_pb2.RemoveMemberRequest(tenant_id=actor.tenant_id, user_id=user_id)
    await auth.account("RemoveMember", request, await auth.principal(actor))


async def readmit(auth: AuthClient, actor: Person, tenant: Person, user_id: str) -> None:
    request = pb.ReadmitMemberRequest(tenant_id=tenant.tenant_id, user_id=user_id)
    await auth.sso("ReadmitMember", request, await auth.principal(actor))


async def removed(auth: AuthClient, actor: Person, tenant: Person, **page: Any) -> pb.ListRemovedMembersResponse:
    request = pb.ListRemovedMembersRequest(tenant_id=tenant.tenant_id, **page)
    answer: pb.ListRemovedMembersResponse = await auth.sso("ListRemovedMembers", request, await auth.principal(actor))
    return answer


def told(database: Database, tenant: Person, action: str) -> list[dict[str, Any]]:
    """Entries of the tenant's audit log."""
    with psycopg.connect(database.superuser_dsn) as connection:
        query = (
            "SELECT document::json FROM auth.audit_entries"
            " WHERE tenant_id = %s AND document::json->>'action' = %s ORDER BY sequence"
        )
        return [entry for (entry,) in connection.execute(query, (tenant.tenant_id, action)).fetchall()]


async def test_somebody_whom_an_admin_has_removed_is_not_brought_back_by_their_provider(
    auth: AuthClient, forger: ForgingIssuer, module_database: Database
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    eve = await sign_on(auth, forger, provider, sub="1")
    await remove(auth, ada, eve.user.id)
    assert await refused(auth, forger, provider, sub="1", email="another.name@example.com") == "SSO_MEMBER_REMOVED"
    assert (await sign_on(auth, forger, provider, sub="2")).user.id != eve.user.id  # others come in as before
    [failed] = told(module_database, ada, "sign_in.failed")
    assert (failed["details"]["reason"], failed["details"]["user"]) == ("SSO_MEMBER_REMOVED", eve.user.id)
    assert failed["target"]["id"] == provider.id


async def test_nor_by_saml_or_a_directory(auth: AuthClient, liar: LyingDirectory) -> None:
    ada = await auth.sign_up()
    by_saml, directory = await add_saml(auth, ada), await add_directory(auth, ada, of_liar(liar))
    begun = await begin_saml(auth, by_saml)
    completed = await complete_saml(auth, begun, answer_to(begun).encoded())
    for signed_in in (await redeem(auth, completed.grant), await sign_in(auth, directory, "eve")):
        await remove(auth, ada, signed_in.user.id)
    begun = await begin_saml(auth, by_saml)
    assert await saml_refused(auth, begun, answer_to(begun).encoded()) == "SSO_MEMBER_REMOVED"
    assert await refusal(auth, directory, "eve") == "SSO_MEMBER_REMOVED"


async def test_their_sessions_end_at_once_and_for_good(auth: AuthClient, forger: ForgingIssuer) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    eve = await sign_on(auth, forger, provider)
    session_id = jwt.decode(eve.session.access_token, options={"verify_signature": False})["sid"]
    stream = auth.watch((await auth.authenticate(access_token=ada.access_token)).revision)

    await remove(auth, ada, eve.user.id)

    async with asyncio.timeout(20):
        changed = await anext(list(message.changed_ids) async for message in stream if message.changed_ids)
    assert changed == [eve.user.id, session_id]
    await readmit(auth, ada, ada, eve.user.id)
    await sign_on(auth, forger, provider)
    with pytest.raises(Unauthenticated):
        await auth.principal(person_of(eve, ada))
    with pytest.raises(Unauthenticated):
        await auth.account("Refresh", accounts_pb2.RefreshRequest(refresh_token=eve.session.refresh_token))


async def test_a_sign_on_that_was_completed_before_begins_no_session(auth: AuthClient, forger: ForgingIssuer) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    eve = await sign_on(auth, forger, provider)
    begun = await begin(auth, provider)
    completed = await complete(auth, begun, forger.send(begun.url), forger.url)
    await remove(auth, ada, eve.user.id)
    with pytest.raises(Unauthenticated):
        await redeem(auth, completed.grant)


async def test_no_session_begins_beside_the_removal(
    auth: AuthClient, forger: ForgingIssuer, module_database: Database
) -> None:
    """It would have been missed by what ends them."""
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    eve = await sign_on(auth, forger, provider)
    begun = await begin(auth, provider)
    completed = await complete(auth, begun, forger.send(begun.url), forger.url)
    with psycopg.connect(module_database.superuser_dsn) as removing:
        removing.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"roles of {ada.tenant_id}",))
        redeeming = asyncio.create_task(redeem(auth, completed.grant))
        await until_somebody_waits_for_a_lock(module_database)
        removing.execute("UPDATE auth.identities SET removed_at = now() WHERE user_id = %s", (eve.user.id,))
    with pytest.raises(Unauthenticated):
        await redeeming


async def test_whom_an_admin_lets_in_again_is_what_the_provider_says_then(
    auth: AuthClient, forger: ForgingIssuer, module_database: Database
) -> None:
    ada = await auth.sign_up()
    mapped: dict[str, Any] = {"role_claim": "groups", "role_mappings": [pb.RoleMapping(value="ops", role=ADMIN)]}
    provider = await add_provider(auth, ada, forger.url, **mapped)
    eve = await sign_on(auth, forger, provider, sub="1")
    bob = person_of(await sign_on(auth, forger, provider, sub="2", groups=["ops"]), ada)
    await remove(auth, bob, eve.user.id)
    await readmit(auth, bob, ada, eve.user.id)
    with pytest.raises(NotFound):
        await readmit(auth, bob, ada, eve.user.id)

    again = await sign_on(auth, forger, provider, sub="1", groups=["ops"])

    assert (again.user.id, again.memberships[0].role) == (eve.user.id, ADMIN)
    [entry] = told(module_database, ada, "member.readmitted")
    assert (entry["actor"]["id"], entry["target"]["id"]) == (bob.user_id, eve.user.id)


async def test_who_leaves_by_themselves_may_come_back(auth: AuthClient, forger: ForgingIssuer) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    eve = await sign_on(auth, forger, provider)
    await remove(auth, person_of(eve, ada), eve.user.id)
    assert not (await removed(auth, ada, ada)).members
    assert (await sign_on(auth, forger, provider)).user.id == eve.user.id


async def test_whom_no_provider_brings_back_is_not_among_those_who_were_removed(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    add = accounts_pb2.AddMemberRequest(tenant_id=ada.tenant_id, email=eve.email, role=EDITOR)
    await auth.account("AddMember", add, await auth.principal(ada))
    await remove(auth, ada, eve.user_id)
    assert not (await removed(auth, ada, ada)).members
    assert await auth.principal(eve)  # their account is their own


async def test_removed_members_are_listed_in_pages_with_who_vouches_for_them(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    providers = [await add_provider(auth, ada, forger.url) for _ in range(2)]
    users = [(await sign_on(auth, forger, provider)).user for provider in providers]
    for user in users:
        await remove(auth, ada, user.id)
    first = await removed(auth, ada, ada, page_size=1)
    second = await removed(auth, ada, ada, page_size=1, page_token=first.next_page_token)
    shown = [*first.members, *second.members]
    assert [(one.user.id, one.provider_id) for one in shown] == [
        (user.id, provider.id) for user, provider in zip(users, providers, strict=True)
    ]
    assert (shown[0].user.email, shown[0].removed_at.seconds > 0) == ("eve@example.com", True)
    assert second.next_page_token == ""
    with pytest.raises(Invalid):
        await removed(auth, ada, ada, page_size=-1)


async def test_removed_members_are_the_business_of_their_tenants_admins_alone(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada, mallory = await auth.sign_up(), await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url, default_role=EDITOR)
    eve = await sign_on(auth, forger, provider, sub="1")
    bob = person_of(await sign_on(auth, forger, provider, sub="2"), ada)
    await remove(auth, ada, eve.user.id)
    for actor, tenant, error in ((bob, ada, Forbidden), (mallory, ada, NotFound)):
        with pytest.raises(error):
            await removed(auth, actor, tenant)
        with pytest.raises(error):
            await readmit(auth, actor, tenant, eve.user.id)
    for user_id in (eve.user.id, "nonsense"):  # not of her own tenant
        with pytest.raises(NotFound):
            await readmit(auth, mallory, mallory, user_id)
    assert await refused(auth, forger, provider, sub="1") == "SSO_MEMBER_REMOVED"
