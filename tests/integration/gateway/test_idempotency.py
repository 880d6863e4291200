"""Idempotency-Key through the real door, with answers kept in a real Valkey."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
import redis

from chassis.errors import Conflict, DeadlineExceeded, Internal, PulsegateError, Unavailable
from chassis.ids import uuid7
from contracts.pulsegate.auth.v1 import accounts_pb2, own_account_pb2
from contracts.pulsegate.config.v1 import definitions_pb2
from deploy.local.layout import CHECKOUT, Ports
from deploy.local.servers import Valkey
from services.gateway import kept_answers
from services.gateway.kept_answers import Claim, KeptAnswers
from tests.integration.gateway.fakes import PROJECT, SERVICE_TOKEN, TENANT
from tests.integration.gateway.running import Answer, Gateway, StartGateway
from tests.suite_servers import RunningServer
from tests.waiting import eventually

FULL = 'pulsegate_gateway_keyed_requests_total{outcome="full"}'
PROJECTS = "/api/v1/projects"
KEYS = f"/api/v1/projects/{PROJECT}/keys"
SECRET = "sk_shown-only-once"
ID = "0192f0c1-0000-7000-8000-00000000000f"
TOTP = "/api/v1/auth/totp"
#: What routes take whose answers show a secret.
BODIES: dict[str, dict[str, object]] = {
    KEYS: {"name": "k", "kind": "secret"},
    f"{KEYS}/{ID}/rotate": {"graceSeconds": 0},
    TOTP: {"password": "x"},
    f"{TOTP}/confirm": {"code": "123456"},
    f"{TOTP}/recovery-codes": {"password": "x"},
}


def new_key() -> str:
    return str(uuid7())


@pytest.fixture(autouse=True)
def answers(gateway: Gateway) -> None:
    """Each project that is made is another one, and so is each key."""

    async def make_project(request: accounts_pb2.CreateProjectRequest) -> accounts_pb2.CreateProjectResponse:
        project = accounts_pb2.Project(id=str(uuid7()), tenant_id=TENANT, name=request.name)
        return accounts_pb2.CreateProjectResponse(project=project)

    made = accounts_pb2.Key(id=str(uuid7()), name="k", kind=accounts_pb2.KEY_KIND_SECRET)
    gateway.auth.answers["CreateProject"] = make_project
    gateway.auth.answers["CreateKey"] = accounts_pb2.CreateKeyResponse(key=made, token=SECRET)
    gateway.auth.answers["RotateKey"] = accounts_pb2.RotateKeyResponse(key=made, token=SECRET)
    gateway.auth.answers["BeginTotp"] = own_account_pb2.BeginTotpResponse(secret=SECRET, uri="otpauth://totp/x")
    gateway.auth.answers["ConfirmTotp"] = own_account_pb2.ConfirmTotpResponse(recovery_codes=[SECRET])
    gateway.auth.answers["RenewRecoveryCodes"] = own_account_pb2.RenewRecoveryCodesResponse(recovery_codes=[SECRET])


async def make(gateway: Gateway, session: str, key: str, name: str = "shop", **more: Any) -> Answer:
    """A project, made under an Idempotency-Key."""
    headers = {"Idempotency-Key": key, **more}
    return await gateway.call("POST", PROJECTS, credential=session, json={"name": name}, headers=headers)


async def test_a_body_that_comes_after_its_headers_is_read_once_for_all(gateway: Gateway) -> None:
    async def is_read() -> bool:
        return await gateway.shown('pulsegate_gateway_held_bytes{what="bodies"}') > 0

    async def later() -> AsyncIterator[bytes]:
        yield b'{"name":'
        await eventually(is_read, what="the body is waited for")
        yield b'"shop"}'

    headers = {"Idempotency-Key": new_key(), "Content-Type": "application/json"}
    made = await gateway.call("POST", PROJECTS, credential=gateway.auth.new_session(), data=later(), headers=headers)
    assert (made.status, made.json["name"]) == (201, "shop")


async def test_a_request_sent_again_is_answered_again_and_carried_out_once(
    gateway: Gateway, start_gateway: StartGateway
) -> None:
    session, key = gateway.auth.new_session(), new_key()
    first = await make(gateway, session, key)
    again = await make(gateway, session, f'"{key}"', **{"X-Correlation-Id": "another"})
    assert (first.status, again.status) == (201, 201)
    assert again.body == first.body
    assert again.headers["Location"] == first.headers["Location"]
    assert (first.headers.get("Idempotent-Replayed"), again.headers["Idempotent-Replayed"]) == (None, "true")
    assert again.headers["X-Correlation-Id"] == "another"
    assert len(gateway.auth.requests("CreateProject")) == 1
    async with start_gateway() as other_replica:
        other_replica.auth._known.update(gateway.auth._known)
        assert (await make(other_replica, session, key)).body == first.body


async def test_gateways_that_started_with_different_service_tokens_know_each_others_answers(
    start_gateway: StartGateway,
) -> None:
    """As while the token is replaced, in three steps."""
    made, key = [], new_key()
    for token in (SERVICE_TOKEN, f"{SERVICE_TOKEN} new"):
        async with start_gateway(service_token=token, sealing_key="of gateways alone") as gateway:
            project = accounts_pb2.Project(id=str(uuid7()), tenant_id=TENANT)
            gateway.auth.answers["CreateProject"] = accounts_pb2.CreateProjectResponse(project=project)
            session = gateway.auth.new_session()
            made.append(await make(gateway, session, key))
    first, again = made
    assert (first.status, again.body, again.headers["Idempotent-Replayed"]) == (201, first.body, "true")


async def test_fifty_at_once_are_carried_out_once(gateway: Gateway) -> None:
    session, key = gateway.auth.new_session(), new_key()
    statuses = [answer.status for answer in await asyncio.gather(*(make(gateway, session, key) for _ in range(50)))]
    assert set(statuses) <= {201, 409}
    assert len(gateway.auth.requests("CreateProject")) == 1


async def test_a_key_belongs_to_one_request_of_one_caller_for_one_route(gateway: Gateway) -> None:
    session, key = gateway.auth.new_session(), new_key()
    made = await make(gateway, session, key)
    reused = await make(gateway, session, key, name="another")
    assert (reused.status, reused.code) == (422, "IDEMPOTENCY_KEY_REUSED")
    elsewhere = await gateway.call(
        "POST", KEYS, credential=session, json={"name": "k", "kind": "secret"}, headers={"Idempotency-Key": key}
    )
    assert elsewhere.status == 201
    other_caller = await make(gateway, gateway.auth.new_session(str(uuid7())), key)
    assert other_caller.status == 201
    assert other_caller.json["id"] != made.json["id"]


async def test_while_it_is_under_way_the_same_request_is_told_to_wait(gateway: Gateway) -> None:
    session, key = gateway.auth.new_session(), new_key()
    arrived, release = asyncio.Event(), asyncio.Event()

    async def slowly(_request: object) -> accounts_pb2.CreateProjectResponse:
        arrived.set()
        await release.wait()
        return accounts_pb2.CreateProjectResponse(project=accounts_pb2.Project(id=PROJECT, tenant_id=TENANT))

    gateway.auth.answers["CreateProject"] = slowly
    first = asyncio.create_task(make(gateway, session, key))
    await arrived.wait()
    second = await make(gateway, session, key)
    assert (second.status, second.code) == (409, "IDEMPOTENCY_KEY_IN_USE")
    assert second.headers["Retry-After"] == "1"
    assert (await make(gateway, session, key, name="another")).code == "IDEMPOTENCY_KEY_REUSED"
    release.set()
    answered = await first
    assert (await make(gateway, session, key)).body == answered.body


async def test_a_client_that_left_reads_the_answer_later(gateway: Gateway) -> None:
    session, key = gateway.auth.new_session(), new_key()
    arrived, release = asyncio.Event(), asyncio.Event()

    async def slowly(_request: object) -> accounts_pb2.CreateProjectResponse:
        arrived.set()
        await release.wait()
        return accounts_pb2.CreateProjectResponse(project=accounts_pb2.Project(id=PROJECT, tenant_id=TENANT))

    gateway.auth.answers["CreateProject"] = slowly
    leaving = asyncio.create_task(make(gateway, session, key))
    await arrived.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    release.set()

    async def answered() -> bool:
        return (await make(gateway, session, key)).status == 201

    await eventually(answered, what="the answer is kept")
    assert len(gateway.auth.requests("CreateProject")) == 1


async def test_refusals_are_kept_and_failures_are_not(gateway: Gateway) -> None:
    session, taken, failing = gateway.auth.new_session(), new_key(), new_key()
    gateway.auth.answers["CreateProject"] = Conflict("There is one of this name.", details={"name": "shop"})
    refused = await make(gateway, session, taken)
    gateway.auth.answers["CreateProject"] = Unavailable.waiting_for("postgres", "restarting", 1)
    again = await make(gateway, session, taken)
    assert (again.status, again.code) == (refused.status, refused.code) == (409, "CONFLICT")
    assert again.json["error"]["details"] == {"name": "shop"}
    assert (await make(gateway, session, failing)).status == 503
    gateway.auth.answers["CreateProject"] = accounts_pb2.CreateProjectResponse(
        project=accounts_pb2.Project(id=PROJECT, tenant_id=TENANT)
    )
    carried_out = await make(gateway, session, failing)
    assert (carried_out.status, carried_out.headers.get("Idempotent-Replayed")) == (201, None)


async def test_what_is_refused_for_what_it_says_itself_is_not_kept_and_judged_anew(
    gateway: Gateway, valkey_server: RunningServer[Valkey]
) -> None:
    session, keys = gateway.auth.new_session(), [new_key() for _ in range(3)]
    with redis.Redis.from_url(valkey_server.server.url) as client:
        client.flushdb()
        for key, body in zip(keys, ({str(uuid7()): 1}, {"name": ""}, []), strict=True):
            headers = {"Idempotency-Key": key}
            refused = await gateway.call("POST", PROJECTS, credential=session, json=body, headers=headers)
            assert refused.status in (400, 422)
        assert not list(client.scan_iter("answers:*"))
    made = await make(gateway, session, keys[0])
    assert (made.status, made.headers.get("Idempotent-Replayed")) == (201, None)


async def test_who_has_used_up_the_room_is_told_to_wait_and_answered_again_all_the_same(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, key = gateway.auth.new_session(), new_key()
    first, before = await make(gateway, session, key), await gateway.shown(FULL)
    monkeypatch.setattr(kept_answers, "_MOST_BYTES_IN_ALL", 0)
    for _ in range(2):
        refused = await make(gateway, session, new_key())
        assert (refused.status, refused.code) == (429, "RATE_LIMIT_EXCEEDED")
        assert refused.json["error"]["details"] == {"limit": "idempotency"}
    assert (await make(gateway, session, key)).body == first.body
    assert len(gateway.auth.requests("CreateProject")) == 1
    assert await gateway.shown(FULL) == before + 2


async def test_what_never_reached_its_service_is_carried_out_when_it_comes_again(gateway: Gateway) -> None:
    session, key = gateway.auth.new_session(), new_key()
    await gateway.call("GET", PROJECTS, credential=session)  # who it is is known from now on
    config, path = gateway.servers["config"], f"{PROJECTS}/{PROJECT}/metrics"
    spec = definitions_pb2.MetricSpec(name="a_total", type=definitions_pb2.METRIC_TYPE_COUNTER)
    metric = definitions_pb2.Metric(id=ID, spec=spec, version=1)
    gateway.config.answers["CreateMetric"] = definitions_pb2.CreateMetricResponse(metric=metric)

    async def create() -> int:
        body, headers = {"name": "a_total", "type": "counter", "help": "A."}, {"Idempotency-Key": key}
        return (await gateway.call("POST", path, credential=session, json=body, headers=headers)).status

    async def created() -> bool:
        return await create() == 201

    async with config.away():
        assert [await create() for _ in range(3)] == [503] * 3
    await eventually(created, what="config is asked")


@pytest.mark.parametrize("failure", [Unavailable("It is away."), DeadlineExceeded("Too late."), Internal("?")])
async def test_after_a_failure_that_leaves_open_what_was_done_nothing_is_done_under_its_key(
    gateway: Gateway, failure: PulsegateError
) -> None:
    session, key = gateway.auth.new_session(), new_key()
    gateway.auth.answers["CreateProject"] = failure
    assert (await make(gateway, session, key)).status == failure.http_status
    again = await make(gateway, session, key)
    assert (again.status, again.code) == (409, "IDEMPOTENT_OUTCOME_UNKNOWN")
    assert len(gateway.auth.requests("CreateProject")) == 1


async def test_what_a_gateway_was_killed_over_is_not_carried_out_twice(
    start_gateway: StartGateway,
    port_blocks: Callable[[], Ports],
    valkey_server: RunningServer[Valkey],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The effect is there, the answer is not: the gateway is killed in between, and Redis is killed after it."""
    monkeypatch.setattr("services.gateway.kept_answers._MARGIN_SECONDS", 0.1)
    async with start_gateway(request_timeout_seconds=5.0) as survivor:
        session, key = survivor.auth.new_session(), new_key()
        made = asyncio.Event()

        async def make_and_never_answer(_request: object) -> accounts_pb2.CreateProjectResponse:
            made.set()
            await asyncio.Event().wait()
            raise AssertionError("an event that nobody sets")

        survivor.auth.answers["CreateProject"] = make_and_never_answer
        async with gateway_process(survivor.ports, port_blocks(), valkey_server.server.url) as (process, address):
            headers = {"Idempotency-Key": key, "Authorization": f"Bearer {session}"}
            asked = asyncio.create_task(
                survivor.session.post(address + PROJECTS, json={"name": "shop"}, headers=headers)
            )
            await made.wait()
            process.kill()
            with pytest.raises(aiohttp.ClientError):
                await asked
        with valkey_server.away():
            pass
        await eventually(lambda: is_refused_as(survivor, session, key, "IDEMPOTENT_OUTCOME_UNKNOWN"), what="it is over")
        assert len(survivor.auth.requests("CreateProject")) == 1


async def is_refused_as(gateway: Gateway, session: str, key: str, code: str) -> bool:
    return (await make(gateway, session, key)).code == code


@asynccontextmanager
async def gateway_process(
    behind: Ports, own: Ports, redis_url: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A ready gateway of its own, before the services of another one, and its address."""
    services = {"AUTH": "auth", "CONFIG": "config", "CODEGEN": "codegen", "INGEST": "receiver"}
    environment = {
        "PATH": os.environ["PATH"],
        "PULSEGATE_HOST": "127.0.0.1",
        "PULSEGATE_PORT": str(own.public),
        "PULSEGATE_OPS_PORT": str(own.operations("gateway")),
        "PULSEGATE_SERVICE_TOKEN": SERVICE_TOKEN,
        "PULSEGATE_REDIS_URL": redis_url,
        **{f"PULSEGATE_{name}_ADDRESS": f"127.0.0.1:{behind.grpc(service)}" for name, service in services.items()},
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.gateway", env=environment, cwd=CHECKOUT, stdout=asyncio.subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{own.public}"
    try:
        async with aiohttp.ClientSession() as session:
            await eventually(lambda: is_ready(session, address), within_seconds=60, what="the gateway is ready")
        yield process, address
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def is_ready(session: aiohttp.ClientSession, address: str) -> bool:
    try:
        async with session.get(f"{address}/health/ready") as answer:
            return bool((await answer.json())["status"] == "ready")
    except aiohttp.ClientError:
        return False


async def test_without_redis_nothing_is_done_under_a_key_and_everything_without(
    gateway: Gateway, valkey_server: RunningServer[Valkey]
) -> None:
    session = gateway.auth.new_session()
    with valkey_server.away():
        refused = await make(gateway, session, new_key())
        assert (refused.status, refused.code) == (503, "SERVICE_UNAVAILABLE")
        assert int(refused.headers["Retry-After"]) >= 1
        assert not gateway.auth.requests("CreateProject")
        without = await gateway.call("POST", PROJECTS, credential=session, json={"name": "shop"})
        assert without.status == 201


async def test_redis_sees_neither_keys_nor_answers(gateway: Gateway, valkey_server: RunningServer[Valkey]) -> None:
    session, key = gateway.auth.new_session(), new_key()
    answers = [await make(gateway, session, key, name="a-shop-of-its-own") for _ in range(2)]
    assert [answer.json["name"] for answer in answers] == ["a-shop-of-its-own"] * 2
    with redis.Redis.from_url(valkey_server.server.url) as client:
        names = list(client.scan_iter("answers:*"))
        stored = b"".join([*names, *(client.get(name) or b"" for name in names)])
        assert names
        assert all(0 < client.ttl(name) <= 24 * 3600 for name in names)
    assert key.encode() not in stored
    assert b"a-shop-of-its-own" not in stored


@pytest.mark.parametrize("path", [KEYS, f"{KEYS}/{ID}/rotate"])
async def test_an_answer_that_shows_a_secret_is_kept_nowhere(
    gateway: Gateway, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[kept_answers.Answer | None] = []
    settle = KeptAnswers.settle

    async def seen(answers: KeptAnswers, claim: Claim, answer: kept_answers.Answer | None) -> bool:
        kept.append(answer)
        return await settle(answers, claim, answer)

    monkeypatch.setattr(KeptAnswers, "settle", seen)
    session, headers = gateway.auth.new_session(), {"Idempotency-Key": new_key()}
    first, again = [
        await gateway.call("POST", path, credential=session, json=BODIES[path], headers=headers) for _ in range(2)
    ]
    assert first.status in (200, 201)
    assert SECRET.encode() in first.body
    assert (again.status, again.code) == (409, "IDEMPOTENT_ANSWER_NOT_KEPT")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert kept == [kept_answers.Answer(first.status, body=None)]


@pytest.mark.parametrize("path", [TOTP, f"{TOTP}/confirm", f"{TOTP}/recovery-codes"])
async def test_of_a_body_with_a_password_or_a_code_nothing_is_kept_not_even_a_hash(
    gateway: Gateway, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims: list[bytes] = []
    monkeypatch.setattr(KeptAnswers, "claim", lambda _self, asked, _request: claims.append(asked))
    session, headers = gateway.auth.new_session(), {"Idempotency-Key": new_key()}
    answers = [
        await gateway.call("POST", path, credential=session, json=BODIES[path], headers=headers) for _ in range(2)
    ]
    assert {answer.status for answer in answers} <= {200, 201}
    assert not claims


async def test_of_an_answer_that_is_too_large_it_is_known_that_there_was_one(gateway: Gateway) -> None:
    session, key = gateway.auth.new_session(), new_key()
    labels = [definitions_pb2.Label(name=str(uuid7()), values=[str(uuid7())]) for _ in range(200)]
    spec = definitions_pb2.MetricSpec(name="a_total", type=definitions_pb2.METRIC_TYPE_COUNTER, labels=labels)
    metric = definitions_pb2.Metric(id=str(uuid7()), spec=spec, version=1)
    gateway.config.answers["CreateMetric"] = definitions_pb2.CreateMetricResponse(metric=metric)
    path, body = f"{PROJECTS}/{PROJECT}/metrics", {"name": "a_total", "type": "counter", "help": "A."}
    headers = {"Idempotency-Key": key}
    first, again = [await gateway.call("POST", path, credential=session, json=body, headers=headers) for _ in range(2)]
    assert (first.status, again.status, again.code) == (201, 409, "IDEMPOTENT_ANSWER_NOT_KEPT")
    assert len(gateway.config.requests("CreateMetric")) == 1


@pytest.mark.parametrize("key", ["", "two words", "k" * 256, "ke\u00fd", '"open'])
async def test_what_is_no_key_is_refused(gateway: Gateway, key: str) -> None:
    refused = await make(gateway, gateway.auth.new_session(), key)
    assert (refused.status, refused.code) == (400, "MALFORMED_REQUEST")
    assert "in quotes where it has blanks" in refused.json["error"]["message"]
    assert not gateway.auth.requests("CreateProject")


async def test_a_key_in_quotes_may_have_blanks(gateway: Gateway) -> None:
    made = await make(gateway, gateway.auth.new_session(), '"two words"')
    assert made.status == 201


async def test_keys_count_towards_a_limit_of_the_tenant(gateway: Gateway) -> None:
    gateway.auth.plan = "free"
    session = gateway.auth.new_session()
    answer = await gateway.call(
        "POST", KEYS, credential=session, json={"name": "k", "kind": "secret"}, headers={"Idempotency-Key": new_key()}
    )
    assert answer.headers["RateLimit-Policy"] == '"api";q=100;w=3600, "idempotency";q=200;w=86400'


async def test_pages_may_send_a_key_and_read_that_an_answer_is_one_from_before(gateway: Gateway) -> None:
    asked = {"Origin": "https://console.example.com", "Access-Control-Request-Method": "POST"}
    preflight = await gateway.call("OPTIONS", PROJECTS, headers=asked)
    assert "Idempotency-Key" in preflight.headers["Access-Control-Allow-Headers"]
    answer = await make(gateway, gateway.auth.new_session(), new_key(), Origin="https://console.example.com")
    assert "Idempotent-Replayed" in answer.headers["Access-Control-Expose-Headers"]


async def test_the_document_says_which_routes_take_a_key(gateway: Gateway) -> None:
    paths = (await gateway.call("GET", "/api/v1/openapi.json")).json["paths"]
    takers = {
        path
        for path, operations in paths.items()
        for parameter in operations.get("post", {}).get("parameters", ())
        if parameter["name"] == "Idempotency-Key"
    }
    assert {PROJECTS, PROJECTS + "/{projectId}/keys", PROJECTS + "/{projectId}/metrics"} <= takers
    assert not takers & {"/api/v1/metrics", "/api/v1/auth/signin", "/prometheus/api/v1/query"}
    secret_bodies = {"", "/confirm", "/recovery-codes", "/disable"}
    assert not takers & {f"/api/v1/auth/totp{path}" for path in secret_bodies}
