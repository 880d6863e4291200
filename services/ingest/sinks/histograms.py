"""Native histograms as remote write 1.0 has them: the message `Histogram` with whole counts.

Source: https://github.com/prometheus/prometheus/blob/main/prompb/types.proto. There is no reset hint: what was reset,
Prometheus sees from the counts, which are those since the series began.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby

from services.ingest.native_histograms import ZERO_THRESHOLD, NativeBuckets
from services.ingest.sinks import wire

# Fields of `Histogram`.
_COUNT, _SUM, _SCHEMA, _ZERO_THRESHOLD, _ZERO_COUNT, _TIMESTAMP = 1, 3, 4, 5, 6, 15
_NEGATIVE_SPANS, _NEGATIVE_DELTAS, _POSITIVE_SPANS, _POSITIVE_DELTAS = 8, 9, 11, 12


def histogram(count: int, total: float, buckets: NativeBuckets, at_ms: int) -> bytes:
    """The message for a count and a sum of observations and the buckets that these are in, at Unix milliseconds."""
    return b"".join(
        (
            wire.whole(_COUNT, count),
            wire.double(_SUM, total),
            wire.whole(_SCHEMA, wire.zigzag(buckets.schema)),
            wire.double(_ZERO_THRESHOLD, ZERO_THRESHOLD),
            wire.whole(_ZERO_COUNT, buckets.zero),
            _side(buckets.negative, _NEGATIVE_SPANS, _NEGATIVE_DELTAS),
            _side(buckets.positive, _POSITIVE_SPANS, _POSITIVE_DELTAS),
            wire.whole(_TIMESTAMP, at_ms),
        )
    )


def _side(counts: Mapping[int, int], spans: int, deltas: int) -> bytes:
    """Runs of buckets without a gap, each with its distance from the one before (the first one with its index); and
    what each count has more than the one before."""
    if not counts:
        return b""
    indexes = sorted(counts)
    ordered = [counts[index] for index in indexes]
    differences = [after - before for before, after in zip([0, *ordered], ordered, strict=False)]
    runs = [
        wire.length_delimited(spans, wire.whole(1, wire.zigzag(offset)) + wire.whole(2, length))
        for offset, length in _runs(indexes)
    ]
    return b"".join(runs) + wire.packed(deltas, map(wire.zigzag, differences))


def _runs(indexes: list[int]) -> Iterator[tuple[int, int]]:
    """How far each run of consecutive indexes is from the one before, and its length."""
    after = 0
    for _, run in groupby(enumerate(indexes), key=lambda pair: pair[1] - pair[0]):
        members = [index for _, index in run]
        yield members[0] - after, len(members)
        after = members[-1] + 1
