"""A running codegen service, as the gateway would call it."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from chassis import context, grpc_client
from contracts.pulsegate.codegen.v1 import codegen_pb2, codegen_pb2_grpc
from deploy.local.layout import Ports
from tests.integration.codegen.upstreams import PROJECT, TENANT
from tests.stand_in_auth import StandInAuth

SERVICE_TOKEN = "token-only-for-tests"
KEY = "pk_0123456789abcdefghijklmnopqrstuvwxyzAB"
ENDPOINT = "https://metrics.example.com"

StartCodegen = Callable[..., AbstractAsyncContextManager["Codegen"]]


@dataclass(frozen=True, kw_only=True)
class Codegen:
    """A running service, called for a project."""

    channel: grpc_client.ServiceChannel
    auth: StandInAuth
    ports: Ports

    async def generate(
        self, *, tenant: str = TENANT, project: str = PROJECT, endpoint: str = ENDPOINT, **options: Any
    ) -> codegen_pb2.GenerateClientResponse:
        """Raises the PulsegateError that the service answers."""
        request = codegen_pb2.GenerateClientRequest(endpoint=endpoint, **options)
        response: codegen_pb2.GenerateClientResponse = await self._call("GenerateClient", request, tenant, project)
        return response

    async def artifact(
        self, sha256: str, *, tenant: str = TENANT, project: str = PROJECT
    ) -> codegen_pb2.GetArtifactResponse:
        request = codegen_pb2.GetArtifactRequest(sha256=sha256)
        response: codegen_pb2.GetArtifactResponse = await self._call("GetArtifact", request, tenant, project)
        return response

    async def _call(self, method: str, request: Any, tenant: str, project: str) -> Any:
        stub = codegen_pb2_grpc.CodegenServiceStub(self.channel.grpc_channel)
        principal = self.auth.principal(tenant, project, kind="publishable", scopes=["ingest:write"])
        token = context.PRINCIPAL_TOKEN.set(principal)
        try:
            return await self.channel.call(getattr(stub, method), request)
        finally:
            context.PRINCIPAL_TOKEN.reset(token)
