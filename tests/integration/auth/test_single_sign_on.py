"""Single sign-on by OpenID Connect: a real issuer is believed, a forging one is not, and none reaches other tenants."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest
import pytest_asyncio
from aiohttp import web

from chassis import api_keys
from chassis.errors import Forbidden, NotFound, Unauthenticated, Unavailable
from contracts.pulsegate.auth.v1 import accounts_pb2, invitations_pb2, own_account_pb2
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from services.auth.settings import Settings
from tests.integration.auth.client import AuthClient, Person, running_auth
from tests.integration.auth.clocks import MovableClock
from tests.integration.auth.forging_issuer import ForgingIssuer
from tests.integration.auth.locks import until_somebody_waits_for_a_lock
from tests.integration.auth.mail_folder import Mails
from tests.integration.auth.sign_ons import (
    ADMIN,
    EDITOR,
    OWNER,
    REDIRECT_URI,
    VIEWER,
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
from tests.suite_issuer import Issuer, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def mails(tmp_path: Path) -> Mails:
    return Mails(tmp_path / "mails")


@pytest_asyncio.fixture(loop_scope="module")
async def mailing(settings: Settings, mails: Mails) -> AsyncIterator[AuthClient]:
    async with running_auth(settings, mail_folder=mails.folder) as client:
        yield client


async def role_of(auth: AuthClient, owner: Person, user_id: str) -> int:
    request = accounts_pb2.ListMembersRequest(tenant_id=owner.tenant_id, page_size=50)
    members = (await auth.account("ListMembers", request, await auth.principal(owner))).members
    return {str(member.user.id): int(member.role) for member in members}[user_id]


@pytest.mark.parametrize("secret", [True, False])
async def test_somebody_signs_in_at_a_real_issuer_and_becomes_a_member(
    auth: AuthClient, issuer: Issuer, secret: bool
) -> None:
    ada = await auth.sign_up()
    client_id, client_secret = await issuer.register(REDIRECT_URI)
    provider = await add_provider(
        auth,
        ada,
        issuer.url,
        client_secret,
        oidc={"client_id": client_id, "scopes": ["groups"]},
        role_claim="groups",
        role_mappings=[pb.RoleMapping(value="bosses", role=ADMIN), pb.RoleMapping(value="staff", role=EDITOR)],
        default_role=accounts_pb2.ROLE_UNSPECIFIED,
    )
    name = "boss-eve" if secret else "eve"
    begun = await begin(auth, provider)

    back = await Visitor(name).sign_in(begun.url)
    completed = await complete(auth, begun, back.query["code"], back.query["iss"])
    signed_in = await redeem(auth, completed.grant)

    assert (completed.return_to, signed_in.user.email) == ("/there", f"{name}@example.com")
    assert [one.tenant.id for one in signed_in.memberships] == [ada.tenant_id]
    assert signed_in.memberships[0].role == (ADMIN if secret else EDITOR)
    assert await auth.principal(person_of(signed_in, ada), ada.project_id)
    with pytest.raises(Unauthenticated):  # the code was used, and so was the state
        await complete(auth, begun, back.query["code"], back.query["iss"])


async def test_whoever_comes_again_is_the_same_account_by_the_providers_name_for_them(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    first = await sign_on(auth, forger, provider, sub="1", email="eve@example.com")
    renamed = await sign_on(auth, forger, provider, sub="1", email="eve.new@example.com")
    other = await sign_on(auth, forger, provider, sub="2", email="eve@example.com")
    assert first.user.id == renamed.user.id != other.user.id
    assert (renamed.user.email, other.user.email) == ("eve.new@example.com", "eve@example.com")


async def test_roles_follow_the_provider_where_they_are_mapped_and_owners_stay(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    mapped: dict[str, Any] = {"role_claim": "realm.roles", "role_mappings": [pb.RoleMapping(value="ops", role=ADMIN)]}
    provider = await add_provider(auth, ada, forger.url, **mapped)
    eve = (await sign_on(auth, forger, provider, realm={"roles": ["ops"]})).user.id
    assert await role_of(auth, ada, eve) == ADMIN
    await sign_on(auth, forger, provider, realm={"roles": "nothing"})
    assert await role_of(auth, ada, eve) == VIEWER
    promote = accounts_pb2.UpdateMemberRequest(tenant_id=ada.tenant_id, user_id=eve, role=OWNER)
    await auth.account("UpdateMember", promote, await auth.principal(ada))
    await sign_on(auth, forger, provider)
    assert await role_of(auth, ada, eve) == OWNER


async def test_roles_that_were_given_by_hand_stay_where_none_are_mapped(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    eve = (await sign_on(auth, forger, provider)).user.id
    promote = accounts_pb2.UpdateMemberRequest(tenant_id=ada.tenant_id, user_id=eve, role=EDITOR)
    await auth.account("UpdateMember", promote, await auth.principal(ada))
    await sign_on(auth, forger, provider)
    assert await role_of(auth, ada, eve) == EDITOR


async def test_who_has_no_role_or_no_address_that_is_taken_is_refused(auth: AuthClient, forger: ForgingIssuer) -> None:
    ada = await auth.sign_up()
    nobody: dict[str, Any] = {"default_role": accounts_pb2.ROLE_UNSPECIFIED, "role_claim": "groups"}
    mapped = await add_provider(
        auth, ada, forger.url, **nobody, role_mappings=[pb.RoleMapping(value="ops", role=EDITOR)]
    )
    of_domain = await add_provider(auth, ada, forger.url, email_domains=["example.com"])
    assert await refused(auth, forger, mapped) == "SSO_NOT_ALLOWED"
    assert await refused(auth, forger, of_domain, email="eve@example.com.evil.org") == "SSO_NOT_ALLOWED"
    assert (await sign_on(auth, forger, of_domain, email="eve@EXAMPLE.com")).user.email == "eve@EXAMPLE.com"


async def test_a_provider_that_is_trusted_need_not_say_that_addresses_are_verified_but_may_deny_it(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url, oidc={"trusts_email": True})
    assert (await sign_on(auth, forger, provider, email_verified=None)).user.email == "eve@example.com"
    assert await refused(auth, forger, provider, email_verified=False) == "SSO_NOT_ALLOWED"


async def test_an_address_is_verified_also_where_the_provider_says_so_as_text(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    provider = await add_provider(auth, await auth.sign_up(), forger.url)
    assert (await sign_on(auth, forger, provider, email_verified="true")).user.email == "eve@example.com"


async def test_a_tenants_provider_reaches_no_account_outside_of_the_tenant(
    mailing: AuthClient, forger: ForgingIssuer, mails: Mails
) -> None:
    """Whatever it says of addresses: neither the account of a victim, nor their invitations, nor their address."""
    victim, mallory = await mailing.sign_up("victim@example.com"), await mailing.sign_up()
    provider = await add_provider(mailing, mallory, forger.url)

    forged = await sign_on(mailing, forger, provider, sub="1", email=victim.email)
    assert forged.user.id != victim.user_id
    assert [one.tenant.id for one in forged.memberships] == [mallory.tenant_id]
    impostor = person_of(forged, mallory)
    with pytest.raises(NotFound):
        await mailing.principal(impostor, victim.project_id)

    verify = own_account_pb2.RequestEmailVerificationRequest()
    with pytest.raises(Forbidden):
        await mailing.own("RequestEmailVerification", verify, await mailing.principal(impostor))
    token = await mails.token(victim.email, "erify")
    with pytest.raises(Forbidden):
        await mailing.own(
            "VerifyEmail", own_account_pb2.VerifyEmailRequest(token=token), await mailing.principal(impostor)
        )
    await mailing.own("VerifyEmail", own_account_pb2.VerifyEmailRequest(token=token), await mailing.principal(victim))

    ada = await mailing.sign_up()
    invite = invitations_pb2.CreateInvitationRequest(tenant_id=ada.tenant_id, email=victim.email, role=EDITOR)
    await mailing.invitation("CreateInvitation", invite, await mailing.principal(ada))
    token = await mails.token(victim.email, "invited")
    accept = invitations_pb2.AcceptInvitationRequest(token=token)
    with pytest.raises(Forbidden):
        await mailing.invitation("AcceptInvitation", accept, await mailing.principal(impostor))
    assert (
        await mailing.invitation("AcceptInvitation", accept, await mailing.principal(victim))
    ).membership.role == EDITOR

    squatted = await sign_on(mailing, forger, provider, sub="2", email="newcomer@example.com")
    newcomer = await mailing.sign_up("newcomer@example.com")  # the address is still free
    assert newcomer.user_id != squatted.user.id
    by_key = accounts_pb2.SignInRequest(email=f"SSO {squatted.user.id}", password="anything at all")
    with pytest.raises(Unauthenticated):
        await mailing.account("SignIn", by_key)


async def test_no_mail_goes_to_an_address_that_a_provider_has_said(
    auth: AuthClient, forger: ForgingIssuer, module_database: Database
) -> None:
    """Nobody fills a stranger's mailbox by a provider of their own making."""
    ada = await auth.sign_up()
    mapped: dict[str, Any] = {"role_claim": "groups", "role_mappings": [pb.RoleMapping(value="ops", role=ADMIN)]}
    provider = await add_provider(auth, ada, forger.url, **mapped)
    for subject in ("1", "2"):
        await sign_on(auth, forger, provider, sub=subject, email="stranger@example.com", groups=["ops"])
    made = await auth.create_key(ada)
    leaked = accounts_pb2.LeakedKey(api_key_sha256=api_keys.digest(made.token), place="https://code.example/a")
    await auth.account("ReportLeakedKeys", accounts_pb2.ReportLeakedKeysRequest(keys=[leaked]))
    with psycopg.connect(module_database.superuser_dsn) as connection:
        query = "SELECT recipient FROM auth.mails WHERE purpose = 'key_leaked' AND details->>'prefix' = %s"
        assert connection.execute(query, (made.key.prefix,)).fetchall() == [(ada.email,)]


async def test_who_signs_in_through_a_provider_has_no_second_factor_or_password_of_ours(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    eve = person_of(await sign_on(auth, forger, await add_provider(auth, ada, forger.url)), ada)
    change = own_account_pb2.ChangePasswordRequest(current_password="", new_password="correct horse battery staple 2")
    principal = await auth.principal(eve)
    for method, request in (("ChangePassword", change), ("BeginTotp", own_account_pb2.BeginTotpRequest(password=""))):
        with pytest.raises(Unauthenticated) as refused:
            await auth.own(method, request, principal)
        assert refused.value.code == "INVALID_CREDENTIALS"


async def test_what_a_provider_refuses_is_said_and_told_to_the_tenant(
    auth: AuthClient, forger: ForgingIssuer, module_database: Database
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    forger.answer = web.json_response({"error": "invalid_grant\n"}, status=400)
    for code, said in (("", "access_denied"), ("code", "invalid_grant")):
        begun = await begin(auth, provider)
        with pytest.raises(Unauthenticated, match=said) as error:
            await complete(auth, begun, code, forger.url, error="" if code else "access_denied\r\n")
        assert "\n" not in error.value.message

    with psycopg.connect(module_database.superuser_dsn) as connection:
        query = "SELECT document::json FROM auth.audit_entries WHERE tenant_id = %s ORDER BY sequence DESC LIMIT 2"
        entries = [entry for (entry,) in connection.execute(query, (ada.tenant_id,)).fetchall()]
    assert {(entry["action"], entry["details"]["reason"]) for entry in entries} == {("sign_in.failed", "SSO_FAILED")}


async def test_why_a_provider_is_away_is_told_to_the_tenant_and_not_to_whoever_asks(
    auth: AuthClient, forger: ForgingIssuer, module_database: Database
) -> None:
    ada = await auth.sign_up()
    begun = await begin(auth, await add_provider(auth, ada, forger.url))
    forger.answer = web.Response(text="<html>")
    for attempt in (
        begin(auth, await add_provider(auth, ada, "http://127.0.0.1:1")),
        complete(auth, begun, forger.send(begun.url), forger.url),
    ):
        with pytest.raises(Unavailable) as error:
            await attempt
        assert "127.0.0.1" not in f"{error.value.message} {error.value.details}"

    with psycopg.connect(module_database.superuser_dsn) as connection:
        query = (
            "SELECT document::json->'details' FROM auth.audit_entries"
            " WHERE tenant_id = %s AND document::json->>'action' = 'sign_in.failed' ORDER BY sequence"
        )
        told = [details for (details,) in connection.execute(query, (ada.tenant_id,)).fetchall()]
    assert [details["reason"] for details in told] == ["SERVICE_UNAVAILABLE"] * 2
    assert [details["url"].rpartition("/")[2] for details in told] == ["openid-configuration", "token"]
    assert ("Cannot connect" in told[0]["cause"], told[1]["cause"]) == (True, "its answer is no JSON")


async def test_a_flood_of_sign_ons_that_fail_does_not_fill_the_audit_log(
    moving_auth: AuthClient, clock: MovableClock, database: Database
) -> None:
    ada = await moving_auth.sign_up()
    provider = await add_provider(moving_auth, ada, "http://127.0.0.1:1")
    for hours in (0, 1):
        await clock.advance(timedelta(hours=hours))
        for _ in range(65):
            with pytest.raises(Unavailable):
                await begin(moving_auth, provider)

    with psycopg.connect(database.superuser_dsn) as connection:
        query = (
            "SELECT (document::json->'details'->>'withheld')::int FROM auth.audit_entries"
            " WHERE tenant_id = %s AND document::json->>'action' = 'sign_in.failed' ORDER BY sequence"
        )
        withheld = [number for (number,) in connection.execute(query, (ada.tenant_id,)).fetchall()]
    assert withheld == [None] * 60 + [5] + [None] * 59


async def test_a_provider_that_is_away_or_disabled_or_unknown_signs_nobody_in(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    away = await add_provider(auth, ada, "http://127.0.0.1:1")
    with pytest.raises(Unavailable):
        await begin(auth, away)
    provider = await add_provider(auth, ada, forger.url)
    begun = await begin(auth, provider)
    await change_provider(auth, ada, provider, forger.url, enabled=False)
    with pytest.raises(NotFound):
        await complete(auth, begun, forger.send(begun.url), forger.url)
    for unknown in (provider, pb.IdentityProvider(id=ada.tenant_id), pb.IdentityProvider(id="nonsense")):
        with pytest.raises(NotFound):
            await begin(auth, unknown)


async def test_nobody_signs_in_to_a_suspended_tenant(
    auth: AuthClient, forger: ForgingIssuer, module_database: Database
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    with psycopg.connect(module_database.superuser_dsn, autocommit=True) as connection:
        connection.execute("UPDATE auth.tenants SET suspended_at = now() WHERE id = %s", (ada.tenant_id,))
    assert await refused(auth, forger, provider) == "TENANT_SUSPENDED"


async def test_a_session_ends_some_hours_later_whatever_renews_it(
    moving_auth: AuthClient, forger: ForgingIssuer, clock: MovableClock
) -> None:
    forger.now = clock.now_ms
    ada = await moving_auth.sign_up()
    signed_in = await sign_on(moving_auth, forger, await add_provider(moving_auth, ada, forger.url))
    token = signed_in.session.refresh_token
    for _ in range(2):
        await clock.advance(timedelta(hours=5))
        answer = await moving_auth.account("Refresh", accounts_pb2.RefreshRequest(refresh_token=token))
        token = answer.session.refresh_token
    await clock.advance(timedelta(hours=2))
    with pytest.raises(Unauthenticated):
        await moving_auth.account("Refresh", accounts_pb2.RefreshRequest(refresh_token=token))


async def test_a_provider_or_grant_that_is_gone_in_between_signs_nobody_in(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    begun, other = await begin(auth, provider), await begin(auth, provider)
    completed = await complete(auth, begun, forger.send(begun.url), forger.url)
    request = pb.DeleteIdentityProviderRequest(tenant_id=ada.tenant_id, provider_id=provider.id)
    await auth.sso("DeleteIdentityProvider", request, await auth.principal(ada))
    with pytest.raises(Unauthenticated):
        await redeem(auth, completed.grant)
    with pytest.raises(Unauthenticated):
        await complete(auth, other, forger.send(other.url), forger.url)


async def test_a_provider_that_is_deleted_while_it_is_asked_makes_no_account(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    principal = await auth.principal(ada)

    async def delete() -> None:
        request = pb.DeleteIdentityProviderRequest(tenant_id=ada.tenant_id, provider_id=provider.id)
        await auth.sso("DeleteIdentityProvider", request, principal)

    forger.before_token = delete
    assert await refused(auth, forger, provider) == "NOT_FOUND"


async def test_a_provider_that_is_deleted_while_a_sign_on_begins_is_none(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    principal = await auth.principal(ada)

    async def delete() -> None:
        request = pb.DeleteIdentityProviderRequest(tenant_id=ada.tenant_id, provider_id=provider.id)
        await auth.sso("DeleteIdentityProvider", request, principal)

    forger.before_discovery = delete
    with pytest.raises(NotFound):
        await begin(auth, provider)


async def test_another_replica_completes_what_one_has_begun(
    mailing: AuthClient, forger: ForgingIssuer, replica_settings: Settings
) -> None:
    ada = await mailing.sign_up()
    provider = await add_provider(mailing, ada, forger.url)
    begun = await begin(mailing, provider)
    async with running_auth(replica_settings) as replica:
        completed = await complete(replica, begun, forger.send(begun.url), forger.url)
    assert await redeem(mailing, completed.grant)


async def test_a_grant_of_a_provider_that_was_disabled_since_begins_no_session(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    begun = await begin(auth, provider)
    completed = await complete(auth, begun, forger.send(begun.url), forger.url)
    await change_provider(auth, ada, provider, forger.url, enabled=False)
    with pytest.raises(Unauthenticated):
        await redeem(auth, completed.grant)


async def test_no_session_begins_beside_the_disabling_of_its_provider(
    auth: AuthClient, forger: ForgingIssuer, module_database: Database
) -> None:
    """It would have been missed by what ends them."""
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    begun = await begin(auth, provider)
    completed = await complete(auth, begun, forger.send(begun.url), forger.url)
    with psycopg.connect(module_database.superuser_dsn) as disabling:
        disabling.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"roles of {ada.tenant_id}",))
        redeeming = asyncio.create_task(redeem(auth, completed.grant))
        await until_somebody_waits_for_a_lock(module_database)
        disabling.execute("UPDATE auth.identity_providers SET enabled = false WHERE id = %s", (provider.id,))
    with pytest.raises(Unauthenticated):
        await redeeming


async def test_who_redeems_a_grant_locks_nothing_that_the_deletion_of_its_provider_waits_for(
    auth: AuthClient, forger: ForgingIssuer, module_database: Database
) -> None:
    """Each would wait for the other."""
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    begun = await begin(auth, provider)
    completed = await complete(auth, begun, forger.send(begun.url), forger.url)
    with psycopg.connect(module_database.superuser_dsn) as deleting:
        deleting.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"roles of {ada.tenant_id}",))
        redeeming = asyncio.create_task(redeem(auth, completed.grant))
        await until_somebody_waits_for_a_lock(module_database)
        deleting.execute("SET LOCAL lock_timeout = '1s'")
        deleting.execute("DELETE FROM auth.identity_providers WHERE id = %s", (provider.id,))
    with pytest.raises(Unauthenticated):
        await redeeming


async def test_an_access_token_that_has_outlived_its_session_ends_with_the_provider_too(
    settings: Settings, forger: ForgingIssuer, clock: MovableClock
) -> None:
    forger.now = clock.now_ms
    lives: dict[str, Any] = {"refresh_token_days": 1, "access_token_seconds": 2 * 86_400, "sso_session_hours": 72}
    async with running_auth(settings, clock, **lives) as auth:
        ada = await auth.sign_up()
        provider = await add_provider(auth, ada, forger.url)
        session = (await sign_on(auth, forger, provider)).session
        await clock.advance(timedelta(days=1, minutes=1))
        with pytest.raises(Unauthenticated):
            await auth.account("Refresh", accounts_pb2.RefreshRequest(refresh_token=session.refresh_token))
        assert (await auth.authenticate(access_token=session.access_token)).principal
        await change_provider(auth, ada, provider, forger.url, enabled=False)
        with pytest.raises(Unauthenticated):
            await auth.authenticate(access_token=session.access_token)


async def test_sessions_that_a_provider_began_end_when_it_is_disabled_and_no_others(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    provider, other = await add_provider(auth, ada, forger.url), await add_provider(auth, ada, forger.url)
    eve, of_other = await sign_on(auth, forger, provider), await sign_on(auth, forger, other)
    await change_provider(auth, ada, provider, forger.url, name="Renamed")
    assert await auth.principal(person_of(eve, ada), ada.project_id)
    stream = auth.watch((await auth.authenticate(access_token=ada.access_token)).revision)

    await change_provider(auth, ada, provider, forger.url, enabled=False)

    claims = jwt.decode(eve.session.access_token, options={"verify_signature": False})
    async with asyncio.timeout(60):
        assert await anext(message.changed_ids async for message in stream if message.changed_ids) == [claims["sid"]]
    with pytest.raises(Unauthenticated):
        await auth.principal(person_of(eve, ada), ada.project_id)
    with pytest.raises(Unauthenticated):
        await auth.account("Refresh", accounts_pb2.RefreshRequest(refresh_token=eve.session.refresh_token))
    for stays in (ada, person_of(of_other, ada)):
        assert await auth.principal(stays, ada.project_id)


async def test_a_provider_that_is_changed_while_it_is_asked_admits_nobody_as_before(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    mapped: dict[str, Any] = {"role_claim": "groups", "role_mappings": [pb.RoleMapping(value="ops", role=ADMIN)]}
    unmapped = await add_provider(auth, ada, forger.url, **mapped)
    disabled = await add_provider(auth, ada, forger.url)

    async def change() -> None:
        await change_provider(auth, ada, unmapped, forger.url)
        await change_provider(auth, ada, disabled, forger.url, enabled=False)

    forger.before_token = change
    assert await refused(auth, forger, unmapped, groups=["ops"]) == "SSO_STATE_INVALID"
    await change_provider(auth, ada, disabled, forger.url)
    assert await refused(auth, forger, disabled) == "NOT_FOUND"
