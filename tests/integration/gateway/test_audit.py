"""The audit log's route: pages for people, lines for machines, and the bytes that were hashed in both."""

import json

import jwt
import pytest

from contracts.pulsegate.auth.v1 import audit_pb2 as pb
from tests.integration.gateway.fakes import PROJECT, TENANT, USER
from tests.integration.gateway.running import Gateway, StartGateway
from tests.waiting import eventually

AUDIT = f"/api/v1/tenants/{TENANT}/audit"
OTHER_TENANT = "0192f0c1-0000-7000-8000-0000000000f1"
LINES = {"Accept": "application/x-ndjson"}
ENTRY = {
    "action": "key.created",
    "actor": {"id": USER, "kind": "user", "name": ""},
    "address": "",
    "at": "2026-01-31T08:15:30.123Z",
    "correlationId": "c-1",
    "details": {"kind": "secret", "scopes": ["query:read"]},
    "id": "0192f0c1-0000-7000-8000-00000000000f",
    "projectId": PROJECT,
    "service": "auth",
    "target": {"id": "0192f0c1-0000-7000-8000-00000000000e", "kind": "key", "name": "Grüße"},
    "tenantId": TENANT,
}
DOCUMENT = json.dumps(ENTRY, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
SEALED = pb.SealedAuditEntry(sequence=7, document=DOCUMENT, previous_hash=bytes(32), hash=b"\1" * 32)


def head(sequence: int = 7, iat: int = 1_700_000_000) -> str:
    """Where the chain ends, as auth signs it at a moment."""
    claims = {"tid": TENANT, "seq": sequence, "hash": "01" * 32, "iat": iat}
    return jwt.encode(claims, "a key for tests that nobody verifies with")


HEAD = head()


def answered(entries: int = 1, **members: str) -> pb.ListAuditEntriesResponse:
    said = {"signed_head": HEAD, "public_jwk_json": '{"kid":"audit-1"}', **members}
    return pb.ListAuditEntriesResponse(entries=[SEALED] * entries, **said)


async def test_a_page_has_entries_in_their_places_and_where_the_chain_ends(gateway: Gateway) -> None:
    gateway.auth.answers["ListAuditEntries"] = answered(next_page_token="7")
    session = gateway.auth.new_session()

    answer = await gateway.call("GET", f"{AUDIT}?after=6&pageSize=1", credential=session)

    assert answer.json == {
        "items": [{"sequence": 7, "previousHash": "00" * 32, "hash": "01" * 32, "entry": ENTRY}],
        "nextPageToken": "7",
        "signedHead": HEAD,
        "signedBy": {"kid": "audit-1"},
    }
    assert DOCUMENT.encode() in answer.body
    (request,) = gateway.auth.requests("ListAuditEntries")
    assert request == pb.ListAuditEntriesRequest(tenant_id=TENANT, after=6, page_size=1)


async def test_a_page_that_the_client_has_is_not_sent_again_until_the_log_has_grown(gateway: Gateway) -> None:
    session = gateway.auth.new_session()
    gateway.auth.answers["ListAuditEntries"] = answered()
    first = await gateway.call("GET", AUDIT, credential=session)
    known = {"If-None-Match": first.headers["ETag"]}
    statuses = []
    for signed_head in (head(iat=1_700_000_001), head(sequence=8, iat=1_700_000_001)):
        gateway.auth.answers["ListAuditEntries"] = answered(signed_head=signed_head)
        statuses.append((await gateway.call("GET", AUDIT, credential=session, headers=known)).status)
    assert statuses == [304, 200]
    gateway.auth.answers["ListAuditEntries"] = answered(signed_head="")
    unsigned = await gateway.call("GET", AUDIT, credential=session, headers=known)
    assert (unsigned.status, unsigned.json["signedHead"]) == (200, "")


@pytest.mark.parametrize(("more", "lines"), [("", 400), ("7", 5200)])
async def test_an_export_has_a_line_an_entry_up_to_a_bound_and_ends_with_the_signed_head(
    gateway: Gateway, more: str, lines: int
) -> None:
    gateway.auth.answers["ListAuditEntries"] = answered(400, next_page_token=more)

    answer = await gateway.call("GET", AUDIT, credential=gateway.auth.new_session(), headers=LINES)

    exported = answer.body.splitlines()
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
    assert len(exported) == lines + 1
    assert json.loads(exported[0])["entry"] == ENTRY
    assert json.loads(exported[-1]) == {"signedHead": HEAD, "signedBy": {"kid": "audit-1"}}
    assert "expensive" in answer.headers["RateLimit-Policy"]


async def test_an_export_of_large_entries_ends_at_a_bound_of_bytes(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.http_api.audit._MOST_EXPORTED_BYTES", 1000)
    gateway.auth.answers["ListAuditEntries"] = answered(2, next_page_token="7")

    answer = await gateway.call("GET", AUDIT, credential=gateway.auth.new_session(), headers=LINES)

    assert len(answer.body.splitlines()) == 2 + 1


async def test_what_clients_do_not_read_of_exports_is_bounded(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together with what is not read of queries, and of one tenant's by its part."""
    monkeypatch.setattr("services.gateway.app._MOST_ANSWER_BYTES", 4 * (15 << 20))
    # More than kernels keep of what was not read.
    large = pb.SealedAuditEntry(sequence=7, document=json.dumps({"details": "x" * (14 << 20)}))
    async with start_gateway() as gateway:
        key, other = (gateway.auth.new_key("secret", scopes=["audit:read"]) for _ in range(2))
        gateway.auth.move(other, OTHER_TENANT)

        async def status(credential: str) -> int:
            return (await gateway.call("GET", AUDIT, credential=credential, headers=LINES)).status

        async def held(least: int, most: int) -> bool:
            return least <= await gateway.shown('pulsegate_gateway_held_bytes{what="answers"}') <= most

        gateway.auth.answers["ListAuditEntries"] = pb.ListAuditEntriesResponse(entries=[large], public_jwk_json="{}")
        async with gateway.not_reading(AUDIT, key, LINES["Accept"]):
            await eventually(lambda: held(14 << 20, 15 << 20), what="an export waits to be read")
            assert [await status(key) for _ in range(3)] == [503] * 3
            gateway.auth.answers["ListAuditEntries"] = answered()
            assert await status(other) == 200
        await eventually(lambda: held(0, 0), what="nothing is held for who has left")
        assert await status(key) == 200


async def test_a_range_that_is_none_is_refused(gateway: Gateway) -> None:
    answer = await gateway.call("GET", f"{AUDIT}?after=-1", credential=gateway.auth.new_session())

    assert (answer.status, set(answer.json["error"]["details"]["fields"])) == (422, {"after"})
