"""The receiver's door: protobuf in, one operation, protobuf out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from chassis import principals
from contracts.pulsegate.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from services.ingest.grpc_api.batch_stream import BatchStream
from services.ingest.grpc_api.outcomes import door_of, group_of, render
from services.ingest.operations.batches import Receiver

Call = grpc.aio.ServicerContext[Any, Any]


class IngestServicer(ingest_pb2_grpc.IngestServiceServicer):
    """`pulsegate.ingest.v1.IngestService`."""

    def __init__(self, receiver: Receiver, verifier: principals.PrincipalVerifier) -> None:
        self._receiver = receiver
        self._verifier = verifier
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Asks the callers of streams to go elsewhere; their calls end when they have."""
        self._draining.set()

    async def IngestBatch(  # noqa: N802 - the contract's name
        self, request: ingest_pb2.IngestBatchRequest, _call: Call
    ) -> ingest_pb2.IngestBatchResponse:
        principal = principals.current_of_project()
        door = door_of(request.door)
        outcome = await self._receiver.take(principal, request.body, request.content_encoding, door, group_of(request))
        return render(outcome)

    async def StreamBatches(  # noqa: N802 - the contract's name
        self, requests: AsyncIterator[ingest_pb2.StreamBatchesRequest], _call: Call
    ) -> AsyncIterator[ingest_pb2.StreamBatchesResponse]:
        stream = BatchStream(self._receiver, self._verifier, self._draining)
        async for response in stream.serve(requests):
            yield response
