"""Outcomes as the contract has them."""

from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from services.ingest.domain import Outcome


def render(outcome: Outcome) -> pb.IngestBatchResponse:
    """What became of a batch."""
    return pb.IngestBatchResponse(
        accepted=outcome.accepted,
        rejected=[
            pb.Rejection(index=rejection.index, code=rejection.code, message=rejection.message)
            for rejection in outcome.rejected
        ],
        duplicate=outcome.duplicate,
    )
