"""Stand-ins for auth and config, as far as codegen calls them: one gRPC server with both."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from chassis.errors import ERROR_METADATA_KEY, PulsegateError, to_wire
from contracts.pulsegate.auth.v1 import accounts_pb2, accounts_pb2_grpc, credentials_pb2_grpc
from contracts.pulsegate.config.v1 import definitions_pb2, definitions_pb2_grpc
from tests.stand_in_auth import StandInAuth

TENANT = "0192f0c1-0000-7000-8000-000000000001"
PROJECT = "0192f0c1-0000-7000-8000-000000000002"

Call = grpc.aio.ServicerContext[Any, Any]


class Config(definitions_pb2_grpc.DefinitionFeedServiceServicer):
    """Answers the definitions it was given, or the error."""

    def __init__(self) -> None:
        self.metrics: dict[str, list[definitions_pb2.Metric]] = {}
        self.failure: PulsegateError | None = None
        #: How often it was asked, and whether it answers: what was there when it was asked.
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def GetProjectDefinitions(  # noqa: N802
        self, request: definitions_pb2.GetProjectDefinitionsRequest, call: Call
    ) -> definitions_pb2.GetProjectDefinitionsResponse:
        if self.failure is not None:
            await call.abort(
                self.failure.grpc_status, self.failure.message, ((ERROR_METADATA_KEY, to_wire(self.failure)),)
            )
        answer = definitions_pb2.GetProjectDefinitionsResponse(
            revision=time.time_ns(), metrics=self.metrics.get(request.project_id, [])
        )
        self.asked += 1
        await self.answers.wait()
        return answer


class Projects(accounts_pb2_grpc.AccountServiceServicer):
    """auth, as far as it knows which projects were deleted."""

    def __init__(self) -> None:
        self.deleted: set[str] = set()
        self.away = False

    async def FindDeletedProjects(  # noqa: N802
        self, request: accounts_pb2.FindDeletedProjectsRequest, call: Call
    ) -> accounts_pb2.FindDeletedProjectsResponse:
        if self.away:
            await call.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return accounts_pb2.FindDeletedProjectsResponse(project_ids=self.deleted & set(request.project_ids))


@dataclass(frozen=True, kw_only=True)
class Upstreams:
    """The stand-ins and their address."""

    auth: StandInAuth
    projects: Projects
    config: Config
    address: str


@asynccontextmanager
async def serving() -> AsyncIterator[Upstreams]:
    """Serves both."""
    # What codegen does not call answers UNIMPLEMENTED.
    auth = StandInAuth()  # type: ignore[abstract]
    projects = Projects()  # type: ignore[abstract]
    config = Config()  # type: ignore[abstract]
    server = grpc.aio.server()
    credentials_pb2_grpc.add_CredentialServiceServicer_to_server(auth, server)
    accounts_pb2_grpc.add_AccountServiceServicer_to_server(projects, server)
    definitions_pb2_grpc.add_DefinitionFeedServiceServicer_to_server(config, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Upstreams(auth=auth, projects=projects, config=config, address=f"127.0.0.1:{port}")
    finally:
        await server.stop(None)


def metric(name: str, kind: str = "counter", *, number: int = 1, **spec: Any) -> definitions_pb2.Metric:
    """A definition as config answers it. `number` is its age: lower is older."""
    return definitions_pb2.Metric(
        id=f"0192f0c1-0000-7000-8000-{number:012d}",
        project_id=PROJECT,
        spec=definitions_pb2.MetricSpec(
            name=name,
            type=definitions_pb2.MetricType.Value(f"METRIC_TYPE_{kind.upper()}"),
            **{"help": f"What {name} says.", **spec},
        ),
        version=1,
    )
