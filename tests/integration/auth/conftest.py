"""A running auth service on a fresh database, and a client that speaks its contract.

Fixtures: `settings` (of one service on the test's database), `auth` (the running service's client).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from chassis import api_keys, context, grpc_client
from contracts.pulsegate.auth.v1 import accounts_pb2, accounts_pb2_grpc, credentials_pb2, credentials_pb2_grpc
from deploy.local.layout import Ports
from services.auth.app import running
from services.auth.settings import Settings
from tests.suite_database import Database
from tests.waiting import eventually

PASSWORD = "correct horse battery staple"
_SERVICE_TOKEN = "service-token-only-for-tests"


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who signed up."""

    email: str
    user_id: str
    tenant_id: str
    project_id: str
    access_token: str
    refresh_token: str


class AuthClient:
    """Calls one auth service; `principal` is what the gateway would send along."""

    def __init__(self, channel: grpc_client.ServiceChannel) -> None:
        self._channel = channel
        self._accounts = accounts_pb2_grpc.AccountServiceStub(channel.grpc_channel)
        self._credentials = credentials_pb2_grpc.CredentialServiceStub(channel.grpc_channel)

    async def account(self, method: str, request: Any, principal: str = "") -> Any:
        """A call to AccountService."""
        token = context.PRINCIPAL_TOKEN.set(principal)
        try:
            return await self._channel.call(getattr(self._accounts, method), request)
        finally:
            context.PRINCIPAL_TOKEN.reset(token)

    async def authenticate(
        self, *, key: str = "", access_token: str = "", project_id: str = ""
    ) -> credentials_pb2.AuthenticateResponse:
        """The verdict on a key's text or on an access token."""
        if key:
            request = credentials_pb2.AuthenticateRequest(api_key_sha256=api_keys.digest(key))
        else:
            request = credentials_pb2.AuthenticateRequest(access_token=access_token, project_id=project_id)
        return await self.authenticate_by(request)

    async def authenticate_by(
        self, request: credentials_pb2.AuthenticateRequest
    ) -> credentials_pb2.AuthenticateResponse:
        answer: credentials_pb2.AuthenticateResponse = await self._channel.call(self._credentials.Authenticate, request)
        return answer

    async def signing_keys(self) -> str:
        answer = await self._channel.call(self._credentials.GetSigningKeys, credentials_pb2.GetSigningKeysRequest())
        return str(answer.jwks_json)

    def watch(self, after_revision: int = 0) -> AsyncIterator[credentials_pb2.WatchCredentialsResponse]:
        request = credentials_pb2.WatchCredentialsRequest(after_revision=after_revision)
        return self._channel.stream(self._credentials.WatchCredentials, request)

    async def sign_up(self, email: str = "ada@example.com", tenant_name: str = "Engines") -> Person:
        answer = await self.account(
            "SignUp", accounts_pb2.SignUpRequest(email=email, password=PASSWORD, tenant_name=tenant_name)
        )
        return Person(
            email=email,
            user_id=answer.user.id,
            tenant_id=answer.tenant.id,
            project_id=answer.project.id,
            access_token=answer.session.access_token,
            refresh_token=answer.session.refresh_token,
        )

    async def principal(self, person: Person, project_id: str = "") -> str:
        """The principal with which the person's calls travel."""
        return (await self.authenticate(access_token=person.access_token, project_id=project_id)).principal

    async def create_key(self, person: Person, **members: Any) -> accounts_pb2.CreateKeyResponse:
        """A secret key of the person's first project, unless told otherwise."""
        wanted = {"project_id": person.project_id, "name": "a key", "kind": accounts_pb2.KEY_KIND_SECRET}
        request = accounts_pb2.CreateKeyRequest(**{**wanted, **members})
        answer: accounts_pb2.CreateKeyResponse = await self.account("CreateKey", request, await self.principal(person))
        return answer

    async def is_up(self) -> bool:
        try:
            return bool(await self.signing_keys())
        except Exception:
            return False


@pytest.fixture(scope="session")
def ports(port_blocks: Callable[[], Ports]) -> Ports:
    return port_blocks()


@pytest.fixture
def settings(database: Database, ports: Ports) -> Settings:
    return Settings(
        host="127.0.0.1",
        operations_port=ports.operations("auth"),
        grpc_port=ports.grpc("auth"),
        service_token=_SERVICE_TOKEN,
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
    )


@asynccontextmanager
async def connected_to(settings: Settings) -> AsyncIterator[AuthClient]:
    """A client of a service that runs somewhere with these settings."""
    address = f"127.0.0.1:{settings.grpc_port}"
    async with grpc_client.connected("auth", address, settings.service_token) as channel:
        yield AuthClient(channel)


@asynccontextmanager
async def running_auth(settings: Settings, **changed: Any) -> AsyncIterator[AuthClient]:
    """A service in this process, and its client once it answers."""
    settings = replace(settings, **changed)
    async with running(settings), connected_to(settings) as client:
        await eventually(client.is_up, what="auth answers")
        yield client


@pytest.fixture
async def auth(settings: Settings) -> AsyncIterator[AuthClient]:
    async with running_auth(settings) as client:
        yield client
