"""Mutual TLS between two real ends: who is answered, who is not, and new certificates while calls go on."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from chassis import grpc_server, renewed_channel
from chassis.callers import INSIDE
from chassis.errors import Forbidden, Internal, PulsegateError, Unauthenticated, Unavailable
from chassis.grpc_client import ServiceChannel, connected
from chassis.grpc_metadata import SERVICE_TOKEN_KEY
from chassis.health import Health
from chassis.mutual_tls import Material, MutualTls
from chassis.principals import PrincipalVerifier
from chassis.renewed_channel import RenewedChannel
from chassis.tasks import in_background
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from contracts.pulsegate.config.v1 import definitions_pb2_grpc as pb_grpc
from deploy.local.authority import Authority
from deploy.local.layout import Ports
from services.auth.callers import CALLERS as OF_AUTH
from services.codegen.callers import CALLERS as OF_CODEGEN
from services.config.callers import CALLERS as OF_CONFIG
from services.ingest.callers import CALLERS as OF_INGEST
from tests.mutual_tls_files import DOMAIN, ServiceFiles, authority
from tests.waiting import eventually

TOKEN = "shared-by-all-services"
EVERY_METHOD = {**OF_AUTH, **OF_CONFIG, **OF_CODEGEN, **OF_INGEST}


class Servicer(pb_grpc.DefinitionServiceServicer, pb_grpc.DefinitionFeedServiceServicer):
    async def GetProjectDefinitions(self, request: Any, _call: Any) -> pb.GetProjectDefinitionsResponse:  # noqa: N802
        return pb.GetProjectDefinitionsResponse(revision=7)

    async def WatchDefinitions(self, request: Any, _call: Any) -> AsyncIterator[pb.WatchDefinitionsResponse]:  # noqa: N802
        for revision in range(1, 1_000_000):
            yield pb.WatchDefinitionsResponse(revision=revision)
            await asyncio.sleep(0.01)


async def no_keys() -> str:
    return '{"keys": []}'


@asynccontextmanager
async def serving(port: int, tls: MutualTls | None, servicer: Any = None) -> AsyncIterator[None]:
    """config, which answers what its callers may ask."""
    servicer = servicer or Servicer()  # type: ignore[abstract]
    registrations: list[grpc_server.Registration] = [
        lambda server: pb_grpc.add_DefinitionServiceServicer_to_server(servicer, server),
        lambda server: pb_grpc.add_DefinitionFeedServiceServicer_to_server(servicer, server),
    ]
    async with grpc_server.serving(
        "127.0.0.1",
        port,
        registrations,
        callers=OF_CONFIG,
        service_token=TOKEN,
        verifier=PrincipalVerifier(no_keys),
        process_health=Health(started=True),
        tls=tls,
        drain_seconds=0.1,
    ):
        yield


async def ask(channel: ServiceChannel) -> int:
    stub = pb_grpc.DefinitionFeedServiceStub(channel.grpc_channel)
    answer = await channel.call(stub.GetProjectDefinitions, pb.GetProjectDefinitionsRequest())
    return int(answer.revision)


@pytest.fixture
def ours() -> Authority:
    return authority("ours")


@pytest.fixture
def config(tmp_path: Path, ours: Authority) -> ServiceFiles:
    return ServiceFiles(tmp_path, "config", ours)


@pytest.fixture
def receiver(tmp_path: Path, ours: Authority) -> ServiceFiles:
    return ServiceFiles(tmp_path, "receiver", ours)


@pytest.fixture
async def address(config: ServiceFiles, port_blocks: Callable[[], Ports]) -> AsyncIterator[str]:
    port = port_blocks().public
    async with serving(port, config.tls()):
        yield f"127.0.0.1:{port}"


async def test_a_listed_caller_is_answered(address: str, receiver: ServiceFiles) -> None:
    async with connected("config", address, TOKEN, tls=receiver.tls()) as channel:
        assert await ask(channel) == 7
        await channel.probe()


async def test_the_service_token_is_asked_for_all_the_same(address: str, receiver: ServiceFiles) -> None:
    async with connected("config", address, "another", tls=receiver.tls()) as channel:
        with pytest.raises(Unauthenticated):
            await ask(channel)


@pytest.mark.parametrize(
    "names",
    [
        (f"receiver.another.{DOMAIN[:-1]}",),
        ("receiver",),
        (f"receiver.{DOMAIN}", f"gateway.{DOMAIN}"),
        (f"x.receiver.{DOMAIN}",),
        (f"*.{DOMAIN}",),
    ],
)
async def test_a_certificate_without_one_known_name_opens_nothing(
    names: tuple[str, ...], address: str, receiver: ServiceFiles, ours: Authority
) -> None:
    leaf = ours.issue(*names, now=datetime.now(UTC), life=timedelta(hours=1))
    credentials = grpc.ssl_channel_credentials(ours.pem, leaf.key, leaf.certificate)
    assert await status_of(address, credentials) in (
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    )


async def status_of(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    """What a caller with the token is answered."""
    options = [("grpc.ssl_target_name_override", f"config.{DOMAIN}")]
    channel = (
        grpc.aio.insecure_channel(address)
        if credentials is None
        else grpc.aio.secure_channel(address, credentials, options=options)
    )
    async with channel:
        stub = pb_grpc.DefinitionFeedServiceStub(channel)
        try:
            await stub.GetProjectDefinitions(
                pb.GetProjectDefinitionsRequest(), metadata=[(SERVICE_TOKEN_KEY, TOKEN)], timeout=5
            )
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def expired(ours: Authority) -> grpc.ChannelCredentials:
    leaf = ours.issue(f"receiver.{DOMAIN}", now=datetime.now(UTC) - timedelta(hours=2), life=timedelta(hours=1))
    return grpc.ssl_channel_credentials(ours.pem, leaf.key, leaf.certificate)


def of_another_authority(ours: Authority) -> grpc.ChannelCredentials:
    leaf = authority("ours").issue(f"receiver.{DOMAIN}", now=datetime.now(UTC), life=timedelta(hours=1))
    return grpc.ssl_channel_credentials(ours.pem, leaf.key, leaf.certificate)


def without_certificate(ours: Authority) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(ours.pem)


@pytest.mark.parametrize("shown", [expired, of_another_authority, without_certificate, lambda ours: None])
async def test_who_shows_no_good_certificate_or_speaks_plain_text_reaches_nothing(
    shown: Callable[[Authority], grpc.ChannelCredentials | None], address: str, ours: Authority
) -> None:
    assert await status_of(address, shown(ours)) is grpc.StatusCode.UNAVAILABLE


async def test_who_is_expected_is_believed_and_no_other_server(
    config: ServiceFiles, receiver: ServiceFiles, ours: Authority, port_blocks: Callable[[], Ports], tmp_path: Path
) -> None:
    impostors = [ServiceFiles(tmp_path, "auth", ours).tls(), None, of_foreigners(config, ours)]
    for impostor in impostors:
        port = port_blocks().public
        async with (
            serving(port, impostor),
            connected("config", f"127.0.0.1:{port}", TOKEN, tls=receiver.tls()) as channel,
        ):
            with pytest.raises(Unavailable):
                await ask(channel)


def of_foreigners(config: ServiceFiles, ours: Authority) -> MutualTls:
    config.issue(authority("ours"))
    return config.tls()


async def test_each_method_answers_the_callers_on_its_list_and_no_other(
    tmp_path: Path, ours: Authority, config: ServiceFiles, port_blocks: Callable[[], Ports]
) -> None:
    port = port_blocks().public
    answered: dict[str, set[str]] = {method: set() for method in EVERY_METHOD}
    async with grpc_server.serving(
        "127.0.0.1",
        port,
        list(every_servicer()),
        callers=EVERY_METHOD,
        service_token=TOKEN,
        verifier=PrincipalVerifier(no_keys),
        process_health=Health(),
        tls=config.tls(),
    ):
        for caller in ("gateway", "auth", "config", "codegen", "receiver", "aggregator", INSIDE, "stranger"):
            files = ServiceFiles(tmp_path, caller, ours)
            async with connected("config", f"127.0.0.1:{port}", TOKEN, tls=files.tls()) as channel:
                for method in EVERY_METHOD:
                    try:
                        await channel.call(channel.grpc_channel.unary_unary(method), b"")
                    except Internal:  # it has nothing to answer with, but would
                        answered[method].add(caller)
                    except Forbidden:
                        continue
    assert answered == {method: set(callers) for method, callers in EVERY_METHOD.items()}


def every_servicer() -> list[grpc_server.Registration]:
    """Every service of the contracts, with nothing behind it."""
    found: list[grpc_server.Registration] = []
    for path in sorted(Path("contracts/pulsegate").rglob("*_pb2_grpc.py")):
        module = importlib.import_module(".".join(path.with_suffix("").parts))
        for name in vars(module):
            if name.startswith("add_"):
                servicer = getattr(module, name.removeprefix("add_").removesuffix("_to_server"))()
                found.append(partial(getattr(module, name), servicer))
    return found


async def test_a_method_that_no_list_names_answers_nobody(port_blocks: Callable[[], Ports]) -> None:
    """Without mutual TLS too."""
    port = port_blocks().public
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            grpc_server.serving(
                "127.0.0.1",
                port,
                every_servicer(),
                callers={},
                service_token=TOKEN,
                verifier=PrincipalVerifier(no_keys),
                process_health=Health(),
            )
        )
        channel = await stack.enter_async_context(connected("config", f"127.0.0.1:{port}", TOKEN))
        with pytest.raises(Forbidden):
            await ask(channel)


class Load:
    """Calls, one after the other, and what came of them."""

    def __init__(self, channel: ServiceChannel) -> None:
        self._channel = channel
        self.answered = 0
        self.failures: list[PulsegateError] = []

    async def run(self) -> None:
        while True:
            try:
                await ask(self._channel)
                self.answered += 1
            except PulsegateError as error:
                self.failures.append(error)

    async def goes_on(self) -> None:
        """Returns when more calls were answered."""
        enough = self.answered + 50

        async def more() -> bool:
            return self.answered > enough

        await eventually(more)


async def test_authorities_and_certificates_change_under_load_and_no_call_fails(
    config: ServiceFiles, receiver: ServiceFiles, ours: Authority, port_blocks: Callable[[], Ports]
) -> None:
    theirs, new = (config.tls(), receiver.tls()), authority("new")
    port = port_blocks().public
    async with (
        serving(port, theirs[0]),
        connected("config", f"127.0.0.1:{port}", TOKEN, tls=theirs[1]) as channel,
        connected("config", f"127.0.0.1:{port}", TOKEN, tls=theirs[1]) as watching,
    ):
        stub = pb_grpc.DefinitionFeedServiceStub(watching.grpc_channel)
        messages = watching.stream(stub.WatchDefinitions, pb.WatchDefinitionsRequest())
        last = (await anext(messages)).revision
        load = Load(channel)
        tasks = [asyncio.create_task(load.run()) for _ in range(4)]
        for step in ("believe both", "issue", "believe the new one"):
            for files in (config, receiver):
                change(step, files, ours, new)
            await renewed(channel, theirs)
            await load.goes_on()
        for task in tasks:
            task.cancel()
        assert load.failures == []
        for _ in range(5):  # a stream that was open before goes on
            last, before_it = (await anext(messages)).revision, last
            assert last == before_it + 1
        assert await status_of(f"127.0.0.1:{port}", of_another_authority(ours)) is grpc.StatusCode.UNAVAILABLE
        leaf = ours.issue(f"receiver.{DOMAIN}", now=datetime.now(UTC), life=timedelta(hours=1))
        of_old = grpc.ssl_channel_credentials(new.pem, leaf.key, leaf.certificate)
        assert await status_of(f"127.0.0.1:{port}", of_old) is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_that_outlives_its_connection_is_told_and_begins_anew(
    config: ServiceFiles,
    receiver: ServiceFiles,
    ours: Authority,
    port_blocks: Callable[[], Ports],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Feeds last longer than a connection is drained, and those who follow them go on after any error of ours."""
    monkeypatch.setattr(renewed_channel, "_DRAIN_SECONDS", 0.2)
    theirs = (config.tls(), receiver.tls())
    port = port_blocks().public
    async with serving(port, theirs[0]), connected("config", f"127.0.0.1:{port}", TOKEN, tls=theirs[1]) as channel:
        stub = pb_grpc.DefinitionFeedServiceStub(channel.grpc_channel)
        broken_off = asyncio.Event()

        async def follow() -> None:
            with pytest.raises(Unavailable):
                async for _ in channel.stream(stub.WatchDefinitions, pb.WatchDefinitionsRequest()):
                    pass
            broken_off.set()
            async for _ in channel.stream(stub.WatchDefinitions, pb.WatchDefinitionsRequest()):
                pass

        async with in_background(follow()):
            receiver.issue(ours)
            await renewed(channel, theirs)
            async with asyncio.timeout(5):
                await broken_off.wait()


async def test_calls_go_on_over_the_connection_there_is_until_there_is_one_with_new_files(
    config: ServiceFiles,
    receiver: ServiceFiles,
    ours: Authority,
    port_blocks: Callable[[], Ports],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renewed_channel, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(renewed_channel, "_DRAIN_SECONDS", 0.2)
    theirs = (config.tls(), receiver.tls())
    port = port_blocks().public
    async with serving(port, theirs[0]), connected("config", f"127.0.0.1:{port}", TOKEN, tls=theirs[1]) as channel:
        assert await ask(channel) == 7
        before = present(channel)
        receiver.issue(authority("unknown to config"))
        theirs[1].renew()
        for _ in range(5):
            await asyncio.sleep(0.2)
            assert await ask(channel) == 7
        assert present(channel) is before
        receiver.issue(ours)
        await renewed(channel, theirs)
        assert await ask(channel) == 7


def change(step: str, files: ServiceFiles, old: Authority, new: Authority) -> None:
    if step == "issue":
        files.issue(new)
    else:
        files.believe(*((old, new) if step == "believe both" else (new,)))


async def renewed(channel: ServiceChannel, theirs: Sequence[MutualTls]) -> None:
    """Both ends take their new files, and the channel another connection."""
    before = present(channel)
    for tls in theirs:
        tls.renew()

    async def another() -> bool:
        return present(channel) is not before

    await eventually(another)


def present(channel: ServiceChannel) -> grpc.aio.Channel:
    assert isinstance(channel.grpc_channel, RenewedChannel)
    return channel.grpc_channel.present


def another_key(files: ServiceFiles, ours: Authority) -> None:
    files.key.write_bytes(ours.issue("x", now=datetime.now(UTC), life=timedelta(hours=1)).key)


def gone(files: ServiceFiles, ours: Authority) -> None:
    files.authorities.unlink()


def no_pem(files: ServiceFiles, ours: Authority) -> None:
    files.certificate.write_text("certificate")


def in_anothers_name(files: ServiceFiles, ours: Authority) -> None:
    files.issue(ours, "receiver.example.com")


def of_yesterday(files: ServiceFiles, ours: Authority) -> None:
    files.issue(ours, now=datetime.now(UTC) - timedelta(days=1))


FAULTS = [another_key, gone, no_pem, in_anothers_name, of_yesterday]


@pytest.mark.parametrize("fault", FAULTS)
async def test_faulty_files_are_not_taken_and_the_next_good_ones_are(
    fault: Callable[[ServiceFiles, Authority], None], receiver: ServiceFiles, ours: Authority
) -> None:
    tls = receiver.tls()
    before: Material = tls.material
    fault(receiver, ours)
    with pytest.raises(ValueError, match=r"."):
        receiver.tls()
    tls.renew()
    assert tls.material is before
    receiver.issue(ours)
    receiver.believe(ours)
    tls.renew()
    assert tls.material is not before


def test_a_process_stays_the_service_that_its_first_certificate_names(receiver: ServiceFiles, ours: Authority) -> None:
    tls = receiver.tls()
    before = tls.material
    receiver.issue(ours, f"gateway.{DOMAIN}")
    tls.renew()
    assert tls.material is before
    receiver.issue(ours)
    tls.renew()
    assert tls.material is not before
