"""Doors and outcomes as the contract has them."""

from chassis.errors import Malformed
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from services.ingest.domain import Door, Outcome, PushGroup

#: Rejections beyond these are only counted.
_MOST_LISTED = 100


def door_of(number: int) -> Door:
    """A door by its number in the contract. Raises Malformed."""
    try:
        return Door(number)
    except ValueError as error:
        raise Malformed("This receiver does not know the door yet.") from error


def group_of(request: pb.IngestBatchRequest | pb.StreamedBatch) -> PushGroup | None:
    """The group that a push belongs to, if it is one. Raises Malformed."""
    if not request.HasField("group"):
        return None
    labels = request.group.labels
    if len(labels) % 2:
        raise Malformed("Grouping labels are names and values, alternating.")
    return dict(zip(labels[::2], labels[1::2], strict=True))


def render(outcome: Outcome) -> pb.IngestBatchResponse:
    """What became of a batch."""
    return pb.IngestBatchResponse(
        accepted=outcome.accepted,
        rejected=[
            pb.Rejection(index=rejection.index, code=rejection.code, message=rejection.message)
            for rejection in outcome.rejected[:_MOST_LISTED]
        ],
        duplicate=outcome.duplicate,
        rejected_more=max(0, len(outcome.rejected) - _MOST_LISTED),
    )
