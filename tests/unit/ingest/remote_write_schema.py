"""The messages of remote write 1.0, declared from its specification, to read back what ingestion encodes.

Source: https://prometheus.io/docs/specs/prw/remote_write_spec/
"""

import struct
from itertools import accumulate
from typing import Any, NamedTuple

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto

_MESSAGES: dict[str, list[tuple[str, int, Any, Any, str | None]]] = {
    "WriteRequest": [("timeseries", 1, _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, "TimeSeries")],
    "TimeSeries": [
        ("labels", 1, _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, "Label"),
        ("samples", 2, _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, "Sample"),
        ("exemplars", 3, _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, "Exemplar"),
        ("histograms", 4, _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, "Histogram"),
    ],
    "Label": [
        ("name", 1, _FIELD.TYPE_STRING, _FIELD.LABEL_OPTIONAL, None),
        ("value", 2, _FIELD.TYPE_STRING, _FIELD.LABEL_OPTIONAL, None),
    ],
    "Sample": [
        ("value", 1, _FIELD.TYPE_DOUBLE, _FIELD.LABEL_OPTIONAL, None),
        ("timestamp", 2, _FIELD.TYPE_INT64, _FIELD.LABEL_OPTIONAL, None),
    ],
    "Exemplar": [
        ("labels", 1, _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, "Label"),
        ("value", 2, _FIELD.TYPE_DOUBLE, _FIELD.LABEL_OPTIONAL, None),
        ("timestamp", 3, _FIELD.TYPE_INT64, _FIELD.LABEL_OPTIONAL, None),
    ],
    "Histogram": [
        ("count_int", 1, _FIELD.TYPE_UINT64, _FIELD.LABEL_OPTIONAL, None),
        ("sum", 3, _FIELD.TYPE_DOUBLE, _FIELD.LABEL_OPTIONAL, None),
        ("schema", 4, _FIELD.TYPE_SINT32, _FIELD.LABEL_OPTIONAL, None),
        ("zero_threshold", 5, _FIELD.TYPE_DOUBLE, _FIELD.LABEL_OPTIONAL, None),
        ("zero_count_int", 6, _FIELD.TYPE_UINT64, _FIELD.LABEL_OPTIONAL, None),
        ("negative_spans", 8, _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, "BucketSpan"),
        ("negative_deltas", 9, _FIELD.TYPE_SINT64, _FIELD.LABEL_REPEATED, None),
        ("positive_spans", 11, _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, "BucketSpan"),
        ("positive_deltas", 12, _FIELD.TYPE_SINT64, _FIELD.LABEL_REPEATED, None),
        ("reset_hint", 14, _FIELD.TYPE_INT32, _FIELD.LABEL_OPTIONAL, None),
        ("timestamp", 15, _FIELD.TYPE_INT64, _FIELD.LABEL_OPTIONAL, None),
    ],
    "BucketSpan": [
        ("offset", 1, _FIELD.TYPE_SINT32, _FIELD.LABEL_OPTIONAL, None),
        ("length", 2, _FIELD.TYPE_UINT32, _FIELD.LABEL_OPTIONAL, None),
    ],
}


def _write_request() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="remote_write_of_tests.proto", package="tests", syntax="proto3")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, kind, cardinality, of in fields:
            field = described.field.add(name=name, number=number, type=kind, label=cardinality)
            if of:
                field.type_name = f".tests.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tests.WriteRequest"))


WriteRequest = _write_request()

#: Prometheus' NaN for "this series ends here".
STALE_BITS = 0x7FF0000000000002


def bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


class SentHistogram(NamedTuple):
    """A native histogram of a request."""

    labels: dict[str, str]
    at_ms: int
    observations: int
    sum: float
    schema: int
    zero: int
    #: Counts by index.
    positive: dict[int, int]
    negative: dict[int, int]


def read_histograms(body: bytes) -> list[SentHistogram]:
    """The native histograms of a request. Fails where spans and deltas do not fit each other."""
    request = WriteRequest()
    request.ParseFromString(bytes(cramjam.snappy.decompress_raw(body)))
    return [
        SentHistogram(
            {label.name: label.value for label in series.labels},
            each.timestamp,
            each.count_int,
            each.sum,
            each.schema,
            each.zero_count_int,
            _counts(each.positive_spans, each.positive_deltas),
            _counts(each.negative_spans, each.negative_deltas),
        )
        for series in request.timeseries
        for each in series.histograms
    ]


def read_exemplars(body: bytes) -> list[tuple[dict[str, str], dict[str, str], float, int]]:
    """Labels of the series, labels, value and Unix milliseconds of each exemplar."""
    request = WriteRequest()
    request.ParseFromString(bytes(cramjam.snappy.decompress_raw(body)))
    return [
        (
            {label.name: label.value for label in series.labels},
            {label.name: label.value for label in each.labels},
            each.value,
            each.timestamp,
        )
        for series in request.timeseries
        for each in series.exemplars
    ]


def _counts(spans: Any, deltas: Any) -> dict[int, int]:
    indexes: list[int] = []
    at = 0
    for span in spans:
        at += span.offset
        indexes += range(at, at + span.length)
        at += span.length
    return dict(zip(indexes, accumulate(deltas), strict=True))


def read(body: bytes) -> list[tuple[dict[str, str], float, int]]:
    """Labels, value and Unix milliseconds of each sample. Fails where labels are not sorted or not unique."""
    request = WriteRequest()
    request.ParseFromString(bytes(cramjam.snappy.decompress_raw(body)))
    samples = []
    for series in request.timeseries:
        names = [label.name for label in series.labels]
        assert names == sorted(set(names)), names
        labels = {label.name: label.value for label in series.labels}
        samples += [(labels, sample.value, sample.timestamp) for sample in series.samples]
    return samples
