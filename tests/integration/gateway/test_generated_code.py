"""Generated clients: what is asked of codegen, and how the answer may be cached."""

import base64
import hashlib

import pytest

from chassis.errors import NotFound
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.codegen.v1 import codegen_pb2
from tests.integration.gateway.fakes import OTHER_PROJECT, PROJECT
from tests.integration.gateway.running import Gateway
from tests.waiting import eventually

CONTENT = b"var Pulsegate = {};\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = f"/api/v1/projects/{PROJECT}/client"
KEY_ID = "0192f0c1-0000-7000-8000-00000000000f"


@pytest.fixture
def generating(gateway: Gateway) -> Gateway:
    gateway.codegen.answers["GenerateClient"] = codegen_pb2.GenerateClientResponse(
        content=CONTENT,
        content_type="text/javascript; charset=utf-8",
        file_name="pulsegate-metrics.mjs",
        sha256=SHA256,
    )
    return gateway


async def test_a_client_is_downloaded_with_a_key_embedded(generating: Gateway) -> None:
    generating.auth.answers["GetPublishableKey"] = accounts_pb2.GetPublishableKeyResponse(token="pk_public")
    answer = await generating.call(
        "GET",
        f"{PATH}?language=javascript&keyId={KEY_ID}&minify=false",
        credential=generating.auth.new_session(),
    )
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="pulsegate-metrics.mjs"'
    assert answer.headers["ETag"] == f'"{SHA256}"'
    (asked,) = generating.codegen.requests("GenerateClient")
    assert asked == codegen_pb2.GenerateClientRequest(
        language=codegen_pb2.LANGUAGE_JAVASCRIPT,
        endpoint="https://metrics.example.com",
        publishable_key="pk_public",
        minify=False,
    )
    assert generating.auth.requests("GetPublishableKey")[0].key_id == KEY_ID


async def test_what_the_client_has_is_not_sent_again(generating: Gateway) -> None:
    answer = await generating.call(
        "GET",
        f"{PATH}?language=python",
        credential=generating.auth.new_session(),
        headers={"If-None-Match": f'"other", W/"{SHA256}"'},
    )
    assert (answer.status, answer.body) == (304, b"")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 422),
        ("?language=cobol", 422),
        ("?language=go", 422),
        ("?language=python&minify=maybe", 422),
        ("?language=python&keyId=no-id", 404),
    ],
)
async def test_options_that_make_no_sense(generating: Gateway, query: str, status: int) -> None:
    answer = await generating.call("GET", PATH + query, credential=generating.auth.new_session())
    assert answer.status == status
    assert generating.codegen.seen == []


async def test_a_secret_key_is_never_embedded(generating: Gateway) -> None:
    generating.auth.answers["GetPublishableKey"] = NotFound("There is no such key.")
    answer = await generating.call(
        "GET", f"{PATH}?language=python&keyId={KEY_ID}", credential=generating.auth.new_session()
    )
    assert answer.status == 404


async def test_another_projects_client_is_not_found(generating: Gateway) -> None:
    path = f"/api/v1/projects/{OTHER_PROJECT}/client?language=python"
    assert (await generating.call("GET", path, credential=generating.auth.new_session())).status == 404


async def test_a_page_loads_the_newest_script_of_its_key(generating: Gateway) -> None:
    key = generating.auth.new_key(origins=("https://shop.example",))
    answer = await generating.call("GET", f"/sdk/v1/{key}.js")
    integrity = base64.b64encode(hashlib.sha384(CONTENT).digest()).decode()
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.headers["Cache-Control"] == "public, max-age=300, stale-while-revalidate=86400, stale-if-error=604800"
    assert answer.headers["ETag"] == f'"{SHA256}"'
    assert answer.headers["X-Content-Integrity"] == f"sha384-{integrity}"
    assert answer.headers["Link"] == f'</sdk/v1/{key}.{SHA256}.js>; rel="canonical"'
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    (asked,) = generating.codegen.requests("GenerateClient")
    assert (asked.publishable_key, asked.minify) == (key, True)
    assert asked.packaging == codegen_pb2.PACKAGING_SCRIPT
    principal = generating.codegen.seen[0].principal
    assert principal is not None
    assert principal.project_id == PROJECT


async def test_a_pinned_script_stays_for_ever(generating: Gateway) -> None:
    key = generating.auth.new_key()
    generating.codegen.answers["GetArtifact"] = codegen_pb2.GetArtifactResponse(
        content=CONTENT, content_type="text/javascript"
    )
    answer = await generating.call("GET", f"/sdk/v1/{key}.{SHA256}.js")
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert generating.codegen.requests("GetArtifact")[0].sha256 == SHA256


async def test_who_has_a_pinned_script_is_told_so_while_the_key_is_good(generating: Gateway) -> None:
    key, known = generating.auth.new_key(), {"If-None-Match": f'"{SHA256}"'}
    for said in (codegen_pb2.GetArtifactResponse(content=CONTENT), NotFound("No such client.")):
        generating.codegen.answers["GetArtifact"] = said
        answer = await generating.call("GET", f"/sdk/v1/{key}.{SHA256}.js", headers=known)
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", known["If-None-Match"])
    generating.auth.revoke(key)

    async def is_refused() -> bool:
        return (await generating.call("GET", f"/sdk/v1/{key}.{SHA256}.js", headers=known)).status == 401

    await eventually(is_refused, what="the key is refused")


async def test_a_client_in_another_language_is_no_script(generating: Gateway) -> None:
    key = generating.auth.new_key()
    generating.codegen.answers["GetArtifact"] = codegen_pb2.GetArtifactResponse(
        content=CONTENT, content_type="text/x-python; charset=utf-8"
    )
    answer = await generating.call("GET", f"/sdk/v1/{key}.{SHA256}.js")
    assert (answer.status, answer.code) == (404, "NOT_FOUND")


async def test_a_script_that_never_was_is_not_found(generating: Gateway) -> None:
    key = generating.auth.new_key()
    generating.codegen.answers["GetArtifact"] = NotFound("Never generated.")
    assert (await generating.call("GET", f"/sdk/v1/{key}.{SHA256}.js")).status == 404
    assert (await generating.call("GET", f"/sdk/v1/{key}.short.js")).status == 404


@pytest.mark.parametrize("kind", ["secret", "typing error", "revoked"])
async def test_a_script_needs_a_publishable_key(generating: Gateway, kind: str) -> None:
    key = generating.auth.new_key("secret" if kind == "secret" else "publishable")
    if kind == "revoked":
        generating.auth.revoke(key)
    if kind == "typing error":
        key = key[:-1] + ("a" if key[-1] != "a" else "b")
    answer = await generating.call("GET", f"/sdk/v1/{key}.js")
    assert (answer.status, answer.code) == (401, "INVALID_API_KEY")
    assert generating.codegen.seen == []


async def test_a_key_needs_the_scope_to_read_definitions(generating: Gateway) -> None:
    key = generating.auth.new_key("secret", scopes=["ingest:write"])
    answer = await generating.call("GET", f"{PATH}?language=python", credential=key)
    assert (answer.status, answer.code) == (403, "INSUFFICIENT_SCOPE")
