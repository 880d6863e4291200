"""Ingestion in this process, between real servers: a receiver, an aggregator, and a client for both ends."""

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from chassis import context, grpc_client
from chassis.ids import uuid7
from contracts.pulsegate.config.v1 import definitions_pb2
from contracts.pulsegate.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from services.ingest import app
from services.ingest.settings import AggregatorSettings, ReceiverSettings
from tests.integration.ingest.upstreams import Upstreams
from tests.waiting import eventually

SERVICE_TOKEN = "token-only-for-tests"


@dataclass(kw_only=True)
class Pipeline:
    """One log, one database, one Prometheus, one project of its own."""

    upstreams: Upstreams
    prometheus_url: str
    receiver_settings: ReceiverSettings
    aggregator_settings: AggregatorSettings
    tenant_id: str = field(default_factory=lambda: str(uuid7()))
    project_id: str = field(default_factory=lambda: str(uuid7()))

    @asynccontextmanager
    async def receiver(self) -> AsyncIterator[None]:
        async with app.receiver(self.receiver_settings):
            await eventually(self._receiver_is_ready, what="the receiver is ready")
            yield

    async def _receiver_is_ready(self) -> bool:
        return await self.readiness(self.receiver_settings.operations_port) == 200

    async def readiness(self, port: int) -> int:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/health/ready") as response:
            return response.status

    def aggregator(self, **changes: Any) -> AbstractAsyncContextManager[None]:
        return app.aggregator(AggregatorSettings(**{**vars(self.aggregator_settings), **changes}))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Both roles."""
        async with self.receiver(), self.aggregator():
            yield

    def define(self, name: str, kind: str = "counter", **spec: Any) -> definitions_pb2.Metric:
        return self.upstreams.config.define(self.tenant_id, self.project_id, name, kind, **spec)

    async def send_bytes(
        self, body: bytes, *, content_encoding: str = "", scopes: tuple[str, ...] = ("ingest:write",)
    ) -> ingest_pb2.IngestBatchResponse:
        """One call. Raises the PulsegateError that the receiver answers."""
        address = f"127.0.0.1:{self.receiver_settings.grpc_port}"
        async with grpc_client.connected("ingest", address, SERVICE_TOKEN) as channel:
            stub = ingest_pb2_grpc.IngestServiceStub(channel.grpc_channel)
            principal = self.upstreams.auth.principal(self.tenant_id, self.project_id, scopes=list(scopes))
            token = context.PRINCIPAL_TOKEN.set(principal)
            try:
                request = ingest_pb2.IngestBatchRequest(body=body, content_encoding=content_encoding)
                response: ingest_pb2.IngestBatchResponse = await channel.call(stub.IngestBatch, request)
                return response
            finally:
                context.PRINCIPAL_TOKEN.reset(token)

    async def send(self, *metrics: dict[str, Any], **batch: Any) -> ingest_pb2.IngestBatchResponse:
        return await self.send_bytes(json.dumps({**batch, "metrics": metrics}).encode())

    async def query(self, expression: str, **parameters: str) -> list[dict[str, Any]]:
        """The series that a PromQL expression answers now. `$project` stands for this project's matcher."""
        query = expression.replace("$project", f'project_id="{self.project_id}"')
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.prometheus_url}/api/v1/query", params={"query": query, **parameters}) as response,
        ):
            body = await response.json()
            assert body["status"] == "success", body
            result: list[dict[str, Any]] = body["data"]["result"]
            return result

    async def value(self, expression: str) -> float | None:
        """The only value that an expression answers; None where there is none."""
        result = await self.query(expression)
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    async def expect(self, expression: str, value: float | None, within_seconds: float = 15.0) -> None:
        """Waits until the expression answers the value."""

        async def answers() -> bool:
            nonlocal last
            last = await self.value(expression)
            return last == value

        last: float | None = None
        try:
            await eventually(answers, within_seconds=within_seconds, what=f"{expression} answers {value}")
        except AssertionError as error:
            raise AssertionError(f"{expression}: {last}, not {value}") from error
