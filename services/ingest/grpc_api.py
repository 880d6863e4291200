"""The receiver's door: protobuf in, one operation, protobuf out."""

from typing import Any

import grpc

from chassis import principals
from contracts.pulsegate.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from services.ingest.operations import Receiver

Call = grpc.aio.ServicerContext[Any, Any]


class IngestServicer(ingest_pb2_grpc.IngestServiceServicer):
    """`pulsegate.ingest.v1.IngestService`."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def IngestBatch(  # noqa: N802 - the contract's name
        self, request: ingest_pb2.IngestBatchRequest, _call: Call
    ) -> ingest_pb2.IngestBatchResponse:
        principal = principals.current_of_project()
        outcome = await self._receiver.take(principal, request.body, request.content_encoding)
        return ingest_pb2.IngestBatchResponse(
            accepted=outcome.accepted,
            rejected=[
                ingest_pb2.Rejection(index=rejection.index, code=rejection.code, message=rejection.message)
                for rejection in outcome.rejected
            ],
            duplicate=outcome.duplicate,
        )
