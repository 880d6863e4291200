"""A running codegen service, as the gateway would call it."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from chassis import context, grpc_client
from contracts.pulsegate.codegen.v1 import codegen_pb2, codegen_pb2_grpc
from deploy.local.layout import CHECKOUT, Ports
from tests.integration.codegen.upstreams import PROJECT, TENANT
from tests.stand_in_auth import StandInAuth

SERVICE_TOKEN = "token-only-for-tests"
KEY = "pk_0123456789abcdefghijklmnopqrstuvwxyzAB"
ENDPOINT = "https://metrics.example.com"

StartCodegen = Callable[..., AbstractAsyncContextManager["Codegen"]]


async def start(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    """The service as a process, with an environment of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PULSEGATE_")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.codegen", *arguments),
        cwd=CHECKOUT,
        env={**inherited, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


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
