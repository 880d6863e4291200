"""A running auth service for all tests of a file, and the means to run one's own.

Fixtures: `auth` (the client of a service that the tests of one file share, on `module_database`), `settings` (of a
service for one test, on `database`), `replica_settings` (of a second service on the same database), `clock` (which
tests move), `moving_auth` (a service for one test, by that clock), `mailing_settings` (of a service with a mail server,
which is away), `forger` (an OpenID provider that lies), `liar` (a directory that lies). Services and tests share the
file's event loop: `pytestmark = pytest.mark.asyncio(loop_scope="module")`.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import ip_network

import pytest
import pytest_asyncio

from deploy.local.layout import Ports
from services.auth.mailers import SmtpServer
from services.auth.settings import Settings
from tests.integration.auth.client import AuthClient, running_auth
from tests.integration.auth.clocks import MovableClock
from tests.integration.auth.forging_issuer import ForgingIssuer, forging_issuer
from tests.integration.auth.lying_directory import LyingDirectory, lying_directory
from tests.suite_database import Database


@pytest.fixture(scope="session")
def ports(lasting_port_blocks: Callable[[], Ports]) -> Ports:
    return lasting_port_blocks()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def auth(module_database: Database, ports: Ports) -> AsyncIterator[AuthClient]:
    async with running_auth(_settings(module_database, ports, "auth")) as client:
        yield client


@pytest.fixture
def settings(database: Database, ports: Ports) -> Settings:
    return _settings(database, ports, "config")


@pytest.fixture
def replica_settings(settings: Settings, ports: Ports) -> Settings:
    return replace(settings, operations_port=ports.operations("codegen"), grpc_port=ports.grpc("codegen"))


@pytest.fixture
def mailing_settings(settings: Settings) -> Settings:
    return replace(settings, smtp=SmtpServer.parse("smtp+plain://127.0.0.1:1"))


@pytest_asyncio.fixture(loop_scope="module")
async def clock() -> MovableClock:
    return MovableClock()


@pytest_asyncio.fixture(loop_scope="module")
async def moving_auth(settings: Settings, clock: MovableClock) -> AsyncIterator[AuthClient]:
    async with running_auth(settings, clock) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def forger() -> AsyncIterator[ForgingIssuer]:
    async with forging_issuer() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def liar() -> AsyncIterator[LyingDirectory]:
    async with lying_directory() as started:
        yield started


def _settings(database: Database, ports: Ports, block: str) -> Settings:
    """On the two ports that the embedded stack would give to the service `block`."""
    return Settings(
        host="127.0.0.1",
        operations_port=ports.operations(block),
        grpc_port=ports.grpc(block),
        service_token="service-token-only-for-tests",
        log_level="info",
        otlp_endpoint=None,
        drain_seconds=5.0,
        dsn=database.dsn("auth"),
        master_key=bytes(range(32)),
        default_plan="enterprise",
        access_token_seconds=900,
        principal_seconds=120,
        refresh_token_days=7,
        signing_key_days=30,
        bcrypt_cost=4,  # the lowest there is: these tests are not about the cost
        bcrypt_threads=2,
        bcrypt_queue=100,
        most_connections=10,
        sso_private_networks=(ip_network("127.0.0.0/8"),),
    )
