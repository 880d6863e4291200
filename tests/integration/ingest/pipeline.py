"""Ingestion between real servers: receiver and aggregator, in this process or their own, and a client for both ends."""

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from chassis import context, grpc_client
from chassis.clock import Clock
from chassis.errors import PulsegateError
from chassis.grpc_client import ServiceChannel
from chassis.ids import uuid7
from contracts.pulsegate.config.v1 import definitions_pb2
from contracts.pulsegate.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from deploy.local.layout import Ports
from services.ingest import app
from services.ingest.settings import AggregatorSettings, ReceiverSettings
from tests.integration.ingest.upstreams import Upstreams
from tests.suite_database import Database
from tests.waiting import eventually

SERVICE_TOKEN = "token-only-for-tests"

#: A machine that runs other tests too may take its time.
PATIENCE_SECONDS = 30.0

Send = Callable[..., Awaitable[ingest_pb2.IngestBatchResponse]]


@dataclass(kw_only=True)
class Pipeline:
    """One log, one database, one Prometheus, one project of its own."""

    upstreams: Upstreams
    prometheus_url: str
    database: Database
    receiver_settings: ReceiverSettings
    aggregator_settings: AggregatorSettings
    new_ports: Callable[[], Ports]
    tenant_id: str = field(default_factory=lambda: str(uuid7()))
    project_id: str = field(default_factory=lambda: str(uuid7()))

    # --- running it

    @asynccontextmanager
    async def receiver(self, **changes: Any) -> AsyncIterator[None]:
        async with app.receiver(dataclasses.replace(self.receiver_settings, **changes)):
            await self.expect_readiness("receiver", "ready")
            yield

    def aggregator(self, clock: Clock | None = None, **changes: Any) -> AbstractAsyncContextManager[None]:
        return app.aggregator(dataclasses.replace(self.aggregator_settings, **changes), clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Both roles."""
        async with self.receiver(), self.aggregator():
            yield

    @contextmanager
    def process(self, role: str) -> Iterator["RoleProcess"]:
        """A role in a process of its own, gone at the end."""
        settings = self.receiver_settings if role == "receiver" else self.aggregator_settings
        environment = {
            setting.metadata["variable"]: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            for setting in dataclasses.fields(settings)
            if setting.metadata and (value := getattr(settings, setting.name)) not in (None, ())
        }
        process = RoleProcess(role, environment)
        process.start()
        try:
            yield process
        finally:
            process.kill()

    async def readiness(self, role: str) -> dict[str, Any]:
        """The body of `/health/ready`."""
        port = (self.receiver_settings if role == "receiver" else self.aggregator_settings).operations_port
        url = f"http://127.0.0.1:{port}/health/ready"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                body: dict[str, Any] = await response.json()
                return body
        except aiohttp.ClientConnectionError:
            return {"status": "absent"}

    async def expect_readiness(self, role: str, status: str) -> None:
        async def says() -> bool:
            return bool((await self.readiness(role))["status"] == status)

        await eventually(says, within_seconds=PATIENCE_SECONDS, what=f"the {role} is {status}")

    # --- its callers

    def define(self, name: str, kind: str = "counter", **spec: Any) -> definitions_pb2.Metric:
        return self.upstreams.config.define(self.tenant_id, self.project_id, name, kind, **spec)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Send]:
        """A function like `send` that keeps its connection."""
        address = f"127.0.0.1:{self.receiver_settings.grpc_port}"
        async with grpc_client.connected("ingest", address, SERVICE_TOKEN) as channel:

            async def send(*metrics: dict[str, Any], **batch: Any) -> ingest_pb2.IngestBatchResponse:
                return await self._ask(channel, json.dumps({**batch, "metrics": metrics}).encode())

            yield send

    async def send_bytes(
        self,
        body: bytes,
        content_encoding: str = "",
        door: "ingest_pb2.Door.ValueType" = ingest_pb2.DOOR_UNSPECIFIED,
        group: ingest_pb2.PushGroup | None = None,
        key: str = "secret",
    ) -> ingest_pb2.IngestBatchResponse:
        """One call with a key of that kind. Raises the PulsegateError that the receiver answers."""
        address = f"127.0.0.1:{self.receiver_settings.grpc_port}"
        async with grpc_client.connected("ingest", address, SERVICE_TOKEN) as channel:
            return await self._ask(channel, body, content_encoding, door, group, key)

    async def send(self, *metrics: dict[str, Any], **batch: Any) -> ingest_pb2.IngestBatchResponse:
        return await self.send_bytes(json.dumps({**batch, "metrics": metrics}).encode())

    async def _ask(
        self,
        channel: ServiceChannel,
        body: bytes,
        content_encoding: str = "",
        door: "ingest_pb2.Door.ValueType" = ingest_pb2.DOOR_UNSPECIFIED,
        group: ingest_pb2.PushGroup | None = None,
        key: str = "secret",
    ) -> ingest_pb2.IngestBatchResponse:
        stub = ingest_pb2_grpc.IngestServiceStub(channel.grpc_channel)
        principal = self.upstreams.auth.principal(self.tenant_id, self.project_id, kind=key, scopes=["ingest:write"])
        token = context.PRINCIPAL_TOKEN.set(principal)
        try:
            request = ingest_pb2.IngestBatchRequest(
                body=body, content_encoding=content_encoding, door=door, group=group
            )
            response: ingest_pb2.IngestBatchResponse = await channel.call(
                stub.IngestBatch, request, timeout_seconds=10.0
            )
            return response
        finally:
            context.PRINCIPAL_TOKEN.reset(token)

    # --- what comes out

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that a PromQL expression answers now. `$project` stands for this project's matcher."""
        query = expression.replace("$project", f'project_id="{self.project_id}"')
        url = f"{self.prometheus_url}/api/v1/query"
        async with aiohttp.ClientSession() as session, session.get(url, params={"query": query}) as response:
            body = await response.json()
            assert body["status"] == "success", body
            result: list[dict[str, Any]] = body["data"]["result"]
            return result

    async def value(self, expression: str) -> float | None:
        """The only value that an expression answers; None where there is none."""
        result = await self.query(expression)
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    async def expect(self, expression: str, value: float | None, within_seconds: float = PATIENCE_SECONDS) -> None:
        """Waits until the expression answers the value."""
        last: float | None = None

        async def answers() -> bool:
            nonlocal last
            last = await self.value(expression)
            return last == value

        try:
            await eventually(answers, within_seconds=within_seconds)
        except AssertionError as error:
            raise AssertionError(f"{expression}: {last}, not {value}") from error

    async def samples(self, expression: str, over: str = "1h") -> list[tuple[float, float]]:
        """The raw samples of the only series of a selector: Unix seconds and values."""
        [series] = await self.query(f"{expression}[{over}]")
        return [(float(at), float(value)) for at, value in series["values"]]


class RoleProcess:
    """`python -m services.ingest <role>`."""

    def __init__(self, role: str, environment: dict[str, str]) -> None:
        self._command = [sys.executable, "-m", "services.ingest", role]
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, env=self._environment, stdout=subprocess.DEVNULL)

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """As `kill -9`; returns when it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def ends(self) -> int:
        """Waits for its end; returns the exit status."""
        assert self._process is not None
        return self._process.wait(timeout=30)


class Load:
    """Clients that number their batches and send each until it is acknowledged: what they counted is exact."""

    def __init__(self, pipeline: Pipeline, metric: str, *, clients: int = 4) -> None:
        self._pipeline = pipeline
        self._metric = metric
        self._clients = clients
        self._stopping = asyncio.Event()
        #: Acknowledged batches, each one increment of 1.
        self.acknowledged = 0
        self.refused = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Sends while open, and until the last batch is acknowledged."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._clients):
                tasks.create_task(self._client())
            try:
                yield self
            finally:
                self._stopping.set()

    async def acknowledges(self, more: int) -> None:
        """Waits until so many more batches are acknowledged."""
        wanted = self.acknowledged + more

        async def enough() -> bool:
            return self.acknowledged >= wanted

        await eventually(enough, within_seconds=60.0, what=f"{more} more batches are acknowledged")

    async def _client(self) -> None:
        producer, sequence = str(uuid7()), 0
        async with self._pipeline.client() as send:
            while not self._stopping.is_set():
                sequence += 1
                await self._until_acknowledged(send, producer, sequence)
                if sequence % 7 == 0:  # an answer that got lost on its way
                    await self._until_acknowledged(send, producer, sequence - 3, counts=0)

    async def _until_acknowledged(self, send: Send, producer: str, sequence: int, counts: int = 1) -> None:
        while True:
            try:
                await send({"name": self._metric, "value": 1}, producer=producer, sequence=sequence)
            except PulsegateError as error:
                if error.http_status < 500:
                    raise
                self.refused += 1
                await asyncio.sleep(0.05)
            else:
                self.acknowledged += counts
                return


def increments(samples: Sequence[tuple[float, float]]) -> bool:
    """Whether the values never fall."""
    values = [value for _, value in samples]
    return values == sorted(values)
