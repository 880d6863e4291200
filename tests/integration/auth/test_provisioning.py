"""What an identity provider may say of the accounts that it has made, and of no others, with its provisioning token."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import jwt
import psycopg
import pytest

from chassis import api_keys
from chassis.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from contracts.pulsegate.auth.v1 import accounts_pb2, audit_pb2, credentials_pb2
from contracts.pulsegate.auth.v1 import provisioning_pb2 as pb
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as sso
from tests.integration.auth.client import AuthClient, Person
from tests.integration.auth.forging_issuer import ForgingIssuer
from tests.integration.auth.locks import until_somebody_waits_for_a_lock
from tests.integration.auth.sign_ons import (
    ADMIN,
    OWNER,
    add_provider,
    begin,
    change_provider,
    complete,
    person_of,
    redeem,
    refused,
    sign_on,
)
from tests.suite_database import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")

ABSENT = "01a1fc11-be01-79f5-be4a-0f91d8d2d996"


async def make_token(auth: AuthClient, owner: Person, provider: sso.IdentityProvider) -> str:
    request = sso.CreateProvisioningTokenRequest(tenant_id=owner.tenant_id, provider_id=provider.id)
    answer = await auth.sso("CreateProvisioningToken", request, await auth.principal(owner))
    assert answer.created_at.seconds > 0
    return str(answer.token)


async def revoke_token(auth: AuthClient, owner: Person, provider: sso.IdentityProvider) -> None:
    request = sso.RevokeProvisioningTokenRequest(tenant_id=owner.tenant_id, provider_id=provider.id)
    await auth.sso("RevokeProvisioningToken", request, await auth.principal(owner))


async def principal_of(auth: AuthClient, token: str) -> str:
    request = credentials_pb2.AuthenticateRequest(provisioning_token_sha256=api_keys.digest(token))
    return (await auth.authenticate_by(request)).principal


async def listed(auth: AuthClient, principal: str, **sought: Any) -> pb.ListProvisionedAccountsResponse:
    request = pb.ListProvisionedAccountsRequest(**{"most": 100, **sought})
    answer: pb.ListProvisionedAccountsResponse = await auth.provision("ListProvisionedAccounts", request, principal)
    return answer


async def set_active(auth: AuthClient, principal: str, user_id: str, *, active: bool) -> pb.ProvisionedAccount:
    request = pb.UpdateProvisionedAccountRequest(user_id=user_id, active=active)
    answer: pb.UpdateProvisionedAccountResponse = await auth.provision("UpdateProvisionedAccount", request, principal)
    return answer.account


async def remove(auth: AuthClient, principal: str, user_id: str) -> None:
    await auth.provision("RemoveProvisionedAccount", pb.RemoveProvisionedAccountRequest(user_id=user_id), principal)


async def members(auth: AuthClient, tenant: Person) -> set[str]:
    request = accounts_pb2.ListMembersRequest(tenant_id=tenant.tenant_id)
    return {
        member.user.id for member in (await auth.account("ListMembers", request, await auth.principal(tenant))).members
    }


async def make_owner(auth: AuthClient, owner: Person, user_id: str) -> None:
    request = accounts_pb2.UpdateMemberRequest(tenant_id=owner.tenant_id, user_id=user_id, role=OWNER)
    await auth.account("UpdateMember", request, await auth.principal(owner))


def told(database: Database, tenant: Person, *actions: str) -> list[dict[str, Any]]:
    """Entries of the tenant's audit log."""
    with psycopg.connect(database.superuser_dsn) as connection:
        query = (
            "SELECT document::json FROM auth.audit_entries"
            " WHERE tenant_id = %s AND document::json->>'action' = ANY (%s) ORDER BY sequence"
        )
        return [entry for (entry,) in connection.execute(query, (tenant.tenant_id, list(actions))).fetchall()]


async def test_a_token_is_shown_once_and_known_by_its_hash(auth: AuthClient, module_database: Database) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, "https://login.example.com")
    token = await make_token(auth, ada, provider)
    claims = jwt.decode(await principal_of(auth, token), options={"verify_signature": False})
    assert (claims["sub"], claims["kind"], claims["tid"]) == (provider.id, "provisioner", ada.tenant_id)
    assert (claims["scopes"], "pid" in claims) == ([], False)
    with psycopg.connect(module_database.superuser_dsn) as connection:
        query = "SELECT identity_providers::text FROM auth.identity_providers WHERE id = %s"
        [(row,)] = connection.execute(query, (provider.id,)).fetchall()
    assert token not in row
    request = sso.GetIdentityProviderRequest(tenant_id=ada.tenant_id, provider_id=provider.id)
    shown = await auth.sso("GetIdentityProvider", request, await auth.principal(ada))
    assert shown.provider.provisioning_since.seconds > 0


async def test_a_token_ends_with_the_next_one_and_when_it_is_revoked(
    auth: AuthClient, module_database: Database
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, "https://login.example.com")
    first = await make_token(auth, ada, provider)
    principal = await principal_of(auth, first)
    stream = auth.watch((await auth.authenticate(access_token=ada.access_token)).revision)
    second = await make_token(auth, ada, provider)
    with pytest.raises(Unauthenticated):
        await principal_of(auth, first)
    assert await principal_of(auth, second)

    for _ in range(2):  # the second time there is none
        await revoke_token(auth, ada, provider)

    with pytest.raises(Unauthenticated):
        await principal_of(auth, second)
    with pytest.raises(Unauthenticated):  # a verdict that a gateway may still have
        await listed(auth, principal)
    async with asyncio.timeout(20):
        changes = (list(message.changed_ids) async for message in stream if message.changed_ids)
        assert [await anext(changes), await anext(changes)] == [[provider.id], [provider.id]]
    made, revoked = "identity_provider.provisioning_token_made", "identity_provider.provisioning_token_revoked"
    assert [entry["action"] for entry in told(module_database, ada, made, revoked)] == [made, made, revoked]


async def test_owners_alone_make_and_revoke_tokens(auth: AuthClient, forger: ForgingIssuer) -> None:
    ada, mallory = await auth.sign_up(), await auth.sign_up()
    mapped: dict[str, Any] = {"role_claim": "groups", "role_mappings": [sso.RoleMapping(value="ops", role=ADMIN)]}
    provider = await add_provider(auth, ada, forger.url, **mapped)
    admin = person_of(await sign_on(auth, forger, provider, groups=["ops"]), ada)
    elsewhere = Person(**{**vars(mallory), "tenant_id": ada.tenant_id})
    token = await make_token(auth, ada, provider)
    for attempt in (make_token, revoke_token):
        for actor, error in ((admin, Forbidden), (elsewhere, NotFound), (mallory, NotFound)):
            with pytest.raises(error):
                await attempt(auth, actor, provider)
    assert await principal_of(auth, token)


async def test_a_token_is_good_while_its_tenant_and_its_provider_are(
    auth: AuthClient, module_database: Database
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, "https://login.example.com")
    token = await make_token(auth, ada, provider)
    principal = await principal_of(auth, token)
    await change_provider(auth, ada, provider, "https://login.example.com", enabled=False)
    assert await principal_of(auth, token)  # who has left may be said of a provider through which nobody signs in
    with psycopg.connect(module_database.superuser_dsn, autocommit=True) as connection:
        statement = "UPDATE auth.tenants SET suspended_at = {} WHERE id = %s"
        connection.execute(statement.format("now()").encode(), (ada.tenant_id,))
        for attempt in (principal_of(auth, token), listed(auth, principal)):
            with pytest.raises(Forbidden):
                await attempt
        connection.execute(statement.format("NULL").encode(), (ada.tenant_id,))
    request = sso.DeleteIdentityProviderRequest(tenant_id=ada.tenant_id, provider_id=provider.id)
    await auth.sso("DeleteIdentityProvider", request, await auth.principal(ada))
    for attempt in (principal_of(auth, token), listed(auth, principal)):
        with pytest.raises(Unauthenticated):
            await attempt


async def test_a_token_that_is_revoked_while_it_is_looked_up_is_none(
    auth: AuthClient, module_database: Database
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, "https://login.example.com")
    token = await make_token(auth, ada, provider)
    with psycopg.connect(module_database.superuser_dsn) as revoking:
        revoking.execute("LOCK TABLE auth.feed IN ACCESS EXCLUSIVE MODE")
        looking = asyncio.create_task(principal_of(auth, token))
        await until_somebody_waits_for_a_lock(module_database)
        clear = "UPDATE auth.identity_providers SET provisioning_hash = NULL, provisioning_since = NULL WHERE id = %s"
        revoking.execute(clear, (provider.id,))
    with pytest.raises(Unauthenticated):
        await looking


async def test_a_token_opens_nothing_but_provisioning(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, "https://login.example.com")
    principal = await principal_of(auth, await make_token(auth, ada, provider))
    tenant_id = ada.tenant_id
    attempts: list[Awaitable[Any]] = [
        auth.account("GetMe", accounts_pb2.GetMeRequest(), principal),
        auth.account("ListMembers", accounts_pb2.ListMembersRequest(tenant_id=tenant_id), principal),
        auth.account("ListKeys", accounts_pb2.ListKeysRequest(project_id=ada.project_id), principal),
        auth.audit("ListAuditEntries", audit_pb2.ListAuditEntriesRequest(tenant_id=tenant_id), principal),
        auth.sso("ListIdentityProviders", sso.ListIdentityProvidersRequest(tenant_id=tenant_id), principal),
        auth.sso("ListRemovedMembers", sso.ListRemovedMembersRequest(tenant_id=tenant_id), principal),
    ]
    for attempt in attempts:
        with pytest.raises(Forbidden):
            await attempt
    with pytest.raises(NotFound):
        await auth.account("GetProject", accounts_pb2.GetProjectRequest(project_id=ada.project_id), principal)
    with pytest.raises(Forbidden):  # nor does anything else open provisioning
        await listed(auth, await auth.principal(ada))


async def test_a_provider_sees_its_own_accounts_and_finds_them_by_address_or_name(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    provider, other = [await add_provider(auth, ada, forger.url) for _ in range(2)]
    eve = (await sign_on(auth, forger, provider, sub="1", email="Eve@Example.com")).user
    bob = (await sign_on(auth, forger, provider, sub="2", email="bob@example.com")).user
    foreign = (await sign_on(auth, forger, other, sub="1", email="eve@example.com")).user
    principal = await principal_of(auth, await make_token(auth, ada, provider))

    everybody = await listed(auth, principal)
    found = [(one.user.id, one.user.email, one.subject, one.active) for one in everybody.accounts]
    assert found == [(eve.id, "Eve@Example.com", "1", True), (bob.id, "bob@example.com", "2", True)]
    assert (everybody.total, everybody.accounts[0].created_at.seconds > 0) == (2, True)
    one = pb.GetProvisionedAccountRequest(user_id=eve.id)
    assert (await auth.provision("GetProvisionedAccount", one, principal)).account == everybody.accounts[0]
    for sought, ids in (
        ({"email": "eve@example.COM"}, [eve.id]),
        ({"subject": "2"}, [bob.id]),
        ({"email": "%@example.com"}, []),
        ({"email": ada.email}, []),
        ({"email": ""}, []),
        ({"skipped": 1}, [bob.id]),
        ({"most": 1}, [eve.id]),
        ({"most": 0}, []),
    ):
        assert [one.user.id for one in (await listed(auth, principal, **sought)).accounts] == ids
    assert (await listed(auth, principal, most=0)).total == 2
    for beyond in ({"most": 101}, {"most": -1}, {"skipped": -1}):
        with pytest.raises(Invalid):
            await listed(auth, principal, **beyond)
    for user_id in (foreign.id, ada.user_id, ABSENT, "nonsense"):
        attempts: list[Awaitable[Any]] = [
            auth.provision("GetProvisionedAccount", pb.GetProvisionedAccountRequest(user_id=user_id), principal),
            set_active(auth, principal, user_id, active=False),
            remove(auth, principal, user_id),
        ]
        for attempt in attempts:
            with pytest.raises(NotFound):
                await attempt
    assert await members(auth, ada) == {ada.user_id, eve.id, bob.id, foreign.id}


async def test_who_is_deactivated_is_out_at_once_and_until_their_provider_says_otherwise(
    auth: AuthClient, forger: ForgingIssuer, module_database: Database
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    principal = await principal_of(auth, await make_token(auth, ada, provider))
    eve = await sign_on(auth, forger, provider)
    session_id = jwt.decode(eve.session.access_token, options={"verify_signature": False})["sid"]
    stream = auth.watch((await auth.authenticate(access_token=ada.access_token)).revision)

    for _ in range(2):
        assert not (await set_active(auth, principal, eve.user.id, active=False)).active

    async with asyncio.timeout(20):
        changed = await anext(list(message.changed_ids) async for message in stream if message.changed_ids)
    assert changed == [eve.user.id, session_id]
    with pytest.raises(Unauthenticated):
        await auth.principal(person_of(eve, ada))
    with pytest.raises(Unauthenticated):
        await auth.account("Refresh", accounts_pb2.RefreshRequest(refresh_token=eve.session.refresh_token))
    assert await members(auth, ada) == {ada.user_id}
    assert await refused(auth, forger, provider) == "SSO_NOT_ALLOWED"

    for _ in range(2):
        assert (await set_active(auth, principal, eve.user.id, active=True)).active

    assert await members(auth, ada) == {ada.user_id}
    assert (await sign_on(auth, forger, provider)).user.id == eve.user.id
    entries = told(module_database, ada, "member.deactivated", "member.reactivated")
    assert [(entry["action"], entry["actor"]["id"], entry["target"]["id"]) for entry in entries] == [
        ("member.deactivated", provider.id, eve.user.id),
        ("member.reactivated", provider.id, eve.user.id),
    ]
    assert entries[0]["details"] == {"before": "viewer"}


async def test_whom_a_provider_has_put_out_an_admin_sees_and_lets_in_again(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    """Deactivated, or deactivated and then removed, as some providers do."""
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    principal = await principal_of(auth, await make_token(auth, ada, provider))
    eve, bob = [(await sign_on(auth, forger, provider, sub=subject)).user.id for subject in ("1", "2")]
    for user_id in (eve, bob):
        await set_active(auth, principal, user_id, active=False)
    await remove(auth, principal, bob)

    request = sso.ListRemovedMembersRequest(tenant_id=ada.tenant_id)
    out = (await auth.sso("ListRemovedMembers", request, await auth.principal(ada))).members

    said = [(one.user.id, one.HasField("deactivated_at"), one.HasField("removed_at")) for one in out]
    assert said == [(eve, True, False), (bob, True, True)]
    for user_id, subject in ((eve, "1"), (bob, "2")):
        readmit = sso.ReadmitMemberRequest(tenant_id=ada.tenant_id, user_id=user_id)
        await auth.sso("ReadmitMember", readmit, await auth.principal(ada))
        with pytest.raises(NotFound):
            await auth.sso("ReadmitMember", readmit, await auth.principal(ada))
        assert (await sign_on(auth, forger, provider, sub=subject)).user.id == user_id
    assert not (await auth.sso("ListRemovedMembers", request, await auth.principal(ada))).members
    assert [one.active for one in (await listed(auth, principal)).accounts] == [True, True]


async def test_of_several_with_one_address_whoever_has_it_now_comes_first(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    principal = await principal_of(auth, await make_token(auth, ada, provider))
    first, second, third = [(await sign_on(auth, forger, provider, sub=subject)).user.id for subject in ("1", "2", "3")]

    async def found() -> list[str]:
        return [one.user.id for one in (await listed(auth, principal, email="eve@example.com")).accounts]

    assert await found() == [third, second, first]
    await sign_on(auth, forger, provider, sub="1")
    assert await found() == [first, third, second]
    await set_active(auth, principal, first, active=False)
    assert await found() == [third, second, first]


async def test_a_sign_on_that_was_completed_before_begins_no_session(auth: AuthClient, forger: ForgingIssuer) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    principal = await principal_of(auth, await make_token(auth, ada, provider))
    eve = await sign_on(auth, forger, provider)
    begun = await begin(auth, provider)
    completed = await complete(auth, begun, forger.send(begun.url), forger.url)
    await set_active(auth, principal, eve.user.id, active=False)
    with pytest.raises(Unauthenticated):
        await redeem(auth, completed.grant)


async def test_whom_a_provider_or_an_admin_has_removed_is_nobody_to_it_any_more(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    """What an admin has decided no provider undoes."""
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    principal = await principal_of(auth, await make_token(auth, ada, provider))
    eve, bob = [(await sign_on(auth, forger, provider, sub=subject)).user.id for subject in ("1", "2")]
    await remove(auth, principal, eve)
    by_admin = accounts_pb2.RemoveMemberRequest(tenant_id=ada.tenant_id, user_id=bob)
    await auth.account("RemoveMember", by_admin, await auth.principal(ada))
    for user_id, subject in ((eve, "1"), (bob, "2")):
        with pytest.raises(NotFound):
            await set_active(auth, principal, user_id, active=True)
        assert await refused(auth, forger, provider, sub=subject) == "SSO_MEMBER_REMOVED"
    assert (await listed(auth, principal)).total == 0
    readmit = sso.ReadmitMemberRequest(tenant_id=ada.tenant_id, user_id=eve)
    await auth.sso("ReadmitMember", readmit, await auth.principal(ada))
    assert (await sign_on(auth, forger, provider, sub="1")).user.id == eve


async def test_who_is_no_member_can_be_deactivated_too(auth: AuthClient, forger: ForgingIssuer) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    principal = await principal_of(auth, await make_token(auth, ada, provider))
    eve = person_of(await sign_on(auth, forger, provider), ada)
    leave = accounts_pb2.RemoveMemberRequest(tenant_id=ada.tenant_id, user_id=eve.user_id)
    await auth.account("RemoveMember", leave, await auth.principal(eve))
    assert not (await set_active(auth, principal, eve.user_id, active=False)).active
    assert await refused(auth, forger, provider) == "SSO_NOT_ALLOWED"


async def test_the_last_owner_is_neither_deactivated_nor_removed(auth: AuthClient, forger: ForgingIssuer) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    principal = await principal_of(auth, await make_token(auth, ada, provider))
    eve, bob = [(await sign_on(auth, forger, provider, sub=subject)).user.id for subject in ("1", "2")]
    for user_id in (eve, bob):
        await make_owner(auth, ada, user_id)
    leave = accounts_pb2.RemoveMemberRequest(tenant_id=ada.tenant_id, user_id=ada.user_id)
    await auth.account("RemoveMember", leave, await auth.principal(ada))
    await set_active(auth, principal, eve, active=False)
    for attempt in (set_active(auth, principal, bob, active=False), remove(auth, principal, bob)):
        with pytest.raises(Conflict):
            await attempt
    assert [one.active for one in (await listed(auth, principal)).accounts] == [False, True]


async def test_two_owners_who_are_deactivated_at_once_leave_one(auth: AuthClient, forger: ForgingIssuer) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    principal = await principal_of(auth, await make_token(auth, ada, provider))
    owners = [(await sign_on(auth, forger, provider, sub=subject)).user.id for subject in ("1", "2")]
    for user_id in owners:
        await make_owner(auth, ada, user_id)
    leave = accounts_pb2.RemoveMemberRequest(tenant_id=ada.tenant_id, user_id=ada.user_id)
    await auth.account("RemoveMember", leave, await auth.principal(ada))
    attempts = [set_active(auth, principal, user_id, active=False) for user_id in owners]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 1


async def test_an_owner_of_a_disabled_provider_is_none_that_a_tenant_can_be_left_to(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    disabled, enabled = [await add_provider(auth, ada, forger.url) for _ in range(2)]
    principal = await principal_of(auth, await make_token(auth, ada, enabled))
    first, second = [(await sign_on(auth, forger, provider)).user.id for provider in (disabled, enabled)]
    await make_owner(auth, ada, first)
    await change_provider(auth, ada, disabled, forger.url, enabled=False)
    leave = accounts_pb2.RemoveMemberRequest(tenant_id=ada.tenant_id, user_id=ada.user_id)
    step_down = accounts_pb2.UpdateMemberRequest(tenant_id=ada.tenant_id, user_id=ada.user_id, role=ADMIN)
    for method, request in (("RemoveMember", leave), ("UpdateMember", step_down)):
        with pytest.raises(Conflict):
            await auth.account(method, request, await auth.principal(ada))

    await make_owner(auth, ada, second)
    await auth.account("RemoveMember", leave, await auth.principal(ada))

    for attempt in (set_active(auth, principal, second, active=False), remove(auth, principal, second)):
        with pytest.raises(Conflict):
            await attempt
    assert (await listed(auth, principal)).accounts[0].active
