"""The life of API keys, as a client written from the contract meets it."""

import pytest

from tests.e2e.api import connected, sign_up
from tests.suite_running import Suite
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)


@pytest.mark.alone
async def test_a_key_is_rotated_without_a_gap_and_a_leaked_one_is_revoked_within_a_second(suite: Suite) -> None:
    async with connected(suite.base_url) as api:
        ada = await sign_up(api)
        await ada.define("orders_total")
        order = {"name": "orders_total", "value": 1}
        assert (await ada.send(order)).status == 202
        keys = f"/api/v1/projects/{ada.id}/keys"
        path = f"{keys}/{ada.secret_key_id}/rotate"
        new = await api.expect(201, "POST", path, {"graceSeconds": 600}, credential=ada.token)
        both = [(await ada.send(order, key=key)).status for key in (ada.secret_key, new["key"])]

        found = [{"token": new["key"], "type": "pulsegate_secret_key", "url": "https://code.example/a"}]
        answer = await api.call("POST", "/api/v1/leaked-keys", found)

        async def stopped() -> bool:
            return (await ada.send(order, key=new["key"])).status == 401

        await eventually(stopped, within_seconds=1.0, what="the leaked key is refused")
        still = (await ada.send(order)).status
        listed = (await api.expect(200, "GET", keys, credential=ada.token))["items"]

    assert both == [202, 202]
    assert [judged["label"] for judged in answer.json] == ["true_positive"]  # type: ignore[index]
    assert still == 202
    [old, leaked] = [key for key in listed if key["id"] in (ada.secret_key_id, new["id"])]
    assert (old["revokedAt"], leaked["scopes"]) == (None, old["scopes"])
    assert old["expiresAt"] is not None
    assert leaked["revokedAt"] is not None
