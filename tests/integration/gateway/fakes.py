"""The services behind the gateway, played over real gRPC: they answer what a test tells them and keep what they saw.

`Played` plays one service; `PlayedAuth` is auth with credentials that can be made and revoked, and its feed;
`PlayedReceiver` takes batches one by one and in streams, and answers both as its `IngestBatch` is told.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import jwt

from chassis import api_keys, grpc_server, principals
from chassis.errors import NotFound, PulsegateError, Unauthenticated, to_wire
from chassis.health import Health
from chassis.ids import uuid7
from chassis.principals import AUDIENCE, ISSUER, KeySource, Principal, PrincipalVerifier
from chassis.tasks import ended
from contracts.pulsegate.auth.v1 import (
    accounts_pb2,
    audit_pb2,
    credentials_pb2,
    invitations_pb2,
    operators_pb2,
    own_account_pb2,
    provisioning_pb2,
    single_sign_on_pb2,
)
from contracts.pulsegate.auth.v1.accounts_pb2_grpc import add_AccountServiceServicer_to_server
from contracts.pulsegate.auth.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from contracts.pulsegate.auth.v1.credentials_pb2_grpc import add_CredentialServiceServicer_to_server
from contracts.pulsegate.auth.v1.invitations_pb2_grpc import add_InvitationServiceServicer_to_server
from contracts.pulsegate.auth.v1.limits_pb2 import Limits
from contracts.pulsegate.auth.v1.operators_pb2_grpc import add_OperatorServiceServicer_to_server
from contracts.pulsegate.auth.v1.own_account_pb2_grpc import add_OwnAccountServiceServicer_to_server
from contracts.pulsegate.auth.v1.provisioning_pb2_grpc import add_ProvisioningServiceServicer_to_server
from contracts.pulsegate.auth.v1.single_sign_on_pb2_grpc import add_SingleSignOnServiceServicer_to_server
from contracts.pulsegate.codegen.v1 import codegen_pb2
from contracts.pulsegate.codegen.v1.codegen_pb2_grpc import add_CodegenServiceServicer_to_server
from contracts.pulsegate.config.v1 import definitions_pb2
from contracts.pulsegate.config.v1.definitions_pb2_grpc import (
    add_DefinitionFeedServiceServicer_to_server,
    add_DefinitionServiceServicer_to_server,
)
from contracts.pulsegate.ingest.v1 import ingest_pb2
from contracts.pulsegate.ingest.v1.ingest_pb2_grpc import (
    add_IngestServiceServicer_to_server,
    add_LedgerServiceServicer_to_server,
)
from services.auth.callers import CALLERS as OF_AUTH
from services.codegen.callers import CALLERS as OF_CODEGEN
from services.config.callers import CALLERS as OF_CONFIG
from services.ingest.callers import CALLERS as OF_INGEST
from tests.stand_in_auth import StandInAuth

SERVICE_TOKEN = "st_for-tests-alone"

TENANT = "0192f0c1-0000-7000-8000-000000000001"
PROJECT = "0192f0c1-0000-7000-8000-000000000002"
OTHER_PROJECT = "0192f0c1-0000-7000-8000-000000000003"
USER = "0192f0c1-0000-7000-8000-000000000004"

#: What an answer may be: a message, an error to raise, or a coroutine function of the request.
Answer = Any


@dataclass(frozen=True)
class Seen:
    """A call that arrived."""

    method: str
    request: Any
    principal: Principal | None


@dataclass
class Played:
    """A service whose answers are scripted by method name."""

    answers: dict[str, Answer] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def requests(self, method: str) -> list[Any]:
        """The requests that one method has seen."""
        return [call.request for call in self.seen if call.method == method]

    def servicer(self, service: Any) -> Any:
        """A servicer with every method of a service's descriptor."""
        methods = {method.name: self._method(method.name) for method in service.methods}
        return type(service.name, (), methods)()

    def _method(self, name: str) -> Callable[..., Any]:
        async def play(_servicer: Any, request: Any, _call: Any) -> Any:
            self.seen.append(Seen(name, request, principals.CURRENT.get()))
            return await self._answer(name, request)

        return play

    async def _answer(self, name: str, request: Any) -> Any:
        answer = self.answers[name]
        if isinstance(answer, BaseException):
            raise answer
        return await answer(request) if callable(answer) else answer


class PlayedConfig(Played):
    """config: scripted definitions, and a feed of their changes, which is silent until it is `speaking`."""

    def __init__(self) -> None:
        super().__init__()
        self.speaking = asyncio.Event()
        #: Revisions and the projects that changed at them; the first stands for what was before.
        self._changes: list[tuple[int, str]] = [(1, "")]

    def change(self, project_id: str = "") -> None:
        """Tells the feed that a definition was changed, by whoever."""
        self._changes.append((self._revision + 1, project_id or PROJECT))

    def follow(self, other: "PlayedConfig") -> None:
        """Says from now on what another one says."""
        self.answers, self._changes, self.speaking = other.answers, other._changes, other.speaking

    @property
    def _revision(self) -> int:
        return self._changes[-1][0]

    def servicer(self, service: Any) -> Any:
        servicer = super().servicer(service)
        if service.name == "DefinitionFeedService":
            scripted = servicer.GetProjectDefinitions

            async def project_definitions(request: Any, call: Any) -> Any:
                if int(UUID(request.project_id)):
                    return await scripted(request, call)
                return definitions_pb2.GetProjectDefinitionsResponse(revision=self._revision)

            servicer.GetProjectDefinitions = project_definitions
            servicer.WatchDefinitions = self._watch
        return servicer

    async def _watch(self, request: Any, _call: Any) -> AsyncIterator[definitions_pb2.WatchDefinitionsResponse]:
        sent = request.after_revision
        while True:
            await self.speaking.wait()
            for revision, project_id in [change for change in self._changes if change[0] > sent]:
                sent = revision
                metric = definitions_pb2.Metric(project_id=project_id)
                yield definitions_pb2.WatchDefinitionsResponse(revision=revision, metrics=[metric])
            yield definitions_pb2.WatchDefinitionsResponse(revision=self._revision)
            await asyncio.sleep(0.1)


class PlayedReceiver(Played):
    """ingest's receiver. Batches of streams are seen as `StreamedBatch`."""

    def __init__(self, auth: StandInAuth) -> None:
        super().__init__()
        self.answers["IngestBatch"] = ingest_pb2.IngestBatchResponse(accepted=1)
        self._verifier = PrincipalVerifier(signing_keys_of(auth))
        #: Asks the callers of streams to go elsewhere.
        self.draining = asyncio.Event()
        #: Streams opened so far, those open now, and how many batches each message brought.
        self.opened = 0
        self.open_streams = 0
        self.messages: list[int] = []
        #: Cleared: streams are not greeted, as by a receiver that hangs.
        self.greeting = asyncio.Event()
        self.greeting.set()

    def servicer(self, service: Any) -> Any:
        servicer = super().servicer(service)

        def stream_batches(requests: Any, _call: Any) -> Any:
            return self._stream(requests)

        servicer.StreamBatches = stream_batches
        return servicer

    async def _stream(self, requests: Any) -> AsyncIterator[ingest_pb2.StreamBatchesResponse]:
        self.opened += 1
        self.open_streams += 1
        responses: asyncio.Queue[ingest_pb2.StreamBatchesResponse | None] = asyncio.Queue()
        tasks = [asyncio.create_task(self._read(requests, responses)), asyncio.create_task(self._drain(responses))]
        try:
            await self.greeting.wait()
            yield ingest_pb2.StreamBatchesResponse()
            while (response := await responses.get()) is not None:
                yield response
        finally:
            self.open_streams -= 1
            await ended(tasks)

    async def _read(self, requests: Any, responses: Any) -> None:
        """Takes every batch, and ends the stream when all have their outcome."""
        async with asyncio.TaskGroup() as taking:
            async for request in requests:
                self.messages.append(len(request.batches))
                for batch in request.batches:
                    taking.create_task(self._take(batch, responses))
        responses.put_nowait(None)

    async def _take(self, batch: ingest_pb2.StreamedBatch, responses: Any) -> None:
        outcome = ingest_pb2.StreamedOutcome(number=batch.number)
        try:
            self.seen.append(Seen("StreamBatches", batch, await self._verifier.verify(batch.principal)))
            outcome.response.CopyFrom(await self._answer("IngestBatch", batch))
        except PulsegateError as error:
            outcome.error = to_wire(error)
        responses.put_nowait(ingest_pb2.StreamBatchesResponse(outcomes=[outcome]))

    async def _drain(self, responses: Any) -> None:
        await self.draining.wait()
        responses.put_nowait(ingest_pb2.StreamBatchesResponse(draining=True))


class PlayedAuth(StandInAuth, Played):
    """auth: scripted accounts, and credentials that are true until they are revoked."""

    def __init__(self) -> None:
        StandInAuth.__init__(self)
        Played.__init__(self)
        self._known: dict[bytes | str, dict[str, Any]] = {}
        self._changes: list[tuple[int, tuple[str, ...]]] = []
        self._revision = 1
        self.plan = "enterprise"
        #: What an operator has set for the tenant.
        self.limits: Limits | None = None
        self.principal_seconds = 120.0
        #: False: the feed falls silent, although auth answers.
        self.heartbeats = True
        #: Cleared: auth is there and answers no question.
        self.answering = asyncio.Event()
        self.answering.set()
        self.asked = 0

    def new_key(
        self, kind: str = "publishable", *, scopes: list[str] | None = None, origins: tuple[str, ...] = ("*",)
    ) -> str:
        """A new key of the project, in its text."""
        prefix = "pk_" if kind == "publishable" else "sk_"
        random = (uuid7().hex * 2)[: api_keys.RANDOM_CHARACTERS]
        text = api_keys.with_checksum(prefix + random[::-1])
        scopes = ["ingest:write"] if scopes is None else scopes
        self._known[api_keys.digest(text)] = {
            "sub": str(uuid7()),
            "kind": kind,
            "scopes": scopes,
            "tid": TENANT,
            "pid": PROJECT,
            "origins": origins if kind == "publishable" else (),
        }
        return text

    def new_provisioning_token(self) -> str:
        """Of an identity provider of the tenant."""
        text = api_keys.with_checksum("pt_" + uuid7().hex[::-1])
        self._known[api_keys.digest(text)] = {"sub": str(uuid7()), "kind": "provisioner", "scopes": [], "tid": TENANT}
        return text

    def new_session(self, user: str = USER) -> str:
        """An access token of a user, who owns the tenant."""
        token = jwt.encode({"sub": user, "jti": str(uuid7())}, self._key, algorithm="EdDSA")
        scopes = ["config:read", "config:write", "query:read", "keys:write", "members:write"]
        self._known[token] = {"sub": user, "kind": "user", "scopes": scopes, "sid": str(uuid7())}
        return token

    def move(self, key: str, tenant_id: str) -> None:
        """Gives a new key to another tenant."""
        self._known[api_keys.digest(key)]["tid"] = tenant_id

    def revoke(self, credential: str) -> None:
        """Forgets a key or session and tells the feed."""
        found = self._known.pop(credential, None) or self._known.pop(api_keys.digest(credential))
        self.announce(found.get("sid") or found["sub"])

    def announce(self, *changed_ids: str) -> None:
        """Tells the feed of a change."""
        self._revision += 1
        self._changes.append((self._revision, changed_ids))

    async def Authenticate(self, request: Any, _call: Any) -> credentials_pb2.AuthenticateResponse:  # noqa: N802
        self.asked += 1
        await self.answering.wait()
        shown = request.api_key_sha256 or request.provisioning_token_sha256 or request.access_token
        known = self._known.get(shown)
        if known is None:
            code = "INVALID_API_KEY" if request.api_key_sha256 else "UNAUTHENTICATED"
            raise Unauthenticated("The credential is unknown, revoked or expired.", code=code)
        claims = {key: value for key, value in known.items() if key != "origins"}
        if request.project_id:
            if request.project_id != PROJECT:
                raise NotFound("There is no such project.")
            claims |= {"tid": TENANT, "pid": PROJECT}
        about_self = "tid" not in claims
        return credentials_pb2.AuthenticateResponse(
            principal=self._sign(claims),
            revision=self._revision,
            allowed_origins=known.get("origins", ()),
            plan=self.plan,
            limits=None if about_self and request.tenant_id != TENANT else self.limits,
            tenant_ids=[TENANT] if about_self else [],
        )

    def _sign(self, claims: Mapping[str, Any]) -> str:
        always = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + self.principal_seconds, "jti": str(uuid7())}
        return jwt.encode({**claims, **always}, self._key, algorithm="EdDSA", headers={"kid": "1"})

    async def WatchCredentials(  # noqa: N802
        self, request: Any, _call: Any
    ) -> AsyncIterator[credentials_pb2.WatchCredentialsResponse]:
        sent = request.after_revision
        while True:
            for revision, changed_ids in self._changes:
                if revision > sent and self.heartbeats:
                    sent = revision
                    yield credentials_pb2.WatchCredentialsResponse(revision=revision, changed_ids=changed_ids)
            if self.heartbeats:
                yield credentials_pb2.WatchCredentialsResponse(revision=self._revision)
            await asyncio.sleep(0.1)


class PlayedServer:
    """The gRPC server of a played service, which can go away and come back."""

    def __init__(
        self,
        port: int,
        registrations: list[Callable[[Any], None]],
        auth: StandInAuth,
        *,
        host: str = "127.0.0.1",
        drain_seconds: float = 0,
    ) -> None:
        self._host = host
        self._port = port
        self._drain_seconds = drain_seconds
        self._registrations = registrations
        self._auth = auth
        self._running: AsyncExitStack | None = None

    async def start(self) -> None:
        verifier = PrincipalVerifier(signing_keys_of(self._auth))
        self._running = AsyncExitStack()
        await self._running.enter_async_context(
            grpc_server.serving(
                self._host,
                self._port,
                self._registrations,
                callers={**OF_AUTH, **OF_CONFIG, **OF_CODEGEN, **OF_INGEST},
                service_token=SERVICE_TOKEN,
                verifier=verifier,
                process_health=Health(started=True),
                drain_seconds=self._drain_seconds,
            )
        )

    async def stop(self) -> None:
        if self._running is not None:
            await self._running.aclose()
            self._running = None

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Away inside the block."""
        await self.stop()
        try:
            yield
        finally:
            await self.start()

    @asynccontextmanager
    async def hanging(self) -> AsyncIterator[None]:
        """Inside the block something listens there, and says nothing."""
        await self.stop()
        writers: list[asyncio.StreamWriter] = []
        silent = await asyncio.start_server(lambda _, writer: writers.append(writer), self._host, self._port)
        try:
            yield
        finally:
            silent.close()
            for writer in writers:
                writer.transport.abort()
            await self.start()


def signing_keys_of(auth: StandInAuth) -> KeySource:
    """Where a service finds auth's public keys."""

    async def keys() -> str:
        request = credentials_pb2.GetSigningKeysRequest()
        return (await auth.GetSigningKeys(request, None)).jwks_json  # type: ignore[arg-type]

    return keys


def registrations(
    auth: PlayedAuth, config: PlayedConfig, codegen: Played, ingest: PlayedReceiver
) -> dict[str, list[Any]]:
    """What each service's server serves."""
    accounts = auth.servicer(accounts_pb2.DESCRIPTOR.services_by_name["AccountService"])
    audit = auth.servicer(audit_pb2.DESCRIPTOR.services_by_name["AuditService"])
    invitations = auth.servicer(invitations_pb2.DESCRIPTOR.services_by_name["InvitationService"])
    operators = auth.servicer(operators_pb2.DESCRIPTOR.services_by_name["OperatorService"])
    own_account = auth.servicer(own_account_pb2.DESCRIPTOR.services_by_name["OwnAccountService"])
    provisioning = auth.servicer(provisioning_pb2.DESCRIPTOR.services_by_name["ProvisioningService"])
    single_sign_on = auth.servicer(single_sign_on_pb2.DESCRIPTOR.services_by_name["SingleSignOnService"])
    definitions = config.servicer(definitions_pb2.DESCRIPTOR.services_by_name["DefinitionService"])
    project_definitions = config.servicer(definitions_pb2.DESCRIPTOR.services_by_name["DefinitionFeedService"])
    generator = codegen.servicer(codegen_pb2.DESCRIPTOR.services_by_name["CodegenService"])
    return {
        "auth": [
            lambda server: add_AccountServiceServicer_to_server(accounts, server),
            lambda server: add_AuditServiceServicer_to_server(audit, server),
            lambda server: add_InvitationServiceServicer_to_server(invitations, server),
            lambda server: add_OperatorServiceServicer_to_server(operators, server),
            lambda server: add_OwnAccountServiceServicer_to_server(own_account, server),
            lambda server: add_ProvisioningServiceServicer_to_server(provisioning, server),
            lambda server: add_SingleSignOnServiceServicer_to_server(single_sign_on, server),
            lambda server: add_CredentialServiceServicer_to_server(auth, server),
        ],
        "config": [
            lambda server: add_DefinitionServiceServicer_to_server(definitions, server),
            lambda server: add_DefinitionFeedServiceServicer_to_server(project_definitions, server),
        ],
        "codegen": [lambda server: add_CodegenServiceServicer_to_server(generator, server)],
        "receiver": [receiver_registration(ingest)],
    }


def receiver_registration(receiver: PlayedReceiver) -> Callable[[Any], None]:
    """What a receiver's server serves."""
    servicer = receiver.servicer(ingest_pb2.DESCRIPTOR.services_by_name["IngestService"])
    ledger = Played.servicer(receiver, ingest_pb2.DESCRIPTOR.services_by_name["LedgerService"])

    def register(server: Any) -> None:
        add_IngestServiceServicer_to_server(servicer, server)
        add_LedgerServiceServicer_to_server(ledger, server)

    return register
