"""Signing up and in, and one's own account."""

import asyncio
import time
from contextlib import suppress

import psycopg
import pytest
from psycopg import sql

from chassis.errors import Conflict, Forbidden, Invalid, Unauthenticated
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from services.auth.errors import TooManyPasswords
from services.auth.passwords import PasswordHasher
from services.auth.settings import Settings
from tests.integration.auth.client import PASSWORD, AuthClient, running_auth
from tests.suite_database import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")


def signing_in(email: str, password: str = PASSWORD) -> pb.SignInRequest:
    return pb.SignInRequest(email=email, password=password)


async def test_signing_up_makes_a_tenant_owned_by_the_user_with_a_first_project(auth: AuthClient) -> None:
    ada = await auth.sign_up("ada@example.com", "Engines")
    principal = await auth.principal(ada)

    me = await auth.account("GetMe", pb.GetMeRequest(), principal)
    projects = await auth.account("ListProjects", pb.ListProjectsRequest(), principal)

    assert me.user == pb.User(id=ada.user_id, email="ada@example.com")
    assert [(m.tenant.id, m.tenant.name, m.role, m.plan) for m in me.memberships] == [
        (ada.tenant_id, "Engines", pb.ROLE_OWNER, "enterprise")
    ]
    assert [(p.id, p.tenant_id, p.name) for p in projects.projects] == [(ada.project_id, ada.tenant_id, "Default")]


@pytest.mark.parametrize("spelling", ["eva@example.com", "EVA@Example.COM", " eva@example.com", "\uff45va@example.com"])
async def test_an_email_address_has_one_account_however_it_is_spelt(auth: AuthClient, spelling: str) -> None:
    with suppress(Conflict):
        await auth.sign_up("Eva@example.com")

    with pytest.raises(Conflict) as refused:
        await auth.sign_up(spelling)
    answer = await auth.account("SignIn", signing_in(spelling))

    assert refused.value.code == "CONFLICT"
    assert answer.user.email == "Eva@example.com"


async def test_of_many_sign_ups_with_one_address_at_once_one_succeeds(auth: AuthClient) -> None:
    outcomes = await asyncio.gather(*(auth.sign_up("race@example.com") for _ in range(8)), return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict"] * 7 + ["Person"]


async def test_a_sign_up_names_every_fault_at_once(auth: AuthClient) -> None:
    with pytest.raises(Invalid) as refused:
        await auth.account("SignUp", pb.SignUpRequest(email="nobody", password="short", tenant_name="\n"))

    assert refused.value.details is not None
    assert set(refused.value.details["fields"]) == {"email", "password", "tenantName"}


@pytest.mark.alone
async def test_what_is_too_long_for_an_address_is_refused_before_it_costs_anything(auth: AuthClient) -> None:
    text = "a" + "\u0301\u0316" * 400_000 + "@example.com"
    began = time.monotonic()
    for method, request in [
        ("SignIn", signing_in(text)),
        ("SignUp", pb.SignUpRequest(email=text, password=PASSWORD, tenant_name="Shop")),
    ]:
        with pytest.raises(Invalid) as refused:
            await auth.account(method, request)
        assert refused.value.details is not None
        assert set(refused.value.details["fields"]) == {"email"}
    assert time.monotonic() - began < 2


async def test_signing_in_answers_the_tenants_and_a_new_session(auth: AuthClient) -> None:
    ada = await auth.sign_up()

    answer = await auth.account("SignIn", signing_in(ada.email))

    assert [(m.tenant.id, m.role) for m in answer.memberships] == [(ada.tenant_id, pb.ROLE_OWNER)]
    assert answer.session.expires_in == 900
    assert answer.session.refresh_token != ada.refresh_token
    assert (await auth.authenticate(access_token=answer.session.access_token)).principal


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("known@example.com", PASSWORD + "!"),
        ("unknown@example.com", PASSWORD),
        ("known@example.com", ""),
        ("known@example.com", PASSWORD + "\0"),
        ("known@example.com", "x" * 73),
        ("", ""),
    ],
)
async def test_an_unknown_address_and_a_wrong_password_get_the_same_answer(
    auth: AuthClient, email: str, password: str
) -> None:
    with suppress(Conflict):
        await auth.sign_up("known@example.com")

    with pytest.raises(Unauthenticated) as refused:
        await auth.account("SignIn", signing_in(email, password))

    assert refused.value.code == "INVALID_CREDENTIALS"
    assert refused.value.message == "The e-mail address or the password is wrong."


async def test_a_password_is_never_cut_at_72_bytes(auth: AuthClient) -> None:
    longest = "correct horse battery staple " + "é" * 21 + "x"
    assert len(longest.encode()) == 72
    await auth.account("SignUp", pb.SignUpRequest(email="a@example.com", password=longest, tenant_name="A"))

    assert (await auth.account("SignIn", signing_in("a@example.com", longest))).session.access_token
    with pytest.raises(Unauthenticated):
        await auth.account("SignIn", signing_in("a@example.com", longest + "x"))


@pytest.mark.alone
async def test_an_unknown_address_costs_as_much_work_as_a_wrong_password(settings: Settings) -> None:
    async with running_auth(settings, bcrypt_cost=11) as auth:
        ada = await auth.sign_up()

        async def seconds(email: str) -> float:
            began = time.monotonic()
            with pytest.raises(Unauthenticated):
                await auth.account("SignIn", signing_in(email, "a wrong password"))
            return time.monotonic() - began

        # Taken in turns, and the fastest of each: so what else the machine does falls out.
        pairs = [(await seconds(ada.email), await seconds("nobody@example.com")) for _ in range(6)]
        known, unknown = (min(times) for times in zip(*pairs, strict=True))

    # Without the work of a comparison an answer takes a tenth of this.
    assert known / 2 < unknown < known * 2


async def test_a_password_gets_the_present_cost_when_its_owner_signs_in(settings: Settings, database: Database) -> None:
    def kept() -> list[str]:
        with psycopg.connect(database.superuser_dsn) as connection:
            return [bcrypt for (bcrypt,) in connection.execute("SELECT bcrypt FROM auth.passwords").fetchall()]

    async with running_auth(settings) as auth:
        ada = await auth.sign_up()
    [before] = kept()
    async with running_auth(settings, bcrypt_cost=6) as auth:
        with pytest.raises(Unauthenticated):
            await auth.account("SignIn", signing_in(ada.email, "a wrong password"))
        assert kept() == [before]
        await auth.account("SignIn", signing_in(ada.email))
        [renewed] = kept()
        await auth.account("SignIn", signing_in(ada.email))

    assert (before[:7], renewed[:7]) == ("$2b$04$", "$2b$06$")
    assert kept() == [renewed]


async def test_who_signs_in_while_there_is_no_time_for_a_new_cost_keeps_the_old_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_auth(settings) as auth:
        ada = await auth.sign_up()

    async def too_many(_self: PasswordHasher, _password: str) -> str:
        raise TooManyPasswords

    monkeypatch.setattr(PasswordHasher, "hash", too_many)
    async with running_auth(settings, bcrypt_cost=6) as auth:
        answer = await auth.account("SignIn", signing_in(ada.email))
    assert answer.session.access_token


async def test_who_signs_in_several_times_at_once_is_not_refused_for_a_new_cost(settings: Settings) -> None:
    async with running_auth(settings) as auth:
        ada = await auth.sign_up()
    async with running_auth(settings, bcrypt_cost=6) as auth:
        answers = await asyncio.gather(*(auth.account("SignIn", signing_in(ada.email)) for _ in range(4)))

    assert all(answer.session.access_token for answer in answers)


async def test_a_deleted_account_is_told_so(auth: AuthClient, module_database: Database) -> None:
    ada = await auth.sign_up()
    principal = await auth.principal(ada)
    with psycopg.connect(module_database.superuser_dsn) as connection:
        connection.execute("DELETE FROM auth.users WHERE id = %s", (ada.user_id,))

    with pytest.raises(Unauthenticated):
        await auth.account("GetMe", pb.GetMeRequest(), principal)


async def test_a_call_without_a_principal_is_refused(auth: AuthClient) -> None:
    with pytest.raises(Unauthenticated):
        await auth.account("GetMe", pb.GetMeRequest())


async def test_a_key_has_no_account(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    key = await auth.create_key(ada)
    principal = (await auth.authenticate(key=key.token)).principal

    with pytest.raises(Forbidden) as refused:
        await auth.account("GetMe", pb.GetMeRequest(), principal)

    assert refused.value.code == "INSUFFICIENT_SCOPE"


async def test_neither_passwords_nor_tokens_nor_secret_keys_are_kept_in_the_clear(
    auth: AuthClient, module_database: Database
) -> None:
    ada = await auth.sign_up()
    secret = await auth.create_key(ada)
    publishable = await auth.create_key(ada, kind=pb.KEY_KIND_PUBLISHABLE, allowed_origins=["*"])

    everything = all_rows(module_database)

    for text in (PASSWORD, ada.refresh_token, ada.access_token, secret.token, publishable.token):
        assert text not in everything
        assert text.encode().hex() not in everything
    assert ada.user_id in everything


def all_rows(database: Database) -> str:
    with psycopg.connect(database.superuser_dsn) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'auth'").fetchall()
        query = sql.SQL("SELECT t::text FROM auth.{} t")
        return str([connection.execute(query.format(sql.Identifier(name))).fetchall() for (name,) in tables])
