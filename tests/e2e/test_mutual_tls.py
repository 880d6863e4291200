"""The whole suite with mutual TLS between its services."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from chassis.errors import Forbidden
from chassis.grpc_client import connected
from chassis.mutual_tls import MutualTls
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1.accounts_pb2_grpc import AccountServiceStub
from contracts.pulsegate.auth.v1.credentials_pb2 import GetSigningKeysRequest
from contracts.pulsegate.auth.v1.credentials_pb2_grpc import CredentialServiceStub
from deploy.local.authority import Authority
from deploy.local.certificates import DOMAIN
from deploy.local.secrets import write_private
from pulsegate.observation import fetched
from tests.e2e import api, test_main_job
from tests.e2e.api import Project
from tests.suite_running import TIRELESS, Suite
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(240)


_SERVICES = ("gateway", "auth", "config", "codegen", "receiver")
_EXPIRY = re.compile(r'^pulsegate_certificate_expiry_timestamp_seconds\{certificate="internal"\} (\S+)$', re.MULTILINE)


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


async def test_running_services_go_over_to_another_authority(suite: Suite, project: Project, tmp_path: Path) -> None:
    """As docs/zero-trust.md has it: both authorities first, then certificates of the new one."""
    authority = Authority.new("of tomorrow", datetime.now(UTC))
    folders = {service: suite.data / "certificates" / service for service in _SERVICES}
    for folder in folders.values():
        write_private(folder / "authorities.pem", (folder / "authorities.pem").read_text() + authority.pem.decode())
    await _seen(lambda service: "certificate files renewed" in suite.log(service))
    expiries = {service: _replaced(folder, service, authority) for service, folder in folders.items()}
    await _seen(lambda service: _told_expiry(suite, service) == expiries[service])

    await test_main_job.test_a_changed_definition_may_be_used_at_once(project)
    believed = tmp_path / "authorities.pem"
    believed.write_bytes(authority.pem)
    tls = MutualTls(folders["codegen"] / "certificate.pem", folders["codegen"] / "key.pem", believed, DOMAIN)
    address = f"127.0.0.1:{suite.ports.grpc('auth')}"
    async with connected("auth", address, suite.secret("service_token"), tls=tls) as channel:
        answer = await channel.call(CredentialServiceStub(channel.grpc_channel).GetSigningKeys, GetSigningKeysRequest())
    assert answer.jwks_json


def _replaced(folder: Path, service: str, authority: Authority) -> float:
    """When the new certificate expires."""
    leaf = authority.issue(f"{service}.{DOMAIN}", now=datetime.now(UTC), life=timedelta(hours=25))
    write_private(folder / "key.pem", leaf.key.decode())
    write_private(folder / "certificate.pem", leaf.certificate.decode())
    return x509.load_pem_x509_certificate(leaf.certificate).not_valid_after_utc.timestamp()


def _told_expiry(suite: Suite, service: str) -> float:
    """By the process; 0 where it does not answer."""
    _, metrics = fetched(f"http://127.0.0.1:{suite.ports.operations(service)}/metrics")
    told = _EXPIRY.search(metrics)
    return float(told[1]) if told else 0.0


async def _seen(of: Callable[[str], bool]) -> None:
    """Waits until it holds for every service."""

    async def everywhere() -> bool:
        return all([await asyncio.to_thread(of, service) for service in _SERVICES])

    await eventually(everywhere, within_seconds=60)
