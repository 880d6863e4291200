"""Stand-ins for auth and config, as far as ingestion calls them: one gRPC server with both."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from chassis.ids import uuid7
from contracts.pulsegate.auth.v1 import credentials_pb2_grpc
from contracts.pulsegate.config.v1 import definitions_pb2, definitions_pb2_grpc
from tests.stand_in_auth import StandInAuth

Call = grpc.aio.ServicerContext[Any, Any]


class StandInConfig(definitions_pb2_grpc.DefinitionFeedServiceServicer):
    """Definitions with a feed. `silent` holds changes back from the feed, as a slow network would."""

    def __init__(self) -> None:
        self._metrics: dict[str, tuple[int, definitions_pb2.Metric]] = {}
        self._revision = 1
        self.silent = False
        self.away = False
        #: Questions about a project fail inside config.
        self.broken = False
        self.questions = 0
        #: Whether data may define, and how many more metrics there may be.
        self.auto_definition = False
        self.room = 100
        self.asked_to_define = 0
        self._answering = asyncio.Event()
        self._answering.set()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Questions about a project are not answered while open."""
        self._answering.clear()
        try:
            yield
        finally:
            self._answering.set()

    def define(
        self, tenant_id: str, project_id: str, name: str, kind: str = "counter", **spec: Any
    ) -> definitions_pb2.Metric:
        """Makes a definition, or changes the one of that name."""
        known = next((m for _, m in self._metrics.values() if m.spec.name == name and m.project_id == project_id), None)
        metric = definitions_pb2.Metric(
            id=known.id if known and not known.HasField("deleted_at") else str(uuid7()),
            tenant_id=tenant_id,
            project_id=project_id,
            version=known.version + 1 if known else 1,
            spec=definitions_pb2.MetricSpec(
                name=name, type=definitions_pb2.MetricType.Value(f"METRIC_TYPE_{kind.upper()}"), **spec
            ),
        )
        self._store(metric)
        return metric

    def delete(self, metric: definitions_pb2.Metric) -> None:
        deleted = definitions_pb2.Metric()
        deleted.CopyFrom(metric)
        deleted.deleted_at.FromSeconds(int(time.time()))
        self._store(deleted)

    def _store(self, metric: definitions_pb2.Metric) -> None:
        self._revision += 1
        self._metrics[metric.id] = (self._revision, metric)

    async def WatchDefinitions(  # noqa: N802
        self, request: definitions_pb2.WatchDefinitionsRequest, call: Call
    ) -> AsyncIterator[definitions_pb2.WatchDefinitionsResponse]:
        seen = request.after_revision
        if not seen:
            seen = self._revision
            yield definitions_pb2.WatchDefinitionsResponse(
                revision=seen,
                metrics=[metric for _, metric in self._metrics.values()],
                snapshot=True,
                snapshot_complete=True,
            )
        while not self.away:
            await asyncio.sleep(0.05)
            upto = seen if self.silent else self._revision
            news = [metric for revision, metric in self._metrics.values() if seen < revision <= upto]
            yield definitions_pb2.WatchDefinitionsResponse(revision=upto, metrics=news)
            seen = upto
        await call.abort(grpc.StatusCode.UNAVAILABLE, "away")

    async def GetProjectDefinitions(  # noqa: N802
        self, request: definitions_pb2.GetProjectDefinitionsRequest, call: Call
    ) -> definitions_pb2.GetProjectDefinitionsResponse:
        self.questions += 1
        if self.away:
            await call.abort(grpc.StatusCode.UNAVAILABLE, "away")
        if self.broken:
            await call.abort(grpc.StatusCode.INTERNAL, "broken")
        await self._answering.wait()
        after = request.after_revision if request.after_revision <= self._revision else 0
        told = [
            metric
            for revision, metric in self._metrics.values()
            if metric.project_id == request.project_id
            and (revision > after if after else not metric.HasField("deleted_at"))
        ]
        settings = definitions_pb2.ProjectSettings(auto_definition=self.auto_definition)
        return definitions_pb2.GetProjectDefinitionsResponse(
            revision=self._revision, metrics=told, settings=settings, after_revision=after
        )

    async def DefineFromData(  # noqa: N802
        self, request: definitions_pb2.DefineFromDataRequest, _call: Call
    ) -> definitions_pb2.DefineFromDataResponse:
        self.asked_to_define += 1
        made = request.specs[: self.room] if self.auto_definition else []
        for spec in made:
            metric = definitions_pb2.Metric(
                id=str(uuid7()), tenant_id=request.tenant_id, project_id=request.project_id, version=1, spec=spec
            )
            self._store(metric)
        self.room -= len(made)
        left_out = request.specs[len(made) :] if self.auto_definition else []
        refused = [definitions_pb2.RefusedSpec(name=spec.name, reason="There is no room.") for spec in left_out]
        return definitions_pb2.DefineFromDataResponse(made=len(made), refused=refused)


@dataclass(frozen=True, kw_only=True)
class Upstreams:
    """The stand-ins and their address."""

    auth: StandInAuth
    config: StandInConfig
    address: str


@asynccontextmanager
async def serving() -> AsyncIterator[Upstreams]:
    """Serves both."""
    auth = StandInAuth()  # type: ignore[abstract]  # what ingestion does not call answers UNIMPLEMENTED
    config = StandInConfig()
    server = grpc.aio.server()
    credentials_pb2_grpc.add_CredentialServiceServicer_to_server(auth, server)
    definitions_pb2_grpc.add_DefinitionFeedServiceServicer_to_server(config, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Upstreams(auth=auth, config=config, address=f"127.0.0.1:{port}")
    finally:
        await server.stop(None)
