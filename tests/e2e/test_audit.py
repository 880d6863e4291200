"""The audit log, as a client written from the contract meets it, over auth and config."""

import hashlib
import json
import uuid
from typing import Any

import pytest

from tests.e2e.api import PASSWORD, Project, connected, sign_up
from tests.suite_running import Suite
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)

LINES = {"Accept": "application/x-ndjson"}


async def _exported(project: Project) -> list[dict[str, object]]:
    path = f"/api/v1/tenants/{project.tenant_id}/audit"
    answer = await project.api.call("GET", path, credential=project.token, headers=LINES)
    assert answer.status == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_every_change_and_sign_in_is_in_one_chain_that_anybody_can_check(suite: Suite) -> None:
    async with connected(suite.base_url) as api:
        ada = await sign_up(api)
        await ada.define("orders_total")
        await api.expect(200, "POST", "/api/v1/auth/signin", {"email": ada.email, "password": PASSWORD})
        wrong = await api.call("POST", "/api/v1/auth/signin", {"email": ada.email, "password": "wrong" * 3})

        async def all_there() -> bool:
            return len(await _exported(ada)) == 9

        await eventually(all_there, what="config's entry is sealed")
        *lines, end = await _exported(ada)

    assert wrong.status == 401
    assert {line["entry"]["action"] for line in lines} == {  # type: ignore[index]
        "account.created",
        "tenant.created",
        "project.created",
        "key.created",
        "metric.created",
        "sign_in.succeeded",
        "sign_in.failed",
    }
    before = bytes(32)
    for sequence, line in enumerate(lines, start=1):
        document = json.dumps(line["entry"], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        place = uuid.UUID(ada.tenant_id).bytes + sequence.to_bytes(8, "big")
        before = hashlib.sha256(before + place + document.encode()).digest()
        assert (line["sequence"], line["hash"]) == (sequence, before.hex())
    assert list(end) == ["signedHead", "signedBy"]


async def test_definitions_end_with_their_project_and_the_log_says_so(suite: Suite) -> None:
    async with connected(suite.base_url) as api:
        ada = await sign_up(api)
        await ada.define("orders_total")
        await api.expect(204, "DELETE", f"/api/v1/projects/{ada.id}", credential=ada.token)

        async def told() -> list[Any]:
            entries: list[Any] = [line["entry"] for line in await _exported(ada) if "entry" in line]
            return [entry for entry in entries if entry["action"] == "metric.deleted"]

        [entry] = await eventually(told, within_seconds=90.0, what="config heard of the deletion")
    assert (entry["projectId"], entry["actor"]["id"]) == (ada.id, "project-deletion")


async def test_nobody_reads_another_tenants_log(suite: Suite) -> None:
    async with connected(suite.base_url) as api:
        ada, eve = await sign_up(api), await sign_up(api)
        path = f"/api/v1/tenants/{ada.tenant_id}/audit"
        reader = await ada.create_key("secret", scopes=["audit:read"])
        by_stranger = await api.call("GET", path, credential=eve.token)
        by_other_key = await api.call("GET", path, credential=ada.secret_key)
        by_reader = await api.expect(200, "GET", path, credential=reader["key"])

    assert (by_stranger.status, by_stranger.code) == (404, "NOT_FOUND")
    assert (by_other_key.status, by_other_key.code) == (403, "INSUFFICIENT_SCOPE")
    assert {item["entry"]["projectId"] for item in by_reader["items"]} == {ada.id}
