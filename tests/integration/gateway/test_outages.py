"""A dependency away: what stops, what goes on, and what comes back by itself."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import redis
from prometheus_client import REGISTRY

from chassis import metrics
from chassis.errors import Internal, NotFound, Unavailable
from chassis.ids import uuid7
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.config.v1 import definitions_pb2
from contracts.pulsegate.ingest.v1 import ingest_pb2
from deploy.local.layout import Ports
from deploy.local.servers import Valkey
from services.auth.errors import TooManyPasswords
from services.gateway.metrics import LIMIT_DECISIONS
from tests import suite_servers
from tests.forwarder import Forwarder
from tests.integration.gateway.fakes import PROJECT, TENANT
from tests.integration.gateway.running import Gateway, StartGateway
from tests.suite_servers import RunningServer
from tests.waiting import eventually, seconds_until

METRICS = f"/api/v1/projects/{PROJECT}/metrics"
KEYS = f"/api/v1/projects/{PROJECT}/keys"
PROJECTS = "/api/v1/projects"


async def seconds_until_refused(gateway: Gateway, method: str, path: str, credential: str) -> float:
    """How long a credential still works."""

    async def is_refused() -> bool:
        answer = await gateway.call(method, path, credential=credential, headers={"Content-Type": "text/plain"})
        return answer.status == 401

    return await seconds_until(is_refused, what="it is refused")


async def test_a_revoked_key_and_session_stop_working_within_a_second(gateway: Gateway) -> None:
    gateway.auth.answers["ListKeys"] = accounts_pb2.ListKeysResponse()
    key, session = gateway.auth.new_key(), gateway.auth.new_session()
    assert (await gateway.ingest_one(key)).status == 202
    assert (await gateway.call("GET", KEYS, credential=session)).status == 200
    gateway.auth.revoke(key)
    assert await seconds_until_refused(gateway, "POST", "/api/v1/metrics", key) < 1
    gateway.auth.revoke(session)
    assert await seconds_until_refused(gateway, "GET", KEYS, session) < 1


async def test_a_revoked_key_stops_working_within_a_second_also_without_redis(
    gateway: Gateway, valkey_server: RunningServer[Valkey]
) -> None:
    key = gateway.auth.new_key()
    assert (await gateway.ingest_one(key)).status == 202
    with valkey_server.away():
        assert (await gateway.ingest_one(key)).status == 202
        gateway.auth.revoke(key)
        assert await seconds_until_refused(gateway, "POST", "/api/v1/metrics", key) < 1


async def test_a_revoked_key_stops_working_within_a_second_also_when_the_feed_is_silent(gateway: Gateway) -> None:
    key = gateway.auth.new_key()
    assert (await gateway.ingest_one(key)).status == 202
    gateway.auth.heartbeats = False
    gateway.auth.revoke(key)
    assert await seconds_until_refused(gateway, "POST", "/api/v1/metrics", key) < 1


async def test_while_auth_is_away_known_keys_write_and_everything_else_fails_closed(gateway: Gateway) -> None:
    gateway.auth.answers["ListKeys"] = accounts_pb2.ListKeysResponse()
    known, unknown, session = gateway.auth.new_key(), gateway.auth.new_key(), gateway.auth.new_session()
    assert (await gateway.ingest_one(known)).status == 202
    assert (await gateway.call("GET", KEYS, credential=session)).status == 200
    async with gateway.servers["auth"].away():
        began = time.monotonic()
        while time.monotonic() - began < 1.5:  # past the last heartbeat
            assert (await gateway.ingest_one(known)).status == 202
        for answer in (
            await gateway.ingest_one(unknown),
            await gateway.call("GET", KEYS, credential=session),
            await gateway.call("POST", "/api/v1/auth/signin", json={"email": "a@b.cd", "password": "x"}),
        ):
            assert (answer.status, answer.code) == (503, "SERVICE_UNAVAILABLE")
            assert int(answer.headers["Retry-After"]) >= 1
    await eventually(lambda: _answers(gateway, session, 200), what="sessions work again")
    assert (await gateway.ingest_one(unknown)).status == 202


async def _answers(gateway: Gateway, session: str, status: int) -> bool:
    return (await gateway.call("GET", KEYS, credential=session)).status == status


async def test_the_grace_of_known_keys_ends(start_gateway: StartGateway) -> None:
    async with start_gateway(auth_outage_grace_seconds=1.0) as gateway:
        key = gateway.auth.new_key()
        assert (await gateway.ingest_one(key)).status == 202
        async with gateway.servers["auth"].away():
            began = time.monotonic()
            while (await gateway.ingest_one(key)).status == 202:
                assert time.monotonic() - began < 3
            assert (await gateway.ingest_one(key)).code == "SERVICE_UNAVAILABLE"


async def test_an_auth_that_hangs_is_away_too(gateway: Gateway) -> None:
    known, unknown = gateway.auth.new_key(), gateway.auth.new_key()
    assert (await gateway.ingest_one(known)).status == 202
    gateway.auth.heartbeats = False
    gateway.auth.answering.clear()
    began = time.monotonic()
    answers = [await gateway.ingest_one(known) for _ in range(100)]
    assert {answer.status for answer in answers} == {202}
    assert time.monotonic() - began < 5
    assert (await gateway.ingest_one(unknown)).status == 503
    gateway.auth.answering.set()


def retries(upstream: str) -> float:
    """Repeated calls so far."""
    labels = {"upstream": upstream, "outcome": "tried"}
    return REGISTRY.get_sample_value("pulsegate_gateway_retries_total", labels) or 0.0


async def test_reads_are_repeated_and_changes_are_not(gateway: Gateway) -> None:
    session = gateway.auth.new_session()
    calls = 0

    async def away_at_first(_request: object) -> definitions_pb2.ListMetricsResponse:
        nonlocal calls
        calls += 1
        if calls <= 3:
            raise Unavailable("restarting")
        return definitions_pb2.ListMetricsResponse()

    gateway.config.answers["ListMetrics"] = away_at_first
    gateway.config.answers["CreateMetric"] = Unavailable("restarting")
    assert (await gateway.call("GET", METRICS, credential=session)).status == 200
    assert calls == 4
    body = {"name": "a_total", "type": "counter", "help": "A."}
    assert (await gateway.call("POST", METRICS, credential=session, json=body)).status == 503
    assert len(gateway.config.requests("CreateMetric")) == 1


async def test_a_call_that_fails_for_good_costs_as_many_retries_as_were_made(gateway: Gateway) -> None:
    before, session = retries("config"), gateway.auth.new_session()
    gateway.config.answers["ListMetrics"] = Unavailable("restarting")
    assert (await gateway.call("GET", METRICS, credential=session)).status == 503
    assert len(gateway.config.requests("ListMetrics")) == 4
    assert retries("config") - before == 3


async def test_who_waits_for_something_else_is_not_asked_again_at_once(gateway: Gateway) -> None:
    before, session = retries("config"), gateway.auth.new_session()
    gateway.config.answers["ListMetrics"] = Unavailable.waiting_for("turn", "Too many at this moment.", 1.0)
    answer = await gateway.call("GET", METRICS, credential=session)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert len(gateway.config.requests("ListMetrics")) == 1
    assert retries("config") == before


async def test_retries_stay_within_their_budget(start_gateway: StartGateway) -> None:
    async with start_gateway(request_timeout_seconds=5.0) as gateway:
        session = gateway.auth.new_session()
        gateway.config.answers["ListMetrics"] = Unavailable("away")
        answers = await asyncio.gather(*(gateway.call("GET", METRICS, credential=session) for _ in range(40)))
        assert {answer.status for answer in answers} == {503}
        assert len(gateway.config.requests("ListMetrics")) <= 40 + 10 + 40 * 0.1 + 1


async def test_a_failing_service_is_given_a_rest_and_the_others_go_on(gateway: Gateway) -> None:
    session = gateway.auth.new_session()
    gateway.auth.answers["ListKeys"] = accounts_pb2.ListKeysResponse()
    gateway.config.answers["ListMetrics"] = Internal("broken")
    for _ in range(5):
        assert (await gateway.call("GET", METRICS, credential=session)).status == 500
    seen = len(gateway.config.seen)
    began = time.monotonic()
    refused = await gateway.call("GET", METRICS, credential=session)
    assert time.monotonic() - began < 2.0
    assert (refused.status, refused.code) == (503, "SERVICE_UNAVAILABLE")
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert len(gateway.config.seen) == seen
    assert metrics.BREAKER_OPEN.labels("config")._value.get() == 1
    assert (await gateway.call("GET", KEYS, credential=session)).status == 200
    assert (await gateway.ingest_one(gateway.auth.new_key())).status == 202

    async def shown() -> bool:
        ready = await gateway.call("GET", "/health/ready")
        config = ready.json["checks"]["config"]
        return (ready.status, config["status"], config["breaker"]) == (200, "down", "open")

    await eventually(shown, what="readiness tells of the breaker")


async def test_sign_ins_that_auth_sheds_keep_no_credential_unchecked(gateway: Gateway) -> None:
    gateway.auth.answers["SignIn"] = Unavailable("too many sign-ins", retry_after_seconds=2)
    gateway.auth.answers["ListKeys"] = accounts_pb2.ListKeysResponse()
    body = {"email": "ada@example.com", "password": "x"}
    for _ in range(20):
        assert (await gateway.call("POST", "/api/v1/auth/signin", json=body)).status == 503
    assert (await gateway.ingest_one(gateway.auth.new_key())).status == 202


async def test_sign_ins_that_auth_sheds_keep_nobody_else_from_auth(gateway: Gateway) -> None:
    gateway.auth.answers["SignIn"] = TooManyPasswords()
    gateway.auth.answers["ListKeys"] = accounts_pb2.ListKeysResponse()
    body = {"email": "ada@example.com", "password": "x"}
    shed = [await gateway.call("POST", "/api/v1/auth/signin", json=body) for _ in range(5)]
    assert {answer.status for answer in shed} == {503}
    assert (await gateway.call("GET", KEYS, credential=gateway.auth.new_session())).status == 200


async def test_a_breaker_tries_again_as_soon_as_the_service_is_back(gateway: Gateway) -> None:
    session = gateway.auth.new_session()
    gateway.config.answers["ListMetrics"] = definitions_pb2.ListMetricsResponse()
    async with gateway.servers["config"].away():
        statuses = [(await gateway.call("GET", METRICS, credential=session)).status for _ in range(12)]
        assert set(statuses) == {503}
        assert metrics.BREAKER_OPEN.labels("config")._value.get() == 1

    async def works() -> bool:
        return (await gateway.call("GET", METRICS, credential=session)).status == 200

    await eventually(works, within_seconds=5, what="config answers again")


async def test_a_caller_whose_requests_are_wrong_opens_no_breaker(gateway: Gateway) -> None:
    session = gateway.auth.new_session()
    path = f"{METRICS}/0192f0c1-0000-7000-8000-00000000000f"
    gateway.config.answers["GetMetric"] = NotFound("There is no such metric.")
    statuses = [(await gateway.call("GET", path, credential=session)).status for _ in range(30)]
    assert set(statuses) == {404}


async def test_a_request_ends_by_its_deadline(start_gateway: StartGateway) -> None:
    async with start_gateway(request_timeout_seconds=0.5) as gateway:

        async def never(_request: object) -> ingest_pb2.IngestBatchResponse:
            await asyncio.sleep(30)
            return ingest_pb2.IngestBatchResponse()

        gateway.ingest.answers["IngestBatch"] = never
        began = time.monotonic()
        answer = await gateway.ingest_one(gateway.auth.new_key())
        assert (answer.status, answer.code) == (504, "DEADLINE_EXCEEDED")
        assert time.monotonic() - began < 2


async def test_readiness_names_what_is_away_and_only_auths_keys_are_hard(
    gateway: Gateway, valkey_server: RunningServer[Valkey]
) -> None:
    checks = (await gateway.call("GET", "/health/ready")).json["checks"]
    assert {name for name, check in checks.items() if check.get("breaker") == "closed"} == {*checks} - {"auth-keys"}
    assert {name for name, check in checks.items() if check["hard"]} == {"auth-keys"}
    assert set(checks) == {"auth-keys", "auth", "config", "codegen", "ingest", "redis"}

    async def degraded_by(name: str) -> bool:
        answer = await gateway.call("GET", "/health/ready")
        return bool(answer.json["status"] == "degraded" and answer.json["checks"][name]["status"] == "down")

    async def ready() -> bool:
        return bool((await gateway.call("GET", "/health/ready")).json["status"] == "ready")

    async with gateway.servers["auth"].away():
        await eventually(lambda: degraded_by("auth"), what="auth is seen to be away")
        assert (await gateway.call("GET", "/health/ready")).status == 200
        assert (await gateway.call("GET", "/health/live")).status == 200
    await eventually(ready, what="auth is seen to be back")
    with valkey_server.away():
        await eventually(lambda: degraded_by("redis"), what="Redis is seen to be away")
    await eventually(ready, what="Redis is seen to be back")


@pytest.mark.parametrize("serves_stale_data", ["yes", "no"])
async def test_a_redis_that_has_become_a_replica_is_left_for_the_one_that_has_its_address_now(
    start_gateway: StartGateway,
    valkey_server: RunningServer[Valkey],
    tmp_path: Path,
    port_blocks: Callable[[], Ports],
    serves_stale_data: str,
) -> None:
    new = valkey_server.server
    old = replace(new, folder=tmp_path / "old", port=port_blocks().server("valkey"), log=tmp_path / "old.log")
    way = Forwarder(old.port)
    with suite_servers.running(old):
        async with way.forwarding(), start_gateway(redis_url=replace(new, port=way.listens).url) as gateway:
            session = gateway.auth.new_session()
            assert await keyed_status(gateway, session) == 201
            with redis.Redis.from_url(old.url) as client:
                client.config_set("replica-serve-stale-data", serves_stale_data)
                client.replicaof("127.0.0.1", str(new.port))
            await eventually(lambda: shows_redis(gateway, "down"), what="it is seen to take no writes")
            assert await keyed_status(gateway, session) == 503
            way.leads_to = new.port

            async def is_asked() -> bool:
                before = decided_locally()
                return await keyed_status(gateway, session) == 201 and decided_locally() == before

            await eventually(is_asked, what="limits and keys are asked of the new one")
            await eventually(lambda: shows_redis(gateway, "up"), what="Redis is seen to be back")


async def keyed_status(gateway: Gateway, session: str) -> int:
    """What a request with a new key is answered."""
    project = accounts_pb2.Project(id=PROJECT, tenant_id=TENANT, name="shop")
    gateway.auth.answers["CreateProject"] = accounts_pb2.CreateProjectResponse(project=project)
    answer = await gateway.call(
        "POST", PROJECTS, credential=session, json={"name": "shop"}, headers={"Idempotency-Key": str(uuid7())}
    )
    return answer.status


def decided_locally() -> float:
    """Limits that were decided without Redis so far."""
    return sum(
        sample.value
        for metric in LIMIT_DECISIONS.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels["decided_by"] == "local"
    )


async def shows_redis(gateway: Gateway, status: str) -> bool:
    return bool((await gateway.call("GET", "/health/ready")).json["checks"]["redis"]["status"] == status)


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/health/startup"])
async def test_health_is_on_both_ports(gateway: Gateway, path: str) -> None:
    operations = f"http://127.0.0.1:{gateway.ports.operations('gateway')}"
    assert (await gateway.call("GET", path)).status == 200
    assert (await gateway.call("GET", operations + path)).status == 200


async def test_metrics_show_routes_and_no_secrets(gateway: Gateway) -> None:
    key = gateway.auth.new_key()
    await gateway.call("POST", f"/api/v1/metrics?key={key}", data="{}")
    operations = f"http://127.0.0.1:{gateway.ports.operations('gateway')}"
    exposition = (await gateway.call("GET", operations + "/metrics")).body.decode()
    assert (
        'pulsegate_http_request_duration_seconds_count{method="POST",route="/api/v1/metrics",status="202"}'
        in exposition
    )
    assert "pulsegate_gateway_limit_decisions_total" in exposition
    assert key not in exposition
    assert (await gateway.call("GET", "/metrics")).status == 404  # on the operations port only


async def test_requests_under_way_are_finished_when_the_gateway_stops(start_gateway: StartGateway) -> None:
    arrived = asyncio.Event()

    async def when_nobody_is_let_in(_request: object) -> ingest_pb2.IngestBatchResponse:
        arrived.set()
        await eventually(no_door, what="the gateway refuses connections")
        return ingest_pb2.IngestBatchResponse(accepted=1)

    async def no_door() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    async with aiohttp.ClientSession() as client:
        async with start_gateway() as gateway:
            gateway.ingest.answers["IngestBatch"] = when_nobody_is_let_in
            url = f"http://127.0.0.1:{gateway.public_port}/api/v1/metrics?key={gateway.auth.new_key()}"
            sending = asyncio.create_task(client.post(url, data="{}"))
            await arrived.wait()
        assert (await sending).status == 202
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.post(url, data="{}")
