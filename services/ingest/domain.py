"""The values of ingestion and the rules that need no I/O."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from sys import float_info

from services.ingest.allowed_values import AllowedValues

#: Partitions are permanent: they key all state. Lanes, which group them, may change.
PARTITIONS = 256

#: The value that label sets over a budget are folded into. Clients may not send it.
OTHER = "__other__"

MOST_METRICS_IN_BATCH = 100
#: Data points that a request through another door than `POST /api/v1/metrics` may bring.
MOST_POINTS_IN_REQUEST = 10_000
MOST_OBSERVATIONS = 1_000
MOST_LABEL_VALUE_BYTES = 200
#: Characters of a metric's name; no definition has a longer one.
MOST_NAME_LENGTH = 200
#: How far back and ahead of the receiver's clock a gauge's timestamp may be, in milliseconds.
GAUGE_OLDEST_MS = 8 * 24 * 3600 * 1000
GAUGE_NEWEST_MS = 10 * 60 * 1000
#: How long after its last use is kept what tells a retry, or a late total, apart: longer than either may come, by what
#: the clocks of receivers may differ.
REMEMBERED_MS = GAUGE_OLDEST_MS + 3_600_000
#: How many sequence numbers from a batch's floor to its own.
SEQUENCE_WINDOW = 4_096


class Door(IntEnum):
    """What a body is, as in `pulsegate.ingest.v1.Door`."""

    METRICS = 0
    STATSD = 1
    OTLP_PROTOBUF = 2
    OTLP_JSON = 3
    REMOTE_WRITE = 4
    PUSH_TEXT = 5
    PUSH_PROTOBUF = 6


#: Whose values a pushed body holds: the grouping labels, `job` among them.
PushGroup = Mapping[str, str]


class MetricType(IntEnum):
    """As in `pulsegate.config.v1.MetricType`; of histograms, native ones are a type of their own here."""

    COUNTER = 1
    GAUGE = 2
    HISTOGRAM = 3
    SUMMARY = 4
    NATIVE_HISTOGRAM = 5

    @property
    def words(self) -> str:
        """For a message."""
        return self.name.lower().replace("_", " ")


class GaugeMerge(IntEnum):
    """What becomes of the levels that several producers report for one gauge.

    As in `pulsegate.config.v1.GaugeMerge`.
    """

    LAST = 1
    MIN = 2
    MAX = 3
    SUM = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRule:
    """What a definition says of one label."""

    required: bool
    #: Allowed values; None: any.
    values: AllowedValues | None
    #: An expression that the whole value must match; empty: any.
    pattern: str
    #: At most so many values become series of their own; 0: no limit.
    max_distinct: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """A metric definition as ingestion needs it. Ids are the 16 bytes of a UUID."""

    id: bytes
    tenant_id: bytes
    project_id: bytes
    name: str
    type: MetricType
    #: A classic histogram's upper bounds, ascending, without +Inf; empty for other types.
    bounds: tuple[float, ...]
    labels: Mapping[str, LabelRule]
    version: int
    #: `LAST` for other types than gauges.
    gauge_merge: GaugeMerge = GaugeMerge.LAST
    #: A summary's quantiles, ascending, each in (0, 1); empty for other types.
    objectives: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """A metric that could not be decoded: its code and message."""

    code: str
    message: str
    #: The metric's name, where that could be read.
    metric: str = ""
    #: Whether its value is an array, which is the first fault of all if its type takes none.
    is_array: bool = False


#: The code of a metric that has no definition.
UNDEFINED = "METRIC_NOT_DEFINED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """Why one metric of a batch was not taken."""

    #: Position in the batch, from 0.
    index: int
    code: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a batch."""

    accepted: int
    rejected: tuple[Rejection, ...]
    duplicate: bool = False

    @property
    def size(self) -> int:
        """How many metrics the batch has."""
        return self.accepted + len(self.rejected)


#: Label names and values, alternating, sorted by name: `("plan", "pro", "region", "eu")`.
LabelPairs = tuple[str, ...]


def series_id(definition_id: bytes, labels: LabelPairs) -> bytes:
    """16 bytes that stand for a definition's label set: BLAKE2b over both, each part with its length before it."""
    digest = blake2b(definition_id, digest_size=16)
    for text in labels:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    return digest.digest()


def is_other(labels: LabelPairs) -> bool:
    """Whether there are labels, and each has the value that label sets over a budget are folded into."""
    return set(labels[1::2]) == {OTHER}


def partition_of(project_id: bytes) -> int:
    """The permanent partition, 0 to 255, of a project."""
    return zlib.crc32(project_id) % PARTITIONS


@dataclass(frozen=True, slots=True, order=True)
class LanePlace:
    """One lane of so many: a subject of the log."""

    lanes: int
    lane: int


def lane_of(partition: int, lanes: int) -> int:
    """The lane that carries a partition: lanes are ranges of partitions of (nearly) equal size."""
    return partition * lanes // PARTITIONS


def partitions_of(lane: int, lanes: int) -> tuple[int, int]:
    """The first and the last partition of a lane."""
    first = -(-lane * PARTITIONS // lanes)
    last = -(-(lane + 1) * PARTITIONS // lanes) - 1
    return first, last


def add_finite(left: float, right: float) -> float:
    """The sum of two finite numbers; where it would overflow, the largest number of that sign."""
    total = left + right
    if -float_info.max <= total <= float_info.max:
        return total
    return float_info.max if total > 0 else -float_info.max
