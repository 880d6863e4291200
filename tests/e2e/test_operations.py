"""What an operator meets: health that tells the truth, refusals that pass, configurations that are wrong."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import pytest

from tests.e2e.api import Api, Project, connected, sign_up
from tests.suite_running import Suite
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

#: Where a test is about limits.
_PER_MINUTE = 5
_PROCESSES = {
    "gateway": ["services.gateway"],
    "auth": ["services.auth"],
    "config": ["services.config"],
    "codegen": ["services.codegen"],
    "receiver": ["services.ingest", "receiver"],
    "aggregator": ["services.ingest", "aggregator"],
}


async def _readiness(suite: Suite, process: str) -> tuple[int, dict[str, Any]]:
    address = f"http://127.0.0.1:{suite.ports.operations(process)}/health/ready"
    async with aiohttp.ClientSession() as session, session.get(address) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("process", _PROCESSES)
async def test_every_process_shows_health_and_metrics(suite: Suite, process: str) -> None:
    suite.wait_ready()
    base = f"http://127.0.0.1:{suite.ports.operations(process)}"
    async with aiohttp.ClientSession() as session:
        for path in ("/health/live", "/health/ready", "/health/startup", "/metrics"):
            async with session.get(base + path) as response:
                assert response.status == 200, path
                text = await response.text()
    assert "pulsegate_dependency_up" in text

    async def whole() -> dict[str, Any]:
        _, readiness = await _readiness(suite, process)
        return readiness if readiness["status"] == "ready" else {}

    readiness = await eventually(whole, within_seconds=60, what=f"{process} misses nothing")
    for check in readiness["checks"].values():
        assert {"status", "hard", "latencyMs"} <= check.keys()


@pytest.mark.parametrize(
    ("away", "process", "check", "status", "code"),
    [
        ("postgres", "config", "postgres", "unready", 503),
        ("postgres", "aggregator", "postgres", "unready", 503),
        ("nats", "receiver", "log", "unready", 503),
        ("valkey", "gateway", "redis", "degraded", 200),
        ("config", "gateway", "config", "degraded", 200),
        ("config", "receiver", "config", "degraded", 200),
    ],
)
async def test_readiness_names_what_is_away_and_recovers(
    suite: Suite, away: str, process: str, check: str, status: str, code: int
) -> None:
    suite.wait_ready()

    async def says(wanted: str) -> bool:
        answered, readiness = await _readiness(suite, process)
        if wanted == status:
            return (answered, readiness["status"], readiness["checks"][check]["status"]) == (code, status, "down")
        return (answered, readiness["status"]) == (200, "ready")

    pid = suite.pid(process)
    with suite.paused(away):
        await eventually(lambda: says(status), within_seconds=60, what=f"{process} is {status}")
    await eventually(lambda: says("ready"), within_seconds=60, what=f"{process} is ready again")
    assert suite.pid(process) == pid, "it recovered without a restart"


async def test_calls_answer_503_while_their_service_is_away_and_others_go_on(suite: Suite, project: Project) -> None:
    await project.define("going_on_total")
    assert (await project.send({"name": "going_on_total", "value": 1})).status == 202
    metrics = f"/api/v1/projects/{project.id}/metrics"
    with suite.paused("config"):
        late = await asyncio.gather(*(project.api.call("GET", metrics, credential=project.token) for _ in range(12)))
        assert {answer.status for answer in late} <= {503, 504}

        async def refuses_at_once() -> bool:
            began = time.monotonic()
            refused = await project.api.call("GET", metrics, credential=project.token)
            assert refused.status == 504 or (refused.code == "SERVICE_UNAVAILABLE" and refused.headers["Retry-After"])
            return refused.status == 503 and time.monotonic() - began < 1

        await eventually(refuses_at_once, within_seconds=60, what="the breaker is open, but for a trial now and then")
        taken = await project.send({"name": "going_on_total", "value": 1})
        assert taken.status == 202, "a known definition needs no config"
        held = await project.send({"name": "going_on_total", "value": 1}, {"name": "unheard_total", "value": 1})
        assert held.status in (503, 504), "nothing is rejected that could not be confirmed"

    async def answers() -> bool:
        return (await project.api.call("GET", metrics, credential=project.token)).status == 200

    await eventually(answers, within_seconds=60, what="definitions are answered again")
    await project.shows("going_on_total", 2)


async def test_ingestion_answers_503_while_the_log_is_away_and_loses_nothing(suite: Suite, project: Project) -> None:
    await project.define("held_total")
    with suite.paused("nats"):
        answer = await project.send({"name": "held_total", "value": 1}, producer=project.id, sequence=1)
        assert answer.status in (503, 504), answer.text
        if answer.status == 503:
            assert float(answer.headers["Retry-After"]) > 0

    async def taken() -> bool:
        again = await project.send({"name": "held_total", "value": 1}, producer=project.id, sequence=1)
        return again.status == 202

    await eventually(taken, within_seconds=60, what="the batch is taken")
    await project.shows("held_total", 1)


@pytest.mark.parametrize("process", _PROCESSES)
async def test_a_wrong_configuration_is_named_whole_and_ends_the_process(process: str) -> None:
    environment: Mapping[str, str] = {
        "PATH": os.environ["PATH"],
        "PULSEGATE_OPS_PORT": "a door",
        "PULSEGATE_LOG_LEVEL": "shout",
        "PULSEGATE_SERVICE_TOKEN_FILE": "/nowhere/token",
    }
    module, *arguments = _PROCESSES[process]
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, faults = await asyncio.wait_for(started.communicate(), 60)
    assert started.returncode == 78
    text = faults.decode()
    for named in ("PULSEGATE_OPS_PORT", "PULSEGATE_LOG_LEVEL", "PULSEGATE_SERVICE_TOKEN", "is required and not set"):
        assert named in text
    assert "a door" not in text, "a value may be a secret"
    assert "Traceback" not in text


async def test_limits_bite_with_headers_that_said_so_before(start_suite: Callable[..., Suite]) -> None:
    limit = str(_PER_MINUTE)
    suite = start_suite(PULSEGATE_INGEST_REQUESTS_PER_MINUTE=limit, PULSEGATE_AUTH_REQUESTS_PER_MINUTE=limit)
    async with connected(suite.base_url) as api:
        project = await sign_up(api)
        await project.define("limited_total")
        await _bites_at_the_limit(project)
        with suite.paused("valkey"):
            key = await project.create_key("secret", scopes=["ingest:write"])
            answers = [await project.send({"name": "limited_total", "value": 1}, key=key["key"]) for _ in range(10)]
            assert {answer.status for answer in answers} == {202, 429}, "limits hold without Redis"
        await _sign_in_is_limited(api, project)
    suite.stop()


async def _bites_at_the_limit(project: Project) -> None:
    """Of one key among three: where Redis is late for a call the gateway decides by itself, and takes more."""
    taken: list[int] = []
    while _PER_MINUTE not in taken and len(taken) < 3:
        key = await project.create_key("secret", scopes=["ingest:write"])
        taken.append(await _taken_before_it_bites(project, key["key"]))
    assert min(taken) == _PER_MINUTE, taken


async def _taken_before_it_bites(project: Project, key: str) -> int:
    taken = 0
    while (answer := await project.send({"name": "limited_total", "value": 1}, key=key)).status == 202:
        assert "RateLimit" in answer.headers
        assert "RateLimit-Policy" in answer.headers
        taken += 1
    assert (answer.status, answer.code) == (429, "RATE_LIMIT_EXCEEDED")
    assert 0 < float(answer.headers["Retry-After"]) <= 60
    return taken


async def _sign_in_is_limited(api: Api, project: Project) -> None:
    body = {"email": project.email, "password": "a wrong password entirely"}
    began, tried = time.monotonic(), 0
    while (status := (await api.call("POST", "/api/v1/auth/signin", body)).status) == 401:
        tried += 1
        # While Redis comes back each of the two may decide about some: what both have, and what is refilled.
        assert tried <= 2 * _PER_MINUTE * (1 + (time.monotonic() - began) / 60)
    assert tried > 0
    assert status == 429
