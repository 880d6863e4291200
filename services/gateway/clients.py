"""The services that the gateway calls, each by an `Upstream`, and Prometheus."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

import aiohttp
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import api_keys, context
from chassis.breakers import Breaker
from chassis.clock import Clock
from chassis.errors import DeadlineExceeded, Invalid, PulsegateError, Unavailable
from chassis.grpc_client import ServiceChannel
from chassis.principals import PrincipalVerifier
from contracts.pulsegate.auth.v1 import accounts_pb2 as accounts
from contracts.pulsegate.auth.v1 import audit_pb2 as audit
from contracts.pulsegate.auth.v1 import credentials_pb2 as credentials
from contracts.pulsegate.auth.v1.accounts_pb2_grpc import AccountServiceStub
from contracts.pulsegate.auth.v1.audit_pb2_grpc import AuditServiceStub
from contracts.pulsegate.auth.v1.credentials_pb2_grpc import CredentialServiceStub
from contracts.pulsegate.auth.v1.limits_pb2 import Limits
from contracts.pulsegate.codegen.v1 import codegen_pb2 as codegen
from contracts.pulsegate.codegen.v1.codegen_pb2_grpc import CodegenServiceStub
from contracts.pulsegate.config.v1 import definitions_pb2 as definitions
from contracts.pulsegate.config.v1.definitions_pb2_grpc import DefinitionFeedServiceStub, DefinitionServiceStub
from contracts.pulsegate.ingest.v1 import ingest_pb2 as ingest
from contracts.pulsegate.ingest.v1.ingest_pb2_grpc import LedgerServiceStub
from services.gateway.definition_revisions import DefinitionsChanged
from services.gateway.domain import NO_OVERRIDES, Credential, Overrides, Verdict
from services.gateway.shares import HeldBytes, Places, Turns
from services.gateway.upstreams import Upstream, refuse_while_open
from services.gateway.verdicts import FeedEntry

_MOST_ANSWER_BYTES = 32 << 20
_RETRY_AFTER_SECONDS = 2.0

#: Names and values of an HTTP request's parameters; a name may come several times.
Parameters = Sequence[tuple[str, str]]

#: How long auth's public keys are answered from memory.
_KEYS_SECONDS = 30.0


class Credentials:
    """auth's CredentialService: who a credential is, and the feed of what changed."""

    def __init__(self, auth: Upstream) -> None:
        self._auth = auth
        self._stub = CredentialServiceStub(auth.channel.grpc_channel)
        self._verifier = PrincipalVerifier(self.signing_keys)

    async def authenticate(
        self, credential: Credential, project_id: str, tenant_id: str, timeout_seconds: float
    ) -> Verdict:
        """See `verdicts.Authority`."""
        request = credentials.AuthenticateRequest(project_id=project_id, tenant_id=tenant_id)
        if credential.kind == "user":
            request.access_token = credential.text
        elif credential.kind == "provisioner":
            request.provisioning_token_sha256 = api_keys.digest(credential.text)
        else:
            request.api_key_sha256 = api_keys.digest(credential.text)
        # A look-up is shared by requests: it has a time limit of its own, and shows nobody's principal. Its place it
        # has on behalf of the address that began it, where that may be guessing.
        context.DEADLINE.set(None)
        context.PRINCIPAL_TOKEN.set("")
        answer = await self._auth.ask_again(self._stub.Authenticate, request, timeout_seconds=timeout_seconds)
        return Verdict(
            principal=await self._verifier.verify(answer.principal),
            token=answer.principal,
            revision=answer.revision,
            plan=answer.plan,
            allowed_origins=frozenset(answer.allowed_origins),
            overrides=overrides_of(answer.limits) if answer.HasField("limits") else NO_OVERRIDES,
            tenant_ids=frozenset(answer.tenant_ids),
        )

    async def watch(self, after_revision: int) -> AsyncIterator[FeedEntry]:
        """See `verdicts.Authority`."""
        request = credentials.WatchCredentialsRequest(after_revision=after_revision)
        async for answer in self._auth.channel.stream(self._stub.WatchCredentials, request):
            yield FeedEntry(revision=answer.revision, changed_ids=tuple(answer.changed_ids), reset=answer.reset)

    async def signing_keys(self) -> str:
        """auth's public keys as a JWK set, in JSON."""
        answer = await self._auth.ask_again(self._stub.GetSigningKeys, credentials.GetSigningKeysRequest())
        return answer.jwks_json


class SigningKeys:
    """auth's public keys as they were last seen, for `/.well-known/jwks.json` and for readiness."""

    def __init__(self, auth: Credentials, clock: Clock) -> None:
        self._auth = auth
        self._clock = clock
        self._seen: dict[str, Any] | None = None
        self._seen_at = float("-inf")

    async def current(self) -> dict[str, Any]:
        """The JWK set: at most 30 s old, or older while auth is away. Raises Unavailable where none was ever seen."""
        if self._seen is None or self._clock.monotonic() - self._seen_at > _KEYS_SECONDS:
            try:
                self._seen = json.loads(await self._auth.signing_keys())
                self._seen_at = self._clock.monotonic()
            except PulsegateError:
                if self._seen is None:
                    raise
        return self._seen or {}

    async def probe(self) -> None:
        """A health check: the keys were seen once."""
        if self._seen is None:
            await self.current()


class Accounts:
    """auth's AccountService, for the person or key whose principal the call carries."""

    def __init__(self, auth: Upstream) -> None:
        self._auth = auth
        self._stub = AccountServiceStub(auth.channel.grpc_channel)

    async def sign_up(
        self, email: str, password: str, tenant_name: str, device: accounts.Device
    ) -> accounts.SignUpResponse:
        request = accounts.SignUpRequest(email=email, password=password, tenant_name=tenant_name, device=device)
        return await self._auth.ask(self._stub.SignUp, request)

    async def sign_in(self, email: str, password: str, totp: str, device: accounts.Device) -> accounts.SignInResponse:
        request = accounts.SignInRequest(email=email, password=password, totp=totp, device=device)
        return await self._auth.ask(self._stub.SignIn, request)

    async def refresh(self, refresh_token: str, device: accounts.Device) -> accounts.RefreshResponse:
        """Safe to repeat: auth answers a token spent a moment ago with the same successor."""
        request = accounts.RefreshRequest(refresh_token=refresh_token, device=device)
        return await self._auth.ask_again(self._stub.Refresh, request)

    async def sign_out(self, refresh_token: str) -> None:
        await self._auth.ask(self._stub.SignOut, accounts.SignOutRequest(refresh_token=refresh_token))

    async def me(self) -> accounts.GetMeResponse:
        return await self._auth.ask_again(self._stub.GetMe, accounts.GetMeRequest())

    async def projects(self, tenant_id: str, page_size: int, page_token: str) -> accounts.ListProjectsResponse:
        request = accounts.ListProjectsRequest(tenant_id=tenant_id, page_size=page_size, page_token=page_token)
        return await self._auth.ask_again(self._stub.ListProjects, request)

    async def create_project(self, tenant_id: str, name: str) -> accounts.Project:
        request = accounts.CreateProjectRequest(tenant_id=tenant_id, name=name)
        return (await self._auth.ask(self._stub.CreateProject, request)).project

    async def project(self, project_id: str) -> accounts.Project:
        request = accounts.GetProjectRequest(project_id=project_id)
        return (await self._auth.ask_again(self._stub.GetProject, request)).project

    async def rename_project(self, project_id: str, name: str) -> accounts.Project:
        request = accounts.UpdateProjectRequest(project_id=project_id, name=name)
        return (await self._auth.ask(self._stub.UpdateProject, request)).project

    async def delete_project(self, project_id: str) -> None:
        await self._auth.ask(self._stub.DeleteProject, accounts.DeleteProjectRequest(project_id=project_id))

    async def keys(self, project_id: str, page_size: int, page_token: str) -> accounts.ListKeysResponse:
        request = accounts.ListKeysRequest(project_id=project_id, page_size=page_size, page_token=page_token)
        return await self._auth.ask_again(self._stub.ListKeys, request)

    async def create_key(
        self,
        project_id: str,
        name: str,
        kind: "accounts.KeyKind.ValueType",
        scopes: Sequence[str],
        allowed_origins: Sequence[str],
        expires_at: datetime | None,
    ) -> accounts.CreateKeyResponse:
        request = accounts.CreateKeyRequest(
            project_id=project_id, name=name, kind=kind, scopes=scopes, allowed_origins=allowed_origins
        )
        if expires_at is not None:
            request.expires_at.CopyFrom(timestamp(expires_at))
        return await self._auth.ask(self._stub.CreateKey, request)

    async def change_key(self, request: accounts.UpdateKeyRequest) -> accounts.Key:
        return (await self._auth.ask(self._stub.UpdateKey, request)).key

    async def rotate_key(self, project_id: str, key_id: str, grace_seconds: int) -> accounts.RotateKeyResponse:
        request = accounts.RotateKeyRequest(project_id=project_id, key_id=key_id, grace_seconds=grace_seconds)
        return await self._auth.ask(self._stub.RotateKey, request)

    async def report_leaked_keys(self, leaked: Sequence[accounts.LeakedKey]) -> Sequence[bool]:
        """For each key whether it was a live secret one."""
        request = accounts.ReportLeakedKeysRequest(keys=leaked)
        return (await self._auth.ask(self._stub.ReportLeakedKeys, request)).revoked

    async def revoke_key(self, project_id: str, key_id: str) -> None:
        request = accounts.RevokeKeyRequest(project_id=project_id, key_id=key_id)
        await self._auth.ask(self._stub.RevokeKey, request)

    async def publishable_key(self, project_id: str, key_id: str) -> str:
        """The text of a publishable key. Raises NotFound, also for a secret key."""
        request = accounts.GetPublishableKeyRequest(project_id=project_id, key_id=key_id)
        return (await self._auth.ask_again(self._stub.GetPublishableKey, request)).token

    async def members(self, tenant_id: str, page_size: int, page_token: str) -> accounts.ListMembersResponse:
        request = accounts.ListMembersRequest(tenant_id=tenant_id, page_size=page_size, page_token=page_token)
        return await self._auth.ask_again(self._stub.ListMembers, request)

    async def add_member(self, tenant_id: str, email: str, role: "accounts.Role.ValueType") -> accounts.Member:
        request = accounts.AddMemberRequest(tenant_id=tenant_id, email=email, role=role)
        return (await self._auth.ask(self._stub.AddMember, request)).member

    async def change_role(self, tenant_id: str, user_id: str, role: "accounts.Role.ValueType") -> accounts.Member:
        request = accounts.UpdateMemberRequest(tenant_id=tenant_id, user_id=user_id, role=role)
        return (await self._auth.ask(self._stub.UpdateMember, request)).member

    async def remove_member(self, tenant_id: str, user_id: str) -> None:
        request = accounts.RemoveMemberRequest(tenant_id=tenant_id, user_id=user_id)
        await self._auth.ask(self._stub.RemoveMember, request)


class Audit:
    """auth's AuditService, for the person or key whose principal the call carries."""

    def __init__(self, auth: Upstream) -> None:
        self._auth = auth
        self._stub = AuditServiceStub(auth.channel.grpc_channel)

    async def entries(
        self, tenant_id: str, *, after: int, page_size: int, page_token: str = ""
    ) -> audit.ListAuditEntriesResponse:
        """From the oldest after a sequence number, or after the page before."""
        request = audit.ListAuditEntriesRequest(
            tenant_id=tenant_id, after=after, page_size=page_size, page_token=page_token
        )
        return await self._auth.ask_again(self._stub.ListAuditEntries, request)


class Definitions:
    """config's DefinitionService, for the project of the principal."""

    def __init__(self, config: Upstream) -> None:
        self._config = config
        self._stub = DefinitionServiceStub(config.channel.grpc_channel)

    async def create(self, spec: definitions.MetricSpec) -> definitions.Metric:
        return (await self._config.ask(self._stub.CreateMetric, definitions.CreateMetricRequest(spec=spec))).metric

    async def list(self, page_size: int, page_token: str) -> definitions.ListMetricsResponse:
        request = definitions.ListMetricsRequest(page_size=page_size, page_token=page_token)
        return await self._config.ask_again(self._stub.ListMetrics, request)

    async def get(self, metric_id: str) -> definitions.Metric:
        request = definitions.GetMetricRequest(metric_id=metric_id)
        return (await self._config.ask_again(self._stub.GetMetric, request)).metric

    async def update(self, metric_id: str, spec: definitions.MetricSpec, version: int) -> definitions.Metric:
        request = definitions.UpdateMetricRequest(metric_id=metric_id, spec=spec, version=version)
        return (await self._config.ask(self._stub.UpdateMetric, request)).metric

    async def faults(self, spec: definitions.MetricSpec) -> dict[str, str]:
        """What is wrong with a definition, by member; changes nothing."""
        request = definitions.CheckMetricRequest(spec=spec)
        return dict((await self._config.ask_again(self._stub.CheckMetric, request)).faults)

    async def settings(self) -> definitions.ProjectSettings:
        request = definitions.GetProjectSettingsRequest()
        return (await self._config.ask_again(self._stub.GetProjectSettings, request)).settings

    async def change_settings(self, settings: definitions.ProjectSettings) -> definitions.ProjectSettings:
        request = definitions.UpdateProjectSettingsRequest(settings=settings)
        return (await self._config.ask_again(self._stub.UpdateProjectSettings, request)).settings

    async def delete(self, metric_id: str, version: int) -> None:
        """Version 0: whatever the version is."""
        request = definitions.DeleteMetricRequest(metric_id=metric_id, version=version)
        await self._config.ask(self._stub.DeleteMetric, request)


class ProjectDefinitions:
    """All definitions of the principal's project, for those who may query it: config's DefinitionFeedService, which
    tells a service of a project without asking for a scope, but on somebody's behalf of theirs alone."""

    def __init__(self, config: Upstream) -> None:
        self._config = config
        self._stub = DefinitionFeedServiceStub(config.channel.grpc_channel)

    async def specs(self, project_id: str) -> Sequence[definitions.MetricSpec]:
        """In the order of their creation."""
        request = definitions.GetProjectDefinitionsRequest(project_id=project_id)
        found = await self._config.ask_again(self._stub.GetProjectDefinitions, request)
        return [metric.spec for metric in found.metrics]


class DefinitionChanges:
    """See `definition_revisions.DefinitionFeed`: config's DefinitionFeedService, for the gateway itself. Its questions
    open no breaker."""

    def __init__(self, config: ServiceChannel) -> None:
        self._channel = config
        self._stub = DefinitionFeedServiceStub(config.grpc_channel)

    async def newest_revision(self) -> int:
        # An answer about any project has it, also about one that nobody has.
        request = definitions.GetProjectDefinitionsRequest(project_id=str(UUID(int=0)))
        newest: int = (await self._channel.call(self._stub.GetProjectDefinitions, request)).revision
        return newest

    async def watch(self, after_revision: int) -> AsyncIterator[DefinitionsChanged]:
        request = definitions.WatchDefinitionsRequest(after_revision=after_revision)
        async for message in self._channel.stream(self._stub.WatchDefinitions, request):
            yield DefinitionsChanged(
                revision=message.revision,
                project_ids=frozenset(metric.project_id for metric in message.metrics),
                snapshot=message.snapshot,
            )


class Ledger:
    """ingest's LedgerService, for the project of the principal."""

    def __init__(self, ingest_service: Upstream) -> None:
        self._ingest = ingest_service
        self._stub = LedgerServiceStub(ingest_service.channel.grpc_channel)

    async def lines(self, from_ms: int, to_ms: int, metric: str, page_token: str) -> ingest.GetLedgerResponse:
        """Of the hours from one moment to another; of all metrics where none is named."""
        request = ingest.GetLedgerRequest(from_ms=from_ms, to_ms=to_ms, metric=metric, page_token=page_token)
        return await self._ingest.ask_again(self._stub.GetLedger, request)

    async def rejections(self) -> ingest.ListRejectionsResponse:
        return await self._ingest.ask_again(self._stub.ListRejections, ingest.ListRejectionsRequest())


class Generator:
    """codegen's CodegenService, for the project of the principal."""

    def __init__(self, codegen_service: Upstream) -> None:
        self._codegen = codegen_service
        self._stub = CodegenServiceStub(codegen_service.channel.grpc_channel)

    async def client(self, request: codegen.GenerateClientRequest) -> codegen.GenerateClientResponse:
        return await self._codegen.ask_again(self._stub.GenerateClient, request)

    async def artifact(self, sha256: str) -> codegen.GetArtifactResponse:
        """What was generated before. Raises NotFound."""
        return await self._codegen.ask_again(self._stub.GetArtifact, codegen.GetArtifactRequest(sha256=sha256))


class _Answer(Exception):
    """What Prometheus answered; raised where the breaker must see a failure."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


#: Answers that speak against Prometheus rather than against the query; 503 is a query that took too long.
_FAILURES = frozenset({500, 502, 504})


class Prometheus:
    """The series, over Prometheus' HTTP API. Expressions that get here see one project only (`promql`)."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        address: Callable[[], str],
        *,
        reset_seconds: float,
        timeout_seconds: float,
        most_calls: int,
        most_queries: int,
    ) -> None:
        """`address` is asked for with each request: it may hold a password, which may change. Of `most_calls` no more
        than `most_queries` are asked at a time; the others wait."""
        self._session = session
        self._address = address
        # How long a query takes is its author's choice: silence alone says little.
        self.breaker = Breaker("prometheus", reset_seconds=reset_seconds)
        self._timeout_seconds = timeout_seconds
        self._places = Places("prometheus", most_calls)
        self._turns = Turns("prometheus", most_queries)
        # Of one tenant's as much as the largest answer.
        self._answers = HeldBytes("answers", 4 * _MOST_ANSWER_BYTES)

    async def get(self, path: str, parameters: Parameters) -> tuple[int, bytes]:
        """A GET below `/api/v1/`: status and JSON body. Raises Unavailable, DeadlineExceeded or Invalid (too large)."""
        return await self._ask("GET", path, params=parameters)

    async def post(self, path: str, parameters: Parameters) -> tuple[int, bytes]:
        """The same with the parameters as a form, which may be long."""
        return await self._ask("POST", path, data=parameters)

    async def _ask(self, method: str, path: str, **parameters: Parameters) -> tuple[int, bytes]:
        self.breaker.check()  # before there is a turn to wait for
        try:
            with self._places.one():
                async with self._turns.one(self._timeout_seconds):
                    return await self._answered(method, self._url(f"api/v1/{path}"), **parameters)
        except _Answer as failure:
            return failure.status, failure.body
        except TimeoutError as error:
            raise DeadlineExceeded("Prometheus did not answer in time.") from error
        except aiohttp.ClientError as error:
            raise Unavailable("Prometheus is away.", retry_after_seconds=_RETRY_AFTER_SECONDS) from error

    async def _answered(self, method: str, url: str, **parameters: Any) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=self._timeout_seconds)
        with self.breaker.guarded():
            async with self._session.request(
                method, url, **parameters, timeout=timeout, allow_redirects=False
            ) as response:
                answer = _Answer(response.status, await self._read(response))
            if answer.status in _FAILURES:
                raise answer
            return answer.status, answer.body

    async def probe(self) -> None:
        """A health check. Raises where Prometheus is not ready, or its breaker is open."""
        async with self._session.get(self._url("-/ready")) as response:
            if response.status != HTTPStatus.OK:
                raise Unavailable(f"Prometheus answers {response.status}")
        refuse_while_open([self.breaker])

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body, held = bytearray(), self._answers.begin()
        async for chunk in response.content.iter_chunked(1 << 16):
            if len(body) + len(chunk) > _MOST_ANSWER_BYTES:
                raise Invalid("The answer is too large. Ask for fewer series, or for a larger step.")
            held.more(len(chunk))
            body += chunk
        if response.content_type != "application/json":
            raise Unavailable("Prometheus answered something else than JSON.", retry_after_seconds=_RETRY_AFTER_SECONDS)
        return bytes(body)

    def _url(self, path: str) -> str:
        return f"{self._address().rstrip('/')}/{path}"


def overrides_of(limits: Limits) -> Overrides:
    """What auth tells of an operator's limits. What is negative is none."""
    return Overrides(
        writes_per_hour=max(0, limits.writes_per_hour),
        reads_per_hour=max(0, limits.reads_per_hour),
        expensive_per_hour=max(0, limits.expensive_per_hour),
        ingestion_per_minute=max(0, limits.ingestion_per_minute),
    )


def timestamp(moment: datetime) -> Timestamp:
    """As messages have it."""
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
