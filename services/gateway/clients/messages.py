"""Between messages of auth and the values of the gateway, where more than one file needs it."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from contracts.pulsegate.auth.v1.limits_pb2 import Limits
from services.gateway.domain import Overrides


def overrides_of(limits: Limits) -> Overrides:
    """What auth tells of an operator's limits. What is negative is none."""
    return Overrides(
        writes_per_hour=max(0, limits.writes_per_hour),
        reads_per_hour=max(0, limits.reads_per_hour),
        expensive_per_hour=max(0, limits.expensive_per_hour),
        ingestion_per_minute=max(0, limits.ingestion_per_minute),
    )


def timestamp(moment: datetime) -> Timestamp:
    """As messages have it."""
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
