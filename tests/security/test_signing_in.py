"""Who signs in learns nothing of accounts that are not theirs, and no door is open to what only looks like its key."""

import asyncio
import math
import time

import pytest
import pytest_asyncio

from tests.e2e.api import Api, Project

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

_PAIRS = 5
#: How often a key is shown in each way; of what a key of the plan may read in an hour.
_TIMES, _READS_AN_HOUR = 20, 100_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser_key(shared_project: Project) -> str:
    await shared_project.define("good_total")
    return str((await shared_project.create_key("publishable", allowedOrigins=["https://shop.example"]))["key"])


async def _seconds(api: Api, email: str) -> float:
    began = time.perf_counter()
    answer = await api.call("POST", "/api/v1/auth/signin", {"email": email, "password": "wrong horse battery"})
    assert (answer.status, answer.code) == (401, "INVALID_CREDENTIALS")
    return time.perf_counter() - began


@pytest.mark.alone
async def test_an_unknown_address_takes_as_long_as_a_wrong_password(
    api_of_the_module: Api, shared_project: Project
) -> None:
    """Noise only adds, so the fastest of each are compared: comparing no password at all would be ten times as fast."""
    took: dict[str, list[float]] = {"unknown@example.com": [], shared_project.email: []}
    for _ in range(_PAIRS):
        for email, seconds in took.items():
            seconds.append(await _seconds(api_of_the_module, email))
    unknown, known = map(min, took.values())
    assert 0.7 < unknown / known < 1.4, took


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://shop.example.evil.test",
        "https://evilshop.example",
        "https://shop.example@evil.test",
        "https://shop.example:444",
        "http://shop.example",
        "https://sub.shop.example",
        "https://shop.example/",
        "https://shop.example\t",
        "",
    ],
)
async def test_an_origin_that_only_looks_like_the_keys_is_refused(
    api_of_the_module: Api, browser_key: str, origin: str
) -> None:
    async def send(origin: str) -> tuple[int, str]:
        headers = {"Origin": origin, "Content-Type": "text/plain"}
        body = b'{"metrics": [{"name": "good_total", "value": 1}]}'
        path = f"/api/v1/metrics?key={browser_key}"
        answer = await api_of_the_module.call("POST", path, data=body, headers=headers)
        return answer.status, answer.code if answer.status >= 400 else ""

    assert await send("https://shop.example") == (202, "")
    # White space around a header's value is none of it.
    expected = (202, "") if origin.endswith("\t") else (403, "ORIGIN_NOT_ALLOWED")
    assert await send(origin) == expected


@pytest.mark.parametrize("path", ["/api/v1/projects", "/api/v1/auth/me", "/prometheus/api/v1/query"])
@pytest.mark.parametrize("origin", ["null", "https://shop.example", "https://console.example.evil.test"])
async def test_no_page_of_another_origin_may_manage(api_of_the_module: Api, path: str, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    preflight = await api_of_the_module.call("OPTIONS", path, headers=asked)
    assert (preflight.status, preflight.headers.get("Access-Control-Allow-Origin")) == (403, None)
    simple = await api_of_the_module.call("GET", path, headers={"Origin": origin})
    assert "Access-Control-Allow-Origin" not in simple.headers
    assert "Access-Control-Allow-Credentials" not in simple.headers


async def test_a_key_counts_towards_one_limit_however_it_is_shown(
    api_of_the_module: Api, shared_project: Project
) -> None:
    key = (await shared_project.create_key("secret", scopes=["ingest:write", "query:read"]))["key"]

    async def left(headers: dict[str, str]) -> int:
        answer = await api_of_the_module.call(
            "GET", "/prometheus/api/v1/query", headers=headers, params={"query": "good_total"}
        )
        assert answer.status == 200, answer.text
        return int(answer.headers["RateLimit"].split("r=")[1].split(";")[0])

    shown: list[dict[str, str]] = [{"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"x-api-KEY": key}]
    began, before = time.monotonic(), await left(shown[0])
    least = min(await asyncio.gather(*(left(headers) for headers in shown * _TIMES)))
    refilled = math.ceil((time.monotonic() - began) * _READS_AN_HOUR / 3600)
    assert before - least <= len(shown) * _TIMES <= before - least + refilled, (before, least, refilled)
    spelt = [key.upper(), key.lower(), f" {key[:20]}%00{key[20:]}", key + "0", key.replace("sk_", "SK_")]
    for other in spelt:
        refused = await api_of_the_module.call("POST", "/api/v1/metrics", {"metrics": []}, headers={"X-API-Key": other})
        assert (refused.status, refused.code) == (401, "INVALID_API_KEY"), other
