"""What every answer has, and what no request may do: headers, errors, CORS."""

import re

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from contracts.pulsegate.auth.v1 import accounts_pb2
from tests.integration.gateway.fakes import PROJECT
from tests.integration.gateway.running import Gateway

CONSOLE = "https://console.example.com"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("GET", "/api/v1/../../etc/passwd", 404, "NOT_FOUND"),
        ("PUT", "/api/v1/projects", 405, "METHOD_NOT_ALLOWED"),
        ("PATCH", "/api/v1/metrics", 405, "METHOD_NOT_ALLOWED"),
        ("OPTIONS", "/api/v1/projects", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/v1/auth/me", 401, "UNAUTHENTICATED"),
    ],
)
async def test_errors_have_one_shape(gateway: Gateway, method: str, path: str, status: int, code: str) -> None:
    answer = await gateway.call(method, path)
    assert (answer.status, answer.code) == (status, code)
    error = answer.json["error"]
    assert set(error) == {"code", "message", "timestamp", "correlationId"}
    assert error["correlationId"] == answer.headers["X-Correlation-Id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", error["timestamp"])
    if status == 405:
        assert answer.headers["Allow"]


async def test_an_unknown_failure_is_bland(gateway: Gateway) -> None:
    gateway.auth.answers["GetMe"] = RuntimeError("password=hunter2 at /srv/auth.py")
    answer = await gateway.call("GET", "/api/v1/auth/me", credential=gateway.auth.new_session())
    assert (answer.status, answer.code) == (500, "INTERNAL")
    assert b"hunter2" not in answer.body
    assert b".py" not in answer.body


async def test_a_failure_of_the_gateway_itself_is_bland(gateway: Gateway) -> None:
    project = accounts_pb2.Project(id=PROJECT, name="canary", created_at=Timestamp(seconds=10**17))
    gateway.auth.answers["GetProject"] = accounts_pb2.GetProjectResponse(project=project)
    session = gateway.auth.new_session()
    answer = await gateway.call("GET", f"/api/v1/projects/{PROJECT}", credential=session)
    assert (answer.status, answer.code) == (500, "INTERNAL")
    assert b"canary" not in answer.body
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("offered", "kept"),
    [("trace-1.2_3", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("é", False), ("", False)],
)
async def test_a_well_formed_correlation_id_is_kept(gateway: Gateway, offered: str, kept: bool) -> None:
    answer = await gateway.call("GET", "/nowhere", headers={"X-Correlation-Id": offered})
    assert (answer.headers["X-Correlation-Id"] == offered) is kept
    assert answer.headers["X-Correlation-Id"]


@pytest.mark.parametrize("path", ["/", "/nowhere", "/health/live", "/.well-known/jwks.json"])
async def test_every_answer_is_secured(gateway: Gateway, path: str) -> None:
    headers = (await gateway.call("GET", path)).headers
    assert headers["Strict-Transport-Security"].startswith("max-age=31536000")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Permissions-Policy"]
    assert headers["Server"] == "pulsegate"


async def test_the_first_page_needs_nothing_from_elsewhere(gateway: Gateway) -> None:
    answer = await gateway.call("GET", "/")
    page = answer.body.decode()
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "https://metrics.example.com/api/v1/auth/signup" in page
    assert "%ENDPOINT%" not in page
    assert re.findall(r"(?:src|href)=\"(?!/)", page.replace("&lt;script async src=", "")) == []
    assert "script" not in re.findall(r"<(\w+)", page)
    assert "'sha256-" in answer.headers["Content-Security-Policy"]


async def test_the_public_keys_are_published(gateway: Gateway) -> None:
    answer = await gateway.call("GET", "/.well-known/jwks.json")
    assert answer.json["keys"][0]["kty"] == "OKP"
    async with gateway.servers["auth"].away():
        assert (await gateway.call("GET", "/.well-known/jwks.json")).json == answer.json


async def preflight(gateway: Gateway, path: str, origin: str, method: str = "POST") -> tuple[int, dict[str, str]]:
    answer = await gateway.call("OPTIONS", path, headers={"Origin": origin, "Access-Control-Request-Method": method})
    return answer.status, {name: value for name, value in answer.headers.items() if name.startswith("Access-")}


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/v1/metrics", "POST"),
        ("/v1/metrics", "POST"),
        ("/api/v1/statsd", "POST"),
        ("/api/v1/write", "POST"),
        ("/metrics/job/nightly", "DELETE, POST, PUT"),
    ],
)
async def test_pages_of_any_origin_may_ask_to_send_metrics(gateway: Gateway, path: str, methods: str) -> None:
    status, headers = await preflight(gateway, path, "https://anything.example")
    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "X-API-Key" in headers["Access-Control-Allow-Headers"]
    assert headers["Access-Control-Allow-Methods"] == methods


@pytest.mark.parametrize(
    "origin",
    ["https://evil.test", "null", "https://console.example.com.evil.test", "http://console.example.com", "https://x"],
)
async def test_other_pages_may_not_ask_to_manage(gateway: Gateway, origin: str) -> None:
    status, headers = await preflight(gateway, "/api/v1/projects", origin)
    assert status == 403
    assert headers == {}
    answer = await gateway.call("GET", "/api/v1/projects", headers={"Origin": origin})
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_the_consoles_page_may_manage(gateway: Gateway) -> None:
    status, headers = await preflight(gateway, f"/api/v1/projects/{PROJECT}/keys", CONSOLE)
    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == CONSOLE
    assert "Access-Control-Allow-Credentials" not in headers
    answer = await gateway.call("GET", "/api/v1/projects", headers={"Origin": CONSOLE})
    assert answer.headers["Access-Control-Allow-Origin"] == CONSOLE
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    assert "Origin" in answer.headers["Vary"]


async def test_a_preflight_of_nothing_is_not_found(gateway: Gateway) -> None:
    assert (await preflight(gateway, "/nowhere", CONSOLE))[0] == 404
