"""SCIM at the gateway: who may call, what reaches auth, and the shapes of RFC 7643 and 7644."""

import json
from typing import Any

import pytest

from chassis.errors import Conflict, NotFound
from contracts.pulsegate.auth.v1 import provisioning_pb2 as pb
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as sso
from tests.integration.gateway.fakes import TENANT
from tests.integration.gateway.running import Gateway
from tests.integration.gateway.test_management import ID, MOMENT, RENDERED_USER, USER_MESSAGE, timestamp
from tests.waiting import eventually

USERS = "/scim/v2/Users"
USER = f"{USERS}/{RENDERED_USER['id']}"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
TOKEN = f"/api/v1/tenants/{TENANT}/identity-providers/{ID}/provisioning-token"


def account(*, active: bool = True) -> pb.ProvisionedAccount:
    return pb.ProvisionedAccount(user=USER_MESSAGE, subject="00u1", active=active, created_at=timestamp())


def rendered(*, active: bool = True) -> dict[str, Any]:
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": RENDERED_USER["id"],
        "externalId": "00u1",
        "userName": "ada@example.com",
        "active": active,
        "emails": [{"value": "ada@example.com", "primary": True}],
        "meta": {"resourceType": "User", "created": MOMENT, "location": f"https://metrics.example.com{USER}"},
    }


async def patched(gateway: Gateway, *operations: Any, content_type: str = "application/scim+json") -> Any:
    body = json.dumps({"Operations": operations}).encode()
    token = gateway.auth.new_provisioning_token()
    return await gateway.call("PATCH", USER, credential=token, data=body, headers={"Content-Type": content_type})


async def test_a_token_is_made_shown_once_and_revoked(gateway: Gateway) -> None:
    auth, session = gateway.auth, gateway.auth.new_session()
    made = sso.CreateProvisioningTokenResponse(token="pt_whole", created_at=timestamp())
    auth.answers["CreateProvisioningToken"] = made
    auth.answers["RevokeProvisioningToken"] = sso.RevokeProvisioningTokenResponse()
    answer = await gateway.call("POST", TOKEN, credential=session)
    revoked = await gateway.call("DELETE", TOKEN, credential=session)
    shown = {"token": "pt_whole", "createdAt": MOMENT, "scimUrl": "https://metrics.example.com/scim/v2"}
    assert (answer.status, answer.json, revoked.status) == (201, shown, 204)
    for name in ("CreateProvisioningToken", "RevokeProvisioningToken"):
        [asked] = auth.requests(name)
        assert (asked.tenant_id, asked.provider_id) == (TENANT, ID)


async def test_users_are_found_and_shown(gateway: Gateway) -> None:
    auth, token = gateway.auth, gateway.auth.new_provisioning_token()
    auth.answers["ListProvisionedAccounts"] = pb.ListProvisionedAccountsResponse(accounts=[account()], total=7)
    auth.answers["GetProvisionedAccount"] = pb.GetProvisionedAccountResponse(account=account())
    sought = '?filter=userName%20eq%20"ada%40example.com"&startIndex=3&count=1'
    found = await gateway.call("GET", USERS + sought, credential=token)
    shown = await gateway.call("GET", USER, credential=token)
    assert (found.status, found.headers["Content-Type"]) == (200, "application/scim+json")
    assert found.json == {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        "totalResults": 7,
        "startIndex": 3,
        "itemsPerPage": 1,
        "Resources": [rendered()],
    }
    assert (shown.status, shown.json) == (200, rendered())
    [asked] = auth.requests("ListProvisionedAccounts")
    assert (asked.email, asked.HasField("subject"), asked.skipped, asked.most) == ("ada@example.com", False, 2, 1)
    principal = auth.seen[0].principal
    assert principal is not None
    assert (principal.kind, principal.tenant_id, principal.scopes) == ("provisioner", TENANT, frozenset())


async def test_somebody_is_deactivated_reactivated_and_removed(gateway: Gateway) -> None:
    auth = gateway.auth
    auth.answers["UpdateProvisionedAccount"] = pb.UpdateProvisionedAccountResponse(account=account(active=False))
    auth.answers["GetProvisionedAccount"] = pb.GetProvisionedAccountResponse(account=account())
    auth.answers["RemoveProvisionedAccount"] = pb.RemoveProvisionedAccountResponse()
    off = await patched(gateway, {"op": "Replace", "path": "active", "value": "False"})
    on = await patched(gateway, {"op": "replace", "value": {"active": True}}, content_type="application/json")
    nothing = await patched(gateway, {"op": "replace", "path": "displayName", "value": "Ada"})
    removed = await gateway.call("DELETE", USER, credential=auth.new_provisioning_token())
    assert (off.status, off.json) == (200, rendered(active=False))
    assert [(one.user_id, one.active) for one in auth.requests("UpdateProvisionedAccount")] == [
        (RENDERED_USER["id"], False),
        (RENDERED_USER["id"], True),
    ]
    assert (on.status, nothing.json, removed.status, removed.body) == (200, rendered(), 204, b"")


async def test_a_whole_resource_deactivates_too(gateway: Gateway) -> None:
    auth, token = gateway.auth, gateway.auth.new_provisioning_token()
    auth.answers["UpdateProvisionedAccount"] = pb.UpdateProvisionedAccountResponse(account=account(active=False))
    auth.answers["GetProvisionedAccount"] = pb.GetProvisionedAccountResponse(account=account())
    kept = await gateway.call("PUT", USER, credential=token, json={"userName": "another@example.com"})
    off = await gateway.call("PUT", USER, credential=token, json={**rendered(), "active": False})
    assert (kept.status, kept.json) == (200, rendered())
    assert (off.status, off.json) == (200, rendered(active=False))
    [asked] = auth.requests("UpdateProvisionedAccount")
    assert (asked.user_id, asked.active) == (RENDERED_USER["id"], False)
    unfit = await gateway.call("PUT", USER, credential=token, json={"active": "no"})
    assert (unfit.status, unfit.json["scimType"]) == (400, "invalidValue")


async def test_a_second_credential_is_refused_and_not_overlooked(gateway: Gateway) -> None:
    token, key = gateway.auth.new_provisioning_token(), gateway.auth.new_key()
    beside: list[tuple[str, dict[str, str]]] = [("", {"X-API-Key": key}), (f"?key={key}", {})]
    for query, headers in beside:
        refused = await gateway.call("GET", USERS + query, credential=token, headers=headers)
        assert (refused.status, refused.json["detail"].partition(":")[0]) == (400, "MALFORMED_REQUEST")
    assert not gateway.auth.requests("ListProvisionedAccounts")


async def test_errors_are_those_of_scim(gateway: Gateway) -> None:
    auth, token = gateway.auth, gateway.auth.new_provisioning_token()
    auth.answers["GetProvisionedAccount"] = NotFound("There is no such user.")
    auth.answers["UpdateProvisionedAccount"] = Conflict("The last owner stays.")
    absent = await gateway.call("GET", USER, credential=token)
    assert (absent.status, absent.headers["Content-Type"]) == (404, "application/scim+json")
    assert absent.json == {"schemas": [ERROR], "status": "404", "detail": "NOT_FOUND: There is no such user."}
    owner = await patched(gateway, {"op": "replace", "path": "active", "value": False})
    assert (owner.status, owner.json["status"], owner.json["detail"].partition(":")[0]) == (409, "409", "CONFLICT")
    unfit = await gateway.call("GET", f"{USERS}?filter=active%20eq%20true", credential=token)
    assert (unfit.status, unfit.json["scimType"]) == (400, "invalidFilter")
    for method, path in (("POST", USERS), ("PUT", USERS)):
        refused = await gateway.call(method, path, credential=token, json={})
        assert (refused.status, refused.json["schemas"]) == (405, [ERROR])


@pytest.mark.parametrize(
    ("content_type", "body", "status", "scim_type"),
    [
        ("text/plain", b"{}", 415, None),
        ("application/scim+json", b"{", 400, None),
        ("application/scim+json", b"[]", 400, "invalidSyntax"),
        ("application/scim+json", b'{"Operations": []}', 400, "invalidSyntax"),
        ("application/scim+json", b" " * (129 << 10), 413, None),
    ],
)
async def test_bodies_that_are_none_are_refused(
    gateway: Gateway, content_type: str, body: bytes, status: int, scim_type: str | None
) -> None:
    token = gateway.auth.new_provisioning_token()
    headers = {"Content-Type": content_type}
    answer = await gateway.call("PATCH", USER, credential=token, data=body, headers=headers)
    assert (answer.status, answer.json.get("scimType")) == (status, scim_type)
    assert not gateway.auth.requests("UpdateProvisionedAccount")


async def test_nothing_but_a_provisioning_token_opens_scim_and_it_opens_nothing_else(gateway: Gateway) -> None:
    """Not even where the gateway knows the token already."""
    auth = gateway.auth
    auth.answers["ListProvisionedAccounts"] = pb.ListProvisionedAccountsResponse()
    token = auth.new_provisioning_token()
    assert (await gateway.call("GET", USERS, credential=token)).status == 200
    for wrong in (auth.new_session(), auth.new_key("secret", scopes=["config:read"]), "", "pt_unknown", token + "x"):
        refused = await gateway.call("GET", USERS, credential=wrong)
        assert (refused.status, refused.json["detail"].partition(":")[0]) == (401, "UNAUTHENTICATED")
    for headers in ({"X-API-Key": token}, {"Authorization": f"Basic {token}"}):
        assert (await gateway.call("GET", USERS, headers=headers)).status == 401
    for path in ("/api/v1/auth/me", "/api/v1/projects", f"/api/v1/tenants/{TENANT}/members"):
        refused = await gateway.call("GET", path, credential=token)
        assert (refused.status, refused.code) == (401, "UNAUTHENTICATED")
        as_key = await gateway.call("GET", path, headers={"X-API-Key": token})
        assert (as_key.status, as_key.code) == (401, "INVALID_API_KEY")
    sent = await gateway.call("POST", "/api/v1/metrics", headers={"X-API-Key": token}, json={"metrics": []})
    assert (sent.status, sent.code) == (401, "INVALID_API_KEY")


async def test_a_token_that_is_revoked_is_refused(gateway: Gateway) -> None:
    auth = gateway.auth
    auth.answers["ListProvisionedAccounts"] = pb.ListProvisionedAccountsResponse()
    token = auth.new_provisioning_token()
    assert (await gateway.call("GET", USERS, credential=token)).status == 200
    auth.revoke(token)

    async def refused() -> bool:
        return (await gateway.call("GET", USERS, credential=token)).status == 401

    await eventually(refused, what="the token is refused")


async def test_calls_count_towards_the_limits_of_reads_and_changes(gateway: Gateway) -> None:
    auth, token = gateway.auth, gateway.auth.new_provisioning_token()
    auth.answers["ListProvisionedAccounts"] = pb.ListProvisionedAccountsResponse()
    auth.answers["RemoveProvisionedAccount"] = pb.RemoveProvisionedAccountResponse()
    read = await gateway.call("GET", USERS, credential=token)
    changed = await gateway.call("DELETE", USER, credential=token)
    assert [answer.headers["RateLimit-Policy"].partition(";")[0] for answer in (read, changed)] == ['"reads"', '"api"']
