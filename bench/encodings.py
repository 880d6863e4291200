"""A batch as each server takes it, and the file of prepared requests that the load generator reads."""

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.workload import Batch, Series

#: Of a value and a timestamp, until the load generator overwrites both just before it sends: any time of this century
#: takes six bytes as a varint of milliseconds.
_PLACEHOLDER_MS = 1_800_000_000_000
_SAMPLE = b"\x09" + bytes(8) + b"\x10"
_LARGEST_LITERAL = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One prepared request."""

    path: str
    body: bytes
    #: what the caller shows; "": nothing
    key: str = ""
    #: where the values, each with its timestamp behind it, lie in the body
    samples: Sequence[int] = ()


def write_shots(file: Path, shots: Iterable[Shot]) -> None:
    """Each as a line `path key length offset …`, with `-` for no key, then the body."""
    with file.open("wb") as out:
        for shot in shots:
            out.write(
                " ".join([shot.path, shot.key or "-", str(len(shot.body)), *map(str, shot.samples)]).encode() + b"\n"
            )
            out.write(shot.body)


def as_json(batches: Iterable[Batch], key: str = "") -> list[Shot]:
    """Bodies of `POST /api/v1/metrics` up to their last member; the load generator adds producer and sequence."""
    return [Shot(path="/api/v1/metrics", key=key, body=_json_body(batch)) for batch in batches]


def _json_body(batch: Batch) -> bytes:
    metrics = [{"name": series.name, "value": 1, "labels": series.labels} for series in batch]
    return f'{{"metrics":{json.dumps(metrics, separators=(",", ":"))}'.encode()


def as_text(batches: Sequence[Batch], groups: int) -> list[Shot]:
    """Bodies of a Pushgateway's `PUT /metrics/job/…`, each group in turn."""
    count = max(groups, len(batches))
    return [
        Shot(path=f"/metrics/job/bench/group/{number % groups}", body=_text_body(batches[number % len(batches)]))
        for number in range(count)
    ]


def _text_body(batch: Batch) -> bytes:
    by_name = sorted(batch, key=lambda series: series.name)
    lines = [f"{series.name}{{{_text_labels(series)}}} 1" for series in by_name]
    return ("\n".join(lines) + "\n").encode()


def _text_labels(series: Series) -> str:
    return ",".join(f'{name}="{value}"' for name, value in series.labels.items())


def as_remote_write(batches: Iterable[Batch], path: str = "/api/v1/write") -> list[Shot]:
    """Snappy blocks of remote write 1.0, one sample a series.

    The blocks are literal, not compressed, so that each request can carry its own values and times: more bytes on
    loopback, less work for the server that is measured.
    """
    return [_remote_write_shot(batch, path) for batch in batches]


def _remote_write_shot(batch: Batch, path: str) -> Shot:
    message = b"".join(_field(1, _time_series(series)) for series in batch)
    if len(message) > _LARGEST_LITERAL:
        raise ValueError("a batch must fit into one literal")
    body = _varint(len(message)) + struct.pack("<BH", 61 << 2, len(message) - 1) + message
    return Shot(path=path, body=body, samples=_sample_offsets(body))


def _sample_offsets(body: bytes) -> list[int]:
    """Of the eight bytes of each value; its timestamp's varint begins nine bytes later."""
    offsets, found = [], body.find(_SAMPLE)
    while found >= 0:
        offsets.append(found + 1)
        found = body.find(_SAMPLE, found + len(_SAMPLE))
    return offsets


def _time_series(series: Series) -> bytes:
    labels = sorted({"__name__": series.name, **series.labels}.items())
    encoded = b"".join(_field(1, _field(1, name.encode()) + _field(2, value.encode())) for name, value in labels)
    return encoded + _field(2, _SAMPLE + _varint(_PLACEHOLDER_MS))


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(encoded) + bytes([value])
