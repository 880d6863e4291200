"""OTLP's exponential histograms as native ones.

Source: the OpenTelemetry metrics data model, "ExponentialHistogram". Bucket i of scale s holds what is above 2^(i/2^s)
and not above 2^((i+1)/2^s): it is bucket i+1 of the native schema s. A finer scale is merged down to the finest schema,
which keeps every count; one that is coarser than the coarsest schema cannot be split up again.
"""

from typing import Any

from services.ingest.native_histograms import COARSEST_SCHEMA, FINEST_SCHEMA, ZERO_THRESHOLD, NativeBuckets, coarser
from services.ingest.points import ExponentialBuckets

#: SDKs send 160 at most.
_MOST_BUCKETS = 4_096
_FINEST_SCALE = 20


class UnusableHistogramError(Exception):
    """A histogram cannot be taken as it is; the message tells its sender why."""


def exponential(point: Any) -> ExponentialBuckets:
    """The buckets and the sum of a data point. Raises UnusableHistogramError, and ValueError where a number cannot be
    read."""
    scale, zero = int(point.scale), int(point.zero_count)
    if not COARSEST_SCHEMA <= scale <= _FINEST_SCALE:
        raise UnusableHistogramError(f"A scale is {COARSEST_SCHEMA} to {_FINEST_SCALE} here, not {scale}.")
    if zero and float(point.zero_threshold) > ZERO_THRESHOLD:
        raise UnusableHistogramError(f"A zero bucket may be {ZERO_THRESHOLD} wide at most.")
    buckets = NativeBuckets(min(scale, FINEST_SCHEMA))
    buckets.zero = zero
    steps = scale - buckets.schema
    _fill(buckets.positive, point.positive, steps)
    _fill(buckets.negative, point.negative, steps)
    if zero < 0 or buckets.count != int(point.count):
        raise UnusableHistogramError("A histogram has buckets that add up to its count.")
    try:
        buckets.settle()
    except ValueError as error:
        raise UnusableHistogramError(f"A bucket holds no finite numbers: {error}.") from error
    return ExponentialBuckets(buckets.packed(), buckets.count, float(point.sum))


def _fill(side: dict[int, int], sent: Any, steps: int) -> None:
    if len(sent.bucket_counts) > _MOST_BUCKETS:
        raise UnusableHistogramError(f"A histogram has at most {_MOST_BUCKETS} buckets of either sign.")
    first = int(sent.offset) + 1
    for index, count in enumerate(map(int, sent.bucket_counts), first):
        if count < 0:
            raise UnusableHistogramError("A bucket has a count of 0 or more.")
        if count:
            merged = coarser(index, steps)
            side[merged] = side.get(merged, 0) + count
