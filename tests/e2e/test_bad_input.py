"""Bad input gets the code that the contract names, and the rest of the batch is taken."""

import asyncio
import gzip
import json
from typing import Any

import pytest
import zstandard

from chassis.ids import uuid7
from tests.e2e.api import Api, Project, sign_up

pytestmark = pytest.mark.timeout(120)

GOOD = {"name": "good_total", "value": 1}


@pytest.fixture
async def defined(project: Project) -> Project:
    await project.define("good_total")
    await project.define(
        "typed_total", labels=[{"name": "plan", "required": True, "values": ["free", "pro"]}, {"name": "note"}]
    )
    await project.define("level", "gauge")
    return project


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"name": "nowhere_total", "value": 1}, "METRIC_NOT_DEFINED"),
        ({"name": "good_total"}, "METRIC_MALFORMED"),
        ({"name": "good_total", "value": "many"}, "METRIC_MALFORMED"),
        ({"name": "good_total", "value": True}, "METRIC_MALFORMED"),
        ({"name": "good_total", "value": 1, "labels": ["plan"]}, "METRIC_MALFORMED"),
        ("good_total", "METRIC_MALFORMED"),
        ({"name": "good_total", "value": 1, "labels": {"plan": "\ud83d"}}, "METRIC_MALFORMED"),
        ({"name": "good_total", "value": [1, 2]}, "METRIC_TYPE_MISMATCH"),
        ({"name": "good_total", "value": ["NaN"]}, "METRIC_TYPE_MISMATCH"),
        ({"name": "good_total", "value": "NaN"}, "VALUE_NOT_FINITE"),
        ({"name": "level", "value": "-Infinity"}, "VALUE_NOT_FINITE"),
        ({"name": "good_total", "value": -1}, "VALUE_NEGATIVE"),
        ({"name": "typed_total", "value": 1}, "LABEL_MISSING"),
        ({"name": "typed_total", "value": 1, "labels": {"plan": "pro", "colour": "red"}}, "LABEL_UNKNOWN"),
        ({"name": "typed_total", "value": 1, "labels": {"plan": "team"}}, "LABEL_VALUE_NOT_ALLOWED"),
        (
            {"name": "typed_total", "value": 1, "labels": {"plan": "pro", "note": "__other__"}},
            "LABEL_VALUE_NOT_ALLOWED",
        ),
        ({"name": "typed_total", "value": 1, "labels": {"plan": "pro", "note": "x" * 201}}, "LABEL_VALUE_TOO_LONG"),
        ({"name": "level", "value": 1, "timestamp": 1}, "TIMESTAMP_OUT_OF_RANGE"),
    ],
)
async def test_one_bad_metric_costs_only_itself(defined: Project, bad: Any, code: str) -> None:
    answer = await defined.send(GOOD, bad, GOOD)
    assert answer.status == 202, answer.text
    assert answer.json["accepted"] == 2
    (rejection,) = answer.json["rejected"]
    assert (rejection["index"], rejection["code"]) == (1, code)
    assert rejection["message"]
    await defined.shows("good_total", 2)

    alone = await defined.send(bad)
    assert (alone.status, alone.code) == (422, "BATCH_REJECTED")
    assert alone.json["error"]["details"]["accepted"] == 0
    assert alone.json["error"]["details"]["rejected"][0]["code"] == code


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "MALFORMED_JSON"),
        (b"{", 400, "MALFORMED_JSON"),
        (b'{"metrics": [{"name": "good_total", "value": NaN}]}', 400, "MALFORMED_JSON"),
        (b'{"metrics": [{"name": "good_total", "value": Infinity}]}', 400, "MALFORMED_JSON"),
        (b'{"metrics": [{"name": "good\xff", "value": 1}]}', 400, "MALFORMED_JSON"),
        (b'{"metrics": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", 400, "MALFORMED_JSON"),
        (b'{"metrics": []}', 422, "BATCH_EMPTY"),
        (json.dumps({"metrics": [GOOD] * 101}).encode(), 422, "BATCH_TOO_LARGE"),
        (b'{"metrics": 5}', 422, "VALIDATION_FAILED"),
        (json.dumps({"metrics": [GOOD], "producer": "me", "sequence": 1}).encode(), 422, "VALIDATION_FAILED"),
        (json.dumps({"metrics": [GOOD], "producer": str(uuid7())}).encode(), 422, "VALIDATION_FAILED"),
        (json.dumps({"metrics": [GOOD], "producer": str(uuid7()), "sequence": 0}).encode(), 422, "VALIDATION_FAILED"),
    ],
)
async def test_a_bad_batch_is_refused_whole(defined: Project, body: bytes, status: int, code: str) -> None:
    answer = await defined.api.call("POST", "/api/v1/metrics", data=body, credential=defined.secret_key)
    assert (answer.status, answer.code) == (status, code), answer.text
    assert answer.json["error"]["correlationId"] == answer.headers["X-Correlation-Id"]


async def test_a_number_too_large_for_a_double_is_not_finite(defined: Project) -> None:
    body = b'{"metrics": [{"name": "good_total", "value": 1e999}, {"name": "good_total", "value": 1}]}'
    answer = await defined.api.call("POST", "/api/v1/metrics", data=body, credential=defined.secret_key)
    assert answer.status == 202, answer.text
    assert [rejection["code"] for rejection in answer.json["rejected"]] == ["VALUE_NOT_FINITE"]


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
async def test_compressed_bodies_are_taken_and_bombs_are_not(defined: Project, encoding: str, compress: Any) -> None:
    async def post(body: bytes) -> Any:
        headers = {"Content-Encoding": encoding}
        return await defined.api.call(
            "POST", "/api/v1/metrics", data=body, credential=defined.secret_key, headers=headers
        )

    taken = await post(compress(json.dumps({"metrics": [GOOD]}).encode()))
    assert taken.status == 202, taken.text
    bomb = await post(compress(b'{"metrics": [' + b" " * (200 << 20) + b"]}"))
    assert (bomb.status, bomb.code) == (413, "BODY_TOO_LARGE")
    broken = await post(b"neither one nor the other")
    assert (broken.status, broken.code) == (400, "MALFORMED_REQUEST")
    cut = await post(compress(json.dumps({"metrics": [GOOD] * 50}).encode())[:-9])
    assert (cut.status, cut.code) == (400, "MALFORMED_REQUEST")
    await defined.shows("good_total", 1)


async def test_oversized_bodies_and_foreign_encodings_are_refused(defined: Project) -> None:
    large = await defined.api.call("POST", "/api/v1/metrics", data=b" " * (2 << 20), credential=defined.secret_key)
    assert (large.status, large.code) == (413, "BODY_TOO_LARGE")
    for headers in ({"Content-Encoding": "br"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        answer = await defined.api.call(
            "POST", "/api/v1/metrics", data=b"{}", credential=defined.secret_key, headers=headers
        )
        assert (answer.status, answer.code) == (415, "UNSUPPORTED_MEDIA_TYPE"), headers


@pytest.mark.parametrize(
    ("credential", "code"),
    [
        ("", "UNAUTHENTICATED"),
        ("sk_" + "x" * 40, "INVALID_API_KEY"),
        ("nonsense", "UNAUTHENTICATED"),
    ],
)
async def test_ingestion_needs_a_key(defined: Project, credential: str, code: str) -> None:
    answer = await defined.api.call("POST", "/api/v1/metrics", {"metrics": [GOOD]}, credential=credential)
    assert (answer.status, answer.code) == (401, code)


async def test_ingestion_takes_no_access_token_and_no_key_without_the_scope(defined: Project) -> None:
    person = await defined.api.call("POST", "/api/v1/metrics", {"metrics": [GOOD]}, credential=defined.token)
    assert person.status == 401
    reader = await defined.create_key("secret", scopes=["query:read"])
    answer = await defined.send(GOOD, key=reader["key"])
    assert (answer.status, answer.code) == (403, "INSUFFICIENT_SCOPE")


async def test_a_publishable_key_works_from_its_origins_alone(defined: Project) -> None:
    key = (await defined.create_key("publishable", allowedOrigins=["https://shop.example.com"]))["key"]
    for origin, status in (
        ("https://shop.example.com", 202),
        ("https://shop.example.com.evil.test", 403),
        ("null", 403),
        (None, 403),
    ):
        answer = await defined.api.call(
            "POST",
            f"/api/v1/metrics?key={key}",
            data=json.dumps({"metrics": [GOOD]}).encode(),
            headers={"Content-Type": "text/plain", **({"Origin": origin} if origin else {})},
        )
        assert answer.status == status, f"{origin}: {answer.text}"
        if status == 403:
            assert answer.code == "ORIGIN_NOT_ALLOWED"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"name": "no-dashes", "type": "counter", "help": "x"}, "name"),
        ({"name": "orders", "type": "counter", "help": "x"}, "name"),
        ({"name": "wait_milliseconds", "type": "gauge", "help": "x"}, "name"),
        ({"name": "x_total", "type": "meter", "help": "x"}, "type"),
        ({"name": "x_total", "type": "counter", "help": "x", "colour": "red"}, "colour"),
        ({"name": "x_total", "type": "counter", "help": "x", "labels": [{"name": "le"}]}, "labels[0].name"),
        ({"name": "x", "type": "histogram", "help": "x", "buckets": [2, 1]}, "buckets"),
        ({"name": "x_total", "type": "counter", "help": "x", "gaugeMerge": "max"}, "gaugeMerge"),
    ],
)
async def test_a_bad_definition_is_told_what_is_wrong(project: Project, spec: dict[str, Any], field: str) -> None:
    answer = await project.api.call("POST", f"/api/v1/projects/{project.id}/metrics", spec, credential=project.token)
    assert (answer.status, answer.code) == (422, "VALIDATION_FAILED"), answer.text
    assert any(name.startswith(field) for name in answer.json["error"]["details"]["fields"]), answer.text


async def test_unknown_paths_and_methods_have_the_one_error_shape(api: Api) -> None:
    absent = await api.call("GET", "/api/v1/nothing")
    assert (absent.status, absent.code) == (404, "NOT_FOUND")
    method = await api.call("DELETE", "/api/v1/metrics")
    assert (method.status, method.code) == (405, "METHOD_NOT_ALLOWED")
    echoed = await api.call("GET", "/api/v1/nothing", headers={"X-Correlation-Id": "my-trace.1"})
    assert echoed.headers["X-Correlation-Id"] == "my-trace.1"
    assert echoed.json["error"]["correlationId"] == "my-trace.1"
    forged = await api.call("GET", "/api/v1/nothing", headers={"X-Correlation-Id": "a b;c"})
    assert forged.headers["X-Correlation-Id"] != "a b;c"


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
async def test_an_expiry_that_no_clock_shows_is_refused(project: Project, moment: str) -> None:
    body = {"name": "k", "kind": "secret", "scopes": ["ingest:write"], "expiresAt": moment}
    answer = await project.api.call("POST", f"/api/v1/projects/{project.id}/keys", body, credential=project.token)
    assert (answer.status, answer.code) == (422, "VALIDATION_FAILED")
    assert set(answer.json["error"]["details"]["fields"]) == {"expiresAt"}


async def test_the_named_project_must_be_the_keys_own_and_be_named_once(defined: Project) -> None:
    other = await sign_up(defined.api)
    for project_id, status in ((other.id, 404), (defined.id, 202), ("", 400)):
        answer = await defined.api.call(
            "POST", f"/api/v1/metrics?projectId={project_id}", {"metrics": [GOOD]}, credential=defined.secret_key
        )
        assert answer.status == status, answer.text
    empty = await defined.api.call("GET", "/prometheus/api/v1/query?query=1&projectId=", credential=defined.token)
    assert empty.status == 400


async def _raw(api: Api, request: bytes) -> bytes:
    """The answer to bytes that a well-behaved client cannot send."""
    host, _, port = api.base_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 15)
    writer.close()
    return answer


async def test_odd_headers_get_ordinary_answers(api: Api) -> None:
    origin = await _raw(
        api,
        b"OPTIONS /api/v1/projects HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Access-Control-Request-Method: GET\r\nOrigin: \xff\r\n\r\n",
    )
    assert origin.startswith(b"HTTP/1.1 403 ")
    assert b"ORIGIN_NOT_ALLOWED" in origin
    assert b"Strict-Transport-Security" in origin
    expect = await _raw(
        api, b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: the unexpected\r\n\r\n"
    )
    assert expect.startswith(b"HTTP/1.1 200 ")
    assert b"X-Correlation-Id" in expect
