"""A service that is slow or away costs the routes of the others nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest

from chassis.ids import uuid7
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.codegen.v1 import codegen_pb2
from contracts.pulsegate.config.v1 import definitions_pb2
from tests.integration.gateway.fakes import PROJECT, USER
from tests.integration.gateway.running import Answer, Gateway, StartGateway
from tests.waiting import eventually

OTHER_TENANTS = ("0192f0c1-0000-7000-8000-0000000000f1", "0192f0c1-0000-7000-8000-0000000000f2")
METRICS = f"/api/v1/projects/{PROJECT}/metrics"
KEYS = f"/api/v1/projects/{PROJECT}/keys"
ME = "/api/v1/auth/me"
CLIENT = f"/api/v1/projects/{PROJECT}/client?language=python"
_ROUNDS, _MOST_ROUNDS, _REQUESTS = 6, 30, 60

#: Method, path, credential, and the status that is expected.
Call = tuple[str, str, str, int]


async def never(_request: object) -> codegen_pb2.GenerateClientResponse:
    await asyncio.Event().wait()
    raise AssertionError("an event that nobody sets")


async def p99(gateway: Gateway, calls: Sequence[Call], beside: Sequence[Call] = ()) -> float:
    """Seconds of the slowest but one in a hundred, while as many others are made: the best of some rounds, because the
    machine has other work too."""
    return min([await one_p99(gateway, calls, beside) for _ in range(_ROUNDS)])


async def stays(before: float, gateway: Gateway, calls: Sequence[Call], beside: Sequence[Call] = ()) -> None:
    """That the p99 is less than twice what it was: in one of many rounds, the first that the machine leaves alone. What
    is slow because others are is slow in each."""
    rounds: list[float] = []
    while not rounds or rounds[-1] >= 2 * before:
        assert len(rounds) < _MOST_ROUNDS, f"p99 {min(rounds) * 1000:.1f} ms, and {before * 1000:.1f} ms before"
        rounds.append(await one_p99(gateway, calls, beside))


async def one_p99(gateway: Gateway, calls: Sequence[Call], beside: Sequence[Call]) -> float:
    took: list[float] = []

    async def timed(call: Call) -> None:
        began = time.monotonic()
        await answered(gateway, call)
        took.append(time.monotonic() - began)

    for _ in range(_REQUESTS):
        for call in calls:
            await asyncio.gather(timed(call), *(answered(gateway, other) for other in beside))
    return sorted(took)[int(len(took) * 0.99)]


async def answered(gateway: Gateway, call: Call) -> None:
    method, path, credential, status = call
    assert (await gateway.call(method, path, credential=credential, json={"metrics": []})).status == status


@pytest.mark.alone
async def test_a_dead_and_a_slow_service_leave_the_p99_of_other_routes_alone(start_gateway: StartGateway) -> None:
    async with start_gateway(upstream_calls=32) as gateway:
        session, key = gateway.auth.new_session(), gateway.auth.new_key("secret")
        gateway.auth.answers["ListKeys"] = accounts_pb2.ListKeysResponse()
        gateway.config.answers["ListMetrics"] = definitions_pb2.ListMetricsResponse()
        gateway.codegen.answers["GenerateClient"] = codegen_pb2.GenerateClientResponse(content_type="text/x-python")
        others: Sequence[Call] = [("GET", KEYS, session, 200), ("POST", "/api/v1/metrics", key, 202)]
        before = await p99(gateway, others, [("GET", METRICS, session, 200), ("GET", CLIENT, session, 200)])
        gateway.codegen.answers["GenerateClient"] = never
        async with gateway.servers["config"].away():
            hanging = [asyncio.create_task(gateway.call("GET", CLIENT, credential=session)) for _ in range(8)]
            await eventually(lambda: taken(gateway, 8), what="codegen has as many calls as a person may have")
            await stays(before, gateway, others, [("GET", METRICS, session, 503), ("GET", CLIENT, session, 503)])
            for task in hanging:
                task.cancel()


@pytest.mark.alone
async def test_all_of_a_tenant_together_leave_places_for_other_tenants(start_gateway: StartGateway) -> None:
    """Four people and a key of one tenant ask for what takes for ever; another tenant's p99 stays."""
    async with start_gateway(upstream_calls=16) as gateway:
        callers = [gateway.auth.new_session(str(uuid7())) for _ in range(4)]
        callers.append(gateway.auth.new_key("secret", scopes=["config:read"]))
        other = gateway.auth.new_key("secret", scopes=["config:read"])
        gateway.auth.move(other, OTHER_TENANTS[0])
        never_ends = asyncio.Event()

        async def generate(request: codegen_pb2.GenerateClientRequest) -> codegen_pb2.GenerateClientResponse:
            if request.language != codegen_pb2.LANGUAGE_PYTHON:
                await never_ends.wait()
            return codegen_pb2.GenerateClientResponse(content_type="text/x-python")

        gateway.codegen.answers["GenerateClient"] = generate
        alone: Sequence[Call] = [("GET", CLIENT, other, 200)]
        before = await p99(gateway, alone)
        slow = CLIENT.replace("python", "javascript")
        hanging = [
            asyncio.create_task(gateway.call("GET", slow, credential=caller)) for caller in callers for _ in range(4)
        ]
        await eventually(lambda: taken(gateway, 4), what="the tenant has as many calls as it may have")
        await stays(before, gateway, alone)
        refused = [await gateway.call("GET", CLIENT, credential=caller) for caller in callers]
        assert {answer.status for answer in refused} == {503}
        assert await taken(gateway, 4)
        for task in hanging:
            task.cancel()


async def taken(gateway: Gateway, calls: int) -> bool:
    return await gateway.shown('pulsegate_gateway_upstream_calls{upstream="codegen"}') == calls


async def test_what_is_too_much_for_a_service_is_turned_away_at_once(start_gateway: StartGateway) -> None:
    """Of a tenant a quarter of it, so that others have a place."""
    async with start_gateway(upstream_calls=8) as gateway:
        session = gateway.auth.new_session()
        key, *others = [gateway.auth.new_key("secret", scopes=["config:read"]) for _ in range(3)]
        for number, other in enumerate(others):
            gateway.auth.move(other, OTHER_TENANTS[number])
        release = asyncio.Event()

        async def slowly(_request: object) -> codegen_pb2.GenerateClientResponse:
            await release.wait()
            return codegen_pb2.GenerateClientResponse(content_type="text/x-python")

        gateway.codegen.answers["GenerateClient"] = slowly
        under_way = []
        for count, (caller, colleague) in enumerate(((session, key), *zip(others, others, strict=True)), start=1):
            calls = [gateway.call("GET", CLIENT, credential=caller) for _ in range(2)]
            under_way += [asyncio.create_task(call) for call in calls]
            await eventually(partial(seen, gateway, 2 * count), what=f"{2 * count} calls are under way")
            for one in (caller, colleague):
                refused = await gateway.call("GET", CLIENT, credential=one)
                assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
                assert refused.code == "SERVICE_UNAVAILABLE"
            assert len(gateway.codegen.seen) == 2 * count  # nor was it tried again
        assert await gateway.shown('pulsegate_gateway_shed_total{upstream="codegen"}') >= 1
        release.set()
        assert {(await call).status for call in under_way} == {200}
        assert (await gateway.call("GET", CLIENT, credential=session)).status == 200


async def test_neither_a_person_nor_an_address_takes_all_places_of_auth(start_gateway: StartGateway) -> None:
    """A person about a project and about their own account is one person; nobody knows who signs in, but from where."""
    async with start_gateway(upstream_calls=8, trusted_proxies=(ip_network("127.0.0.0/8"),)) as gateway:
        session, release = gateway.auth.new_session(), asyncio.Event()

        def slowly(answer: Any) -> Any:
            async def answered(_request: object) -> Any:
                await release.wait()
                return answer

            return answered

        gateway.auth.answers["ListKeys"] = slowly(accounts_pb2.ListKeysResponse())
        gateway.auth.answers["GetMe"] = slowly(accounts_pb2.GetMeResponse(user=accounts_pb2.User(id=USER)))
        gateway.auth.answers["SignIn"] = slowly(accounts_pb2.SignInResponse(user=accounts_pb2.User(id=USER)))

        def sign_in(address: str) -> Coroutine[Any, Any, Answer]:
            body, headers = {"email": "ada@example.com", "password": "x"}, {"X-Forwarded-For": address}
            return gateway.call("POST", "/api/v1/auth/signin", json=body, headers=headers)

        async def waiting(calls: int) -> bool:
            return await gateway.shown('pulsegate_gateway_upstream_calls{upstream="auth"}') == calls

        under_way = []
        own = [partial(gateway.call, "GET", path, credential=session) for path in (KEYS, ME)]
        here = [partial(sign_in, "192.0.2.1")] * 2
        there = [partial(sign_in, f"2001:db8::{number}") for number in (1, 2)]
        for held, (one, other) in ((0, own), (2, here), (4, there)):
            under_way += [asyncio.create_task(one()), asyncio.create_task(other())]
            await eventually(partial(waiting, held + 2), what=f"{held + 2} calls are under way")
            for refused in (await one(), await other()):
                assert (refused.status, refused.code) == (503, "SERVICE_UNAVAILABLE")
                assert "auth" not in refused.json["error"]["message"]
        release.set()
        assert {(await call).status for call in under_way} == {200}


async def seen(gateway: Gateway, calls: int) -> bool:
    return len(gateway.codegen.seen) == calls


async def test_a_service_that_hangs_is_found_before_its_callers_have_waited_for_their_deadlines(
    gateway: Gateway,
) -> None:
    session = gateway.auth.new_session()
    hung = gateway.servers["codegen"]
    gateway.codegen.answers["GenerateClient"] = codegen_pb2.GenerateClientResponse(content_type="text/x-python")
    assert (await gateway.call("GET", CLIENT, credential=session)).status == 200
    async with hung.hanging():
        await eventually(lambda: breaker_is(gateway, "open"), what="the breaker opens, although nobody calls")
        began = time.monotonic()
        assert (await gateway.call("GET", CLIENT, credential=session)).status == 503
        assert time.monotonic() - began < 2.0
    await eventually(lambda: breaker_is(gateway, "closed"), what="the breaker closes")
    assert (await gateway.call("GET", CLIENT, credential=session)).status == 200


async def breaker_is(gateway: Gateway, state: str) -> bool:
    check = (await gateway.call("GET", "/health/ready")).json["checks"]["codegen"]
    return bool(check["breaker"] == state)


async def test_clients_that_take_their_time_open_no_breaker(start_gateway: StartGateway) -> None:
    """Nor are they told that it was too late: what their bodies take is none of the call's time."""
    async with start_gateway(request_timeout_seconds=2.0, slow_client_seconds=5.0) as gateway:
        session = gateway.auth.new_session()

        async def slowly(_request: object) -> definitions_pb2.CreateMetricResponse:
            await asyncio.sleep(0.3)
            spec = definitions_pb2.MetricSpec(name="a_total", type=definitions_pb2.METRIC_TYPE_COUNTER)
            return definitions_pb2.CreateMetricResponse(metric=definitions_pb2.Metric(id=USER, spec=spec, version=1))

        gateway.config.answers["CreateMetric"] = slowly
        gateway.config.answers["ListMetrics"] = definitions_pb2.ListMetricsResponse()

        async def dribble() -> int:
            async def body() -> AsyncIterator[bytes]:
                yield b'{"name": "a_total", "type": "counter", '
                await asyncio.sleep(1.9)  # the client's own pace
                yield b'"help": "A."}'

            headers = {"Content-Type": "application/json"}
            return (await gateway.call("POST", METRICS, credential=session, data=body(), headers=headers)).status

        assert await asyncio.gather(*(dribble() for _ in range(10))) == [201] * 10
        assert (await gateway.call("GET", METRICS, credential=session)).status == 200
