"""Samples for a real Prometheus, written as a remote write does it.

add_series(request, {"__name__": "up", "job": "auth"}, (timestamp_ms, value), …)
write(server.url, request)
"""

import urllib.request
from collections.abc import Mapping

import cramjam

from contracts.pulsegate.ingest.v1.remote_write_pb2 import WriteRequest
from pulsegate.observation import DIRECTLY

_HEADERS = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}


def add_series(request: WriteRequest, labels: Mapping[str, str], *samples: tuple[int, float]) -> None:
    """The samples of one series are in the order of time, in one call or several."""
    series = request.timeseries.add()
    for name in sorted(labels):
        series.labels.add(name=name, value=labels[name])
    for timestamp_ms, value in samples:
        series.samples.add(timestamp=timestamp_ms, value=value)


def write(prometheus: str, request: WriteRequest) -> None:
    """Raises urllib.error.HTTPError where they are not taken."""
    body = bytes(cramjam.snappy.compress_raw(request.SerializeToString()))
    told = urllib.request.Request(f"{prometheus}/api/v1/write", data=body, headers=_HEADERS)  # noqa: S310 - of a test
    DIRECTLY.open(told).close()
