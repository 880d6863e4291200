"""Rows of `COPY … FROM STDIN WITH (FORMAT binary)`, thousands at a time.

Source: https://www.postgresql.org/docs/current/sql-copy.html; arrays are as `array_send` writes them.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from struct import Struct
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.ingest.columns import Rows
from services.ingest.domain import partition_of
from services.ingest.producers import ProducerRow
from services.ingest.recent import StoredLevels
from services.ingest.sealing import MadeSeries, SealedSeries
from services.ingest.series import Family, decode_labels

#: The columns of `changed_rows`, `made_rows`, `level_rows` and `producer_rows`, in their order.
CHANGED_COLUMNS = "partition, series_id, value, timestamp_ms, count, buckets"
MADE_COLUMNS = (
    "tenant_id, project_id, definition_id, name, type, bounds, gauge_merge, objectives, labels,"
    " partition, series_id, value, timestamp_ms, created_ms, changed_ms, folded, count, buckets"
)
LEVEL_COLUMNS = "partition, series_id, tenant_id, reporter, timestamp_ms, as_of_ms, level"
PRODUCER_COLUMNS = "partition, tenant_id, project_id, producer, floor, used_ms, ranges"
_COUNT_OF_MADE_COLUMNS = 18

#: Laid out together: enough that NumPy pays off, few enough that what a commit takes for a moment stays small. The
#: process keeps the room for it.
_ROWS_AT_ONCE = 8192
#: Rows of producers, which may have 100 KB each, are laid out together up to this size.
_BYTES_AT_ONCE = 1 << 16

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_int2, _int4 = Struct(">h"), Struct(">i")
_OID_INT8, _OID_FLOAT8 = 20, 701
#: Of a row of `producer_rows`: how many columns, and all but the last of them, each with its length before it.
_producer = Struct(">hihi16si16si16siqiq")
#: Of an array: dimensions, nulls, type, size, and the number of its first element; of an empty one only three of these.
_array_head = Struct(">5i")
_EMPTY_ARRAY = Struct(">3i").pack(0, 0, _OID_INT8)
_ELEMENT = np.dtype([("length", ">i4"), ("value", ">i8")])
_JSONB_VERSION = b"\x01"

Columns = Mapping[str, NDArray[Any]]


def changed_rows(sealed: SealedSeries) -> Iterator[bytes]:
    """New values of series that the state has, as `CHANGED_COLUMNS`, in parts that follow each other."""
    yield _SIGNATURE
    for places in _portions(len(sealed)):
        part = sealed.at(places)
        for _, rows in _groups(_values(part), part, columns=len(CHANGED_COLUMNS.split(","))):
            yield rows.tobytes()
    yield _TRAILER


def made_rows(made: MadeSeries, commit_ms: int) -> Iterator[bytes]:
    """Series that the state does not have yet, as `MADE_COLUMNS`, in parts that follow each other."""
    start = _int2.pack(_COUNT_OF_MADE_COLUMNS)
    descriptions = {family: start + _description(family) for family in set(made.families)}
    yield _SIGNATURE
    for places in _portions(len(made)):
        yield _made_rows(made.at(places), commit_ms, descriptions)
    yield _TRAILER


def _made_rows(made: MadeSeries, commit_ms: int, descriptions: Mapping[Family, bytes]) -> bytes:
    times = np.full(len(made), commit_ms)
    values = {**_values(made.values), "created_ms": times, "changed_ms": times, "folded": made.folded}
    parts: list[bytes] = []
    for places, rows in _groups(values, made.values, columns=None):
        joined, size = rows.tobytes(), rows.itemsize
        for at, place in enumerate(places.tolist()):
            own = joined[at * size : (at + 1) * size]
            parts += (descriptions[made.families[place]], _labels(made.labels[place]), own)
    return b"".join(parts)


def _portions(count: int) -> Iterator[slice]:
    return (slice(first, first + _ROWS_AT_ONCE) for first in range(0, count, _ROWS_AT_ONCE))


def level_rows(levels: StoredLevels) -> bytes:
    """Levels of gauges as `LEVEL_COLUMNS`."""
    values = {
        "partition": levels.partition,
        "series_id": np.frombuffer(levels.series.joined(), "V16"),
        "tenant_id": levels.tenants,
        "reporter": np.frombuffer(levels.reporters.joined(), "V16"),
        "timestamp_ms": levels.timestamp_ms,
        "as_of_ms": levels.as_of_ms,
        "level": levels.level,
    }
    return b"".join((_SIGNATURE, _rows(values, columns=len(values)).tobytes(), _TRAILER))


def producer_rows(rows: Sequence[ProducerRow]) -> Iterator[bytes]:
    """Windows of producers as `PRODUCER_COLUMNS`, in parts that follow each other."""
    part = bytearray(_SIGNATURE)
    for row in rows:
        project_id, producer = row.key
        ids = (16, row.tenant_id, 16, project_id, 16, producer)
        part += _producer.pack(7, 2, partition_of(project_id), *ids, 8, row.floor, 8, row.used_ms)
        part += _field(_array_of(row.ranges))
        if len(part) >= _BYTES_AT_ONCE:
            yield bytes(part)
            part.clear()
    yield bytes(part) + _TRAILER


def _array_of(numbers: "array[int]") -> bytes:
    if not numbers:
        return _EMPTY_ARRAY
    elements = np.empty(len(numbers), _ELEMENT)
    elements["length"], elements["value"] = 8, numbers
    return _array_head.pack(1, 0, _OID_INT8, len(numbers), 1) + elements.tobytes()


def numbers_of(sent: bytes) -> "array[int]":
    """The elements of an array of int8 without nulls, as `array_send` writes it."""
    elements = np.frombuffer(sent, _ELEMENT, offset=min(_array_head.size, len(sent)))
    return array("q", elements["value"].astype(np.int64).tobytes())


def _values(sealed: SealedSeries) -> dict[str, NDArray[Any]]:
    return {
        "partition": sealed.partition,
        "series_id": np.frombuffer(sealed.ids.joined(), "V16"),
        "value": sealed.value,
        "timestamp_ms": sealed.timestamp_ms,
    }


def _groups(values: Columns, sealed: SealedSeries, columns: int | None) -> Iterator[tuple[Rows, NDArray[np.void]]]:
    """Where the rows of each size stand, and those rows: `values`, count and buckets, each with its length before it.

    `columns`: what a row says of its number of columns; None: it says nothing.
    """
    sizes = np.array([0 if counts is None else counts.size for counts in sealed.counts], np.intp)
    for size in np.unique(sizes).tolist():
        places = np.flatnonzero(sizes == size)
        counts = np.stack(sealed.counts[places].tolist()) if size else np.zeros((places.size, 1), np.int64)
        own = {name: column[places] for name, column in values.items()}
        yield places, _rows({**own, "count": counts[:, 0], "buckets": _array(counts[:, 1:])}, columns)


def _rows(values: Columns, columns: int | None) -> NDArray[np.void]:
    kinds = {name: column.dtype.newbyteorder(">") for name, column in values.items()}
    fields = [field for name, kind in kinds.items() for field in ((f"length of {name}", ">i4"), (name, kind))]
    rows = np.empty(len(next(iter(values.values()))), [*([("columns", ">i2")] if columns else []), *fields])
    if columns:
        rows["columns"] = columns
    for name, column in values.items():
        rows[f"length of {name}"] = kinds[name].itemsize
        rows[name] = column
    return rows


def _array(elements: NDArray[Any]) -> NDArray[np.void]:
    """Arrays of int8 or float8, one for each row of a matrix."""
    kind = elements.dtype.newbyteorder(">")
    size = elements.shape[1]
    fields: list[Any] = [("dimensions", ">i4"), ("nulls", ">i4"), ("type", ">i4")]
    if size:
        fields += [("size", ">i4"), ("first", ">i4"), ("elements", [("length", ">i4"), ("value", kind)], (size,))]
    arrays = np.zeros(len(elements), fields)
    arrays["type"] = _OID_FLOAT8 if kind.kind == "f" else _OID_INT8
    if size:
        arrays["dimensions"] = arrays["first"] = 1
        arrays["size"] = size
        arrays["elements"]["length"] = kind.itemsize
        arrays["elements"]["value"] = elements
    return arrays


def _description(family: Family) -> bytes:
    ids = (family.tenant_id, family.project_id, family.definition_id)
    kind = (family.name.encode(), _int2.pack(family.type), _floats(family.bounds))
    return b"".join(map(_field, (*ids, *kind, _int2.pack(family.merge), _floats(family.objectives))))


def _floats(numbers: Sequence[float]) -> bytes:
    return _array(np.array([numbers], np.float64)).tobytes()


def _labels(encoded: bytes) -> bytes:
    labels = decode_labels(encoded)
    return _field(_JSONB_VERSION + msgspec.json.encode(dict(zip(labels[::2], labels[1::2], strict=True))))


def _field(content: bytes) -> bytes:
    return _int4.pack(len(content)) + content
