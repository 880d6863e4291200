"""Which credential opens what: the rules of the public contract."""

import asyncio

import pytest

from contracts.pulsegate.auth.v1 import accounts_pb2
from tests.integration.gateway.fakes import OTHER_PROJECT, PROJECT
from tests.integration.gateway.running import Gateway


@pytest.fixture
def listing(gateway: Gateway) -> Gateway:
    gateway.auth.answers["ListKeys"] = accounts_pb2.ListKeysResponse()
    return gateway


KEYS = f"/api/v1/projects/{PROJECT}/keys"


async def test_a_call_without_a_credential_is_refused(listing: Gateway) -> None:
    answer = await listing.call("GET", KEYS)
    assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_person_and_a_secret_key_reach_the_project(listing: Gateway) -> None:
    secret = listing.auth.new_key("secret", scopes=["config:read"])
    assert (await listing.call("GET", KEYS, credential=listing.auth.new_session())).status == 200
    assert (await listing.call("GET", KEYS, credential=secret)).status == 200
    assert (await listing.call("GET", KEYS, headers={"Authorization": f"Bearer {secret}"})).status == 200
    person, key, _ = (call.principal for call in listing.auth.seen)
    assert person is not None
    assert (person.kind, person.project_id) == ("user", PROJECT)
    assert key is not None
    assert key.kind == "secret"


async def test_a_key_reaches_no_other_project(listing: Gateway) -> None:
    secret = listing.auth.new_key("secret", scopes=["config:read"])
    answer = await listing.call("GET", f"/api/v1/projects/{OTHER_PROJECT}/keys", credential=secret)
    assert (answer.status, answer.code) == (404, "NOT_FOUND")
    assert listing.auth.seen == []


async def test_a_person_does_not_see_another_tenants_project(listing: Gateway) -> None:
    session = listing.auth.new_session()
    answer = await listing.call("GET", f"/api/v1/projects/{OTHER_PROJECT}/keys", credential=session)
    assert (answer.status, answer.code) == (404, "NOT_FOUND")


async def test_a_path_that_cannot_name_a_project_is_not_found(listing: Gateway) -> None:
    answer = await listing.call("GET", "/api/v1/projects/%2e%2e/keys", credential=listing.auth.new_session())
    assert answer.status == 404


@pytest.mark.parametrize(
    ("headers", "query", "status", "code"),
    [
        ({"X-API-Key": "pk_typingerror"}, "", 401, "INVALID_API_KEY"),
        ({"X-API-Key": "{session}"}, "", 401, "INVALID_API_KEY"),
        ({"X-API-Key": "{publishable} "}, "", 202, ""),  # HTTP strips the space
        ({"X-API-Key": "{unknown}"}, "", 401, "INVALID_API_KEY"),
        ({"Authorization": "Bearer {publishable}"}, "", 401, "INVALID_API_KEY"),
        ({"Authorization": "Basic {secret}"}, "", 401, "UNAUTHENTICATED"),
        ({"Authorization": "Bearer "}, "", 401, "UNAUTHENTICATED"),
        ({"Authorization": "Bearer sk_typingerror"}, "", 401, "INVALID_API_KEY"),
        ({"Authorization": "bearer {secret}"}, "", 202, ""),
        ({}, "?key={secret}", 401, "INVALID_API_KEY"),
        ({}, "?key={publishable}", 202, ""),
        ({}, "?key={publishable}&key={publishable}", 400, "MALFORMED_REQUEST"),
        ({"X-API-Key": "{publishable}", "Authorization": "Bearer {secret}"}, "", 400, "MALFORMED_REQUEST"),
        ({"Authorization": "Bearer {session}"}, "", 401, "UNAUTHENTICATED"),
        ({"Authorization": "Bearer {reader}"}, "", 403, "INSUFFICIENT_SCOPE"),
    ],
)
async def test_ingestion_takes_keys_in_their_places_only(
    gateway: Gateway, headers: dict[str, str], query: str, status: int, code: str
) -> None:
    auth = gateway.auth
    credentials = {
        "publishable": auth.new_key(),
        "secret": auth.new_key("secret"),
        "reader": auth.new_key("secret", scopes=["query:read"]),
        "session": auth.new_session(),
        "unknown": auth.new_key(),
    }
    auth.revoke(credentials["unknown"])
    answer = await gateway.call(
        "POST",
        "/api/v1/metrics" + query.format(**credentials),
        headers={name: value.format(**credentials) for name, value in headers.items()},
        json={"metrics": []},
    )
    assert answer.status == status
    assert not code or answer.code == code


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        (("https://shop.example",), "https://shop.example", 202),
        (("https://shop.example",), "HTTPS://SHOP.example", 202),
        (("https://shop.example",), None, 403),
        (("https://shop.example",), "null", 403),
        (("https://shop.example",), "https://shop.example.evil.test", 403),
        (("https://shop.example",), "https://evilshop.example", 403),
        (("https://shop.example",), "http://shop.example", 403),
        (("https://shop.example",), "https://shop.example:8443", 403),
        (("*",), "https://anything.example", 202),
        (("*",), None, 202),
    ],
)
async def test_a_publishable_key_works_from_its_origins_only(
    gateway: Gateway, allowed: tuple[str, ...], origin: str | None, status: int
) -> None:
    key = gateway.auth.new_key(origins=allowed)
    headers = {} if origin is None else {"Origin": origin}
    answer = await gateway.call("POST", "/api/v1/metrics", credential=key, json={"metrics": []}, headers=headers)
    assert answer.status == status
    if status == 403:
        assert answer.code == "ORIGIN_NOT_ALLOWED"
    if origin is not None:  # the page may read the answer, also a refusal
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_a_secret_key_is_not_bound_to_origins(gateway: Gateway) -> None:
    answer = await gateway.ingest_one(gateway.auth.new_key("secret"), Origin="https://anything.example")
    assert answer.status == 202


async def test_a_browser_key_reads_nothing(gateway: Gateway) -> None:
    answer = await gateway.call("GET", "/prometheus/api/v1/query?query=up", credential=gateway.auth.new_key())
    assert answer.status == 403
    assert answer.json["status"] == "error"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        (f"&projectId={PROJECT}&projectId={PROJECT}", 400),
        (f"&projectId={OTHER_PROJECT}", 404),
        ("&projectId=no-id", 404),
        (f"&projectId={PROJECT}", 503),  # no Prometheus here: as far as it gets
    ],
)
async def test_a_person_names_the_project_of_a_query_exactly_once(gateway: Gateway, query: str, status: int) -> None:
    session = gateway.auth.new_session()
    answer = await gateway.call("GET", f"/prometheus/api/v1/query?query=up{query}", credential=session)
    assert answer.status == status
    assert answer.json["status"] == "error"


async def test_a_key_needs_to_name_no_project_but_no_other(gateway: Gateway) -> None:
    key = gateway.auth.new_key("secret", scopes=["query:read"])
    query = "/prometheus/api/v1/query?query=up"
    assert (await gateway.call("GET", query, credential=key)).status == 503
    assert (await gateway.call("GET", f"{query}&projectId={PROJECT}", credential=key)).status == 503
    assert (await gateway.call("GET", f"{query}&projectId={OTHER_PROJECT}", credential=key)).status == 404


@pytest.mark.parametrize(
    ("path", "kind", "scopes"),
    [
        ("/api/v1/projects", "publishable", ["ingest:write"]),
        ("/api/v1/projects", "secret", ["config:write"]),
        (f"/api/v1/projects/{PROJECT}/metrics", "publishable", ["ingest:write"]),
        (f"/api/v1/projects/{PROJECT}/metrics", "secret", ["config:read"]),
    ],
)
async def test_a_key_that_may_not_is_told_before_its_body_is_read(
    gateway: Gateway, path: str, kind: str, scopes: list[str]
) -> None:
    key = gateway.auth.new_key(kind, scopes=scopes)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
    try:
        writer.write(f"{head}Content-Length: 1000\r\n\r\n".encode())
        async with asyncio.timeout(5):
            answered = await reader.readuntil(b"\r\n\r\n")
        assert answered.startswith(b"HTTP/1.1 403 ")
    finally:
        writer.close()
