"""A client that speaks auth's contract, as the gateway does, and services that run in this process."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from chassis import api_keys, context, grpc_client
from chassis.clock import Clock
from chassis.errors import Unavailable
from contracts.pulsegate.auth.v1 import (
    accounts_pb2,
    accounts_pb2_grpc,
    audit_pb2_grpc,
    credentials_pb2,
    credentials_pb2_grpc,
    invitations_pb2_grpc,
    operators_pb2_grpc,
    own_account_pb2_grpc,
    provisioning_pb2_grpc,
    single_sign_on_pb2_grpc,
)
from services.auth.app import running
from services.auth.settings import Settings
from tests.waiting import eventually

PASSWORD = "correct horse battery staple"


_NUMBERS = itertools.count(1)


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
        self._own_account = own_account_pb2_grpc.OwnAccountServiceStub(channel.grpc_channel)
        self._audit = audit_pb2_grpc.AuditServiceStub(channel.grpc_channel)
        self._invitations = invitations_pb2_grpc.InvitationServiceStub(channel.grpc_channel)
        self._operators = operators_pb2_grpc.OperatorServiceStub(channel.grpc_channel)
        self._single_sign_on = single_sign_on_pb2_grpc.SingleSignOnServiceStub(channel.grpc_channel)
        self._provisioning = provisioning_pb2_grpc.ProvisioningServiceStub(channel.grpc_channel)
        self._credentials = credentials_pb2_grpc.CredentialServiceStub(channel.grpc_channel)

    async def account(self, method: str, request: Any, principal: str = "") -> Any:
        """A call to AccountService."""
        return await self._call(self._accounts, method, request, principal)

    async def own(self, method: str, request: Any, principal: str = "") -> Any:
        """A call to OwnAccountService."""
        return await self._call(self._own_account, method, request, principal)

    async def audit(self, method: str, request: Any, principal: str = "") -> Any:
        """A call to AuditService."""
        return await self._call(self._audit, method, request, principal)

    async def invitation(self, method: str, request: Any, principal: str = "") -> Any:
        """A call to InvitationService."""
        return await self._call(self._invitations, method, request, principal)

    async def operate(self, method: str, request: Any, principal: str = "") -> Any:
        """A call to OperatorService."""
        return await self._call(self._operators, method, request, principal)

    async def sso(self, method: str, request: Any, principal: str = "") -> Any:
        """A call to SingleSignOnService."""
        return await self._call(self._single_sign_on, method, request, principal)

    async def provision(self, method: str, request: Any, principal: str = "") -> Any:
        """A call to ProvisioningService."""
        return await self._call(self._provisioning, method, request, principal)

    async def _call(self, stub: Any, method: str, request: Any, principal: str) -> Any:
        token = context.PRINCIPAL_TOKEN.set(principal)
        try:
            return await self._channel.call(getattr(stub, method), request)
        finally:
            context.PRINCIPAL_TOKEN.reset(token)

    async def authenticate(
        self, *, key: str = "", access_token: str = "", project_id: str = "", tenant_id: str = ""
    ) -> credentials_pb2.AuthenticateResponse:
        """The verdict on a key's text or on an access token."""
        if key:
            request = credentials_pb2.AuthenticateRequest(api_key_sha256=api_keys.digest(key))
        else:
            request = credentials_pb2.AuthenticateRequest(
                access_token=access_token, project_id=project_id, tenant_id=tenant_id
            )
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

    async def sign_up(self, email: str = "", tenant_name: str = "Engines") -> Person:
        """A new person, at an address of their own unless one is given."""
        email = email or f"person-{next(_NUMBERS)}@example.com"
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
        except Unavailable:
            return False


@asynccontextmanager
async def connected_to(settings: Settings) -> AsyncIterator[AuthClient]:
    """A client of a service that runs somewhere with these settings."""
    address = f"127.0.0.1:{settings.grpc_port}"
    async with grpc_client.connected("auth", address, settings.service_token) as channel:
        yield AuthClient(channel)


@asynccontextmanager
async def running_auth(
    settings: Settings, clock: Clock | None = None, *, wait: bool = True, **changed: Any
) -> AsyncIterator[AuthClient]:
    """A service in this process, and its client once it answers, or at once."""
    settings = replace(settings, **changed)
    async with running(settings, clock), connected_to(settings) as client:
        if wait:
            await eventually(client.is_up, what="auth answers")
        yield client
