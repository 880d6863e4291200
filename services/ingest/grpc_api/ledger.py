"""Questions about the delivery ledger: protobuf in, one operation, protobuf out."""

from typing import Any

import grpc

from chassis import principals
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from contracts.pulsegate.ingest.v1 import ingest_pb2_grpc
from services.ingest.operations.ledger import LedgerReader
from services.ingest.storage.ledger import LedgerLine

Call = grpc.aio.ServicerContext[Any, Any]


class LedgerServicer(ingest_pb2_grpc.LedgerServiceServicer):
    """`pulsegate.ingest.v1.LedgerService`."""

    def __init__(self, reader: LedgerReader) -> None:
        self._reader = reader

    async def GetLedger(  # noqa: N802 - the contract's name
        self, request: pb.GetLedgerRequest, _call: Call
    ) -> pb.GetLedgerResponse:
        principal = principals.current_of_project()
        page = await self._reader.lines(
            principal,
            from_ms=request.from_ms,
            to_ms=request.to_ms,
            metric=request.metric,
            page_token=request.page_token,
        )
        return pb.GetLedgerResponse(
            lines=map(_line, page.lines),
            delivered_until_ms=page.delivered_until_ms,
            next_page_token=page.next_page_token,
        )

    async def ListRejections(  # noqa: N802 - the contract's name
        self, _request: pb.ListRejectionsRequest, _call: Call
    ) -> pb.ListRejectionsResponse:
        rejections = await self._reader.last_rejections(principals.current_of_project())
        return pb.ListRejectionsResponse(
            rejections=[
                pb.LastRejection(
                    metric=each.metric, code=each.code, count=each.count, example=each.example, last_ms=each.last_ms
                )
                for each in rejections
            ]
        )


def _line(line: LedgerLine) -> pb.LedgerLine:
    accepted = line.committed + line.duplicate
    return pb.LedgerLine(
        metric=line.metric,
        hour_ms=line.hour_ms,
        received=accepted + sum(line.rejected.values()),
        accepted=accepted,
        rejected=line.rejected,
        duplicate=line.duplicate,
        committed=line.committed,
        folded=line.folded,
    )
