"""Single sign-on by the password of a real LDAP directory."""

import asyncio
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from sansldap import LDAPResultCode

from chassis.errors import Conflict, Unauthenticated
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from tests.integration.auth.client import AuthClient, Person
from tests.integration.auth.clocks import MovableClock
from tests.integration.auth.directories import (
    add_directory,
    change_directory,
    of_directory,
    of_liar,
    refusal,
    sign_in,
)
from tests.integration.auth.lying_directory import EVE, LyingDirectory
from tests.integration.auth.sign_ons import ADMIN, EDITOR, VIEWER, person_of
from tests.suite_database import Database
from tests.suite_ldap import GROUPS, SERVICE_PASSWORD, Directory

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def role_of(auth: AuthClient, owner: Person, user_id: str) -> int:
    request = accounts_pb2.ListMembersRequest(tenant_id=owner.tenant_id, page_size=50)
    members = (await auth.account("ListMembers", request, await auth.principal(owner))).members
    return {str(member.user.id): int(member.role) for member in members}[user_id]


@pytest.mark.parametrize("transport", ["tls", "start_tls", "plain"])
async def test_somebody_signs_in_by_the_password_of_a_directory_and_becomes_a_member(
    auth: AuthClient, directory: Directory, transport: str
) -> None:
    ada, login = await auth.sign_up(), directory.add_person()
    bosses = directory.add_group(f"bosses-{login}", login)
    ldap = {} if transport == "tls" else {"url": directory.url, "start_tls": transport == "start_tls"}
    settings = of_directory(
        directory,
        ldap=ldap,
        role_claim="memberOf",
        role_mappings=[pb.RoleMapping(value=bosses, role=ADMIN), pb.RoleMapping(value="other", role=EDITOR)],
    )
    provider = await add_directory(auth, ada, settings)
    signed_in = await sign_in(auth, provider, login)
    assert signed_in.user.email == f"{login}@example.com"
    assert [(one.tenant.id, one.role) for one in signed_in.memberships] == [(ada.tenant_id, ADMIN)]
    assert await refusal(auth, provider, login, "wrong") == "INVALID_CREDENTIALS"


async def test_whoever_comes_again_is_the_same_account_whatever_their_login_is_now(
    auth: AuthClient, liar: LyingDirectory
) -> None:
    provider = await add_directory(auth, await auth.sign_up(), of_liar(liar))
    first = await sign_in(auth, provider, "eve")
    liar.entries = [("uid=eva,dc=example,dc=com", {**EVE[1], "mail": [b"eva@example.com"]})]
    renamed = await sign_in(auth, provider, "eva")
    liar.entries = [(EVE[0], {**EVE[1], "entryUUID": [b"of another eve"]})]
    other = await sign_in(auth, provider, "eve")
    assert first.user.id == renamed.user.id != other.user.id
    assert (renamed.user.email, other.user.email) == ("eva@example.com", "eve@example.com")


async def test_names_of_active_directory_are_those_that_windows_shows(
    auth: AuthClient, liar: LyingDirectory, module_database: Database
) -> None:
    ldap = {"id_attribute": "objectGUID"}
    provider = await add_directory(auth, await auth.sign_up(), of_liar(liar, ldap=ldap))
    guid = UUID("6f1b2a3c-4d5e-6f70-8192-a3b4c5d6e7f8")
    liar.entries = [(EVE[0], {**EVE[1], "objectGUID": [guid.bytes_le]})]
    signed_in = await sign_in(auth, provider, "eve")
    with psycopg.connect(module_database.superuser_dsn) as connection:
        query = "SELECT subject FROM auth.identities WHERE user_id = %s"
        assert connection.execute(query, (signed_in.user.id,)).fetchall() == [(str(guid),)]
    liar.entries = [(EVE[0], {**EVE[1], "objectGUID": [b"short"]})]
    assert await refusal(auth, provider, "eve") == "SSO_FAILED"


@pytest.mark.parametrize("searched", [False, True])
async def test_who_has_left_a_group_has_its_role_no_more(
    auth: AuthClient, directory: Directory, searched: bool
) -> None:
    ada, login = await auth.sign_up(), directory.add_person()
    bosses = directory.add_group(f"bosses of {login}", login)
    value = f"bosses of {login}" if searched else bosses
    ldap = {"group_filter": "(&(objectClass=groupOfNames)(member={dn}))", "group_base_dn": GROUPS} if searched else {}
    settings = of_directory(
        directory,
        ldap=ldap,
        role_claim="cn" if searched else "memberOf",
        role_mappings=[pb.RoleMapping(value=value, role=ADMIN)],
    )
    provider = await add_directory(auth, ada, settings)
    eve = person_of(await sign_in(auth, provider, login), ada)
    assert await role_of(auth, ada, eve.user_id) == ADMIN
    directory.remove_from_group(bosses, login)
    await sign_in(auth, provider, login)
    assert await role_of(auth, ada, eve.user_id) == VIEWER


async def test_who_has_no_role_or_no_address_that_is_taken_is_refused_after_the_right_password(
    auth: AuthClient, liar: LyingDirectory
) -> None:
    ada = await auth.sign_up()
    settings = of_liar(liar, email_domains=["corp.example"])
    provider = await add_directory(auth, ada, settings)
    assert await refusal(auth, provider, "eve") == "SSO_NOT_ALLOWED"
    liar.bind_results[EVE[0]] = LDAPResultCode.INVALID_CREDENTIALS
    assert await refusal(auth, provider, "eve") == "INVALID_CREDENTIALS"


async def test_the_session_ends_some_hours_later_whatever_renews_it(
    moving_auth: AuthClient, liar: LyingDirectory, clock: MovableClock
) -> None:
    ada = await moving_auth.sign_up()
    provider = await add_directory(moving_auth, ada, of_liar(liar))
    token = (await sign_in(moving_auth, provider, "eve")).session.refresh_token
    for _ in range(2):
        await clock.advance(timedelta(hours=5))
        answer = await moving_auth.account("Refresh", accounts_pb2.RefreshRequest(refresh_token=token))
        token = answer.session.refresh_token
    await clock.advance(timedelta(hours=2))
    with pytest.raises(Unauthenticated):
        await moving_auth.account("Refresh", accounts_pb2.RefreshRequest(refresh_token=token))


async def test_no_access_token_outlives_the_session(
    moving_auth: AuthClient, liar: LyingDirectory, clock: MovableClock
) -> None:
    ada = await moving_auth.sign_up()
    provider = await add_directory(moving_auth, ada, of_liar(liar))
    first = (await sign_in(moving_auth, provider, "eve")).session
    await clock.advance(timedelta(hours=11, minutes=50))
    request = accounts_pb2.RefreshRequest(refresh_token=first.refresh_token)
    last = (await moving_auth.account("Refresh", request)).session
    assert await moving_auth.authenticate(access_token=last.access_token)
    await clock.advance(timedelta(minutes=10, seconds=1))

    with pytest.raises(Unauthenticated) as refused:
        await moving_auth.authenticate(access_token=last.access_token)

    assert (first.expires_in, 0 < last.expires_in <= 601, refused.value.code) == (900, True, "TOKEN_EXPIRED")


async def test_the_session_ends_with_its_provider(auth: AuthClient, liar: LyingDirectory) -> None:
    ada = await auth.sign_up()
    provider = await add_directory(auth, ada, of_liar(liar))
    token = (await sign_in(auth, provider, "eve")).session.refresh_token
    disabled = of_liar(liar)
    disabled.enabled = False
    await change_directory(auth, ada, provider, disabled)
    with pytest.raises(Unauthenticated):
        await auth.account("Refresh", accounts_pb2.RefreshRequest(refresh_token=token))


async def test_a_directory_that_is_changed_while_it_is_asked_admits_nobody_as_before(
    auth: AuthClient, liar: LyingDirectory
) -> None:
    ada = await auth.sign_up()
    provider = await add_directory(auth, ada, of_liar(liar))
    liar.goes_on.clear()
    waiting = asyncio.create_task(refusal(auth, provider, "eve"))
    await liar.is_asked.wait()
    await change_directory(auth, ada, provider, of_liar(liar, email_domains=["corp.example"]))
    liar.goes_on.set()
    assert await waiting == "SSO_STATE_INVALID"


async def test_what_is_told_names_nobody_who_failed_and_everybody_who_signed_in(
    auth: AuthClient, liar: LyingDirectory, module_database: Database
) -> None:
    ada = await auth.sign_up()
    provider = await add_directory(auth, ada, of_liar(liar))
    eve = (await sign_in(auth, provider, "eve")).user.id
    await sign_in(auth, provider, "eve")
    liar.bind_results["cn=service"] = LDAPResultCode.INVALID_CREDENTIALS
    await refusal(auth, provider, "my password by mistake")
    with psycopg.connect(module_database.superuser_dsn) as connection:
        query = "SELECT document::json FROM auth.audit_entries WHERE tenant_id = %s ORDER BY sequence DESC LIMIT 4"
        entries = [entry for (entry,) in connection.execute(query, (ada.tenant_id,)).fetchall()]
    failed, *signed_in, added = entries
    assert (added["action"], added["target"]["id"]) == ("member.added", eve)
    assert [(entry["action"], entry["actor"]["id"], entry["details"]["provider"]) for entry in signed_in] == [
        ("sign_in.succeeded", eve, provider.id)
    ] * 2
    assert (failed["action"], failed["actor"]["id"]) == ("sign_in.failed", provider.id)
    assert (failed["details"]["reason"], failed["details"]["url"]) == ("SERVICE_UNAVAILABLE", liar.url)
    assert "INVALID_CREDENTIALS" in failed["details"]["cause"]
    assert "mistake" not in str(failed)


async def test_what_a_directory_is_known_by_stays_and_its_password_is_kept(
    auth: AuthClient, liar: LyingDirectory
) -> None:
    ada = await auth.sign_up()
    provider = await add_directory(auth, ada, of_liar(liar))
    for ldap in ({"url": "ldaps://elsewhere.example.com"}, {"base_dn": "dc=other"}, {"id_attribute": "mail"}):
        with pytest.raises(Conflict):
            await change_directory(auth, ada, provider, of_liar(liar, ldap=ldap))
    changed = await change_directory(auth, ada, provider, of_liar(liar, name="Renamed"))
    assert (changed.settings.name, changed.settings.ldap, changed.has_secret) == (
        "Renamed",
        provider.settings.ldap,
        True,
    )
    assert await sign_in(auth, provider, "eve")
    assert liar.binds[0] == ("cn=service", SERVICE_PASSWORD)
