"""One label set of one definition as the aggregator keeps it, and what leaves for the sinks of it."""

from collections.abc import Sequence
from typing import NamedTuple

from services.ingest.domain import OTHER, LabelPairs, MetricType, add_finite, partition_of
from services.ingest.records import SeriesDelta


class Series:
    """One label set of one definition, whatever its buckets."""

    __slots__ = (
        "bounds",
        "buckets",
        "changed_ms",
        "count",
        "created_ms",
        "definition_id",
        "encoded_labels",
        "folded",
        "id",
        "labels",
        "live",
        "name",
        "partition",
        "project_id",
        "stored",
        "tenant_id",
        "timestamp_ms",
        "type",
        "value",
    )

    def __init__(
        self,
        *,
        id: bytes,  # noqa: A002 - the field's name
        tenant_id: bytes,
        project_id: bytes,
        definition_id: bytes,
        name: str,
        type: MetricType,  # noqa: A002
        labels: LabelPairs,
        bounds: tuple[float, ...],
    ) -> None:
        self.id = id
        self.tenant_id = tenant_id
        self.project_id = project_id
        self.definition_id = definition_id
        self.name = name
        self.type = type
        self.labels = labels
        self.bounds = bounds
        self.partition = partition_of(project_id)
        #: See the columns of the table `series`.
        self.value = 0.0
        self.count = 0
        self.buckets = [0] * (len(bounds) + 1) if type is MetricType.HISTOGRAM else []
        self.timestamp_ms = 0
        #: 0 until its first commit.
        self.created_ms = 0
        self.changed_ms = 0
        self.folded = OTHER in labels[1::2]
        #: Is written to the sinks; a series without data for a day is not, until it wakes up.
        self.live = False
        #: Has a row in the state.
        self.stored = False
        #: What a sink needs of its labels, made once (`sinks.remote_write`).
        self.encoded_labels: tuple[bytes, ...] | None = None

    def add(self, delta: SeriesDelta) -> None:
        """Folds one batch's part in."""
        if self.type is MetricType.GAUGE:
            if delta.timestamp_ms >= self.timestamp_ms:
                self.value, self.timestamp_ms = delta.value, delta.timestamp_ms
            return
        self.value = add_finite(self.value, delta.value)
        self.count += delta.count
        if self.buckets:
            # A new list: the one before may have been sealed.
            self.buckets = [have + more for have, more in zip(self.buckets, delta.buckets, strict=True)]

    def sealed(self) -> "Sealed":
        """Its values as of now; folding goes on without changing them."""
        return Sealed(self, self.value, self.count, self.buckets, self.timestamp_ms)

    def emission(self, at_ms: int) -> "Emission":
        """Its values as of now, to be written with that time."""
        return Emission(self, at_ms, self.value, self.count, self.buckets)


class Sealed(NamedTuple):
    """A series' values at one moment, for the state."""

    series: Series
    value: float
    observations: int
    buckets: list[int]
    timestamp_ms: int


class Emission(NamedTuple):
    """What a sink is to write of one series: its values as committed, copied."""

    series: Series
    #: Unix milliseconds.
    at_ms: int
    value: float
    observations: int
    buckets: Sequence[int]
    #: The series ends here: a stale marker.
    stale: bool = False
