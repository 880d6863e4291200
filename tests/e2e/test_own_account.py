"""A person's own account, as a client written from the contract meets it; mails lie in the suite's folder."""

import pyotp
import pytest

from tests.e2e.api import PASSWORD, connected, sign_up
from tests.e2e.mails import mailed_token
from tests.suite_running import Suite
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)

NEW_PASSWORD = "seven green bottles hanging"


@pytest.mark.alone
async def test_a_forgotten_password_is_replaced_by_mail_and_ends_every_session(suite: Suite) -> None:
    async with connected(suite.base_url) as api:
        ada = await sign_up(api)
        verification = await mailed_token(suite, ada.email, "Verify")
        await api.expect(
            204, "POST", "/api/v1/auth/email-verification/confirm", {"token": verification}, credential=ada.token
        )
        me = await api.expect(200, "GET", "/api/v1/auth/me", credential=ada.token)
        unknown = await api.call("POST", "/api/v1/auth/password-reset", {"email": "nobody@example.com"})
        known = await api.call("POST", "/api/v1/auth/password-reset", {"email": ada.email})
        body = {"token": await mailed_token(suite, ada.email, "Reset"), "password": NEW_PASSWORD}
        await api.expect(204, "POST", "/api/v1/auth/password-reset/confirm", body)
        again = await api.call("POST", "/api/v1/auth/password-reset/confirm", body)

        async def ended() -> bool:
            return (await api.call("GET", "/api/v1/auth/me", credential=ada.token)).status == 401

        await eventually(ended, within_seconds=1.0, what="the session is over")
        await api.expect(200, "POST", "/api/v1/auth/signin", {"email": ada.email, "password": NEW_PASSWORD})

    assert me["emailVerified"] is True
    assert (unknown.status, unknown.text) == (known.status, known.text) == (202, "{}")
    assert (again.status, again.code) == (422, "INVALID_TOKEN")


@pytest.mark.alone
async def test_sessions_are_listed_and_ended_one_by_one_or_all_others(suite: Suite) -> None:
    async with connected(suite.base_url) as api:
        ada = await sign_up(api)
        credentials = {"email": ada.email, "password": PASSWORD}
        phone = {"User-Agent": "Phone/1.0"}
        tokens = [
            (await api.expect(200, "POST", "/api/v1/auth/signin", credentials, headers=phone))["accessToken"]
            for _ in range(3)
        ]
        listed = (await api.expect(200, "GET", "/api/v1/auth/sessions", credential=ada.token))["items"]
        path = f"/api/v1/auth/sessions/{listed[1]['id']}"
        await api.expect(204, "DELETE", path, credential=ada.token)
        await api.expect(404, "DELETE", path, credential=ada.token)
        await api.expect(204, "DELETE", "/api/v1/auth/sessions", credential=tokens[2])

        async def all_but_one_ended() -> bool:
            answers = [await api.call("GET", "/api/v1/auth/me", credential=one) for one in (ada.token, *tokens)]
            return [answer.status for answer in answers] == [401, 401, 401, 200]

        await eventually(all_but_one_ended, within_seconds=1.0, what="the other sessions are over")
        wrong = {"currentPassword": "not the present one", "newPassword": NEW_PASSWORD}
        refused = await api.call("PUT", "/api/v1/auth/password", wrong, credential=tokens[2])
        right = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
        await api.expect(204, "PUT", "/api/v1/auth/password", right, credential=tokens[2])
        again = await api.call("POST", "/api/v1/auth/email-verification", credential=tokens[2])

    assert [session["current"] for session in listed] == [True, False, False, False]
    assert (listed[1]["device"], listed[1]["address"]) == ("Phone/1.0", "127.0.0.1")
    assert (refused.status, refused.code) == (401, "INVALID_CREDENTIALS")
    assert again.status == 202


async def test_signing_in_takes_a_code_of_the_second_factor_once_it_is_confirmed(suite: Suite) -> None:
    async with connected(suite.base_url) as api:
        ada = await sign_up(api)
        credentials = {"email": ada.email, "password": PASSWORD}
        begun = await api.expect(201, "POST", "/api/v1/auth/totp", {"password": PASSWORD}, credential=ada.token)
        code = {"code": pyotp.TOTP(begun["secret"]).now()}
        confirmed = await api.expect(200, "POST", "/api/v1/auth/totp/confirm", code, credential=ada.token)
        state = await api.expect(200, "GET", "/api/v1/auth/totp", credential=ada.token)
        without = await api.call("POST", "/api/v1/auth/signin", credentials)
        again = await api.call("POST", "/api/v1/auth/signin", {**credentials, "totp": code["code"]})
        recovery = {**credentials, "totp": confirmed["recoveryCodes"][0]}
        await api.expect(200, "POST", "/api/v1/auth/signin", recovery)
        both = {"password": PASSWORD, "totp": confirmed["recoveryCodes"][1]}
        password_alone = await api.call(
            "POST", "/api/v1/auth/totp/disable", {"password": PASSWORD}, credential=ada.token
        )
        await api.expect(204, "POST", "/api/v1/auth/totp/disable", both, credential=ada.token)
        await api.expect(200, "POST", "/api/v1/auth/signin", credentials)

    assert begun["uri"].startswith("otpauth://totp/Pulsegate:")
    assert state == {"enabled": True, "recoveryCodesLeft": 10}
    assert (without.status, without.code) == (401, "TOTP_REQUIRED")
    assert (password_alone.status, password_alone.code) == (401, "TOTP_REQUIRED")
    assert (again.status, again.code) == (401, "INVALID_TOTP")


@pytest.mark.alone
async def test_who_is_invited_joins_and_works_in_the_tenant_within_a_second(suite: Suite) -> None:
    async with connected(suite.base_url) as api:
        ada, eve = await sign_up(api), await sign_up(api)
        invitations = f"/api/v1/tenants/{ada.tenant_id}/invitations"
        body = {"email": eve.email, "role": "editor"}
        made = await api.expect(201, "POST", invitations, body, credential=ada.token)
        listed = await api.expect(200, "GET", invitations, credential=ada.token)
        token = {"token": await mailed_token(suite, eve.email, "You are invited")}
        stranger = await api.call("POST", "/api/v1/invitations/accept", token, credential=ada.token)
        joined = await api.expect(200, "POST", "/api/v1/invitations/accept", token, credential=eve.token)
        metrics = f"/api/v1/projects/{ada.id}/metrics"

        async def works() -> bool:
            return (await api.call("GET", metrics, credential=eve.token)).status == 200

        await eventually(works, within_seconds=1.0, what="the new member works")
        again = await api.call("POST", "/api/v1/invitations/accept", token, credential=eve.token)
        await api.expect(404, "DELETE", f"{invitations}/{made['id']}", credential=ada.token)

    assert listed["items"] == [made]
    assert (stranger.status, stranger.code) == (403, "FORBIDDEN")
    assert joined["tenant"]["id"] == ada.tenant_id
    assert joined["tenant"]["role"] == "editor"
    assert (again.status, again.code) == (422, "INVALID_TOKEN")


@pytest.mark.alone
async def test_a_suspended_tenant_stops_within_a_second_and_goes_on_when_it_is_resumed(suite: Suite) -> None:
    async with connected(suite.base_url) as api:
        ada = await sign_up(api)
        await ada.define("orders_total")
        new = {"email": "operator@example.com", "password": PASSWORD, "tenantName": "Operators"}
        operator = (await api.expect(201, "POST", "/api/v1/auth/signup", new))["accessToken"]
        early = await api.call("GET", "/api/v1/operator/tenants", credential=operator)
        token = {"token": await mailed_token(suite, "operator@example.com", "Verify")}
        await api.expect(204, "POST", "/api/v1/auth/email-verification/confirm", token, credential=operator)
        tenant = f"/api/v1/operator/tenants/{ada.tenant_id}"

        async def answers(*statuses: int) -> bool:
            sent = await ada.send({"name": "orders_total", "value": 1})
            seen = await api.call("GET", f"/api/v1/projects/{ada.id}/metrics", credential=ada.token)
            return (sent.status, seen.status) == statuses

        await eventually(lambda: answers(202, 200), what="the tenant works")
        suspended = await api.expect(200, "PATCH", tenant, {"suspended": True}, credential=operator)
        await eventually(lambda: answers(403, 403), within_seconds=1.0, what="the tenant is refused")
        refused = await ada.send({"name": "orders_total", "value": 1})
        resumed = await api.expect(200, "PATCH", tenant, {"suspended": False}, credential=operator)
        await eventually(lambda: answers(202, 200), within_seconds=3.0, what="the tenant works again")

    assert (early.status, early.code) == (403, "FORBIDDEN")
    assert suspended["suspendedAt"] is not None
    assert resumed["suspendedAt"] is None
    assert refused.code == "TENANT_SUSPENDED"
