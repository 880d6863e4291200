"""A tenant's identity providers: set up by its owners, seen by its admins, and by nobody else; secrets stay."""

from typing import Any

import psycopg
import pytest

from chassis.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from tests.integration.auth.client import AuthClient, Person
from tests.integration.auth.forging_issuer import ForgingIssuer
from tests.integration.auth.sign_ons import (
    ADMIN,
    EDITOR,
    OWNER,
    SECRET,
    add_provider,
    change_provider,
    person_of,
    sign_on,
)
from tests.suite_database import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")

ISSUER = "https://login.example.com/common"


async def shown(auth: AuthClient, actor: Person, tenant: Person, provider_id: str) -> pb.IdentityProvider:
    request = pb.GetIdentityProviderRequest(tenant_id=tenant.tenant_id, provider_id=provider_id)
    answer: pb.GetIdentityProviderResponse = await auth.sso("GetIdentityProvider", request, await auth.principal(actor))
    return answer.provider


async def listed(auth: AuthClient, actor: Person, tenant: Person, **page: Any) -> pb.ListIdentityProvidersResponse:
    request = pb.ListIdentityProvidersRequest(tenant_id=tenant.tenant_id, **{"page_size": 50, **page})
    answer: pb.ListIdentityProvidersResponse = await auth.sso(
        "ListIdentityProviders", request, await auth.principal(actor)
    )
    return answer


async def delete(auth: AuthClient, actor: Person, tenant: Person, provider_id: str) -> None:
    request = pb.DeleteIdentityProviderRequest(tenant_id=tenant.tenant_id, provider_id=provider_id)
    await auth.sso("DeleteIdentityProvider", request, await auth.principal(actor))


async def give(auth: AuthClient, owner: Person, email: str, role: "accounts_pb2.Role.ValueType") -> None:
    request = accounts_pb2.AddMemberRequest(tenant_id=owner.tenant_id, email=email, role=role)
    await auth.account("AddMember", request, await auth.principal(owner))


async def test_a_provider_is_kept_as_it_was_set_and_its_secret_is_encrypted(
    auth: AuthClient, module_database: Database
) -> None:
    ada = await auth.sign_up()
    made = await add_provider(
        auth,
        ada,
        ISSUER,
        oidc={"scopes": ["groups"], "trusts_email": True},
        email_domains=["example.com"],
        role_claim="groups",
        role_mappings=[pb.RoleMapping(value="ops", role=ADMIN)],
        default_role=accounts_pb2.ROLE_UNSPECIFIED,
    )
    assert made == await shown(auth, ada, ada, made.id)
    assert (made.settings.oidc.issuer, list(made.settings.oidc.scopes), made.has_secret) == (ISSUER, ["groups"], True)
    assert list(made.settings.role_mappings) == [pb.RoleMapping(value="ops", role=ADMIN)]
    with psycopg.connect(module_database.superuser_dsn) as connection:
        query = "SELECT sealed_secret, provider::text FROM auth.identity_providers AS provider WHERE id = %s"
        [(sealed, row)] = connection.execute(query, (made.id,)).fetchall()
    assert SECRET.encode() not in sealed
    assert SECRET not in row


async def test_everything_changes_but_the_issuer_and_a_secret_that_is_left_out_stays(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    made = await add_provider(auth, ada, forger.url)
    changed = await change_provider(auth, ada, made, forger.url, name="Other", oidc={"client_id": "pulsegate"})
    assert (changed.settings.name, changed.has_secret) == ("Other", True)
    await sign_on(auth, forger, changed)
    before = forger.authorization
    await sign_on(auth, forger, await change_provider(auth, ada, made, forger.url, secret="a new one"))
    assert forger.authorization != before
    with pytest.raises(Conflict):
        await change_provider(auth, ada, made, ISSUER)


async def test_owners_change_providers_admins_see_them_and_others_do_not(auth: AuthClient) -> None:
    ada, admin, editor, mallory = [await auth.sign_up() for _ in range(4)]
    await give(auth, ada, admin.email, ADMIN)
    await give(auth, ada, editor.email, EDITOR)
    made = await add_provider(auth, ada, ISSUER)
    assert [one.id for one in (await listed(auth, admin, ada)).providers] == [made.id]
    in_tenant = Person(**{**vars(admin), "tenant_id": ada.tenant_id})
    for attempt in (
        add_provider(auth, in_tenant, ISSUER),
        change_provider(auth, in_tenant, made, ISSUER),
        delete(auth, admin, ada, made.id),
        listed(auth, editor, ada),
        shown(auth, editor, ada, made.id),
    ):
        with pytest.raises(Forbidden):
            await attempt
    stranger = Person(**{**vars(mallory), "tenant_id": ada.tenant_id})
    for attempt in (
        add_provider(auth, stranger, ISSUER),
        change_provider(auth, stranger, made, ISSUER),
        change_provider(auth, mallory, made, ISSUER),
        delete(auth, mallory, ada, made.id),
        delete(auth, mallory, mallory, made.id),
        delete(auth, ada, ada, "nonsense"),
        listed(auth, mallory, ada),
        shown(auth, mallory, mallory, made.id),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert (await listed(auth, ada, ada)).providers == [made]


async def test_providers_come_in_pages_and_are_bounded(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    made = [(await add_provider(auth, ada, ISSUER)).id for _ in range(20)]
    with pytest.raises(Conflict):
        await add_provider(auth, ada, ISSUER)
    first = await listed(auth, ada, ada, page_size=15)
    rest = await listed(auth, ada, ada, page_size=15, page_token=first.next_page_token)
    assert [one.id for page in (first, rest) for one in page.providers] == made


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"name": " "}, "name"),
        ({"email_domains": ["@example.com"]}, "emailDomains"),
        ({"default_role": OWNER}, "defaultRole"),
        ({"role_claim": "x" * 256}, "roleClaim"),
        ({"role_mappings": [pb.RoleMapping(value="ops", role=OWNER)]}, "roleMappings"),
        ({"role_mappings": [pb.RoleMapping(value="", role=ADMIN)]}, "roleMappings"),
        ({"oidc": {"client_id": ""}}, "oidc.clientId"),
        ({"oidc": {"scopes": ["two words"]}}, "oidc.scopes"),
        ({"oidc": {"issuer": "https://login.example.com/?tenant=1"}}, "oidc.issuer"),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_its_name(
    auth: AuthClient, changed: dict[str, Any], fault: str
) -> None:
    ada = await auth.sign_up()
    with pytest.raises(Invalid) as error:
        await add_provider(auth, ada, ISSUER, **changed)
    assert set((error.value.details or {})["fields"]) == {fault}


async def test_a_secret_is_no_empty_text_and_a_provider_is_of_some_kind(auth: AuthClient) -> None:
    ada = await auth.sign_up()
    with pytest.raises(Invalid):
        await add_provider(auth, ada, ISSUER, secret="")
    request = pb.CreateIdentityProviderRequest(tenant_id=ada.tenant_id, settings=pb.ProviderSettings(name="None"))
    with pytest.raises(Invalid):
        await auth.sso("CreateIdentityProvider", request, await auth.principal(ada))


@pytest.mark.parametrize(
    "issuer",
    [
        "http://login.example.com",
        "https://10.0.0.1",
        "https://[::1]:8443",
        "https://[::ffff:10.0.0.1]",
        "https://[64:ff9b::a00:1]",
        "https://169.254.169.254",
        "http://192.168.1.1",
        "ldap://login.example.com",
        "https://",
        "https://[",
    ],
)
async def test_an_issuer_in_a_private_network_or_without_encryption_is_refused(auth: AuthClient, issuer: str) -> None:
    ada = await auth.sign_up()
    with pytest.raises(Invalid):
        await add_provider(auth, ada, issuer)


async def test_a_provider_goes_with_the_accounts_that_it_made_at_once(auth: AuthClient, forger: ForgingIssuer) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    eve = person_of(await sign_on(auth, forger, provider), ada)
    assert await auth.principal(eve, ada.project_id)
    stream = auth.watch()
    await anext(stream)

    await delete(auth, ada, ada, provider.id)

    with pytest.raises(Unauthenticated):
        await auth.principal(eve, ada.project_id)
    with pytest.raises(Unauthenticated):
        await auth.account("Refresh", accounts_pb2.RefreshRequest(refresh_token=eve.refresh_token))
    changes = (list(beat.changed_ids) async for beat in stream if beat.changed_ids)
    assert await anext(changes) == [provider.id, eve.user_id]


async def test_a_tenant_keeps_an_owner_whom_no_deleted_provider_has_made(
    auth: AuthClient, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    eve = person_of(await sign_on(auth, forger, provider), ada)
    promote = accounts_pb2.UpdateMemberRequest(tenant_id=ada.tenant_id, user_id=eve.user_id, role=OWNER)
    await auth.account("UpdateMember", promote, await auth.principal(ada))
    leave = accounts_pb2.RemoveMemberRequest(tenant_id=ada.tenant_id, user_id=ada.user_id)
    await auth.account("RemoveMember", leave, await auth.principal(ada))
    with pytest.raises(Conflict):
        await delete(auth, eve, ada, provider.id)
    with pytest.raises(Conflict):
        await change_provider(auth, eve, provider, forger.url, enabled=False)
    # An owner whom another provider has made counts while that one is enabled.
    other = await add_provider(auth, eve, forger.url)
    of_other = await sign_on(auth, forger, other)
    promote = accounts_pb2.UpdateMemberRequest(tenant_id=ada.tenant_id, user_id=of_other.user.id, role=OWNER)
    await auth.account("UpdateMember", promote, await auth.principal(eve))
    await change_provider(auth, eve, other, forger.url, enabled=False)
    await change_provider(auth, eve, other, forger.url, name="Renamed", enabled=False)
    for attempt in (
        delete(auth, eve, ada, provider.id),
        change_provider(auth, eve, provider, forger.url, enabled=False),
    ):
        with pytest.raises(Conflict):
            await attempt


async def test_what_becomes_of_providers_is_in_the_audit_log_without_secrets(
    auth: AuthClient, forger: ForgingIssuer, module_database: Database
) -> None:
    ada = await auth.sign_up()
    provider = await add_provider(auth, ada, forger.url)
    eve = (await sign_on(auth, forger, provider)).user.id
    await change_provider(auth, ada, provider, forger.url, enabled=False)
    changed = {
        "enabled": False,
        "secret": "another client secret",
        "email_domains": ["example.com"],
        "default_role": EDITOR,
        "role_claim": "groups",
        "role_mappings": [pb.RoleMapping(value="ops", role=ADMIN)],
        "oidc": {"scopes": ["groups"], "trusts_email": True},
    }
    await change_provider(auth, ada, provider, forger.url, **changed)
    await delete(auth, ada, ada, provider.id)
    with psycopg.connect(module_database.superuser_dsn) as connection:
        query = "SELECT document::json FROM auth.audit_entries WHERE tenant_id = %s AND sequence > 3 ORDER BY sequence"
        entries = [entry for (entry,) in connection.execute(query, (ada.tenant_id,)).fetchall()]
    assert [(entry["action"], entry["actor"]["id"]) for entry in entries] == [
        ("identity_provider.created", ada.user_id),
        ("member.added", provider.id),
        ("sign_in.succeeded", eve),
        ("identity_provider.changed", ada.user_id),
        ("identity_provider.changed", ada.user_id),
        ("identity_provider.deleted", ada.user_id),
    ]
    assert [entry["details"].get("changed") for entry in entries[3:5]] == [
        ["enabled"],
        [
            "emailDomains",
            "defaultRole",
            "roleClaim",
            "roleMappings",
            "oidc.scopes",
            "oidc.trustsEmail",
            "oidc.secret",
        ],
    ]
    assert not any(secret in str(entries) for secret in (SECRET, "another client secret"))
