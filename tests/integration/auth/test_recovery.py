"""Passwords that are forgotten or changed, verified addresses, and sessions; mails are read as files."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import bcrypt
import psycopg
import pyotp
import pytest
import pytest_asyncio

from chassis import api_keys
from chassis.errors import Forbidden, Invalid, NotFound, Unauthenticated
from contracts.pulsegate.auth.v1 import accounts_pb2, credentials_pb2, invitations_pb2, own_account_pb2
from contracts.pulsegate.auth.v1 import own_account_pb2 as pb
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as sso_pb
from services.auth.domain import MOST_KEYS
from services.auth.passwords import PasswordHasher
from services.auth.settings import Settings
from services.auth.tokens import MailedTokens
from tests.integration.auth.client import PASSWORD, AuthClient, Person, running_auth
from tests.integration.auth.clocks import MovableClock
from tests.integration.auth.locks import until_somebody_waits_for_a_lock
from tests.integration.auth.mail_folder import Mails
from tests.integration.auth.sign_ons import ADMIN, OWNER, add_provider, settings_of
from tests.suite_database import Database
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEW_PASSWORD = "seven green bottles hanging"
RESET, VERIFY, CHANGED = "Reset your", "Verify your", "was changed"


@pytest.fixture
def mails(tmp_path: Path) -> Mails:
    return Mails(tmp_path / "mails")


@pytest_asyncio.fixture(loop_scope="module")
async def auth(settings: Settings, mails: Mails, clock: MovableClock) -> AsyncIterator[AuthClient]:
    async with running_auth(settings, clock, mail_folder=mails.folder, most_connections=20) as client:
        yield client


async def sign_in(auth: AuthClient, email: str, password: str, device: str = "") -> accounts_pb2.SignInResponse:
    request = accounts_pb2.SignInRequest(
        email=email, password=password, device=accounts_pb2.Device(name=device, address="192.0.2.1")
    )
    answer: accounts_pb2.SignInResponse = await auth.account("SignIn", request)
    return answer


async def request_reset(auth: AuthClient, email: str) -> None:
    await auth.own("RequestPasswordReset", pb.RequestPasswordResetRequest(email=email))


async def reset(auth: AuthClient, token: str, password: str = NEW_PASSWORD) -> None:
    await auth.own("ResetPassword", pb.ResetPasswordRequest(token=token, password=password))


async def change_password(auth: AuthClient, person: Person, current: str, new: str = NEW_PASSWORD) -> None:
    request = pb.ChangePasswordRequest(current_password=current, new_password=new)
    await auth.own("ChangePassword", request, await auth.principal(person))


async def verify(auth: AuthClient, person: Person, token: str) -> None:
    await auth.own("VerifyEmail", pb.VerifyEmailRequest(token=token), await auth.principal(person))


async def enable_second_factor(auth: AuthClient, person: Person, clock: MovableClock) -> None:
    principal = await auth.principal(person)
    secret = (await auth.own("BeginTotp", pb.BeginTotpRequest(password=PASSWORD), principal)).secret
    code = pyotp.TOTP(secret).generate_otp(clock.now_ms() // 30_000)
    await auth.own("ConfirmTotp", pb.ConfirmTotpRequest(code=code), principal)


async def is_verified(auth: AuthClient, person: Person) -> bool:
    me = await auth.account("GetMe", accounts_pb2.GetMeRequest(), await auth.principal(person))
    return bool(me.email_verified)


async def sessions(auth: AuthClient, person: Person) -> list[own_account_pb2.OwnSession]:
    answer = await auth.own("ListSessions", pb.ListSessionsRequest(), await auth.principal(person))
    return list(answer.sessions)


def actions_of(database: Database, person: Person) -> list[str]:
    """What their own tenant's audit log has, from its beginning."""
    query = "SELECT document::json ->> 'action' FROM auth.audit_entries WHERE tenant_id = %s ORDER BY sequence"
    with psycopg.connect(database.superuser_dsn) as connection:
        return [action for (action,) in connection.execute(query, (person.tenant_id,)).fetchall()]


async def test_a_mailed_token_sets_a_new_password_once_and_ends_every_session(auth: AuthClient, mails: Mails) -> None:
    ada = await auth.sign_up()
    await request_reset(auth, ada.email.upper())
    token = await mails.token(ada.email, RESET)

    outcomes = await asyncio.gather(*(reset(auth, token) for _ in range(5)), return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Invalid"] * 4 + ["NoneType"]
    with pytest.raises(Unauthenticated):
        await auth.authenticate(access_token=ada.access_token)
    with pytest.raises(Unauthenticated):
        await auth.account("Refresh", accounts_pb2.RefreshRequest(refresh_token=ada.refresh_token))
    with pytest.raises(Unauthenticated):
        await sign_in(auth, ada.email, PASSWORD)
    assert (await sign_in(auth, ada.email, NEW_PASSWORD)).session.access_token
    assert await mails.token(ada.email, CHANGED) == ""


async def test_who_asks_for_another_token_keeps_nobody_from_using_theirs_and_one_that_is_used_makes_all_void(
    auth: AuthClient, mails: Mails
) -> None:
    ada = await auth.sign_up()
    await request_reset(auth, ada.email)
    hers = await mails.token(ada.email, RESET)
    for _ in range(10):
        await request_reset(auth, ada.email)
    others = [await mails.token(ada.email, RESET, number) for number in range(2, 6)]

    outcomes = await asyncio.gather(*(reset(auth, token) for token in (hers, hers, *others)), return_exceptions=True)

    assert sorted(getattr(outcome, "code", "") for outcome in outcomes) == ["", *["INVALID_TOKEN"] * 5]
    assert len(mails.tokens(ada.email, RESET)) == 5


async def test_a_changed_password_makes_mailed_tokens_void_and_more_are_mailed_after_a_while(
    auth: AuthClient, mails: Mails, clock: MovableClock
) -> None:
    ada = await auth.sign_up()
    for _ in range(5):
        await request_reset(auth, ada.email)
    older = await mails.token(ada.email, RESET, 5)
    await change_password(auth, ada, PASSWORD)

    with pytest.raises(Invalid) as refused:
        await reset(auth, older)

    assert refused.value.code == "INVALID_TOKEN"
    await clock.advance(timedelta(minutes=31))
    await request_reset(auth, ada.email)
    await reset(auth, await mails.token(ada.email, RESET, 6))


async def test_what_the_version_before_has_mailed_is_good_and_it_finds_the_newest(
    auth: AuthClient, mails: Mails, database: Database
) -> None:
    ada = await auth.sign_up()
    await request_reset(auth, ada.email)
    older = await mails.token(ada.email, RESET)
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM auth.live_tokens")  # which that version does not know
        await request_reset(auth, ada.email)
        newer = await mails.token(ada.email, RESET, 2)
        known = connection.execute(
            "SELECT token_hash FROM auth.mailed_tokens WHERE purpose = 'password_reset'"
        ).fetchall()

    await reset(auth, older)

    assert known == [(MailedTokens.digest(newer),)]
    with pytest.raises(Invalid):
        await reset(auth, newer)


@pytest.mark.parametrize(("subject", "life"), [(RESET, timedelta(minutes=30)), (VERIFY, timedelta(hours=24))])
async def test_a_token_ends_by_itself(
    auth: AuthClient, mails: Mails, clock: MovableClock, subject: str, life: timedelta
) -> None:
    ada = await auth.sign_up()
    await request_reset(auth, ada.email)
    token = await mails.token(ada.email, subject)

    await clock.advance(life)

    ada = replace(ada, access_token=(await sign_in(auth, ada.email, PASSWORD)).session.access_token)
    with pytest.raises(Invalid) as refused:
        await (reset(auth, token) if subject == RESET else verify(auth, ada, token))
    assert refused.value.code == "INVALID_TOKEN"


async def test_a_token_serves_its_own_purpose_alone_and_a_bad_password_does_not_spend_it(
    auth: AuthClient, mails: Mails
) -> None:
    ada = await auth.sign_up()
    await request_reset(auth, ada.email)
    token, verification = await mails.token(ada.email, RESET), await mails.token(ada.email, VERIFY)

    for attempt in (
        reset(auth, verification),
        reset(auth, "mt_guessed"),
        reset(auth, token, "short"),
        verify(auth, ada, token),
    ):
        with pytest.raises(Invalid):
            await attempt

    await reset(auth, token)


async def test_an_address_without_an_account_leaves_the_same_rows_and_gets_no_mail(
    auth: AuthClient, mails: Mails, database: Database
) -> None:
    ada = await auth.sign_up()
    await request_reset(auth, "nobody@example.com")
    await request_reset(auth, "no address")
    await request_reset(auth, ada.email)

    with psycopg.connect(database.superuser_dsn) as connection:
        found = connection.execute(
            "SELECT email_key FROM auth.live_tokens WHERE purpose = 'password_reset' ORDER BY email_key"
        ).fetchall()
    await mails.token(ada.email, RESET)

    async def queue_is_empty() -> bool:
        with psycopg.connect(database.superuser_dsn) as connection:
            return connection.execute("SELECT count(*) FROM auth.mails").fetchall() == [(0,)]

    await eventually(queue_is_empty)
    assert found == [("nobody@example.com",), (ada.email,)]
    assert mails.tokens("nobody@example.com", RESET) == []


async def test_no_token_stands_in_the_database(auth: AuthClient, mails: Mails, database: Database) -> None:
    ada = await auth.sign_up()
    token = await mails.token(ada.email, VERIFY)

    with psycopg.connect(database.superuser_dsn) as connection:
        tokens = str(connection.execute("SELECT t::text FROM auth.live_tokens t").fetchall())

    assert MailedTokens.digest(token).hex() in tokens
    assert token not in tokens


async def test_an_address_is_verified_by_the_mail_that_signing_up_sends_and_once(
    auth: AuthClient, mails: Mails
) -> None:
    ada = await auth.sign_up()
    principal = await auth.principal(ada)
    assert not await is_verified(auth, ada)
    older = await mails.token(ada.email, VERIFY)
    await auth.own("RequestEmailVerification", pb.RequestEmailVerificationRequest(), principal)
    token = await mails.token(ada.email, VERIFY, 2)

    with pytest.raises(Forbidden):
        await verify(auth, await auth.sign_up(), token)
    with pytest.raises(Unauthenticated):
        await auth.own("VerifyEmail", pb.VerifyEmailRequest(token=token))
    await verify(auth, ada, token)
    await auth.own("RequestEmailVerification", pb.RequestEmailVerificationRequest(), principal)

    assert await is_verified(auth, ada)
    for spent in (token, older):
        with pytest.raises(Invalid):
            await verify(auth, ada, spent)


async def test_who_reads_the_mail_gets_an_account_that_somebody_else_has_made_with_the_address(
    auth: AuthClient, mails: Mails, clock: MovableClock
) -> None:
    mallory = await auth.sign_up("victim@example.com")
    await enable_second_factor(auth, mallory, clock)
    await request_reset(auth, mallory.email)

    await reset(auth, await mails.token(mallory.email, RESET))

    assert (await sign_in(auth, mallory.email, NEW_PASSWORD)).session.access_token
    with pytest.raises(Unauthenticated):
        await auth.principal(mallory)
    assert await mails.token(mallory.email, CHANGED, 3) == ""


async def test_who_reads_the_mail_gets_a_tenant_into_which_whoever_made_it_has_no_way_back(
    auth: AuthClient, mails: Mails, database: Database
) -> None:
    mallory, second = await auth.sign_up("target@example.com"), await auth.sign_up()
    principal, tenant_id = await auth.principal(mallory), mallory.tenant_id
    key = (await auth.create_key(mallory)).token
    provider = await add_provider(auth, mallory, "https://login.example.com/common", default_role=ADMIN)
    making = sso_pb.CreateProvisioningTokenRequest(tenant_id=tenant_id, provider_id=provider.id)
    provisioning = (await auth.sso("CreateProvisioningToken", making, principal)).token
    for role, email in ((OWNER, second.email), (ADMIN, (await auth.sign_up()).email)):
        adding = accounts_pb2.AddMemberRequest(tenant_id=tenant_id, email=email, role=role)
        await auth.account("AddMember", adding, principal)
    inviting = invitations_pb2.CreateInvitationRequest(tenant_id=tenant_id, email="third@example.com", role=OWNER)
    await auth.invitation("CreateInvitation", inviting, principal)
    await request_reset(auth, mallory.email)

    await reset(auth, await mails.token(mallory.email, RESET))

    for credential in (
        credentials_pb2.AuthenticateRequest(api_key_sha256=api_keys.digest(key)),
        credentials_pb2.AuthenticateRequest(provisioning_token_sha256=api_keys.digest(provisioning)),
    ):
        with pytest.raises(Unauthenticated):
            await auth.authenticate_by(credential)
    listing = accounts_pb2.ListMembersRequest(tenant_id=tenant_id)
    with pytest.raises(NotFound):
        await auth.account("ListMembers", listing, await auth.principal(second))
    token = (await sign_in(auth, mallory.email, NEW_PASSWORD)).session.access_token
    principal = await auth.principal(replace(mallory, access_token=token))
    members = (await auth.account("ListMembers", listing, principal)).members
    listing_providers = sso_pb.ListIdentityProvidersRequest(tenant_id=tenant_id)
    [shown] = (await auth.sso("ListIdentityProviders", listing_providers, principal)).providers
    listing_invitations = invitations_pb2.ListInvitationsRequest(tenant_id=tenant_id)
    invitations = (await auth.invitation("ListInvitations", listing_invitations, principal)).invitations
    assert [member.user.id for member in members] == [mallory.user_id]
    assert (shown.settings.enabled, list(invitations)) == (False, [])
    assert "tenant.reclaimed" in actions_of(database, mallory)
    await mails.token(mallory.email, CHANGED, 2)
    [notice] = [text for text in mails.texts(mallory.email, CHANGED) if "need not be yours" in text]
    assert "(1 revoked), other members (2 removed)" in " ".join(notice.split())


async def test_a_tenant_with_as_many_keys_as_there_may_be_is_taken_back_well_within_a_statements_time(
    auth: AuthClient, mails: Mails, database: Database
) -> None:
    mallory = await auth.sign_up()
    origins = [f"https://shop-{number}.{'x' * 270}.example" for number in range(100)]
    made = await auth.create_key(mallory, kind=accounts_pb2.KEY_KIND_PUBLISHABLE, allowed_origins=origins)
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO auth.keys (id, tenant_id, project_id, name, kind, scopes, allowed_origins, prefix, key_hash,"
            " sealed_text, created_at) SELECT gen_random_uuid(), tenant_id, project_id, name, kind, scopes,"
            " allowed_origins, prefix, sha256(key_hash || n::text::bytea), sealed_text, created_at"
            " FROM auth.keys, generate_series(2, %s) AS n WHERE id = %s",
            (max(MOST_KEYS.values()), made.key.id),
        )
    await request_reset(auth, mallory.email)
    token = await mails.token(mallory.email, RESET)

    began = time.monotonic()
    await reset(auth, token)

    assert time.monotonic() - began < 5, "half of what a single statement may take"
    with psycopg.connect(database.superuser_dsn) as connection:
        query = "SELECT count(*) FROM auth.keys WHERE tenant_id = %s AND revoked_at IS NOT NULL"
        assert connection.execute(query, (mallory.tenant_id,)).fetchall() == [(max(MOST_KEYS.values()),)]


async def test_a_session_that_a_reset_has_ended_makes_no_way_back_even_before_gateways_hear_of_it(
    auth: AuthClient, mails: Mails, clock: MovableClock
) -> None:
    mallory, second = await auth.sign_up(), await auth.sign_up()
    provider = await add_provider(auth, mallory, "https://login.example.com/common", default_role=ADMIN)
    inviting = invitations_pb2.CreateInvitationRequest(tenant_id=second.tenant_id, email=mallory.email, role=ADMIN)
    await auth.invitation("CreateInvitation", inviting, await auth.principal(second))
    ended = await auth.principal(mallory)
    await request_reset(auth, mallory.email)

    await reset(auth, await mails.token(mallory.email, RESET))

    access_token = (await sign_in(auth, mallory.email, NEW_PASSWORD)).session.access_token
    owner = replace(mallory, access_token=access_token)
    key = (await auth.create_key(owner)).key
    [session] = await sessions(auth, owner)
    begun = await auth.own("BeginTotp", pb.BeginTotpRequest(password=NEW_PASSWORD), await auth.principal(owner))
    tenant_id, project_id, role = mallory.tenant_id, mallory.project_id, OWNER
    of_provider = {"tenant_id": tenant_id, "provider_id": provider.id}
    attempts: dict[Any, list[Any]] = {
        auth.account: [
            accounts_pb2.AddMemberRequest(tenant_id=tenant_id, email=second.email, role=role),
            accounts_pb2.ListMembersRequest(tenant_id=tenant_id),
            accounts_pb2.CreateProjectRequest(name="Another"),
            accounts_pb2.CreateKeyRequest(project_id=project_id, name="mine", kind=accounts_pb2.KEY_KIND_SECRET),
            accounts_pb2.RotateKeyRequest(project_id=project_id, key_id=key.id, grace_seconds=60),
        ],
        auth.invitation: [
            invitations_pb2.CreateInvitationRequest(tenant_id=tenant_id, email=second.email, role=role),
            invitations_pb2.AcceptInvitationRequest(token=await mails.token(mallory.email, "You are invited")),
        ],
        auth.sso: [
            sso_pb.UpdateIdentityProviderRequest(
                settings=settings_of("https://login.example.com/common"), **of_provider
            ),
            sso_pb.CreateProvisioningTokenRequest(**of_provider),
        ],
        auth.own: [
            pb.ConfirmTotpRequest(code=pyotp.TOTP(begun.secret).generate_otp(clock.now_ms() // 30_000)),
            pb.BeginTotpRequest(password=NEW_PASSWORD),
            pb.RenewRecoveryCodesRequest(password=NEW_PASSWORD),
            pb.DisableTotpRequest(password=NEW_PASSWORD),
            pb.ChangePasswordRequest(current_password=NEW_PASSWORD, new_password=PASSWORD),
            pb.RequestEmailVerificationRequest(),
            pb.VerifyEmailRequest(token=await mails.token(mallory.email, VERIFY)),
            pb.RevokeSessionRequest(session_id=session.id),
            pb.RevokeOtherSessionsRequest(),
        ],
    }
    for call, requests in attempts.items():
        for request in requests:
            with pytest.raises(Unauthenticated, match="session is over"):
                await call(type(request).__name__.removesuffix("Request"), request, ended)
    assert len(await sessions(auth, owner)) == 1


async def test_what_waits_for_a_reset_finds_its_session_ended(
    auth: AuthClient, mails: Mails, database: Database
) -> None:
    ada, second = await auth.sign_up(), await auth.sign_up()
    key, principal = (await auth.create_key(ada)).key, await auth.principal(ada)
    inviting = invitations_pb2.CreateInvitationRequest(tenant_id=second.tenant_id, email=ada.email, role=ADMIN)
    await auth.invitation("CreateInvitation", inviting, await auth.principal(second))
    accepting = invitations_pb2.AcceptInvitationRequest(token=await mails.token(ada.email, "You are invited"))
    attempts = {
        "AddMember": accounts_pb2.AddMemberRequest(tenant_id=ada.tenant_id, email=second.email, role=OWNER),
        "CreateKey": accounts_pb2.CreateKeyRequest(
            project_id=ada.project_id, name="mine", kind=accounts_pb2.KEY_KIND_SECRET
        ),
        "RotateKey": accounts_pb2.RotateKeyRequest(project_id=ada.project_id, key_id=key.id, grace_seconds=60),
    }
    async with await psycopg.AsyncConnection.connect(database.superuser_dsn) as connection:
        for tenant in (ada, second):
            roles = f"roles of {tenant.tenant_id}"
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (roles,))
        await connection.execute("SELECT FROM auth.projects FOR NO KEY UPDATE")
        calls = [auth.account(*attempt, principal) for attempt in attempts.items()]
        calls.append(auth.invitation("AcceptInvitation", accepting, principal))
        waiting = [asyncio.create_task(call) for call in calls]
        await until_somebody_waits_for_a_lock(database, len(waiting))
        await connection.execute("UPDATE auth.sessions SET revoked_at = now() WHERE user_id = %s", (ada.user_id,))

    outcomes = await asyncio.gather(*waiting, return_exceptions=True)

    assert [str(outcome) for outcome in outcomes] == ["The session is over. Sign in again."] * len(waiting)


async def test_while_a_tenant_is_taken_back_nobody_makes_a_project_or_a_key_in_it_that_would_stay(
    auth: AuthClient, mails: Mails, database: Database
) -> None:
    mallory, *others = [await auth.sign_up() for _ in range(3)]
    key, principal = (await auth.create_key(mallory)).key, await auth.principal(mallory)
    for other in others:
        adding = accounts_pb2.AddMemberRequest(tenant_id=mallory.tenant_id, email=other.email, role=ADMIN)
        await auth.account("AddMember", adding, principal)
    callers = cycle([await auth.principal(other) for other in others])  # one person has too few turns
    await request_reset(auth, mallory.email)
    token = await mails.token(mallory.email, RESET)

    async def make_a_way_back() -> str:
        making = accounts_pb2.CreateProjectRequest(name="another")
        project = (await auth.account("CreateProject", making, principal)).project
        wanted = accounts_pb2.CreateKeyRequest(project_id=project.id, name="mine", kind=accounts_pb2.KEY_KIND_SECRET)
        return str((await auth.account("CreateKey", wanted, principal)).token)

    async with await psycopg.AsyncConnection.connect(database.superuser_dsn) as connection:
        await connection.execute("SELECT FROM auth.keys WHERE id = %s FOR UPDATE", (key.id,))
        resetting = asyncio.create_task(reset(auth, token))
        await until_somebody_waits_for_a_lock(database)
        making = asyncio.create_task(make_a_way_back())
        attempts = {
            "CreateProject": accounts_pb2.CreateProjectRequest(tenant_id=mallory.tenant_id, name="another"),
            "CreateKey": accounts_pb2.CreateKeyRequest(
                project_id=mallory.project_id, name="hers", kind=accounts_pb2.KEY_KIND_SECRET
            ),
            "RotateKey": accounts_pb2.RotateKeyRequest(project_id=mallory.project_id, key_id=key.id, grace_seconds=60),
            "DeleteProject": accounts_pb2.DeleteProjectRequest(project_id=mallory.project_id),
        }
        waiting = [asyncio.create_task(auth.account(*attempt, next(callers))) for attempt in attempts.items()]
        await until_somebody_waits_for_a_lock(database, 2 + len(waiting))
    await resetting

    with pytest.raises(Unauthenticated, match="session is over"):
        await making
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [NotFound] * len(waiting)
    with psycopg.connect(database.superuser_dsn) as looking:
        query = "SELECT id::text FROM auth.projects WHERE tenant_id = %s"
        assert looking.execute(query, (mallory.tenant_id,)).fetchall() == [(mallory.project_id,)]
        query = "SELECT id::text FROM auth.keys WHERE tenant_id = %s"
        assert looking.execute(query, (mallory.tenant_id,)).fetchall() == [(key.id,)]


async def test_a_reset_takes_nothing_from_tenants_that_others_have_made_or_answer_for_or_of_a_verified_address(
    auth: AuthClient, mails: Mails, database: Database
) -> None:
    ada, bob, eve, viewer = [await auth.sign_up() for _ in range(4)]
    keys = [(await auth.create_key(person)).token for person in (ada, bob)]
    await verify(auth, bob, await mails.token(bob.email, VERIFY))
    with psycopg.connect(database.superuser_dsn) as connection:
        for person, role in ((eve, "owner"), (viewer, "viewer")):
            connection.execute(
                "INSERT INTO auth.memberships (tenant_id, user_id, role, created_at, consented)"
                " VALUES (%s, %s, %s, now(), true)",
                (ada.tenant_id, person.user_id, role),
            )

    for person in (viewer, eve, ada, bob):
        await request_reset(auth, person.email)
        await reset(auth, await mails.token(person.email, RESET))

    for key in keys:
        assert (await auth.authenticate(key=key)).principal
    with psycopg.connect(database.superuser_dsn) as connection:
        query = "SELECT count(*) FROM auth.memberships WHERE tenant_id = %s"
        assert connection.execute(query, (ada.tenant_id,)).fetchall() == [(3,)]


async def test_what_a_reset_proves_and_removes_is_in_the_audit_log(
    auth: AuthClient, mails: Mails, clock: MovableClock, database: Database
) -> None:
    plain, guarded = await auth.sign_up(), await auth.sign_up()
    await enable_second_factor(auth, guarded, clock)
    for person in (plain, guarded):
        for number in (1, 2):  # the first one verifies the address
            await request_reset(auth, person.email)
            await reset(auth, await mails.token(person.email, RESET, number))

    assert actions_of(database, plain)[3:] == ["email.verified", "password.reset", "session.ended", "password.reset"]
    assert actions_of(database, guarded)[3:] == [
        "second_factor.enabled",
        "email.verified",
        "second_factor.disabled",
        "password.reset",
        "session.ended",
        "password.reset",
    ]


async def test_a_reset_leaves_the_second_factor_of_a_verified_address_alone(
    auth: AuthClient, mails: Mails, clock: MovableClock
) -> None:
    ada = await auth.sign_up()
    await verify(auth, ada, await mails.token(ada.email, VERIFY))
    await enable_second_factor(auth, ada, clock)
    await request_reset(auth, ada.email)

    await reset(auth, await mails.token(ada.email, RESET))

    with pytest.raises(Unauthenticated) as refused:
        await sign_in(auth, ada.email, NEW_PASSWORD)
    assert refused.value.code == "TOTP_REQUIRED"


async def test_a_deleted_account_gets_neither_password_nor_mail(
    auth: AuthClient, mails: Mails, database: Database
) -> None:
    ada = await auth.sign_up()
    await request_reset(auth, ada.email)
    token, principal = await mails.token(ada.email, RESET), await auth.principal(ada)
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("DELETE FROM auth.users WHERE id = %s", (ada.user_id,))

    with pytest.raises(Invalid):
        await reset(auth, token)
    for method, request in (
        ("RequestEmailVerification", pb.RequestEmailVerificationRequest()),
        ("ChangePassword", pb.ChangePasswordRequest(current_password=PASSWORD, new_password=NEW_PASSWORD)),
    ):
        with pytest.raises(Unauthenticated):
            await auth.own(method, request, principal)


async def test_changing_the_password_ends_the_other_sessions_and_takes_the_present_one(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    other = (await sign_in(auth, ada.email, PASSWORD)).session

    with pytest.raises(Unauthenticated) as refused:
        await change_password(auth, ada, "not the present one")
    with pytest.raises(Invalid):
        await change_password(auth, ada, PASSWORD, "short")
    await change_password(auth, ada, PASSWORD)

    assert refused.value.code == "INVALID_CREDENTIALS"
    assert await auth.principal(ada)
    with pytest.raises(Unauthenticated):
        await auth.authenticate(access_token=other.access_token)
    assert (await sign_in(auth, ada.email, NEW_PASSWORD)).session.access_token


async def test_where_addresses_can_be_verified_only_those_that_were_are_told_of_changes(
    mailing_settings: Settings, database: Database
) -> None:
    def told(connection: "psycopg.Connection[tuple[str]]") -> list[tuple[str]]:
        return connection.execute("SELECT recipient FROM auth.mails WHERE purpose = 'notice'").fetchall()

    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        async with running_auth(mailing_settings) as auth:
            ada = await auth.sign_up()
            await change_password(auth, ada, PASSWORD)
            before = told(connection)
            connection.execute("UPDATE auth.users SET email_verified_at = now()")
            await change_password(auth, ada, NEW_PASSWORD, PASSWORD)

        assert (before, told(connection)) == ([], [(ada.email,)])


async def test_a_password_that_is_replaced_while_it_is_compared_opens_nothing(
    auth: AuthClient, database: Database
) -> None:
    ada = await auth.sign_up()
    async with await psycopg.AsyncConnection.connect(database.superuser_dsn) as connection:
        another = bcrypt.hashpw(NEW_PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        await connection.execute("UPDATE auth.passwords SET bcrypt = %s", (another,))
        attempt = asyncio.create_task(sign_in(auth, ada.email, PASSWORD))
        await until_somebody_waits_for_a_lock(database)

    with pytest.raises(Unauthenticated) as refused:
        await attempt
    assert refused.value.code == "INVALID_CREDENTIALS"


async def test_a_password_that_is_replaced_while_the_next_one_is_hashed_stays(
    auth: AuthClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, hashed = await auth.sign_up(), PasswordHasher.hash
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:

        async def replaced_meanwhile(hasher: PasswordHasher, password: str) -> str:
            connection.execute("UPDATE auth.passwords SET bcrypt = 'another' WHERE user_id = %s", (ada.user_id,))
            return await hashed(hasher, password)

        monkeypatch.setattr(PasswordHasher, "hash", replaced_meanwhile)
        with pytest.raises(Unauthenticated) as refused:
            await change_password(auth, ada, PASSWORD, NEW_PASSWORD)

        kept = connection.execute("SELECT bcrypt FROM auth.passwords WHERE user_id = %s", (ada.user_id,)).fetchone()
    assert refused.value.code == "INVALID_CREDENTIALS"
    assert kept == ("another",)


async def test_of_several_changes_of_a_password_at_once_one_succeeds(auth: AuthClient) -> None:
    ada = await auth.sign_up()

    changes = (change_password(auth, ada, PASSWORD, f"{NEW_PASSWORD} {number}") for number in range(4))
    outcomes = await asyncio.gather(*changes, return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] + ["Unauthenticated"] * 3


async def test_sessions_are_listed_with_device_address_and_last_use(auth: AuthClient, clock: MovableClock) -> None:
    ada = await auth.sign_up()
    second = (await sign_in(auth, ada.email, PASSWORD, "Phone\r\n" + "x" * 300)).session
    await clock.advance(timedelta(minutes=5))
    await auth.account(
        "Refresh",
        accounts_pb2.RefreshRequest(
            refresh_token=second.refresh_token, device=accounts_pb2.Device(name="Tablet", address="2001:db8::1")
        ),
    )
    await auth.account(
        "SignOut",
        accounts_pb2.SignOutRequest(refresh_token=(await sign_in(auth, ada.email, PASSWORD)).session.refresh_token),
    )

    first, renewed = await sessions(auth, ada)

    assert (first.current, renewed.current) == (True, False)
    assert (renewed.device, renewed.address) == ("Tablet", "2001:db8::1")
    assert first.last_used_at == first.created_at
    assert renewed.last_used_at.seconds - renewed.created_at.seconds >= 300
    assert renewed.expires_at.seconds - renewed.last_used_at.seconds == 7 * 86_400


async def test_one_session_or_all_others_end_at_once_and_are_announced(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    others = [(await sign_in(auth, ada.email, PASSWORD)).session for _ in range(3)]
    principal = await auth.principal(ada)
    _, one, *rest = await sessions(auth, ada)
    stream = auth.watch()
    await anext(stream)

    with pytest.raises(NotFound):
        await auth.own("RevokeSession", pb.RevokeSessionRequest(session_id=one.id), await auth.principal(eve))
    with pytest.raises(NotFound):
        await auth.own("RevokeSession", pb.RevokeSessionRequest(session_id="nonsense"), principal)
    await auth.own("RevokeSession", pb.RevokeSessionRequest(session_id=one.id), principal)
    await auth.own("RevokeOtherSessions", pb.RevokeOtherSessionsRequest(), principal)
    await auth.own("RevokeOtherSessions", pb.RevokeOtherSessionsRequest(), principal)

    changes = (sorted(beat.changed_ids) async for beat in stream if beat.changed_ids)
    assert [await anext(changes), await anext(changes)] == [[one.id], sorted(session.id for session in rest)]
    assert [session.current for session in await sessions(auth, ada)] == [True]
    assert len(await sessions(auth, eve)) == 1
    for other in others:
        with pytest.raises(Unauthenticated):
            await auth.authenticate(access_token=other.access_token)
