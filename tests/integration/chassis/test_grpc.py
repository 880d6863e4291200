"""Server and client of the chassis, joined by a real connection, around a servicer that a test scripts."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc_health.v1 import health_pb2, health_pb2_grpc
from jwt.algorithms import OKPAlgorithm

from chassis import context, grpc_server, principals
from chassis.breakers import upstream_fault
from chassis.errors import (
    AnswerTooLarge,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    Internal,
    Invalid,
    Limited,
    PulsegateError,
    Unauthenticated,
    Unavailable,
)
from chassis.grpc_client import ServiceChannel, connected
from chassis.health import Health
from chassis.principals import AUDIENCE, ISSUER, PrincipalVerifier
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from contracts.pulsegate.config.v1 import definitions_pb2_grpc as pb_grpc
from deploy.local.layout import Ports
from services.config.callers import CALLERS
from tests.waiting import eventually

TOKEN = "shared-by-all-services"

Behaviour = Callable[[], Awaitable[str]]


class Servicer(pb_grpc.DefinitionServiceServicer, pb_grpc.DefinitionFeedServiceServicer):
    """Does what the test says; what it returns is a metric's id."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = self._nothing

    async def _nothing(self) -> str:
        return "answered"

    async def GetMetric(self, request: Any, _call: Any) -> pb.GetMetricResponse:  # noqa: N802
        return pb.GetMetricResponse(metric=pb.Metric(id=await self.behaviour()))

    async def WatchDefinitions(self, request: Any, _call: Any) -> AsyncIterator[pb.WatchDefinitionsResponse]:  # noqa: N802
        yield pb.WatchDefinitionsResponse(revision=1)
        await self.behaviour()
        yield pb.WatchDefinitionsResponse(revision=2)


@dataclass
class Service:
    """A server, and a channel to it."""

    servicer: Servicer
    channel: ServiceChannel
    address: str
    health: Health
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    async def call(self, behaviour: Behaviour | None = None, *, timeout_seconds: float | None = None) -> str:
        if behaviour:
            self.servicer.behaviour = behaviour
        stub = pb_grpc.DefinitionServiceStub(self.channel.grpc_channel)
        answer = await self.channel.call(stub.GetMetric, pb.GetMetricRequest(), timeout_seconds=timeout_seconds)
        return str(answer.metric.id)

    def watch(self) -> AsyncIterator[Any]:
        stub = pb_grpc.DefinitionFeedServiceStub(self.channel.grpc_channel)
        return self.channel.stream(stub.WatchDefinitions, pb.WatchDefinitionsRequest())

    async def signing_keys(self) -> str:
        return json.dumps({"keys": [{**OKPAlgorithm.to_jwk(self.key.public_key(), as_dict=True), "kid": "1"}]})

    def principal(self) -> str:
        claims = {"sub": "me", "kind": "user", "scopes": ["config:read"], "tid": "t", "pid": "p"}
        signed = {**claims, "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60}
        return jwt.encode(signed, self.key, algorithm="EdDSA", headers={"kid": "1"})

    def serving(self, drain_seconds: float = 5.0) -> AbstractAsyncContextManager[grpc.aio.Server]:
        host, _, port = self.address.rpartition(":")
        return grpc_server.serving(
            host,
            int(port),
            [
                lambda server: pb_grpc.add_DefinitionServiceServicer_to_server(self.servicer, server),
                lambda server: pb_grpc.add_DefinitionFeedServiceServicer_to_server(self.servicer, server),
            ],
            callers=CALLERS,
            service_token=TOKEN,
            verifier=PrincipalVerifier(self.signing_keys),
            process_health=self.health,
            drain_seconds=drain_seconds,
        )


@asynccontextmanager
async def beside(address: str, token: str = TOKEN) -> AsyncIterator[Service]:
    async with connected("callee", address, token) as channel:
        servicer = Servicer()  # type: ignore[abstract]
        yield Service(servicer, channel, address, Health())


@pytest.fixture
async def idle(port_blocks: Callable[[], Ports]) -> AsyncIterator[Service]:
    """A channel, and nobody who answers until a test begins to serve."""
    async with beside(f"127.0.0.1:{port_blocks().public}") as service:
        yield service


@pytest.fixture
async def service(idle: Service) -> AsyncIterator[Service]:
    async with idle.serving():
        yield idle


def raising(error: BaseException) -> Behaviour:
    async def behave() -> str:
        raise error

    return behave


async def hang() -> str:
    await asyncio.Event().wait()
    return "never"


ERRORS = [
    Conflict("The name is taken.", details={"fields": {"name": "is taken"}}),
    Limited("Slower, please.", retry_after_seconds=2.5),
    Forbidden("No.", code="INSUFFICIENT_SCOPE"),
    Invalid("ungültig ☃ \U0001f600\n\0", details={"deep": [{"a": None, "b": [1.5, True]}]}),
    Unavailable("Later."),
    Invalid("Large.", details={"fields": {f"labels[{number}].name": "é" * 100 for number in range(140)}}),
]


@pytest.mark.parametrize("error", ERRORS, ids=[str(number) for number in range(len(ERRORS))])
async def test_an_error_arrives_as_it_was_raised(error: PulsegateError, service: Service) -> None:
    with pytest.raises(type(error)) as caught:
        await service.call(raising(error))
    assert type(caught.value) is type(error)
    assert vars(caught.value) == vars(error)


@pytest.mark.parametrize("character", ["a", "\U0001f600", "\0"])
async def test_an_error_too_large_for_the_wire_arrives_without_its_details(character: str, service: Service) -> None:
    error = Invalid(character * 50_000, details={"fields": {"name": character * 50_000}})
    with pytest.raises(Invalid) as caught:
        await service.call(raising(error))
    assert caught.value.code == "VALIDATION_FAILED"
    assert caught.value.message == character * 1_000
    assert caught.value.details is None


async def test_an_error_in_mid_stream_arrives_after_what_was_sent(service: Service) -> None:
    service.servicer.behaviour = raising(ERRORS[0])
    messages = service.watch()
    assert (await anext(messages)).revision == 1
    with pytest.raises(Conflict) as caught:
        await anext(messages)
    assert vars(caught.value) == vars(ERRORS[0])


async def test_the_unknown_becomes_a_bland_internal_error(service: Service) -> None:
    with pytest.raises(Internal) as caught:
        await service.call(raising(ZeroDivisionError("password is hunter2")))
    assert caught.value.code == "INTERNAL"
    assert caught.value.details is None
    assert "hunter2" not in caught.value.message
    assert "ZeroDivision" not in caught.value.message


async def test_an_error_crosses_two_services_whole(service: Service, port_blocks: Callable[[], Ports]) -> None:
    service.servicer.behaviour = raising(ERRORS[0])
    async with beside(f"127.0.0.1:{port_blocks().public}") as front, front.serving():
        with pytest.raises(Conflict) as caught:
            await front.call(lambda: service.call())
    assert vars(caught.value) == vars(ERRORS[0])


async def test_an_answer_larger_than_a_message_is_told_apart_also_two_services_on(
    service: Service, port_blocks: Callable[[], Ports]
) -> None:
    async def too_large() -> str:
        return "x" * (16 << 20)

    service.servicer.behaviour = too_large
    async with beside(f"127.0.0.1:{port_blocks().public}") as front, front.serving():
        with pytest.raises(AnswerTooLarge):
            await service.call()
        with pytest.raises(Internal) as caught:
            await front.call(service.call)
    assert caught.value.code == "ANSWER_TOO_LARGE"
    assert not upstream_fault(caught.value)


async def test_a_call_that_is_not_served_is_an_internal_error(service: Service) -> None:
    method = pb_grpc.DefinitionServiceStub(service.channel.grpc_channel).ListMetrics
    with pytest.raises(Internal):
        await service.channel.call(method, pb.ListMetricsRequest())


async def test_a_call_that_takes_too_long_is_ended(service: Service) -> None:
    ended = asyncio.Event()

    async def never_answer() -> str:
        try:
            return await hang()
        finally:
            ended.set()

    with pytest.raises(DeadlineExceeded):
        await service.call(never_answer, timeout_seconds=0.1)
    async with asyncio.timeout(30):
        await ended.wait()  # at the callee too


async def test_the_callers_deadline_travels_through_each_service(service: Service) -> None:
    left: list[float] = []

    async def look() -> str:
        left.append(context.remaining_seconds(1000))
        return ""

    await service.call(look, timeout_seconds=3)
    assert 2 < left[0] < 3.1
    token = context.DEADLINE.set(time.monotonic() + 1)
    try:
        await service.call(look, timeout_seconds=3)
        assert 0 < left[1] < 1.1  # gRPC rounds up
        context.DEADLINE.set(time.monotonic() - 1)
        with pytest.raises(DeadlineExceeded):
            await service.call(look)
    finally:
        context.DEADLINE.reset(token)
    assert len(left) == 2


async def test_correlation_id_and_principal_travel(service: Service) -> None:
    async def look() -> str:
        return f"{context.CORRELATION_ID.get()} {principals.current_of_project().subject}"

    context.CORRELATION_ID.set("abc-1")
    context.PRINCIPAL_TOKEN.set(service.principal())
    try:
        assert await service.call(look) == "abc-1 me"
    finally:
        context.CORRELATION_ID.set("")
        context.PRINCIPAL_TOKEN.set("")


async def test_one_callers_identity_does_not_stay_for_the_next(service: Service) -> None:
    async def look() -> str:
        current = principals.CURRENT.get()
        return current.subject if current else "nobody"

    context.PRINCIPAL_TOKEN.set(service.principal())
    assert await service.call(look) == "me"
    context.PRINCIPAL_TOKEN.set("")
    assert await service.call(look) == "nobody"


async def test_an_unsigned_identity_is_not_believed(service: Service) -> None:
    context.PRINCIPAL_TOKEN.set("me")
    try:
        with pytest.raises(Unauthenticated):
            await service.call()
    finally:
        context.PRINCIPAL_TOKEN.set("")


@pytest.mark.parametrize("token", ["", "another", TOKEN + "x", TOKEN[:-1]])
async def test_who_lacks_the_services_token_is_not_answered(token: str, service: Service) -> None:
    async with connected("callee", service.address, token) as channel:
        for method in (
            pb_grpc.DefinitionServiceStub(channel.grpc_channel).GetMetric,
            pb_grpc.DefinitionServiceStub(channel.grpc_channel).CreateMetric,
        ):
            with pytest.raises(Unauthenticated):
                await channel.call(method, pb.GetMetricRequest())
        with pytest.raises(Unauthenticated):
            await anext(
                channel.stream(
                    pb_grpc.DefinitionFeedServiceStub(channel.grpc_channel).WatchDefinitions,
                    pb.WatchDefinitionsRequest(),
                )
            )


async def test_a_proxy_that_the_environment_names_is_not_asked(
    port_blocks: Callable[[], Ports], monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = port_blocks()
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{ports.public + 1}")
    for name in ("no_grpc_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with beside(f"127.0.0.1:{ports.public}") as service, service.serving():
        assert await service.call() == "answered"


async def test_a_service_that_is_away_is_unavailable_at_once_and_needs_no_restart(idle: Service) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await idle.call(timeout_seconds=60)
    assert time.monotonic() - began < 30
    assert caught.value.retry_after_seconds
    with pytest.raises(Unavailable):
        await idle.channel.probe()

    async def answers() -> bool:
        try:
            return await idle.call() == "answered"
        except Unavailable:
            return False

    for _ in range(2):  # it comes, goes, and comes again
        async with idle.serving():
            await eventually(answers)
        assert not await answers()


async def test_a_service_is_up_while_it_says_that_it_is_ready(service: Service) -> None:
    async def up() -> bool:
        try:
            await service.channel.probe()
        except Unavailable:
            return False
        return True

    async def down() -> bool:
        return not await up()

    await eventually(down)  # it answers, but has not started
    service.health.started = True
    await eventually(up)
    service.health.stopping = True
    await eventually(down)


async def test_work_under_way_is_finished_before_the_end_and_new_work_refused(idle: Service) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        begun.set()
        await release.wait()
        return "finished"

    async with idle.serving():
        call = asyncio.create_task(idle.call(work))
        await begun.wait()
        asyncio.get_running_loop().call_later(0.3, release.set)
    assert await call == "finished"
    with pytest.raises(Unavailable):
        await idle.call()


async def test_work_that_does_not_finish_is_cut_off_after_the_grace(idle: Service) -> None:
    begun = asyncio.Event()

    async def never_finish() -> str:
        begun.set()
        return await hang()

    async with idle.serving(drain_seconds=0.2):
        call = asyncio.create_task(idle.call(never_finish, timeout_seconds=60))
        await begun.wait()
        began = time.monotonic()
    assert time.monotonic() - began < 8
    with pytest.raises(Unavailable):
        await call


async def test_the_health_service_follows_the_process(service: Service) -> None:
    stub: Any = health_pb2_grpc.HealthStub(service.channel.grpc_channel)

    async def status() -> int:
        answer = await stub.Check(health_pb2.HealthCheckRequest())  # without the token: probes have none
        return int(answer.status)

    async def serving() -> bool:
        return await status() == health_pb2.HealthCheckResponse.SERVING

    async def not_serving() -> bool:
        return await status() == health_pb2.HealthCheckResponse.NOT_SERVING

    await eventually(not_serving)
    service.health.started = True
    await eventually(serving)
    service.health.stopping = True
    await eventually(not_serving)


class BrokenHealth(Health):
    """Its status cannot be told."""

    @property
    def status(self) -> str:
        raise KeyError("status")


async def test_a_health_that_cannot_be_told_ends_the_server(idle: Service) -> None:
    async def serve() -> None:
        async with idle.serving():
            await asyncio.Event().wait()

    idle.health = BrokenHealth()
    with pytest.raises(KeyError, match="status"):
        await asyncio.wait_for(serve(), 5)
    with pytest.raises(Unavailable):
        await idle.call()


async def test_a_port_that_is_taken_is_an_error(service: Service) -> None:
    with pytest.raises(RuntimeError):
        async with service.serving():
            pass
