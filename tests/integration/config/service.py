"""The config service as its callers see it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from chassis import context
from chassis.grpc_client import ServiceChannel
from chassis.ids import uuid7
from contracts.pulsegate.auth.v1 import accounts_pb2, accounts_pb2_grpc, audit_pb2, audit_pb2_grpc
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from contracts.pulsegate.config.v1 import definitions_pb2_grpc as pb_grpc
from deploy.local.layout import Ports
from services.config.storage import DefinitionStorage
from tests.stand_in_auth import StandInAuth
from tests.waiting import eventually

SERVICE_TOKEN = "shared-by-all-services"

WRITER = ("config:read", "config:write")


def counter(name: str = "checkouts_total", **spec: Any) -> pb.MetricSpec:
    """A valid counter."""
    return pb.MetricSpec(**{"name": name, "type": pb.METRIC_TYPE_COUNTER, "help": "Checkouts completed.", **spec})


def at_a_time(monkeypatch: pytest.MonkeyPatch, method: str) -> Callable[[], int]:
    """How many calls of this method of the storage, which take a while from now on, have been under way at once."""
    original, under_way, most = getattr(DefinitionStorage, method), 0, 0

    async def slowly(*arguments: Any, **named: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.1)
        try:
            return await original(*arguments, **named)
        finally:
            under_way -= 1

    monkeypatch.setattr(DefinitionStorage, method, slowly)
    return lambda: most


@dataclass(frozen=True)
class Person:
    """Somebody in a project, and the calls that the gateway makes for them."""

    stub: pb_grpc.DefinitionServiceStub
    channel: ServiceChannel
    auth: StandInAuth
    tenant_id: str = field(default_factory=lambda: str(uuid7()))
    project_id: str = field(default_factory=lambda: str(uuid7()))
    scopes: tuple[str, ...] = WRITER

    async def create(self, spec: pb.MetricSpec) -> pb.Metric:
        answer: pb.CreateMetricResponse = await self._call(self.stub.CreateMetric, pb.CreateMetricRequest(spec=spec))
        return answer.metric

    async def get(self, metric_id: str) -> pb.Metric:
        answer: pb.GetMetricResponse = await self._call(self.stub.GetMetric, pb.GetMetricRequest(metric_id=metric_id))
        return answer.metric

    async def list(self, page_size: int = 0, page_token: str = "") -> pb.ListMetricsResponse:
        request = pb.ListMetricsRequest(page_size=page_size, page_token=page_token)
        answer: pb.ListMetricsResponse = await self._call(self.stub.ListMetrics, request)
        return answer

    async def update(self, metric_id: str, spec: pb.MetricSpec, version: int) -> pb.Metric:
        request = pb.UpdateMetricRequest(metric_id=metric_id, spec=spec, version=version)
        answer: pb.UpdateMetricResponse = await self._call(self.stub.UpdateMetric, request)
        return answer.metric

    async def delete(self, metric_id: str, version: int = 0) -> None:
        await self._call(self.stub.DeleteMetric, pb.DeleteMetricRequest(metric_id=metric_id, version=version))

    async def check(self, spec: pb.MetricSpec) -> dict[str, str]:
        answer: pb.CheckMetricResponse = await self._call(self.stub.CheckMetric, pb.CheckMetricRequest(spec=spec))
        return dict(answer.faults)

    async def lets_data_define(self) -> bool:
        answer: pb.GetProjectSettingsResponse = await self._call(
            self.stub.GetProjectSettings, pb.GetProjectSettingsRequest()
        )
        return answer.settings.auto_definition

    async def let_data_define(self, decided: bool) -> None:
        settings = pb.ProjectSettings(auto_definition=decided)
        await self._call(self.stub.UpdateProjectSettings, pb.UpdateProjectSettingsRequest(settings=settings))

    async def whole_project(self, *, without_labels: bool = False) -> pb.GetProjectDefinitionsResponse:
        method = pb_grpc.DefinitionFeedServiceStub(self.channel.grpc_channel).GetProjectDefinitions
        request = pb.GetProjectDefinitionsRequest(without_labels=without_labels)
        answer: pb.GetProjectDefinitionsResponse = await self._call(method, request)
        return answer

    async def _call(self, method: Any, request: Any) -> Any:
        token = self.auth.principal(self.tenant_id, self.project_id, scopes=list(self.scopes))
        context.PRINCIPAL_TOKEN.set(token)
        try:
            return await self.channel.call(method, request)
        finally:
            context.PRINCIPAL_TOKEN.set("")


class StandInAudit(audit_pb2_grpc.AuditServiceServicer):
    """auth, as far as it keeps the audit log: each entry once, in the order in which they come."""

    def __init__(self) -> None:
        self.documents: dict[str, str] = {}
        #: What befalls a call: nothing, "refused", or "lost": kept, but its answer does not arrive.
        self.trouble = ""
        self.calls = 0

    async def RecordAuditEntries(  # noqa: N802 - the contract's name
        self, request: audit_pb2.RecordAuditEntriesRequest, call: "grpc.aio.ServicerContext[Any, Any]"
    ) -> audit_pb2.RecordAuditEntriesResponse:
        self.calls += 1
        if self.trouble != "refused":
            for entry in request.entries:
                self.documents.setdefault(entry.id, entry.document)
        if self.trouble:
            await call.abort(grpc.StatusCode.UNAVAILABLE, self.trouble)
        return audit_pb2.RecordAuditEntriesResponse()

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(document) for document in self.documents.values()]

    async def arrived(self, entries: int) -> list[dict[str, Any]]:
        """All entries, once there are so many."""

        async def there() -> bool:
            return len(self.documents) >= entries

        await eventually(there, what=f"{entries} entries of the audit log")
        return self.entries


class StandInProjects(accounts_pb2_grpc.AccountServiceServicer):
    """auth, as far as it knows which projects were deleted."""

    def __init__(self) -> None:
        self.deleted: set[str] = set()
        self.away = False

    async def FindDeletedProjects(  # noqa: N802 - the contract's name
        self, request: accounts_pb2.FindDeletedProjectsRequest, call: "grpc.aio.ServicerContext[Any, Any]"
    ) -> accounts_pb2.FindDeletedProjectsResponse:
        if self.away:
            await call.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return accounts_pb2.FindDeletedProjectsResponse(project_ids=self.deleted & set(request.project_ids))


class Feed:
    """One stream of WatchDefinitions, read message by message."""

    def __init__(self, messages: AsyncIterator[pb.WatchDefinitionsResponse]) -> None:
        self._messages = messages
        self.revision = 0

    async def next(self) -> pb.WatchDefinitionsResponse:
        message = await anext(self._messages)
        self.revision = message.revision
        return message

    async def next_change(self) -> pb.WatchDefinitionsResponse:
        """The next message that is not a heartbeat."""
        while not (message := await self.next()).metrics:
            pass
        return message

    async def snapshot(self) -> list[pb.Metric]:
        """The metrics of the snapshot, with which the stream must begin."""
        metrics: list[pb.Metric] = []
        while True:
            message = await self.next()
            assert message.snapshot
            metrics.extend(message.metrics)
            if message.snapshot_complete:
                return metrics


@dataclass(frozen=True)
class Config:
    """A running service."""

    channel: ServiceChannel
    auth: StandInAuth
    ports: Ports
    #: Where its service sends entries, in this folder's tests.
    audit: StandInAudit = field(default_factory=StandInAudit)
    projects: StandInProjects = field(default_factory=StandInProjects)

    def person(self, **who: Any) -> Person:
        """Somebody with both scopes in a project of their own, unless said otherwise."""
        return Person(pb_grpc.DefinitionServiceStub(self.channel.grpc_channel), self.channel, self.auth, **who)

    @asynccontextmanager
    async def watching(self, after_revision: int = 0) -> AsyncIterator[Feed]:
        method = pb_grpc.DefinitionFeedServiceStub(self.channel.grpc_channel).WatchDefinitions
        messages = self.channel.stream(method, pb.WatchDefinitionsRequest(after_revision=after_revision))
        try:
            yield Feed(messages)
        finally:
            await messages.aclose()  # type: ignore[attr-defined]

    async def project_definitions(
        self, project_id: str, principal: str = "", after_revision: int = 0
    ) -> pb.GetProjectDefinitionsResponse:
        """What a service is answered that asks for a project, on somebody's behalf or its own."""
        method = pb_grpc.DefinitionFeedServiceStub(self.channel.grpc_channel).GetProjectDefinitions
        context.PRINCIPAL_TOKEN.set(principal)
        try:
            answer: pb.GetProjectDefinitionsResponse = await self.channel.call(
                method, pb.GetProjectDefinitionsRequest(project_id=project_id, after_revision=after_revision)
            )
        finally:
            context.PRINCIPAL_TOKEN.set("")
        return answer

    async def define_from_data(self, tenant_id: str, project_id: str, *specs: pb.MetricSpec) -> int:
        """How many definitions were made."""
        return (await self.come_of_data(tenant_id, project_id, *specs)).made

    async def come_of_data(self, tenant_id: str, project_id: str, *specs: pb.MetricSpec) -> pb.DefineFromDataResponse:
        method = pb_grpc.DefinitionFeedServiceStub(self.channel.grpc_channel).DefineFromData
        request = pb.DefineFromDataRequest(tenant_id=tenant_id, project_id=project_id, specs=specs)
        answer: pb.DefineFromDataResponse = await self.channel.call(method, request)
        return answer


#: Runs the service, with settings of the caller's choice.
StartConfig = Callable[..., AbstractAsyncContextManager[Config]]
