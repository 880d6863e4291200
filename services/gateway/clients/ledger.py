"""What the gateway asks ingest about the ledger and rejections."""

from contracts.pulsegate.ingest.v1 import ingest_pb2 as ingest
from contracts.pulsegate.ingest.v1.ingest_pb2_grpc import LedgerServiceStub
from services.gateway.upstreams import Upstream


class Ledger:
    """ingest's LedgerService, for the project of the principal."""

    def __init__(self, ingest_service: Upstream) -> None:
        self._ingest = ingest_service
        self._stub = LedgerServiceStub(ingest_service.channel.grpc_channel)

    async def lines(self, from_ms: int, to_ms: int, metric: str, page_token: str) -> ingest.GetLedgerResponse:
        """Of the hours from one moment to another; of all metrics where none is named."""
        request = ingest.GetLedgerRequest(from_ms=from_ms, to_ms=to_ms, metric=metric, page_token=page_token)
        return await self._ingest.ask_again(self._stub.GetLedger, request)

    async def rejections(self) -> ingest.ListRejectionsResponse:
        return await self._ingest.ask_again(self._stub.ListRejections, ingest.ListRejectionsRequest())
