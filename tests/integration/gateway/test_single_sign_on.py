"""Single sign-on at the gateway: what it tells auth, the cookie, and where browsers are sent."""

import asyncio
from ipaddress import ip_network
from typing import Any
from urllib.parse import quote

from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from services.auth.errors import ProviderAway, SignOnFailed
from tests.integration.gateway.fakes import TENANT
from tests.integration.gateway.running import Gateway, StartGateway
from tests.integration.gateway.test_management import (
    ID,
    MEMBERSHIP,
    MOMENT,
    RENDERED_SESSION,
    RENDERED_USER,
    SESSION,
    USER_MESSAGE,
    timestamp,
)

PROVIDERS = f"/api/v1/tenants/{TENANT}/identity-providers"
SIGN_IN = f"/api/v1/auth/sso/{ID}"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
WANTED: dict[str, Any] = {
    "name": "Corporate",
    "enabled": False,
    "emailDomains": ["example.com"],
    "defaultRole": None,
    "roleClaim": "groups",
    "roleMappings": [{"value": "ops", "role": "admin"}],
    "oidc": {"issuer": "https://login.example.com", "clientId": "pulsegate", "clientSecret": "secret"},
}


def provider() -> pb.IdentityProvider:
    settings = pb.ProviderSettings(
        name="Corporate",
        email_domains=["example.com"],
        role_claim="groups",
        role_mappings=[pb.RoleMapping(value="ops", role=accounts_pb2.ROLE_ADMIN)],
        oidc=pb.OidcSettings(issuer="https://login.example.com", client_id="pulsegate"),
    )
    return pb.IdentityProvider(
        id=ID, settings=settings, has_secret=True, created_at=timestamp(), updated_at=timestamp()
    )


RENDERED = {
    **WANTED,
    "id": ID,
    "oidc": {
        "issuer": "https://login.example.com",
        "clientId": "pulsegate",
        "hasClientSecret": True,
        "scopes": [],
        "trustsEmail": False,
        "redirectUri": f"https://metrics.example.com{SIGN_IN}/callback",
    },
    "signInUrl": f"https://metrics.example.com{SIGN_IN}",
    "createdAt": MOMENT,
    "updatedAt": MOMENT,
}


async def test_a_provider_is_set_up_shown_changed_and_deleted(gateway: Gateway) -> None:
    auth, session = gateway.auth, gateway.auth.new_session()
    auth.answers["CreateIdentityProvider"] = pb.CreateIdentityProviderResponse(provider=provider())
    auth.answers["UpdateIdentityProvider"] = pb.UpdateIdentityProviderResponse(provider=provider())
    auth.answers["GetIdentityProvider"] = pb.GetIdentityProviderResponse(provider=provider())
    auth.answers["ListIdentityProviders"] = pb.ListIdentityProvidersResponse(providers=[provider()])
    auth.answers["DeleteIdentityProvider"] = pb.DeleteIdentityProviderResponse()
    made = await gateway.call("POST", PROVIDERS, credential=session, json=WANTED)
    changed = await gateway.call("PUT", f"{PROVIDERS}/{ID}", credential=session, json=WANTED)
    shown = await gateway.call("GET", f"{PROVIDERS}/{ID}", credential=session)
    listed = await gateway.call("GET", PROVIDERS, credential=session)
    deleted = await gateway.call("DELETE", f"{PROVIDERS}/{ID}", credential=session)
    assert [(made.status, made.json), (changed.status, changed.json), (shown.status, shown.json)] == [
        (201, RENDERED),
        (200, RENDERED),
        (200, RENDERED),
    ]
    assert (listed.json, deleted.status) == ({"items": [RENDERED], "nextPageToken": ""}, 204)
    [asked] = auth.requests("CreateIdentityProvider")
    assert (asked.tenant_id, asked.secret, asked.settings) == (TENANT, "secret", provider().settings)


async def test_removed_members_are_listed_and_let_in_again(gateway: Gateway) -> None:
    auth, session = gateway.auth, gateway.auth.new_session()
    removed = f"/api/v1/tenants/{TENANT}/removed-members"
    one = pb.RemovedMember(user=USER_MESSAGE, provider_id=ID, removed_at=timestamp())
    other = pb.RemovedMember(user=USER_MESSAGE, provider_id=ID, deactivated_at=timestamp())
    auth.answers["ListRemovedMembers"] = pb.ListRemovedMembersResponse(members=[one, other], next_page_token="more")
    auth.answers["ReadmitMember"] = pb.ReadmitMemberResponse()
    listed = await gateway.call("GET", f"{removed}?pageSize=1&pageToken=abc", credential=session)
    readmitted = await gateway.call("DELETE", f"{removed}/{RENDERED_USER['id']}", credential=session)
    rendered = {"user": RENDERED_USER, "providerId": ID}
    removed_only = {**rendered, "removedAt": MOMENT, "deactivatedAt": None}
    deactivated_only = {**rendered, "removedAt": None, "deactivatedAt": MOMENT}
    assert listed.json == {"items": [removed_only, deactivated_only], "nextPageToken": "more"}
    assert readmitted.status == 204
    [asked], [readmit] = auth.requests("ListRemovedMembers"), auth.requests("ReadmitMember")
    assert (asked.tenant_id, asked.page_size, asked.page_token) == (TENANT, 1, "abc")
    assert (readmit.tenant_id, readmit.user_id) == (TENANT, RENDERED_USER["id"])


SAML: dict[str, Any] = {
    "entityId": "https://idp.example.com",
    "signInUrl": "https://idp.example.com/sso",
    "certificates": ["a certificate"],
    "subjectAttribute": "uid",
    "emailAttribute": "mail",
}


async def test_a_provider_may_be_one_of_saml(gateway: Gateway) -> None:
    auth, session = gateway.auth, gateway.auth.new_session()
    said = pb.SamlSettings(
        entity_id="https://idp.example.com",
        sign_in_url="https://idp.example.com/sso",
        certificates=["a certificate"],
        subject_attribute="uid",
        email_attribute="mail",
    )
    told = pb.IdentityProvider(id=ID, settings=pb.ProviderSettings(name="Corporate", saml=said))
    auth.answers["CreateIdentityProvider"] = pb.CreateIdentityProviderResponse(provider=told)
    made = await gateway.call("POST", PROVIDERS, credential=session, json={"name": "Corporate", "saml": SAML})
    both = await gateway.call("POST", PROVIDERS, credential=session, json={**WANTED, "saml": SAML})
    neither = await gateway.call("POST", PROVIDERS, credential=session, json={"name": "Corporate"})
    here = f"https://metrics.example.com{SIGN_IN}"
    assert made.json["saml"] == {**SAML, "metadataUrl": f"{here}/metadata", "acsUrl": f"{here}/callback"}
    assert "oidc" not in made.json
    for refused in (both, neither):
        assert (refused.status, set(refused.json["error"]["details"]["fields"])) == (422, {"oidc"})
    [asked] = auth.requests("CreateIdentityProvider")
    assert (asked.settings.saml, asked.HasField("secret")) == (said, False)


async def test_a_browser_comes_back_from_a_saml_provider_by_post(gateway: Gateway) -> None:
    auth = gateway.auth
    auth.answers["BeginSignOn"] = pb.BeginSignOnResponse(
        authorization_url="https://idp.example.com/sso",
        state="a-state_0123456789",
        browser_secret="bs",
        posts_back=True,
    )
    auth.answers["CompleteSamlSignOn"] = pb.CompleteSamlSignOnResponse(return_to="/console", grant="sg_1")
    begun = await gateway.call("GET", f"{SIGN_IN}?challenge={CHALLENGE}")
    cookie = begun.headers["Set-Cookie"]
    arrived = await gateway.call(
        "POST",
        f"{SIGN_IN}/callback",
        data={"SAMLResponse": "PHg+", "RelayState": "a-state_0123456789"},
        headers={"Cookie": cookie.partition(";")[0], "Origin": "https://idp.example.com"},
    )
    # Browsers send no other cookie along with a form of another site's page.
    assert all(part in cookie for part in ("=bs;", "HttpOnly", "Secure", "SameSite=None", "Path=/api/v1/auth/sso/"))
    assert (arrived.status, arrived.headers["Location"]) == (303, "/console#sso=sg_1")
    assert "Max-Age=0" in arrived.headers["Set-Cookie"]
    [completed] = auth.requests("CompleteSamlSignOn")
    assert (completed.state, completed.browser_secret, completed.response) == ("a-state_0123456789", "bs", "PHg+")
    assert (completed.redirect_uri, completed.entity_id) == tuple(
        f"https://metrics.example.com{SIGN_IN}/{name}" for name in ("callback", "metadata")
    )


async def test_a_cookie_that_is_no_text_is_none(gateway: Gateway) -> None:
    auth = gateway.auth
    auth.answers["CompleteOidcSignOn"] = pb.CompleteOidcSignOnResponse(return_to="/console", grant="sg_1")
    auth.answers["CompleteSamlSignOn"] = pb.CompleteSamlSignOnResponse(return_to="/console", grant="sg_1")
    form = b"SAMLResponse=PHg&RelayState=state"
    for begun, status in (
        (f"GET {SIGN_IN}/callback?state=state&code=c HTTP/1.1\r\n", b"302"),
        (f"POST {SIGN_IN}/callback HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n", b"303"),
    ):
        body = form if status == b"303" else b""
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
        headers = f"Host: here\r\nConnection: close\r\nContent-Length: {len(body)}\r\n".encode()
        writer.write(begun.encode() + headers + b"Cookie: pulsegate_sso_state=b\xffs\r\n\r\n" + body)
        assert (await reader.read()).split()[1] == status
        writer.close()
    for method in ("CompleteOidcSignOn", "CompleteSamlSignOn"):
        assert [asked.browser_secret for asked in auth.requests(method)] == [""]


async def test_forms_that_are_none_or_too_large_are_refused(gateway: Gateway) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for body, headers, status in (
        (b"{}", {"Content-Type": "application/json"}, 415),
        ("SAMLResponse=\u00e9".encode(), form, 400),
        (b"&".join([b"a=b"] * 11), form, 400),
        (b"RelayState=x", form, 422),
        (b"SAMLResponse=" + b"A" * (1 << 18) + b"A", form, 422),
        (b"SAMLResponse=" + b"A" * (1 << 20), form, 413),
    ):
        refused = await gateway.call("POST", f"{SIGN_IN}/callback", data=body, headers=headers)
        assert refused.status == status
    assert not gateway.auth.requests("CompleteSamlSignOn")


async def test_what_a_saml_provider_is_to_know_is_there_for_everybody(gateway: Gateway) -> None:
    gateway.auth.answers["GetSamlMetadata"] = pb.GetSamlMetadataResponse(metadata=b"<EntityDescriptor/>")
    shown = await gateway.call("GET", f"{SIGN_IN}/metadata")
    assert (shown.status, shown.headers["Content-Type"]) == (200, "application/samlmetadata+xml")
    [asked] = gateway.auth.requests("GetSamlMetadata")
    assert asked.provider_id == ID


DIRECTORY: dict[str, Any] = {
    "name": "Directory",
    "ldap": {
        "url": "ldaps://dc1.example.com",
        "baseDn": "DC=example,DC=com",
        "userFilter": "(sAMAccountName={login})",
        "bindDn": "CN=pulsegate,DC=example,DC=com",
        "bindPassword": "secret",
        "idAttribute": "objectGUID",
        "groupFilter": "(member={dn})",
    },
}


async def test_a_directory_is_set_up_and_shown_without_its_password(gateway: Gateway) -> None:
    auth, session = gateway.auth, gateway.auth.new_session()
    kept = pb.LdapSettings(
        url="ldaps://dc1.example.com",
        start_tls=True,
        base_dn="DC=example,DC=com",
        user_filter="(sAMAccountName={login})",
        bind_dn="CN=pulsegate,DC=example,DC=com",
        id_attribute="objectGUID",
        email_attribute="mail",
        group_filter="(member={dn})",
    )
    made = pb.IdentityProvider(
        id=ID,
        settings=pb.ProviderSettings(name="Directory", enabled=True, ldap=kept),
        has_secret=True,
        created_at=timestamp(),
        updated_at=timestamp(),
    )
    auth.answers["CreateIdentityProvider"] = pb.CreateIdentityProviderResponse(provider=made)
    answered = await gateway.call("POST", PROVIDERS, credential=session, json=DIRECTORY)
    [asked] = auth.requests("CreateIdentityProvider")
    assert (answered.status, asked.secret, asked.settings) == (201, "secret", made.settings)
    shown = {**DIRECTORY["ldap"], "startTls": True, "certificateAuthority": "", "hasBindPassword": True}
    shown |= {"emailAttribute": "mail", "groupBaseDn": ""}
    del shown["bindPassword"]
    assert (answered.json["ldap"], "oidc" in answered.json) == (shown, False)
    assert answered.json["signInUrl"] == f"https://metrics.example.com{SIGN_IN}/password"


async def test_a_provider_is_of_one_kind(gateway: Gateway) -> None:
    for wrong in ({"name": "None"}, {**WANTED, "ldap": DIRECTORY["ldap"]}):
        refused = await gateway.call("POST", PROVIDERS, credential=gateway.auth.new_session(), json=wrong)
        assert (refused.status, set(refused.json["error"]["details"]["fields"])) == (422, {"oidc"})


async def test_a_password_of_a_directory_answers_a_session(gateway: Gateway) -> None:
    gateway.auth.answers["SignOnWithPassword"] = pb.SignOnWithPasswordResponse(
        user=USER_MESSAGE, memberships=[MEMBERSHIP], session=SESSION
    )
    body = {"login": "eve", "password": "hers"}
    signed_in = await gateway.call("POST", f"{SIGN_IN}/password", json=body)
    assert (signed_in.status, signed_in.json["user"], signed_in.json["tenants"][0]["id"]) == (
        200,
        RENDERED_USER,
        TENANT,
    )
    [asked] = gateway.auth.requests("SignOnWithPassword")
    assert (asked.provider_id, asked.login, asked.password) == (ID, "eve", "hers")
    for member, wrong in (("login", ""), ("password", ""), ("login", "x" * 256), ("password", "x" * 1001)):
        refused = await gateway.call("POST", f"{SIGN_IN}/password", json={**body, member: wrong})
        assert (refused.status, set(refused.json["error"]["details"]["fields"])) == (422, {member})


async def test_members_at_fault_are_named(gateway: Gateway) -> None:
    wrong = {**WANTED, "roleMappings": [{"value": "ops", "role": "owner"}], "oidc": {"clientId": "pulsegate"}}
    refused = await gateway.call("POST", PROVIDERS, credential=gateway.auth.new_session(), json=wrong)
    assert (refused.status, set(refused.json["error"]["details"]["fields"])) == (422, {"oidc", "roleMappings[0].role"})


async def test_a_browser_goes_to_the_provider_and_comes_back_with_its_cookie(gateway: Gateway) -> None:
    auth = gateway.auth
    auth.answers["BeginSignOn"] = pb.BeginSignOnResponse(
        authorization_url="https://login.example.com/authorize?state=x", state="a-state_0123456789", browser_secret="bs"
    )
    auth.answers["CompleteOidcSignOn"] = pb.CompleteOidcSignOnResponse(return_to="/console", grant="sg_1")
    auth.answers["RedeemSignOn"] = pb.RedeemSignOnResponse(user=USER_MESSAGE, memberships=[MEMBERSHIP], session=SESSION)
    begun = await gateway.call("GET", f"{SIGN_IN}?challenge={CHALLENGE}&returnTo=https://console.example.com/x")
    cookie = begun.headers["Set-Cookie"]
    back = f"{SIGN_IN}/callback?state=a-state_0123456789&code=c&iss=https://login.example.com&session_state=1"
    arrived = await gateway.call("GET", back, headers={"Cookie": cookie.partition(";")[0]})
    redeemed = await gateway.call("POST", "/api/v1/auth/sso/session", json={"grant": "sg_1", "verifier": "v"})

    assert (begun.status, begun.headers["Location"]) == (302, "https://login.example.com/authorize?state=x#-")
    assert all(part in cookie for part in ("=bs;", "HttpOnly", "Secure", "SameSite=Lax", "Path=/api/v1/auth/sso/"))
    assert (arrived.status, arrived.headers["Location"]) == (302, "/console#sso=sg_1")
    assert "Max-Age=0" in arrived.headers["Set-Cookie"]
    [completed] = auth.requests("CompleteOidcSignOn")
    assert (completed.browser_secret, completed.code, completed.issuer) == ("bs", "c", "https://login.example.com")
    assert completed.redirect_uri == RENDERED["oidc"]["redirectUri"]
    assert redeemed.json == {
        "user": RENDERED_USER,
        "tenants": [{"id": TENANT, "name": "Acme", "role": "owner"}],
        **RENDERED_SESSION,
    }


async def test_a_grant_is_carried_on_to_no_other_provider(gateway: Gateway) -> None:
    """Browsers carry a fragment on through redirects that have none."""
    gateway.auth.answers["BeginSignOn"] = pb.BeginSignOnResponse(
        authorization_url="https://evil.example/authorize", state="s", browser_secret="bs"
    )
    begun = await gateway.call("GET", f"{SIGN_IN}?challenge={CHALLENGE}")
    assert begun.headers["Location"].partition("#")[2]
    for api in ("/api", "/%61pi", "/./api", "/x/%2E%2e/api", "https://console.example.com/api", "https://["):
        inner = quote(f"{api}{SIGN_IN.removeprefix('/api')}?challenge={CHALLENGE}", safe="")
        refused = await gateway.call("GET", f"{SIGN_IN}?challenge={CHALLENGE}&returnTo={inner}")
        assert (refused.status, set(refused.json["error"]["details"]["fields"])) == (422, {"returnTo"})


async def test_a_sign_on_without_a_challenge_is_not_begun(gateway: Gateway) -> None:
    for query in ("", "?challenge=short"):
        refused = await gateway.call("GET", SIGN_IN + query)
        assert (refused.status, set(refused.json["error"]["details"]["fields"])) == (422, {"challenge"})
    assert (await gateway.call("GET", f"/api/v1/auth/sso/nonsense?challenge={CHALLENGE}")).status == 404


async def test_a_provider_that_cannot_be_understood_or_reached_begins_no_sign_on(gateway: Gateway) -> None:
    for error, said in (
        (SignOnFailed("it says what cannot be read"), (401, "SSO_FAILED")),
        (ProviderAway("https://login.example.com", "nobody answers"), (503, "SERVICE_UNAVAILABLE")),
    ):
        gateway.auth.answers["BeginSignOn"] = error
        refused = await gateway.call("GET", f"{SIGN_IN}?challenge={CHALLENGE}")
        assert (refused.status, refused.json["error"]["code"]) == said
        assert "Set-Cookie" not in refused.headers


async def test_redeeming_counts_as_signing_in_and_beginning_does_not(start_gateway: StartGateway) -> None:
    async with start_gateway(auth_requests_per_minute=1) as gateway:
        gateway.auth.answers["BeginSignOn"] = pb.BeginSignOnResponse(authorization_url="https://x.example", state="s")
        gateway.auth.answers["RedeemSignOn"] = pb.RedeemSignOnResponse(user=USER_MESSAGE, session=SESSION)
        begun = [(await gateway.call("GET", f"{SIGN_IN}?challenge={CHALLENGE}")).status for _ in range(3)]
        body = {"grant": "sg_1", "verifier": "v"}
        redeemed = [(await gateway.call("POST", "/api/v1/auth/sso/session", json=body)).status for _ in range(2)]
    assert (begun, redeemed[1]) == ([302] * 3, 429)


async def test_passwords_of_a_directory_are_counted_by_address_and_by_login(start_gateway: StartGateway) -> None:
    """However the login is written that a directory takes for the same."""
    async with start_gateway(auth_requests_per_minute=3, trusted_proxies=(ip_network("127.0.0.0/8"),)) as gateway:
        gateway.auth.answers["SignOnWithPassword"] = pb.SignOnWithPasswordResponse(user=USER_MESSAGE, session=SESSION)
        statuses = []
        for number, login in enumerate(["Eve  Adams", "eve adams", " EVE ADAMS ", "eve\u3000adams", "somebody else"]):
            headers = {"X-Forwarded-For": f"203.0.113.{number}"}
            body = {"login": login, "password": "a guess"}
            statuses.append((await gateway.call("POST", f"{SIGN_IN}/password", json=body, headers=headers)).status)
    assert statuses == [200, 200, 200, 429, 200]
