"""Prometheus remote write 1.0.

Source: https://prometheus.io/docs/specs/prw/remote_write_spec/. Names say what a series is, as the conventions have
it: `x_total` is a counter, `x_bucket`, `x_sum` and `x_count` are parts of the histogram x, anything else is a gauge.
A sender's counters are totals since the start of whatever it scraped, and all its labels together identify them. A
bucket's bound counts as the number that it is: Prometheus spells it as it was scraped (`1`) up to version 2, and all
alike (`1.0`) from version 3 on.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from contracts.pulsegate.ingest.v1 import remote_write_pb2 as pb
from services.ingest.domain import MOST_NAME_LENGTH, MOST_POINTS_IN_REQUEST, Fault, MetricType
from services.ingest.doors.names import NAME_TOO_LONG, clipped
from services.ingest.errors import BatchTooLarge, MalformedBody
from services.ingest.points import (
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    Component,
    ComponentKind,
    Origin,
    Point,
    identifying_of,
    source_id,
)

#: Labels of where a series comes from, rather than of what it counts.
_OF_TARGET = ("job", "instance")
#: Far more than a definition has.
_MOST_LABELS = 128
#: Of all series together: twenty for each of the most that there may be.
_MOST_LABELS_IN_REQUEST = 20 * MOST_POINTS_IN_REQUEST
_MADE_AT = "_created"
_COMPONENTS = {"_sum": ComponentKind.SUM, "_count": ComponentKind.COUNT, "_bucket": ComponentKind.BUCKET}
#: Characters of a bucket's bound.
_LONGEST_BOUND = 100

_double, _bits = struct.Struct("<d"), struct.Struct("<Q")
#: The NaN that says that a series ends here.
_STALE_MARKER = 0x7FF0000000000002

_LABELS_REFUSED = Fault(
    "METRIC_MALFORMED", f"A series has a __name__ and at most {_MOST_LABELS} other labels, each once."
)
_BOUND_REFUSED = Fault("METRIC_MALFORMED", "A series of buckets has a number in its label le.")
_NATIVE_REFUSED = Fault("METRIC_TYPE_MISMATCH", "Native histograms are not taken: have classic buckets scraped.")


def decode(body: bytes) -> Iterator[Point | Fault]:
    """Raises MalformedBody, BatchTooLarge."""
    try:
        request = pb.WriteRequest.FromString(body)
    except DecodeError as error:
        raise MalformedBody("The body is no write request of remote write 1.0.") from error
    _check_size(request)
    for series in request.timeseries:
        yield from _points(series)


def _check_size(request: pb.WriteRequest) -> None:
    """The number of series comes first: it costs nothing to know."""
    if len(request.timeseries) > MOST_POINTS_IN_REQUEST or _samples(request) > MOST_POINTS_IN_REQUEST:
        raise BatchTooLarge(f"A request takes at most {MOST_POINTS_IN_REQUEST} samples: lower max_samples_per_send.")
    if sum([len(series.labels) for series in request.timeseries]) > _MOST_LABELS_IN_REQUEST:
        raise BatchTooLarge(f"The series of a request have at most {_MOST_LABELS_IN_REQUEST} labels.")


def _samples(request: pb.WriteRequest) -> int:
    return sum([len(series.samples) + len(series.histograms) for series in request.timeseries])


class _Bound(NamedTuple):
    """Up to where a bucket counts; `spelled` in the one way that identifies it, empty of what is no bucket."""

    value: float
    spelled: str


_NO_BOUND = _Bound(math.inf, "")


class _Series(NamedTuple):
    """What all samples of a series have in common."""

    names: tuple[str]
    labels: Mapping[str, str]
    offered: Mapping[str, str]
    types: frozenset[MetricType]
    source: bytes
    #: Of a part of a histogram; `bound` is a bucket's.
    component: ComponentKind | None
    bound: float


def _points(series: pb.TimeSeries) -> Iterator[Point | Fault]:
    """What each sample comes to. Stale markers end nothing: the next total of the series is compared with the last."""
    common = _common(series)
    if common is None:
        return
    yield from (_NATIVE_REFUSED for _ in series.histograms)
    for sample in series.samples:
        if not _is_stale(sample.value):
            yield common if isinstance(common, Fault) else _point(common, sample)


def _common(series: pb.TimeSeries) -> _Series | Fault | None:
    """None of a series that says when another one began."""
    labels = {} if len(series.labels) > _MOST_LABELS + 1 else {label.name: label.value for label in series.labels}
    name = labels.pop("__name__", "")
    if name.endswith(_MADE_AT):
        return None
    if not name or len(labels) + 1 != len(series.labels):
        return _LABELS_REFUSED
    stem, underscore, last = name.rpartition("_")
    component = _COMPONENTS.get(underscore + last)
    if len(stem if component else name) > MOST_NAME_LENGTH:
        return NAME_TOO_LONG
    bound = _bound(labels.get("le", "")) if component is ComponentKind.BUCKET else _NO_BOUND
    if bound is None:
        return _BOUND_REFUSED
    if bound.spelled:
        labels["le"] = bound.spelled
    source = source_id("remote write", name, identifying_of(labels))
    offered = {label: clipped(labels.pop(label)) for label in _OF_TARGET if label in labels}
    if bound.spelled:
        del labels["le"]
    kept = {clipped(label): clipped(value) for label, value in labels.items()}
    types = HISTOGRAMS if component else COUNTERS if name.endswith("_total") else GAUGES
    return _Series((stem if component else name,), kept, offered, types, source, component, bound.value)


def _point(series: _Series, sample: pb.Sample) -> Point:
    component = series.component
    return Point(
        names=series.names,
        labels=series.labels,
        offered=series.offered,
        types=series.types,
        value=Component(component, sample.value, series.bound) if component else sample.value,
        timestamp_ms=sample.timestamp,
        origin=None if series.types is GAUGES else Origin(series.source, sample.timestamp * 1_000_000),
        reporter=series.source,
    )


def _bound(text: str) -> _Bound | None:
    return _read_bound(text) if len(text) <= _LONGEST_BOUND else None


@lru_cache(maxsize=4_096)
def _read_bound(text: str) -> _Bound | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return _Bound(value, _spelled(value))


def _spelled(value: float) -> str:
    """As OpenMetrics has it, and Prometheus from version 3 on: `1.0`, `0.005`, `1e+06`, `+Inf`."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return repr(value + 0.0)  # zero has no sign
    return np.format_float_scientific(value, trim="-", exp_digits=2)


def _is_stale(value: float) -> bool:
    return value != value and _bits.unpack(_double.pack(value))[0] == _STALE_MARKER
