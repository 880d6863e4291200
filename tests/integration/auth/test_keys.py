"""API keys of a project."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import api_keys, postgres
from chassis.errors import Forbidden, Invalid, NotFound, Unauthenticated
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from contracts.pulsegate.auth.v1 import audit_pb2
from services.auth.domain import PageRequest, ProjectId
from services.auth.settings import Settings
from services.auth.storage.keys import KeyStorage
from tests.integration.auth.client import AuthClient, Person, running_auth
from tests.integration.auth.clocks import MovableClock
from tests.suite_database import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")

ABSENT = "01a1fc11-be01-79f5-be4a-0f91d8d2d996"


async def keys_of(auth: AuthClient, person: Person, project_id: str = "") -> list[pb.Key]:
    request = pb.ListKeysRequest(project_id=project_id or person.project_id)
    return list((await auth.account("ListKeys", request, await auth.principal(person))).keys)


async def publishable_key(auth: AuthClient, person: Person, **members: object) -> pb.CreateKeyResponse:
    wanted = {"kind": pb.KEY_KIND_PUBLISHABLE, "allowed_origins": ["https://shop.example.com"]}
    return await auth.create_key(person, **{**wanted, **members})


async def text_of(auth: AuthClient, principal: str, project_id: str, key_id: str) -> str:
    request = pb.GetPublishableKeyRequest(project_id=project_id, key_id=key_id)
    return str((await auth.account("GetPublishableKey", request, principal)).token)


async def test_a_secret_key_is_shown_once_and_listed_without_its_text(auth: AuthClient) -> None:
    ada = await auth.sign_up()

    made = await auth.create_key(ada, name=" backend ", scopes=["query:read", "ingest:write", "query:read"])

    assert api_keys.kind_of(made.token) == "secret"
    assert made.token.startswith(made.key.prefix)
    assert (made.key.name, list(made.key.scopes)) == ("backend", ["ingest:write", "query:read"])
    assert await keys_of(auth, ada) == [made.key]


async def test_a_secret_key_for_which_nothing_is_chosen_may_only_write(auth: AuthClient) -> None:
    made = await auth.create_key(await auth.sign_up())

    assert list(made.key.scopes) == ["ingest:write"]


async def test_a_publishable_key_may_only_write_and_carries_its_normalised_origins(auth: AuthClient) -> None:
    ada = await auth.sign_up()

    made = await publishable_key(auth, ada, allowed_origins=["HTTPS://Shop.Example.com:443", "http://localhost:3000"])

    assert api_keys.kind_of(made.token) == "publishable"
    assert list(made.key.scopes) == ["ingest:write"]
    assert list((await auth.authenticate(key=made.token)).allowed_origins) == [
        "https://shop.example.com",
        "http://localhost:3000",
    ]


async def test_every_fault_of_a_wanted_key_is_named(auth: AuthClient) -> None:
    ada = await auth.sign_up()

    with pytest.raises(Invalid) as refused:
        await publishable_key(
            auth,
            ada,
            name="",
            scopes=["query:read"],
            allowed_origins=["https://shop.example.com/path"],
            expires_at=Timestamp(seconds=1),
        )

    assert refused.value.details is not None
    assert set(refused.value.details["fields"]) == {"name", "scopes", "allowedOrigins", "expiresAt"}


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"kind": pb.KEY_KIND_UNSPECIFIED}, "kind"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"allowed_origins": ["*"]}, "allowedOrigins"),
        ({"expires_at": Timestamp(seconds=1 << 60)}, "expiresAt"),
    ],
)
async def test_a_key_that_cannot_be_is_refused(auth: AuthClient, members: dict[str, object], field: str) -> None:
    ada = await auth.sign_up()

    with pytest.raises(Invalid) as refused:
        await auth.create_key(ada, **members)

    assert refused.value.details is not None
    assert list(refused.value.details["fields"]) == [field]


async def test_a_revoked_key_stops_working_and_stays_listed(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    made = await auth.create_key(ada)
    request = pb.RevokeKeyRequest(project_id=ada.project_id, key_id=made.key.id)

    await auth.account("RevokeKey", request, await auth.principal(ada))
    await auth.account("RevokeKey", request, await auth.principal(ada))

    with pytest.raises(Unauthenticated) as refused:
        await auth.authenticate(key=made.token)
    assert refused.value.code == "INVALID_API_KEY"
    assert [key.HasField("revoked_at") for key in await keys_of(auth, ada)] == [True]


async def test_an_expired_key_stops_working_by_itself(settings: Settings, clock: MovableClock) -> None:
    async with running_auth(settings, clock) as auth:
        ada = await auth.sign_up()
        expires_at = Timestamp()
        expires_at.FromDatetime(datetime.now(UTC) + timedelta(seconds=60))
        made = await publishable_key(auth, ada, expires_at=expires_at)
        principal = await auth.principal(ada)

        assert made.key.expires_at == expires_at
        assert (await auth.authenticate(key=made.token)).principal
        assert await text_of(auth, principal, ada.project_id, made.key.id) == made.token
        await clock.advance(timedelta(seconds=61))

        with pytest.raises(Unauthenticated) as refused:
            await auth.authenticate(key=made.token)
        with pytest.raises(NotFound):
            await text_of(auth, principal, ada.project_id, made.key.id)
        assert refused.value.code == "INVALID_API_KEY"


async def test_a_key_is_renamed(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    made = await auth.create_key(ada)
    request = pb.UpdateKeyRequest(project_id=ada.project_id, key_id=made.key.id, name="frontend")

    renamed = await auth.account("UpdateKey", request, await auth.principal(ada))

    assert renamed.key.name == "frontend"
    assert await keys_of(auth, ada) == [renamed.key]


async def test_keys_come_in_pages(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    made = [(await auth.create_key(ada)).key.id for _ in range(3)]
    principal = await auth.principal(ada)

    first = await auth.account("ListKeys", pb.ListKeysRequest(project_id=ada.project_id, page_size=2), principal)
    second = await auth.account(
        "ListKeys",
        pb.ListKeysRequest(project_id=ada.project_id, page_size=2, page_token=first.next_page_token),
        principal,
    )

    assert [key.id for key in (*first.keys, *second.keys)] == made
    assert second.next_page_token == ""


async def test_pages_of_large_keys_and_of_what_is_told_of_them_end_where_they_hold_enough(
    auth: AuthClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("domain", "storage.keys", "storage.audit"):
        monkeypatch.setattr(f"services.auth.{module}.MOST_PAGE_BYTES", 8_000)
    ada = await auth.sign_up()
    origins = [f"https://{number:02}.{'a' * 60}.example" for number in range(50)]
    made = [(await publishable_key(auth, ada, allowed_origins=origins)).key.id for _ in range(5)]
    principal = await auth.principal(ada)

    keys: list[list[str]] = []
    token = ""
    while not keys or token:
        request = pb.ListKeysRequest(project_id=ada.project_id, page_size=500, page_token=token)
        page = await auth.account("ListKeys", request, principal)
        keys.append([key.id for key in page.keys])
        token = page.next_page_token
    for module in ("domain", "storage.audit"):
        monkeypatch.setattr(f"services.auth.{module}.MOST_PAGE_BYTES", 2_500)
    entries: list[list[int]] = []
    while not entries or token:
        reading = audit_pb2.ListAuditEntriesRequest(tenant_id=ada.tenant_id, page_size=500, page_token=token)
        read = await auth.audit("ListAuditEntries", reading, principal)
        entries.append([entry.sequence for entry in read.entries])
        token = read.next_page_token

    assert keys == [made[:3], made[3:]]
    assert entries == [[1, 2, 3, 4], [5, 6], [7, 8]]


async def test_large_keys_that_a_page_has_no_room_for_are_not_read(
    auth: AuthClient, module_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.storage.keys.MOST_PAGE_BYTES", 8_000)
    ada = await auth.sign_up()
    origins = [f"https://{number:02}.{'a' * 60}.example" for number in range(50)]
    made = [(await publishable_key(auth, ada, allowed_origins=origins)).key.id for _ in range(6)]

    async with (
        postgres.connected(module_database.dsn("auth")) as database,
        database.transaction(tenant_id=ada.tenant_id) as connection,
    ):
        read = await KeyStorage().page(connection, ProjectId(ada.project_id), PageRequest.parse(500, ""))

    assert [key.id for key in read] == made[:4]


async def test_another_tenants_keys_and_absent_ones_do_not_exist(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    made = await publishable_key(auth, ada)
    principal = await auth.principal(eve)

    for project_id in (ada.project_id, eve.project_id):
        for key_id in (made.key.id, ABSENT, "nonsense"):
            for method, request in (
                ("UpdateKey", pb.UpdateKeyRequest(project_id=project_id, key_id=key_id, name="mine")),
                ("RevokeKey", pb.RevokeKeyRequest(project_id=project_id, key_id=key_id)),
                ("GetPublishableKey", pb.GetPublishableKeyRequest(project_id=project_id, key_id=key_id)),
            ):
                with pytest.raises(NotFound):
                    await auth.account(method, request, principal)
    with pytest.raises(NotFound):
        await keys_of(auth, eve, ada.project_id)
    with pytest.raises(NotFound):
        await auth.create_key(eve, project_id=ada.project_id)
    assert await keys_of(auth, ada) == [made.key]


async def test_a_viewer_sees_keys_but_makes_none(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    made = await auth.create_key(ada)
    adding = pb.AddMemberRequest(tenant_id=ada.tenant_id, email=eve.email, role=pb.ROLE_VIEWER)
    await auth.account("AddMember", adding, await auth.principal(ada))

    assert await keys_of(auth, eve, ada.project_id) == [made.key]
    with pytest.raises(Forbidden):
        await auth.create_key(eve, project_id=ada.project_id)
    with pytest.raises(Forbidden):
        await auth.account(
            "RevokeKey",
            pb.RevokeKeyRequest(project_id=ada.project_id, key_id=made.key.id),
            await auth.principal(eve),
        )


async def test_a_key_makes_no_keys(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    key = await auth.create_key(ada, scopes=["config:write"])
    principal = (await auth.authenticate(key=key.token)).principal

    with pytest.raises(Forbidden) as refused:
        await auth.account("CreateKey", pb.CreateKeyRequest(project_id=ada.project_id, name="more"), principal)

    assert refused.value.code == "INSUFFICIENT_SCOPE"


async def test_a_publishable_keys_text_is_given_to_whoever_belongs_to_the_project(auth: AuthClient) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    made = await publishable_key(auth, ada)
    own = (await auth.authenticate(key=made.token)).principal
    strange = (await auth.authenticate(key=(await auth.create_key(eve)).token)).principal

    for principal in (own, await auth.principal(ada), await auth.principal(ada, ada.project_id)):
        assert await text_of(auth, principal, ada.project_id, made.key.id) == made.token
    with pytest.raises(NotFound):
        await text_of(auth, strange, ada.project_id, made.key.id)


async def test_a_secret_or_revoked_keys_text_is_given_to_nobody(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    principal = await auth.principal(ada)
    secret, revoked = await auth.create_key(ada), await publishable_key(auth, ada)
    revoking = pb.RevokeKeyRequest(project_id=ada.project_id, key_id=revoked.key.id)
    await auth.account("RevokeKey", revoking, principal)

    for key_id in (secret.key.id, revoked.key.id):
        with pytest.raises(NotFound):
            await text_of(auth, principal, ada.project_id, key_id)
