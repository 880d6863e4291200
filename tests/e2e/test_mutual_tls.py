"""The whole suite with mutual TLS between its services."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest

from chassis.errors import Forbidden
from chassis.grpc_client import connected
from chassis.mutual_tls import MutualTls
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1.accounts_pb2_grpc import AccountServiceStub
from contracts.pulsegate.auth.v1.credentials_pb2 import GetSigningKeysRequest
from contracts.pulsegate.auth.v1.credentials_pb2_grpc import CredentialServiceStub
from deploy.local.certificates import DOMAIN
from tests.e2e import api, test_main_job
from tests.e2e.api import Project
from tests.suite_running import TIRELESS, Suite

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def suite(start_suite: Callable[..., Suite]) -> Iterator[Suite]:
    suite = start_suite(**TIRELESS, PULSEGATE_MTLS="1")
    yield suite
    suite.stop()


@pytest.fixture
async def project(suite: Suite) -> AsyncIterator[Project]:
    async with api.connected(suite.base_url) as visitor:
        yield await api.sign_up(visitor)


async def test_the_main_job_is_done(project: Project, tmp_path: Path) -> None:
    await test_main_job.test_the_generated_python_client_delivers_exact_numbers(project, tmp_path)
    await test_main_job.test_a_changed_definition_may_be_used_at_once(project)


@pytest.mark.parametrize("service", ["auth", "config", "codegen", "receiver"])
async def test_no_port_answers_plain_text(service: str, suite: Suite) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{suite.ports.grpc(service)}") as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_service_is_answered_what_is_for_it_and_nothing_else(suite: Suite) -> None:
    folder = suite.data / "certificates" / "codegen"
    tls = MutualTls(folder / "certificate.pem", folder / "key.pem", folder / "authorities.pem", DOMAIN)
    address = f"127.0.0.1:{suite.ports.grpc('auth')}"
    async with connected("auth", address, suite.secret("service_token"), tls=tls) as channel:
        answer = await channel.call(CredentialServiceStub(channel.grpc_channel).GetSigningKeys, GetSigningKeysRequest())
        assert answer.jwks_json
        sign_in = accounts_pb2.SignInRequest(email="ada@example.com", password="a guess")
        with pytest.raises(Forbidden):
            await channel.call(AccountServiceStub(channel.grpc_channel).SignIn, sign_in)
