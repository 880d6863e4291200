"""The messages of remote write 1.0, declared from its specification, to read back what ingestion encodes.

Source: https://prometheus.io/docs/specs/prw/remote_write_spec/
"""

import struct
from typing import Any

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto

_MESSAGES: dict[str, list[tuple[str, int, Any, Any, str | None]]] = {
    "WriteRequest": [("timeseries", 1, _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, "TimeSeries")],
    "TimeSeries": [
        ("labels", 1, _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, "Label"),
        ("samples", 2, _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, "Sample"),
    ],
    "Label": [
        ("name", 1, _FIELD.TYPE_STRING, _FIELD.LABEL_OPTIONAL, None),
        ("value", 2, _FIELD.TYPE_STRING, _FIELD.LABEL_OPTIONAL, None),
    ],
    "Sample": [
        ("value", 1, _FIELD.TYPE_DOUBLE, _FIELD.LABEL_OPTIONAL, None),
        ("timestamp", 2, _FIELD.TYPE_INT64, _FIELD.LABEL_OPTIONAL, None),
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
