"""Rows for Postgres are laid out in parts: all of them, once, in order, whatever the number of series."""

import tracemalloc
from array import array

import numpy as np
import pytest

from services.ingest.domain import MetricType
from services.ingest.producers import ProducerRow
from services.ingest.sealing import MadeSeries, SealedSeries
from services.ingest.series import Family, SeriesTable
from services.ingest.storage import copy_format

_SIGNATURE_BYTES, _TRAILER = 19, b"\xff\xff"
#: Of a row of `changed_rows` of a counter: columns, each with its length before it.
_ROW = np.dtype([("before", "V12"), ("id", "V16"), ("value_length", ">i4"), ("value", ">f8"), ("behind", "V40")])


def table_of(count: int) -> SeriesTable:
    table = SeriesTable()
    family = table.enter(
        Family(
            tenant_id=bytes(16),
            project_id=bytes(16),
            definition_id=bytes(16),
            name="orders_total",
            type=MetricType.COUNTER,
            bounds=(),
        )
    )
    for number in range(count):
        table.make(number.to_bytes(16, "little"), family, ("user", f"{number}"))
    table.settle()
    table.value[:count] = np.arange(count)
    return table


@pytest.mark.parametrize("count", [1, 8_192, 20_000])
def test_each_changed_series_is_a_row(count: int) -> None:
    sealed = SealedSeries.of(table_of(count), np.arange(count))
    copied = b"".join(copy_format.changed_rows(sealed))
    assert copied.endswith(_TRAILER)
    rows = np.frombuffer(copied[_SIGNATURE_BYTES : -len(_TRAILER)], _ROW)
    assert rows["id"].tolist() == [number.to_bytes(16, "little") for number in range(count)]
    assert rows["value"].tolist() == list(range(count))


@pytest.mark.parametrize("count", [1, 8_192, 20_000])
def test_each_made_series_is_a_row_with_its_labels(count: int) -> None:
    copied = b"".join(copy_format.made_rows(MadeSeries.of(table_of(count), np.arange(count)), 1))
    assert copied.endswith(_TRAILER)
    assert copied.count(b'{"user":"') == count
    places = [copied.index(b'{"user":"%d"}' % number) for number in (0, count // 2, count - 1)]
    assert places == sorted(places)


def test_windows_are_laid_out_in_parts_of_their_size() -> None:
    gaps = array("q", range(10, 8_202))
    rows = [ProducerRow(bytes(16), (bytes(16), number.to_bytes(16, "big")), 1, gaps, 1) for number in range(100)]
    parts = list(copy_format.producer_rows(rows))
    assert max(map(len, parts)) < 200_000
    copied = b"".join(parts)
    assert copied.endswith(_TRAILER)
    assert len(copied) == _SIGNATURE_BYTES + 100 * (96 + 20 + 12 * len(gaps)) + len(_TRAILER)


def test_what_is_laid_out_at_a_time_does_not_grow_with_the_series() -> None:
    """Beside the copies of the columns: a commit of a million new series would else take a gigabyte for a moment."""
    count = 50_000
    table = table_of(count)
    tracemalloc.start()
    try:
        for _ in copy_format.made_rows(MadeSeries.of(table, np.arange(count)), 1):
            pass
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most / count < 400
