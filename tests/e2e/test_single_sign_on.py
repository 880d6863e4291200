"""Single sign-on as a browser and its page meet it, at a certified issuer."""

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping

import aiohttp
import pytest
from yarl import URL

from chassis.ids import uuid7
from tests.e2e.api import Answer, Api, Json, Project, connected, sign_up
from tests.e2e.pages import visiting
from tests.suite_issuer import Issuer, Visitor
from tests.suite_ldap import BASE_DN, SERVICE_DN, SERVICE_PASSWORD, Directory
from tests.suite_ldap import PASSWORD as DIRECTORY_PASSWORD
from tests.suite_running import Suite
from tests.suite_saml_issuer import SamlIssuer
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)


async def _provider(issuer: Issuer, project: Project) -> Json:
    """Set up as its documentation says: the client is registered once the redirect address is known."""
    providers = f"/api/v1/tenants/{project.tenant_id}/identity-providers"
    wanted: Json = {
        "name": "Corporate",
        "oidc": {"issuer": issuer.url, "clientId": "later", "scopes": ["groups"]},
        "roleClaim": "groups",
        "roleMappings": [{"value": "bosses", "role": "admin"}, {"value": "staff", "role": "editor"}],
    }
    made = await project.api.expect(201, "POST", providers, wanted, credential=project.token)
    wanted["oidc"]["clientId"], wanted["oidc"]["clientSecret"] = await issuer.register(made["oidc"]["redirectUri"])
    return await project.api.expect(200, "PUT", f"{providers}/{made['id']}", wanted, credential=project.token)


class Browser:
    """Follows no redirects, and keeps cookies."""

    def __init__(self, api: Api, same_site: str = "Lax") -> None:
        self._api = api
        self._same_site = same_site
        self.cookies = ""

    async def open(self, address: str | URL) -> Answer:
        path = str(URL(address).relative()) if URL(address).absolute else str(address)
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(self._api.base_url + path, headers={"Cookie": self.cookies}, allow_redirects=False) as response,
        ):
            set_cookies = response.headers.getall("Set-Cookie", [])
            kept = [cookie for cookie in set_cookies if "Max-Age=0" not in cookie]
            assert all("HttpOnly" in cookie and f"SameSite={self._same_site}" in cookie for cookie in kept)
            self.cookies = "; ".join(cookie.partition(";")[0] for cookie in set_cookies) or self.cookies
            return Answer(response.status, dict(response.headers), await response.text())


class Page:
    """Keeps a verifier, as a page does in its own storage."""

    def __init__(self) -> None:
        self.verifier = secrets.token_urlsafe(32)

    def sign_in(self, provider: Json, return_to: str = "/") -> URL:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        return URL(provider["signInUrl"]).with_query(challenge=challenge, returnTo=return_to)


@pytest.mark.alone
async def test_an_employee_signs_in_and_leaves_with_the_provider(suite: Suite, issuer: Issuer) -> None:
    async with connected(suite.base_url) as api:
        project = await sign_up(api)
        provider = await _provider(issuer, project)
        page, browser, name = Page(), Browser(api), f"boss-{uuid7()}"

        begun = await browser.open(page.sign_in(provider))
        back = await Visitor(name).sign_in(begun.headers["Location"])
        stranger = await Browser(api).open(back)
        arrived = await browser.open(back)
        again = await browser.open(back)
        grant = {"grant": URL(arrived.headers["Location"]).fragment.removeprefix("sso="), "verifier": page.verifier}
        foreign = await api.call("POST", "/api/v1/auth/sso/session", {**grant, "verifier": "of another page"})
        session = await api.expect(200, "POST", "/api/v1/auth/sso/session", grant)

        assert (begun.status, arrived.status, arrived.headers["Location"].partition("#")[0]) == (302, 302, "/")
        for refused in (stranger, again, foreign):
            assert (refused.status, refused.code) == (401, "SSO_STATE_INVALID")
        assert session["user"]["email"] == f"{name}@example.com"
        assert [(one["id"], one["role"]) for one in session["tenants"]] == [(project.tenant_id, "admin")]
        metrics = f"/api/v1/projects/{project.id}/metrics"
        await api.expect(200, "GET", metrics, credential=session["accessToken"])
        shown = await api.call(
            "GET", f"/api/v1/tenants/{project.tenant_id}/identity-providers", credential=session["accessToken"]
        )
        assert (shown.status, "secret" in json.dumps(shown.json["items"][0]["oidc"]).lower()) == (200, True)
        assert "clientSecret" not in shown.json["items"][0]["oidc"]

        path = f"/api/v1/tenants/{project.tenant_id}/identity-providers/{provider['id']}"
        await api.expect(204, "DELETE", path, credential=project.token)

        async def ended() -> bool:
            return (await api.call("GET", metrics, credential=session["accessToken"])).status == 401

        await eventually(ended, within_seconds=1.0, what="the session is over")


async def test_an_employee_signs_in_by_saml(suite: Suite, saml_issuer: SamlIssuer) -> None:
    async with connected(suite.base_url) as api:
        project = await sign_up(api)
        provider = await _saml_provider(saml_issuer, project)
        page, name = Page(), f"eve-{uuid7()}"

        begun = await Browser(api, same_site="None").open(page.sign_in(provider))
        cookie = {"Cookie": begun.headers["Set-Cookie"].partition(";")[0]}
        address, form = await saml_issuer.sign_in(begun.headers["Location"].partition("#")[0], name)
        stranger = await _posted(api, address, form)
        arrived = await _posted(api, address, form, cookie)
        again = await _posted(api, address, form, cookie)
        grant = {"grant": URL(arrived.headers["Location"]).fragment.removeprefix("sso="), "verifier": page.verifier}
        session = await api.expect(200, "POST", "/api/v1/auth/sso/session", grant)

        assert arrived.status == 303
        for refused in (stranger, again):
            assert (refused.status, refused.code) == (401, "SSO_STATE_INVALID")
        assert session["user"]["email"] == f"{name}@example.com"
        assert [(one["id"], one["role"]) for one in session["tenants"]] == [(project.tenant_id, "editor")]
        await api.expect(200, "GET", f"/api/v1/projects/{project.id}/metrics", credential=session["accessToken"])


async def test_a_browser_brings_what_another_sites_page_gives_it(suite: Suite, saml_issuer: SamlIssuer) -> None:
    async with connected(suite.base_url) as api, visiting() as visitor:
        provider = await _saml_provider(saml_issuer, await sign_up(api))
        tab = await visitor.visit(str(Page().sign_in(provider)))
        # The same provider, on another site than the gateway: its page submits its form itself.
        asking = URL(tab.url).with_host("plain.test").update_query(login="eve").with_fragment(None)
        await tab.goto(str(asking), wait_until="commit")
        await tab.wait_for_url(f"{suite.base_url}/#sso=sg_*")


async def _saml_provider(issuer: SamlIssuer, project: Project) -> Json:
    """Set up as its documentation says, by what each side publishes of itself."""
    wanted = {"name": "Corporate", "saml": {"metadata": await issuer.metadata()}, "defaultRole": "editor"}
    providers = f"/api/v1/tenants/{project.tenant_id}/identity-providers"
    provider = await project.api.expect(201, "POST", providers, wanted, credential=project.token)
    metadata = await project.api.call("GET", URL(provider["saml"]["metadataUrl"]).path)
    assert metadata.headers["Content-Type"] == "application/samlmetadata+xml"
    await issuer.register(metadata.text.encode())
    return provider


async def _posted(api: Api, address: URL, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Answer:
    """As a provider's page has a browser do it; no redirect is followed."""
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.post(api.base_url + address.path, data=form, headers=headers, allow_redirects=False) as response,
    ):
        return Answer(response.status, dict(response.headers), await response.text())


@pytest.mark.parametrize(
    "return_to",
    ["//evil.example.com", "https://evil.example.com/", "/\\evil.example.com", "javascript:alert(1)", "/#sso=mine", ""],
)
async def test_nobody_is_sent_to_a_foreign_page(suite: Suite, issuer: Issuer, return_to: str) -> None:
    async with connected(suite.base_url) as api:
        project = await sign_up(api)
        made = await api.expect(
            201,
            "POST",
            f"/api/v1/tenants/{project.tenant_id}/identity-providers",
            {"name": "Corporate", "oidc": {"issuer": issuer.url, "clientId": "any"}},
            credential=project.token,
        )
        refused = await Browser(api).open(Page().sign_in(made, return_to))
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
        assert set(refused.json["error"]["details"]["fields"]) == {"returnTo"}


async def _directory_provider(directory: Directory, project: Project) -> Json:
    wanted = {
        "name": "Directory",
        "defaultRole": "editor",
        "ldap": {
            "url": directory.tls_url,
            "certificateAuthority": directory.certificate,
            "bindDn": SERVICE_DN,
            "bindPassword": SERVICE_PASSWORD,
            "baseDn": BASE_DN,
            "userFilter": "(uid={login})",
        },
    }
    providers = f"/api/v1/tenants/{project.tenant_id}/identity-providers"
    return await project.api.expect(201, "POST", providers, wanted, credential=project.token)


async def test_an_employee_signs_in_by_the_password_of_a_directory(suite: Suite, directory: Directory) -> None:
    async with connected(suite.base_url) as api:
        project = await sign_up(api)
        provider = await _directory_provider(directory, project)
        path, login = URL(provider["signInUrl"]).path, directory.add_person()

        refused = await api.call("POST", path, {"login": login, "password": "a guess"})
        session = await api.expect(200, "POST", path, {"login": login, "password": DIRECTORY_PASSWORD})

        assert (refused.status, refused.code) == (401, "INVALID_CREDENTIALS")
        assert SERVICE_PASSWORD not in json.dumps(provider)
        assert [(one["id"], one["role"]) for one in session["tenants"]] == [(project.tenant_id, "editor")]
        await api.expect(200, "GET", f"/api/v1/projects/{project.id}/metrics", credential=session["accessToken"])


async def test_an_employee_whom_the_provider_deactivates_is_out_until_it_says_otherwise(
    suite: Suite, directory: Directory
) -> None:
    async with connected(suite.base_url) as api:
        project = await sign_up(api)
        provider, login = await _directory_provider(directory, project), directory.add_person()
        tenant, metrics = f"/api/v1/tenants/{project.tenant_id}", f"/api/v1/projects/{project.id}/metrics"
        token = f"{tenant}/identity-providers/{provider['id']}/provisioning-token"
        made = await api.expect(201, "POST", token, credential=project.token)
        sign_in = URL(provider["signInUrl"]).path, {"login": login, "password": DIRECTORY_PASSWORD}
        session = await api.expect(200, "POST", *sign_in)
        await api.expect(200, "GET", metrics, credential=session["accessToken"])

        users, sought = URL(made["scimUrl"]).path + "/Users", {"filter": f'userName eq "{login.upper()}@example.com"'}
        found = await api.expect(200, "GET", users, params=sought, credential=made["token"])
        [user] = [f"{users}/{one['id']}" for one in found["Resources"]]
        off, on = [{"Operations": [{"op": "Replace", "path": "active", "value": value}]} for value in ("False", True)]
        await api.expect(200, "PATCH", user, off, credential=made["token"])

        async def ended() -> bool:
            return (await api.call("GET", metrics, credential=session["accessToken"])).status == 401

        await eventually(ended, what="the session is over")
        refused = await api.call("POST", *sign_in)
        assert (refused.status, refused.code) == (403, "SSO_NOT_ALLOWED")

        assert (await api.expect(200, "PATCH", user, on, credential=made["token"]))["active"]
        again = await api.expect(200, "POST", *sign_in)
        assert again["user"]["id"] == session["user"]["id"]
        await api.expect(204, "DELETE", user, credential=made["token"])
        refused = await api.call("POST", *sign_in)
        assert (refused.status, refused.code) == (403, "SSO_MEMBER_REMOVED")
        listed = await api.expect(200, "GET", f"{tenant}/removed-members", credential=project.token)
        assert [one["user"]["id"] for one in listed["items"]] == [session["user"]["id"]]
