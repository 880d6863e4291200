"""The management routes: what reaches the services, and the JSON that comes back, to the letter of the contract."""

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import api_keys
from chassis.errors import Conflict, VersionMismatch
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.config.v1 import definitions_pb2
from services.auth.keys import SECRET_SCOPES
from tests.integration.gateway.fakes import PROJECT, TENANT, USER
from tests.integration.gateway.running import Answer, Gateway

ID = "0192f0c1-0000-7000-8000-00000000000f"
MOMENT = "2026-01-31T08:15:30.123Z"


def timestamp() -> Timestamp:
    made = Timestamp()
    made.FromDatetime(datetime(2026, 1, 31, 8, 15, 30, 123_000, UTC))
    return made


USER_MESSAGE = accounts_pb2.User(id=USER, email="ada@example.com")
SESSION = accounts_pb2.Session(access_token="access", refresh_token="rt_refresh", expires_in=900)
TENANT_MESSAGE = accounts_pb2.Tenant(id=TENANT, name="Acme")
MEMBERSHIP = accounts_pb2.Membership(tenant=TENANT_MESSAGE, role=accounts_pb2.ROLE_OWNER)
PROJECT_MESSAGE = accounts_pb2.Project(id=PROJECT, tenant_id=TENANT, name="Shop", created_at=timestamp())
RENDERED_PROJECT = {"id": PROJECT, "tenantId": TENANT, "name": "Shop", "createdAt": MOMENT}
RENDERED_SESSION = {"accessToken": "access", "refreshToken": "rt_refresh", "expiresIn": 900}
RENDERED_USER = {"id": USER, "email": "ada@example.com"}


async def test_who_signs_up_is_shown_a_user_a_tenant_a_project_and_a_session(gateway: Gateway) -> None:
    gateway.auth.answers["SignUp"] = accounts_pb2.SignUpResponse(
        user=USER_MESSAGE, tenant=TENANT_MESSAGE, project=PROJECT_MESSAGE, session=SESSION
    )
    body = {"email": "ada@example.com", "password": "correct horse", "tenantName": "Acme"}
    answer = await gateway.call("POST", "/api/v1/auth/signup", json=body)
    assert answer.status == 201
    assert answer.json == {
        "user": RENDERED_USER,
        "tenant": {"id": TENANT, "name": "Acme"},
        "project": {"id": PROJECT, "name": "Shop"},
        **RENDERED_SESSION,
    }
    (request,) = gateway.auth.requests("SignUp")
    assert (request.email, request.password, request.tenant_name) == ("ada@example.com", "correct horse", "Acme")


async def test_a_session_is_begun_refreshed_and_ended(gateway: Gateway) -> None:
    auth = gateway.auth
    auth.answers["SignIn"] = accounts_pb2.SignInResponse(user=USER_MESSAGE, memberships=[MEMBERSHIP], session=SESSION)
    auth.answers["Refresh"] = accounts_pb2.RefreshResponse(session=SESSION)
    auth.answers["SignOut"] = accounts_pb2.SignOutResponse()
    credentials = {"email": "ada@example.com", "password": "correct horse"}
    signed_in = await gateway.call("POST", "/api/v1/auth/signin", json=credentials)
    refreshed = await gateway.call("POST", "/api/v1/auth/refresh", json={"refreshToken": "rt_old"})
    signed_out = await gateway.call("POST", "/api/v1/auth/signout", json={"refreshToken": "rt_refresh"})
    tenants = [{"id": TENANT, "name": "Acme", "role": "owner"}]
    assert (signed_in.status, signed_in.json) == (
        200,
        {"user": RENDERED_USER, "tenants": tenants, **RENDERED_SESSION},
    )
    assert (refreshed.status, refreshed.json) == (200, RENDERED_SESSION)
    assert (signed_out.status, signed_out.body) == (204, b"")
    assert auth.requests("Refresh")[0].refresh_token == "rt_old"


async def test_people_are_shown_their_account_and_their_roles(gateway: Gateway) -> None:
    gateway.auth.answers["GetMe"] = accounts_pb2.GetMeResponse(
        user=USER_MESSAGE, memberships=[MEMBERSHIP], email_verified=True
    )
    answer = await gateway.call("GET", "/api/v1/auth/me", credential=gateway.auth.new_session())
    assert answer.json == {
        "user": RENDERED_USER,
        "tenants": [{"id": TENANT, "name": "Acme", "role": "owner"}],
        "emailVerified": True,
    }
    principal = gateway.auth.seen[0].principal
    assert principal is not None
    assert (principal.subject, principal.project_id) == (USER, "")


async def test_a_project_is_made_listed_shown_renamed_and_deleted(gateway: Gateway) -> None:
    auth, session = gateway.auth, gateway.auth.new_session()
    auth.answers["ListProjects"] = accounts_pb2.ListProjectsResponse(projects=[PROJECT_MESSAGE], next_page_token="more")
    auth.answers["CreateProject"] = accounts_pb2.CreateProjectResponse(project=PROJECT_MESSAGE)
    auth.answers["GetProject"] = accounts_pb2.GetProjectResponse(project=PROJECT_MESSAGE)
    auth.answers["UpdateProject"] = accounts_pb2.UpdateProjectResponse(project=PROJECT_MESSAGE)
    auth.answers["DeleteProject"] = accounts_pb2.DeleteProjectResponse()
    path = f"/api/v1/projects/{PROJECT}"

    listed = await gateway.call("GET", "/api/v1/projects?pageSize=7&pageToken=abc", credential=session)
    assert listed.json == {"items": [RENDERED_PROJECT], "nextPageToken": "more"}
    asked = auth.requests("ListProjects")[0]
    assert (asked.page_size, asked.page_token, asked.tenant_id) == (7, "abc", "")

    made = await gateway.call("POST", "/api/v1/projects", credential=session, json={"name": "Shop"})
    assert (made.status, made.json, made.headers["Location"]) == (201, RENDERED_PROJECT, path)
    assert (await gateway.call("GET", path, credential=session)).json == RENDERED_PROJECT
    renamed = await gateway.call("PATCH", path, credential=session, json={"name": "Shop 2"})
    assert (renamed.status, auth.requests("UpdateProject")[0].name) == (200, "Shop 2")
    assert (await gateway.call("DELETE", path, credential=session)).status == 204


async def test_a_key_is_made_listed_renamed_and_revoked_and_shown_whole_once(gateway: Gateway) -> None:
    auth, session = gateway.auth, gateway.auth.new_session()
    key = accounts_pb2.Key(
        id=ID,
        name="web",
        kind=accounts_pb2.KEY_KIND_PUBLISHABLE,
        scopes=["ingest:write"],
        prefix="pk_abc",
        allowed_origins=["https://shop.example"],
        created_at=timestamp(),
    )
    auth.answers["CreateKey"] = accounts_pb2.CreateKeyResponse(key=key, token="pk_whole")
    auth.answers["ListKeys"] = accounts_pb2.ListKeysResponse(keys=[key])
    auth.answers["UpdateKey"] = accounts_pb2.UpdateKeyResponse(key=key)
    auth.answers["RevokeKey"] = accounts_pb2.RevokeKeyResponse()
    rendered = {
        "id": ID,
        "name": "web",
        "kind": "publishable",
        "scopes": ["ingest:write"],
        "prefix": "pk_abc",
        "allowedOrigins": ["https://shop.example"],
        "createdAt": MOMENT,
        "expiresAt": None,
        "revokedAt": None,
        "lastUsedAt": None,
    }
    path = f"/api/v1/projects/{PROJECT}/keys"
    body = {
        "name": "web",
        "kind": "publishable",
        "allowedOrigins": ["https://shop.example"],
        "expiresAt": "2026-01-31T09:15:30.123+01:00",
    }
    made = await gateway.call("POST", path, credential=session, json=body)
    assert (made.status, made.json) == (201, {**rendered, "key": "pk_whole"})
    request = auth.requests("CreateKey")[0]
    assert (request.project_id, request.expires_at) == (PROJECT, timestamp())
    listed = await gateway.call("GET", path, credential=session)
    assert listed.json == {"items": [rendered], "nextPageToken": ""}
    renamed = await gateway.call("PATCH", f"{path}/{ID}", credential=session, json={"name": "site"})
    assert (renamed.json, auth.requests("UpdateKey")[0].name) == (rendered, "site")
    assert (await gateway.call("DELETE", f"{path}/{ID}", credential=session)).status == 204
    assert (await gateway.call("DELETE", f"{path}/no-id", credential=session)).status == 404


async def test_a_secret_key_has_the_scopes_that_are_named_or_may_only_write(gateway: Gateway) -> None:
    auth, session, path = gateway.auth, gateway.auth.new_session(), f"/api/v1/projects/{PROJECT}/keys"
    key = accounts_pb2.Key(id=ID, name="web", kind=accounts_pb2.KEY_KIND_SECRET, created_at=timestamp())
    auth.answers["CreateKey"] = accounts_pb2.CreateKeyResponse(key=key, token="sk_whole")

    async def asked(kind: str, **members: Any) -> Answer:
        return await gateway.call("POST", path, credential=session, json={"name": "web", "kind": kind, **members})

    for scopes, at in (([], "scopes"), (["query:read", "everything"], "scopes[1]")):
        refused = await asked("secret", scopes=scopes)
        assert (refused.status, list(refused.json["error"]["details"]["fields"])) == (422, [at])
    made = [
        await asked("secret"),
        await asked("secret", scopes=["usage:read", "query:read"]),
        await asked("publishable", scopes=[]),
    ]
    assert [answer.status for answer in made] == [201] * 3
    assert [list(request.scopes) for request in auth.requests("CreateKey")] == [
        ["ingest:write"],
        ["usage:read", "query:read"],
        [],
    ]
    schemas = (await gateway.call("GET", "/api/v1/openapi.json")).json["components"]["schemas"]
    told = schemas["NewKey"]["properties"]["scopes"]
    assert (told["default"], frozenset(told["items"]["enum"])) == (["ingest:write"], SECRET_SCOPES)


async def test_a_key_is_changed_in_what_is_named_and_rotated(gateway: Gateway) -> None:
    auth, session, path = gateway.auth, gateway.auth.new_session(), f"/api/v1/projects/{PROJECT}/keys/{ID}"
    key = accounts_pb2.Key(
        id=ID, name="web", kind=accounts_pb2.KEY_KIND_SECRET, created_at=timestamp(), last_used_at=timestamp()
    )
    auth.answers["UpdateKey"] = accounts_pb2.UpdateKeyResponse(key=key)
    auth.answers["RotateKey"] = accounts_pb2.RotateKeyResponse(key=key, token="sk_whole")
    for body in ({"allowedOrigins": ["*"]}, {"expiresAt": None}, {"expiresAt": MOMENT}):
        answer = await gateway.call("PATCH", path, credential=session, json=body)
        assert (answer.status, answer.json["lastUsedAt"]) == (200, MOMENT)
    refused = await gateway.call("PATCH", path, credential=session, json={"allowedOrigins": [], "name": ""})
    made = await gateway.call("POST", path + "/rotate", credential=session, json={"graceSeconds": 60})
    wrong = await gateway.call("POST", path + "/rotate", credential=session, json={"graceSeconds": -1})
    which: dict[str, Any] = {"project_id": PROJECT, "key_id": ID}
    assert auth.requests("UpdateKey") == [
        accounts_pb2.UpdateKeyRequest(**which, allowed_origins=["*"]),
        accounts_pb2.UpdateKeyRequest(**which, never_expires=True),
        accounts_pb2.UpdateKeyRequest(**which, expires_at=timestamp()),
    ]
    assert (refused.status, set(refused.json["error"]["details"]["fields"])) == (422, {"allowedOrigins", "name"})
    assert (made.status, made.json["key"], wrong.status) == (201, "sk_whole", 422)
    assert auth.requests("RotateKey") == [accounts_pb2.RotateKeyRequest(**which, grace_seconds=60)]


async def test_a_scanner_reports_keys_that_it_found_and_is_told_which_were_live(gateway: Gateway) -> None:
    live, dead, public = (gateway.auth.new_key(kind) for kind in ("secret", "secret", "publishable"))
    gateway.auth.answers["ReportLeakedKeys"] = accounts_pb2.ReportLeakedKeysResponse(revoked=[True, False])
    found = [{"token": token, "type": "pulsegate_key", "url": "https://x.example", "source": "content"} for token in
             (live, public, "sk_look_alike", dead)]  # fmt: skip
    answer = await gateway.call("POST", "/api/v1/leaked-keys", json=found)
    assert (answer.status, [judged["label"] for judged in answer.json]) == (
        200,
        ["true_positive", "false_positive", "false_positive", "false_positive"],
    )
    assert answer.json[0]["token_hash"] == base64.b64encode(api_keys.digest(live)).decode()
    (request,) = gateway.auth.requests("ReportLeakedKeys")
    assert [key.api_key_sha256 for key in request.keys] == [api_keys.digest(live), api_keys.digest(dead)]
    assert request.keys[0].place == "https://x.example"
    nothing = await gateway.call("POST", "/api/v1/leaked-keys", json=[{"token": public}])
    assert (nothing.status, len(gateway.auth.requests("ReportLeakedKeys"))) == (200, 1)


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"[]", "application/json", 422, "VALIDATION_FAILED"),
        (b'{"token": "x"}', "application/json", 422, "VALIDATION_FAILED"),
        (b'[{"token": 1}]', "application/json", 422, "VALIDATION_FAILED"),
        (b'[{"token": "\\ud800"}]', "application/json", 400, "MALFORMED_JSON"),
        (b'[{"x": ' + b"[" * 100_000, "application/json", 400, "MALFORMED_JSON"),
        (b"[", "application/json", 400, "MALFORMED_JSON"),
        (b"[]", "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"),
    ],
)
async def test_a_report_that_is_none_is_refused(
    gateway: Gateway, body: bytes, content_type: str, status: int, code: str
) -> None:
    headers = {"Content-Type": content_type}
    answer = await gateway.call("POST", "/api/v1/leaked-keys", data=body, headers=headers)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)


async def test_a_member_is_listed_added_and_given_a_role_and_a_refused_removal_is_a_conflict(gateway: Gateway) -> None:
    auth, session = gateway.auth, gateway.auth.new_session()
    member = accounts_pb2.Member(
        user=USER_MESSAGE, role=accounts_pb2.ROLE_EDITOR, created_at=timestamp(), email_verified=True
    )
    auth.answers["ListMembers"] = accounts_pb2.ListMembersResponse(members=[member])
    auth.answers["AddMember"] = accounts_pb2.AddMemberResponse(member=member)
    auth.answers["UpdateMember"] = accounts_pb2.UpdateMemberResponse(member=member)
    auth.answers["RemoveMember"] = Conflict("The last owner stays.")
    rendered = {"user": RENDERED_USER, "role": "editor", "createdAt": MOMENT, "emailVerified": True}
    path = f"/api/v1/tenants/{TENANT}/members"

    assert (await gateway.call("GET", path, credential=session)).json["items"] == [rendered]
    body = {"email": "ada@example.com", "role": "editor"}
    added = await gateway.call("POST", path, credential=session, json=body)
    assert (added.status, added.json) == (201, rendered)
    changed = await gateway.call("PATCH", f"{path}/{USER}", credential=session, json={"role": "admin"})
    assert changed.json == rendered
    assert auth.requests("UpdateMember")[0].role == accounts_pb2.ROLE_ADMIN
    refused = await gateway.call("DELETE", f"{path}/{USER}", credential=session)
    assert (refused.status, refused.code) == (409, "CONFLICT")


SPEC = definitions_pb2.MetricSpec(
    name="load_seconds",
    type=definitions_pb2.METRIC_TYPE_HISTOGRAM,
    unit="seconds",
    help="How long.",
    labels=[definitions_pb2.Label(name="page", required=True, values=["a"], pattern="a+", max_distinct=3)],
    buckets=[0.1, 1.0],
)
METRIC = definitions_pb2.Metric(
    id=ID, tenant_id=TENANT, project_id=PROJECT, spec=SPEC, version=3, created_at=timestamp(), updated_at=timestamp()
)
RENDERED_LABEL = {"name": "page", "required": True, "values": ["a"], "pattern": "a+", "maxDistinct": 3}
DEFINITION: dict[str, Any] = {
    "name": "load_seconds",
    "type": "histogram",
    "unit": "seconds",
    "help": "How long.",
    "labels": [RENDERED_LABEL],
    "buckets": [0.1, 1],
}
RENDERED_METRIC = {
    "id": ID,
    **DEFINITION,
    "objectives": [],
    "gaugeMerge": None,
    "nativeHistogram": False,
    "provisional": False,
    "version": 3,
    "createdAt": MOMENT,
    "updatedAt": MOMENT,
}


async def test_a_definition_is_made_listed_shown_replaced_and_deleted(gateway: Gateway) -> None:
    config, session = gateway.config, gateway.auth.new_session()
    config.answers["CreateMetric"] = definitions_pb2.CreateMetricResponse(metric=METRIC)
    config.answers["ListMetrics"] = definitions_pb2.ListMetricsResponse(metrics=[METRIC], next_page_token="next")
    config.answers["GetMetric"] = definitions_pb2.GetMetricResponse(metric=METRIC)
    config.answers["UpdateMetric"] = definitions_pb2.UpdateMetricResponse(metric=METRIC)
    config.answers["DeleteMetric"] = definitions_pb2.DeleteMetricResponse()
    path = f"/api/v1/projects/{PROJECT}/metrics"

    made = await gateway.call("POST", path, credential=session, json=DEFINITION)
    assert (made.status, made.json) == (201, RENDERED_METRIC)
    assert (made.headers["ETag"], made.headers["Location"]) == ('"3"', f"{path}/{ID}")
    assert config.requests("CreateMetric")[0].spec == SPEC
    principal = config.seen[0].principal
    assert principal is not None
    assert principal.project_id == PROJECT

    listed = await gateway.call("GET", path, credential=session)
    assert listed.json == {"items": [RENDERED_METRIC], "nextPageToken": "next"}
    assert (await gateway.call("GET", f"{path}/{ID}", credential=session)).json == RENDERED_METRIC
    changed = await gateway.call(
        "PUT", f"{path}/{ID}", credential=session, json=DEFINITION, headers={"If-Match": '"3"'}
    )
    assert changed.json == RENDERED_METRIC
    assert config.requests("UpdateMetric")[0].version == 3
    assert (await gateway.call("DELETE", f"{path}/{ID}", credential=session)).status == 204
    assert config.requests("DeleteMetric")[0].version == 0


async def test_a_definition_is_changed_at_a_version_only(gateway: Gateway) -> None:
    session, path = gateway.auth.new_session(), f"/api/v1/projects/{PROJECT}/metrics/{ID}"
    without = await gateway.call("PUT", path, credential=session, json=DEFINITION)
    assert (without.status, without.code) == (400, "MALFORMED_REQUEST")
    for header in ("3", "*", '"0"', 'W/"3"', '"x"'):
        other = await gateway.call("PUT", path, credential=session, json=DEFINITION, headers={"If-Match": header})
        assert (other.status, other.code) == (412, "VERSION_MISMATCH")
    gateway.config.answers["UpdateMetric"] = VersionMismatch("It is at 4.", details={"version": 4})
    late = await gateway.call("PUT", path, credential=session, json=DEFINITION, headers={"If-Match": '"3"'})
    assert (late.status, late.json["error"]["details"]) == (412, {"version": 4})


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"name", "type", "help"}),
        ({**DEFINITION, "colour": "red"}, {"colour"}),
        ({**DEFINITION, "type": "timer"}, {"type"}),
        ({**DEFINITION, "buckets": ["wide"], "help": 3}, {"buckets[0]", "help"}),
        ({**DEFINITION, "labels": [{"name": "a"}, {"nmae": "b"}]}, {"labels[1].name", "labels[1].nmae"}),
        (
            {**DEFINITION, "labels": ["a", {"name": 3, "required": "yes"}, {"name": "b", "values": ["c", 4]}]},
            {"labels[0]", "labels[1].name", "labels[1].required", "labels[2].values[1]"},
        ),
        ({**DEFINITION, "labels": "plan"}, {"labels"}),
        ({**DEFINITION, "labels": [{"name": "a"}] * 200 + [{}]}, {"labels[200]"}),
        (
            {**DEFINITION, "help": "a\0b", "labels": [{"name": "a", "values": ["b", "\0"]}]},
            {"help", "labels[0].values[1]"},
        ),
        ({**DEFINITION, "labels": [{"na\0me": "a"}]}, {"labels[0]"}),
        ({**DEFINITION, "labels": [{"required": True}]}, {"labels[0].name"}),
        ({**DEFINITION, "labels": [{"name": "a", "maxDistinct": -1}]}, {"labels[0].maxDistinct"}),
        ({**DEFINITION, "labels": [{"name": "a", "maxDistinct": 2**40}]}, {"labels[0].maxDistinct"}),
        ({**DEFINITION, "unit": None}, {"unit"}),
    ],
)
async def test_every_member_at_fault_is_named(gateway: Gateway, body: dict[str, Any], fields: set[str]) -> None:
    gateway.config.answers["CheckMetric"] = definitions_pb2.CheckMetricResponse()
    answer = await gateway.call(
        "POST", f"/api/v1/projects/{PROJECT}/metrics", credential=gateway.auth.new_session(), json=body
    )
    assert (answer.status, answer.code) == (422, "VALIDATION_FAILED")
    assert set(answer.json["error"]["details"]["fields"]) == fields


async def test_what_the_gateway_and_config_find_wrong_is_told_at_once(gateway: Gateway) -> None:
    found = {"name": "must not begin with a digit", "help": "must say what the metric measures"}
    gateway.config.answers["CheckMetric"] = definitions_pb2.CheckMetricResponse(faults=found)
    wrong = {"name": "9x", "type": "couter", "hlp": 1, "labels": [{"name": "__x"}, {"name": "le", "of": 1}]}
    session = gateway.auth.new_session()
    for method, path in (("POST", "metrics"), ("PUT", f"metrics/{ID}")):
        answer = await gateway.call(
            method, f"/api/v1/projects/{PROJECT}/{path}", credential=session, json=wrong, headers={"If-Match": '"1"'}
        )
        assert (answer.status, answer.code) == (422, "VALIDATION_FAILED")
        assert answer.json["error"]["details"]["fields"] == {
            "name": "must not begin with a digit",
            "type": "must be one of counter, gauge, histogram, summary",
            "help": "is required",
            "hlp": "is not a member of this request",
            "labels[1].of": "is not a member of this request",
        }
    asked = gateway.config.requests("CheckMetric")[0].spec
    assert (asked.name, asked.type, [label.name for label in asked.labels]) == ("9x", 0, ["__x", "le"])


@pytest.mark.parametrize("body", [[], [{"name": "x"}], "text", 5, {"na\0me": "x"}])
async def test_a_fault_of_no_member_names_none(gateway: Gateway, body: Any) -> None:
    answer = await gateway.call(
        "POST", f"/api/v1/projects/{PROJECT}/metrics", credential=gateway.auth.new_session(), json=body
    )
    assert (answer.status, answer.code) == (422, "VALIDATION_FAILED")
    assert "details" not in answer.json["error"]


async def test_a_long_list_of_faults_is_cut(gateway: Gateway) -> None:
    gateway.config.answers["CheckMetric"] = definitions_pb2.CheckMetricResponse()
    deep: Any = ["\0"] * 1000
    for _ in range(100):
        deep = {"a" * 100: deep}
    bodies: list[dict[str, Any]] = [{"labels": [{}] * 1000}, {str(one): 1 for one in range(1000)}, {"labels": deep}]
    for wrong in bodies:
        answer = await gateway.call(
            "POST", f"/api/v1/projects/{PROJECT}/metrics", credential=gateway.auth.new_session(), json=wrong
        )
        fields = answer.json["error"]["details"]["fields"]
        assert 1 <= len(fields) <= 100
        assert max(map(len, fields)) < 500


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "MALFORMED_JSON"),
        (b"{", 400, "MALFORMED_JSON"),
        (b'{"name": NaN}', 400, "MALFORMED_JSON"),
        (b'{"name": Infinity}', 400, "MALFORMED_JSON"),
        (b'{"name": "a", "name": "b"}', 400, "MALFORMED_JSON"),
        (b'{"name": "\xff"}', 400, "MALFORMED_JSON"),
        (b'{"name": "\\ud800"}', 400, "MALFORMED_JSON"),
        (b'{"name": ' + b"9" * 10_000 + b"}", 400, "MALFORMED_JSON"),
        (b"[" * 60_000 + b"]" * 60_000, 400, "MALFORMED_JSON"),
        (b'{"name": "\\ud83d\\ude00\\udc00"}', 400, "MALFORMED_JSON"),
        (b'{"name": "a\\u0000b"}', 422, "VALIDATION_FAILED"),
        (b"[]", 422, "VALIDATION_FAILED"),
        (b'"text"', 422, "VALIDATION_FAILED"),
        (b'{"name": "' + b"x" * (128 << 10) + b'"}', 413, "BODY_TOO_LARGE"),
        (b"[" * 200_000 + b"]" * 200_000, 413, "BODY_TOO_LARGE"),
        (b"x" * ((1 << 20) + 1), 413, "BODY_TOO_LARGE"),
    ],
)
async def test_hostile_bodies_have_their_codes(gateway: Gateway, body: bytes, status: int, code: str) -> None:
    answer = await gateway.call(
        "POST",
        "/api/v1/projects",
        credential=gateway.auth.new_session(),
        data=body,
        headers={"Content-Type": "application/json"},
    )
    assert (answer.status, answer.code) == (status, code)
    assert gateway.auth.seen == []


async def test_definitions_and_identity_providers_may_be_larger_than_other_bodies(gateway: Gateway) -> None:
    gateway.config.answers["CheckMetric"] = definitions_pb2.CheckMetricResponse()
    session, wrong = gateway.auth.new_session(), {"wrong": "x" * (200 << 10)}
    for path, status in (
        (f"/api/v1/projects/{PROJECT}/metrics", 422),
        (f"/api/v1/tenants/{TENANT}/identity-providers", 422),
        ("/api/v1/projects", 413),
    ):
        assert (await gateway.call("POST", path, credential=session, json=wrong)).status == status
        larger = {"wrong": "x" * (300 << 10)}
        assert (await gateway.call("POST", path, credential=session, json=larger)).status == 413


async def test_management_takes_json_only(gateway: Gateway) -> None:
    session = gateway.auth.new_session()
    for headers in ({"Content-Type": "text/plain"}, {"Content-Type": "application/json", "Content-Encoding": "gzip"}):
        answer = await gateway.call("POST", "/api/v1/projects", credential=session, data=b"{}", headers=headers)
        assert (answer.status, answer.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("size", ["0", "501", "-1", "many", "1e2", "٣", ""])
async def test_a_page_has_a_size(gateway: Gateway, size: str) -> None:
    answer = await gateway.call("GET", f"/api/v1/projects?pageSize={size}", credential=gateway.auth.new_session())
    assert (answer.status, answer.code) == (422, "VALIDATION_FAILED")


async def test_a_tenant_is_named_by_its_id(gateway: Gateway) -> None:
    session = gateway.auth.new_session()
    assert (await gateway.call("GET", "/api/v1/projects?tenantId=acme", credential=session)).status == 422
    assert (await gateway.call("GET", "/api/v1/tenants/acme/members", credential=session)).status == 404


async def test_the_settings_of_a_project_are_read_and_replaced(gateway: Gateway) -> None:
    config, session = gateway.config, gateway.auth.new_session()
    decided = definitions_pb2.ProjectSettings(auto_definition=True)
    config.answers["GetProjectSettings"] = definitions_pb2.GetProjectSettingsResponse()
    config.answers["UpdateProjectSettings"] = definitions_pb2.UpdateProjectSettingsResponse(settings=decided)
    path = f"/api/v1/projects/{PROJECT}/settings"
    answered = await gateway.call("GET", path, credential=session)
    assert (answered.status, answered.json) == (200, {"autoDefinition": False})
    answered = await gateway.call("PUT", path, credential=session, json={"autoDefinition": True})
    assert (answered.status, answered.json) == (200, {"autoDefinition": True})
    assert config.requests("UpdateProjectSettings")[0].settings == decided
    for body in ({}, {"autoDefinition": "yes"}, {"autoDefinition": True, "other": 1}):
        answered = await gateway.call("PUT", path, credential=session, json=body)
        assert (answered.status, answered.code) == (422, "VALIDATION_FAILED")
