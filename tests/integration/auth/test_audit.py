"""The audit log: what leaves an entry, who reads it, and that no role may change it."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pyotp
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from chassis.ids import uuid7
from contracts.pulsegate.auth.v1 import accounts_pb2, own_account_pb2
from contracts.pulsegate.auth.v1 import audit_pb2 as pb
from services.auth.audit_chain import PLATFORM
from services.auth.settings import Settings
from tests.integration.auth.client import PASSWORD, AuthClient, Person, running_auth
from tests.integration.auth.clocks import MovableClock
from tests.integration.auth.locks import until_somebody_waits_for_a_lock
from tests.suite_database import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADDRESS = accounts_pb2.Device(name="Phone/1.0", address="192.0.2.7")


async def entries_of(auth: AuthClient, person: Person, principal: str = "", **asked: Any) -> list[dict[str, Any]]:
    request = pb.ListAuditEntriesRequest(**{"tenant_id": person.tenant_id, "page_size": 500, **asked})
    page = await auth.audit("ListAuditEntries", request, principal or await auth.principal(person))
    return [json.loads(entry.document) for entry in page.entries]


async def actions_of(auth: AuthClient, person: Person) -> list[str]:
    return [entry["action"] for entry in await entries_of(auth, person)]


BEGINNING = ["account.created", "tenant.created", "project.created"]


async def test_every_change_leaves_an_entry_that_says_who_did_what_to_what(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    principal = await auth.principal(ada)
    key = (await auth.create_key(ada, scopes=["query:read"])).key
    named = accounts_pb2.UpdateKeyRequest(project_id=ada.project_id, key_id=key.id, name="frontend")
    await auth.account("UpdateKey", named, principal)
    revoked = accounts_pb2.RevokeKeyRequest(project_id=ada.project_id, key_id=key.id)
    await auth.account("RevokeKey", revoked, principal)
    await auth.account("RevokeKey", revoked, principal)
    made = await auth.account("CreateProject", accounts_pb2.CreateProjectRequest(name="Shop"), principal)
    renamed = accounts_pb2.UpdateProjectRequest(project_id=made.project.id, name="Store")
    await auth.account("UpdateProject", renamed, principal)
    deleted = accounts_pb2.DeleteProjectRequest(project_id=made.project.id)
    await auth.account("DeleteProject", deleted, principal)
    who = {"tenant_id": ada.tenant_id, "user_id": eve.user_id}
    adding = accounts_pb2.AddMemberRequest(tenant_id=ada.tenant_id, email=eve.email, role=accounts_pb2.ROLE_VIEWER)
    await auth.account("AddMember", adding, principal)
    promoting = accounts_pb2.UpdateMemberRequest(**who, role=accounts_pb2.ROLE_EDITOR)
    await auth.account("UpdateMember", promoting, principal)
    await auth.account("UpdateMember", promoting, principal)
    await auth.account("RemoveMember", accounts_pb2.RemoveMemberRequest(**who), principal)

    entries = (await entries_of(auth, ada))[3:]

    project, another = ada.project_id, made.project.id
    assert [
        (entry["action"], entry["projectId"], entry["target"]["kind"], entry["target"]["id"], entry["target"]["name"])
        for entry in entries
    ] == [
        ("key.created", project, "key", key.id, "a key"),
        ("key.renamed", project, "key", key.id, "frontend"),
        ("key.revoked", project, "key", key.id, "frontend"),
        ("project.created", another, "project", another, "Shop"),
        ("project.renamed", another, "project", another, "Store"),
        ("project.deleted", another, "project", another, "Store"),
        ("member.added", "", "user", eve.user_id, ""),
        ("member.role_changed", "", "user", eve.user_id, ""),
        ("member.removed", "", "user", eve.user_id, ""),
    ]
    assert {json.dumps(entry["actor"]) for entry in entries} == {
        json.dumps({"id": ada.user_id, "kind": "user", "name": ""})
    }
    assert entries[0]["details"] == {
        "kind": "secret",
        "scopes": ["query:read"],
        "allowedOrigins": [],
        "expiresAt": "",
    }
    assert entries[7]["details"] == {"before": "viewer", "role": "editor"}
    assert all(entry["correlationId"] and entry["tenantId"] == ada.tenant_id for entry in entries)


async def test_what_becomes_of_a_keys_rights_is_told(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    principal = await auth.principal(ada)
    key = (await auth.create_key(ada, scopes=["query:read"])).key
    until = Timestamp(seconds=int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()))
    changing = accounts_pb2.UpdateKeyRequest(project_id=ada.project_id, key_id=key.id, expires_at=until)
    await auth.account("UpdateKey", changing, principal)
    rotating = accounts_pb2.RotateKeyRequest(project_id=ada.project_id, key_id=key.id, grace_seconds=60)
    successor = (await auth.account("RotateKey", rotating, principal)).key

    changed, rotated = (await entries_of(auth, ada))[-2:]

    for entry, action in ((changed, "key.changed"), (rotated, "key.rotated")):
        assert (entry["action"], entry["actor"]["id"], entry["projectId"]) == (action, ada.user_id, ada.project_id)
        assert entry["target"] == {"kind": "key", "id": key.id, "name": "a key"}
    rights = {"kind": "secret", "scopes": ["query:read"], "allowedOrigins": []}
    assert changed["details"] == {**rights, "expiresAt": "2100-01-01T00:00:00.000Z"}
    assert rotated["details"].items() >= {**rights, "successor": successor.id}.items()
    assert rotated["details"]["expiresAt"] < changed["details"]["expiresAt"]


async def test_a_long_list_of_origins_makes_no_large_entry(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    origins = [f"https://{number:03}.{'a' * 280}.example" for number in range(100)]
    await auth.create_key(ada, kind=accounts_pb2.KEY_KIND_PUBLISHABLE, allowed_origins=origins)
    request = pb.ListAuditEntriesRequest(tenant_id=ada.tenant_id)

    entry = (await auth.audit("ListAuditEntries", request, await auth.principal(ada))).entries[-1]

    details = json.loads(entry.document)["details"]
    assert len(entry.document) < 2_000
    assert (details["allowedOrigins"], details["allowedOriginsCount"]) == (origins[:2], 100)
    assert details["allowedOriginsSha256"] == hashlib.sha256("\n".join(origins).encode()).hexdigest()


async def test_many_sessions_that_end_at_once_make_no_large_entry(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    for _ in range(30):
        await auth.account("SignIn", accounts_pb2.SignInRequest(email=ada.email, password=PASSWORD))
    principal = await auth.principal(ada)
    await auth.own("RevokeOtherSessions", own_account_pb2.RevokeOtherSessionsRequest(), principal)

    ended = (await entries_of(auth, ada, principal))[-1]

    assert (ended["action"], ended["details"]["sessionsCount"]) == ("session.ended", 30)
    assert len(ended["details"]["sessions"]) == 22


async def test_a_change_that_is_refused_or_fails_leaves_none(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    again = accounts_pb2.AddMemberRequest(tenant_id=ada.tenant_id, email=ada.email, role=accounts_pb2.ROLE_VIEWER)
    for attempt, error in (
        (auth.create_key(eve, project_id=ada.project_id), NotFound),
        (auth.create_key(ada, name=""), Invalid),
        (auth.account("AddMember", again, await auth.principal(ada)), Conflict),
    ):
        with pytest.raises(error):
            await attempt

    assert await actions_of(auth, ada) == BEGINNING


async def test_signing_in_and_failing_to_are_told_to_no_tenant_that_somebody_else_chose(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    adding = accounts_pb2.AddMemberRequest(tenant_id=ada.tenant_id, email=eve.email, role=accounts_pb2.ROLE_VIEWER)
    await auth.account("AddMember", adding, await auth.principal(ada))
    right = accounts_pb2.SignInRequest(email=eve.email, password=PASSWORD, device=ADDRESS)
    wrong = accounts_pb2.SignInRequest(email=eve.email, password="wrong" * 3, device=ADDRESS)
    session = (await auth.account("SignIn", right)).session
    with pytest.raises(Unauthenticated):
        await auth.account("SignIn", wrong)
    await auth.account("SignOut", accounts_pb2.SignOutRequest(refresh_token=session.refresh_token))

    entries = (await entries_of(auth, eve))[-3:]

    assert [entry["action"] for entry in entries] == ["sign_in.succeeded", "sign_in.failed", "session.ended"]
    assert {(entry["actor"]["id"], entry["target"]["id"]) for entry in entries} == {(eve.user_id, eve.user_id)}
    assert [entry["address"] for entry in entries] == ["192.0.2.7", "192.0.2.7", ""]
    assert entries[0]["details"] == {"device": "Phone/1.0"}
    assert entries[1]["details"] == {"device": "Phone/1.0", "reason": "INVALID_CREDENTIALS"}
    assert await actions_of(auth, ada) == [*BEGINNING, "member.added"]


async def test_signing_out_while_the_password_is_changed_blocks_nobody(
    auth: AuthClient, module_database: Database
) -> None:
    ada = await auth.sign_up()
    principal = await auth.principal(ada)
    signing_in = accounts_pb2.SignInRequest(email=ada.email, password=PASSWORD)
    other = (await auth.account("SignIn", signing_in)).session.refresh_token
    changing = own_account_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password="seven green bottles")
    async with await psycopg.AsyncConnection.connect(module_database.superuser_dsn) as connection:
        await connection.execute("SELECT FROM auth.audit_heads WHERE tenant_id = %s FOR UPDATE", (ada.tenant_id,))
        change = asyncio.create_task(auth.own("ChangePassword", changing, principal))
        await until_somebody_waits_for_a_lock(module_database)
        leaving = auth.account("SignOut", accounts_pb2.SignOutRequest(refresh_token=other))
        leave = asyncio.create_task(leaving)
        await until_somebody_waits_for_a_lock(module_database, many=2)
    await asyncio.gather(change, leave)

    entries = (await entries_of(auth, ada, principal))[4:]
    assert [entry["action"] for entry in entries] == ["password.changed", "session.ended"]


async def test_failing_with_an_unknown_address_is_told_to_the_platform_without_the_address(
    auth: AuthClient, module_database: Database
) -> None:
    wrong = accounts_pb2.SignInRequest(email="nobody@example.com", password=PASSWORD, device=ADDRESS)
    with pytest.raises(Unauthenticated):
        await auth.account("SignIn", wrong)

    with psycopg.connect(module_database.superuser_dsn) as connection:
        [(document,)] = connection.execute(
            "SELECT document FROM auth.audit_entries WHERE tenant_id = %s ORDER BY sequence DESC LIMIT 1", (PLATFORM,)
        ).fetchall()
    assert (json.loads(document)["action"], json.loads(document)["address"]) == ("sign_in.failed", "192.0.2.7")
    assert "nobody" not in document


async def test_a_refresh_token_that_is_used_again_too_late_is_told(settings: Settings, clock: MovableClock) -> None:
    async with running_auth(settings, clock) as auth:
        ada = await auth.sign_up()
        request = accounts_pb2.RefreshRequest(refresh_token=ada.refresh_token)
        await auth.account("Refresh", request)
        await clock.advance(timedelta(seconds=11))
        with pytest.raises(Unauthenticated):
            await auth.account("Refresh", request)
        signing_in = accounts_pb2.SignInRequest(email=ada.email, password=PASSWORD)
        token = (await auth.account("SignIn", signing_in)).session.access_token
        principal = (await auth.authenticate(access_token=token)).principal

        assert [entry["action"] for entry in await entries_of(auth, ada, principal)][3:] == [
            "session.token_reused",
            "sign_in.succeeded",
        ]


async def test_what_a_person_does_about_their_own_account_is_told(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    principal = await auth.principal(ada)
    for _ in range(2):
        await auth.account("SignIn", accounts_pb2.SignInRequest(email=ada.email, password=PASSWORD))
    listed = await auth.own("ListSessions", own_account_pb2.ListSessionsRequest(), principal)
    one = next(session.id for session in listed.sessions if not session.current)
    await auth.own("RevokeSession", own_account_pb2.RevokeSessionRequest(session_id=one), principal)
    changing = own_account_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password="seven green bottles")
    await auth.own("ChangePassword", changing, principal)

    entries = (await entries_of(auth, ada, principal))[5:]

    assert [entry["action"] for entry in entries] == ["session.ended", "password.changed", "session.ended"]
    assert entries[0]["details"] == {"sessions": [one]}


async def test_what_becomes_of_a_second_factor_is_told(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    principal = await auth.principal(ada)
    secret = (await auth.own("BeginTotp", own_account_pb2.BeginTotpRequest(password=PASSWORD), principal)).secret
    confirming = own_account_pb2.ConfirmTotpRequest(code=pyotp.TOTP(secret).now())
    codes = (await auth.own("ConfirmTotp", confirming, principal)).recovery_codes
    with pytest.raises(Unauthenticated):
        await auth.account("SignIn", accounts_pb2.SignInRequest(email=ada.email, password=PASSWORD))
    renewing = own_account_pb2.RenewRecoveryCodesRequest(password=PASSWORD, totp=codes[0])
    codes = (await auth.own("RenewRecoveryCodes", renewing, principal)).recovery_codes
    for _ in range(2):
        await auth.own("DisableTotp", own_account_pb2.DisableTotpRequest(password=PASSWORD, totp=codes[0]), principal)

    entries = (await entries_of(auth, ada, principal))[3:]

    assert [(entry["action"], entry["details"].get("reason")) for entry in entries] == [
        ("second_factor.enabled", None),
        ("sign_in.failed", "TOTP_REQUIRED"),
        ("recovery_codes.replaced", None),
        ("second_factor.disabled", None),
    ]


async def test_no_entry_holds_a_secret_or_an_e_mail_address(auth: AuthClient, module_database: Database) -> None:
    ada = await auth.sign_up()
    key = await auth.create_key(ada)

    with psycopg.connect(module_database.superuser_dsn) as connection:
        everything = str(connection.execute("SELECT document FROM auth.audit_entries").fetchall())
    for secret in (PASSWORD, ada.email, ada.access_token, ada.refresh_token, key.token):
        assert secret not in everything


async def test_admins_read_their_tenants_chain_in_pages_and_nobody_else_does(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    principal = await auth.principal(ada)
    ask = pb.ListAuditEntriesRequest

    first = await auth.audit("ListAuditEntries", ask(tenant_id=ada.tenant_id, page_size=2), principal)
    rest = ask(tenant_id=ada.tenant_id, page_size=2, page_token=first.next_page_token)
    second = await auth.audit("ListAuditEntries", rest, principal)
    after = await auth.audit("ListAuditEntries", ask(tenant_id=ada.tenant_id, after=3), principal)

    assert [entry.sequence for entry in (*first.entries, *second.entries)] == [1, 2, 3]
    assert (second.next_page_token, list(after.entries)) == ("", [])
    with pytest.raises(NotFound):
        await entries_of(auth, ada, await auth.principal(eve))
    adding = accounts_pb2.AddMemberRequest(tenant_id=ada.tenant_id, email=eve.email, role=accounts_pb2.ROLE_EDITOR)
    await auth.account("AddMember", adding, principal)
    with pytest.raises(Forbidden):
        await entries_of(auth, ada, await auth.principal(eve))
    for wrong in ("x", "-1", "9" * 20):
        with pytest.raises(Invalid):
            await entries_of(auth, ada, principal, page_token=wrong)


async def test_a_key_reads_what_is_about_its_own_project(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    reader = (await auth.authenticate(key=(await auth.create_key(ada, scopes=["audit:read"])).token)).principal
    writer = (await auth.authenticate(key=(await auth.create_key(ada)).token)).principal
    await auth.account("CreateProject", accounts_pb2.CreateProjectRequest(name="Shop"), await auth.principal(ada))

    shown = await entries_of(auth, ada, reader)

    assert [entry["action"] for entry in shown] == ["project.created", "key.created", "key.created"]
    assert {entry["projectId"] for entry in shown} == {ada.project_id}
    with pytest.raises(NotFound):
        await entries_of(auth, eve, reader)
    with pytest.raises(Forbidden) as refused:
        await entries_of(auth, ada, writer)
    assert refused.value.code == "INSUFFICIENT_SCOPE"


def foreign_entry(person: Person, entry_id: str) -> pb.AuditEntry:
    ids = {"id": entry_id, "tenantId": person.tenant_id, "projectId": person.project_id}
    return pb.AuditEntry(
        id=entry_id,
        tenant_id=person.tenant_id,
        project_id=person.project_id,
        document=json.dumps({**ids, "action": entry_id}),
    )


async def test_an_entry_of_another_service_is_kept_once_however_often_it_is_sent(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    ids = [str(uuid7()) for _ in range(3)]
    sent = [foreign_entry(ada, one) for one in ids]

    for entries in (sent[:2], sent, sent[1:]):
        await auth.audit("RecordAuditEntries", pb.RecordAuditEntriesRequest(entries=entries))

    assert await actions_of(auth, ada) == [*BEGINNING, *ids]
    for wrong in (
        {"id": "x"},
        {"tenant_id": ""},
        {"project_id": "x"},
        {"document": "{"},
        {"document": "[]"},
        {"document": sent[1].document},
        {"document": " " * 64_001},
    ):
        entry = foreign_entry(ada, ids[0])
        [(member, value)] = wrong.items()
        setattr(entry, member, value)
        with pytest.raises(Invalid):
            await auth.audit("RecordAuditEntries", pb.RecordAuditEntriesRequest(entries=[entry]))


@pytest.mark.parametrize("role", ["auth", "auth_auditor", "auth_feed", "auth_cleaner"])
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO audit_entries SELECT * FROM audit_entries",
        "UPDATE audit_entries SET document = '{}'",
        "DELETE FROM audit_entries",
        "TRUNCATE audit_entries",
        "UPDATE audit_heads SET sequence = 0",
        "DELETE FROM audit_heads",
        "UPDATE audit_signed_heads SET signed_head = ''",
        "DELETE FROM audit_signed_heads",
        "DROP FUNCTION append_audit_entry",
    ],
)
async def test_no_role_of_the_service_may_change_or_remove_what_is_there(
    module_database: Database, role: str, statement: str
) -> None:
    with psycopg.connect(module_database.dsn("auth")) as connection:
        connection.execute("SELECT set_config('search_path', 'auth', true)")
        connection.execute(psycopg.sql.SQL("SET LOCAL ROLE {}").format(psycopg.sql.Identifier(role)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


async def test_a_chain_takes_entries_where_its_own_tenants_rows_are_shown_alone(
    auth: AuthClient, module_database: Database
) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    with psycopg.connect(module_database.dsn("auth")) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", (ada.tenant_id,))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT append_audit_entry(%s, gen_random_uuid(), NULL, '{}')", (eve.tenant_id,))
