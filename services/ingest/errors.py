"""Every error of ingestion, with its stable code."""

from collections.abc import Sequence

from chassis.errors import Invalid, Limited, Malformed, TooLarge, Unavailable, UnsupportedMediaType
from services.ingest.domain import LanePlace


class MalformedJson(Malformed):
    code = "MALFORMED_JSON"


class MalformedCompression(Malformed):
    code = "MALFORMED_REQUEST"


class MalformedBody(Malformed):
    """Not in the format that its door takes."""

    code = "MALFORMED_REQUEST"


class UnknownEncoding(UnsupportedMediaType):
    code = "UNSUPPORTED_MEDIA_TYPE"


class BodyTooLarge(TooLarge):
    code = "BODY_TOO_LARGE"


class BatchEmpty(Invalid):
    code = "BATCH_EMPTY"


class BatchTooLarge(Invalid):
    code = "BATCH_TOO_LARGE"


class SequenceOutOfWindow(Invalid):
    code = "SEQUENCE_OUT_OF_WINDOW"


class TooManyProducers(Limited):
    """The batch's producer is new, and the project has as many as it may have, now, with such a key."""

    code = "QUOTA_EXCEEDED"

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(
            "This project has as many producers as it may have (PULSEGATE_PRODUCERS_PER_PROJECT), or half as many where"
            " a publishable key sends the batch, or such keys have brought too many in the last ten minutes. Those that"
            " it has go on; each counts until eight days after its last batch.",
            details={"limit": "producers"},
            retry_after_seconds=retry_after_seconds,
        )


class LogUnavailable(Unavailable):
    """The log is away, full or too slow. The batch may or may not have been kept: the client sends it again."""


class LaneLostError(Exception):
    """Another aggregator owns the lane now, or the outcome of a commit is unknown: what is in memory is void."""


class UnreadableLogError(Exception):
    """The log holds something that this version cannot read, or has gone back behind what was committed."""


class NotDrainedError(Exception):
    """Lanes hold batches that are not in the state."""

    def __init__(self, lanes: int, behind: Sequence[LanePlace]) -> None:
        """`lanes`: of how many the state is."""
        told = ", ".join(f"{each.lane} of {each.lanes}" for each in behind)
        super().__init__(
            f"batches in lane {told} are not in the state yet: stop the receivers,"
            " let the aggregators go on until the lag is 0, and try again"
        )
        self.lanes = lanes
