"""The table of series: rows are found by id whatever came and went, and are used again only when nothing needs them."""

import gc
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.columns import Ids
from services.ingest.domain import MetricType, series_id
from services.ingest.errors import UnreadableLogError
from services.ingest.samples import Samples
from services.ingest.series import SeriesTable, decode_labels, encode_labels
from services.ingest.series_index import SeriesIndex
from services.ingest.sinks.remote_write import RemoteWrite
from tests.unit.ingest.ingestion import NOW_MS, definition
from tests.unit.ingest.lane_store import family_of

ORDERS = definition("orders_total")
LOAD = definition("load_seconds", MetricType.HISTOGRAM, bounds=(1.0,))


# --- finding by id

numbers = st.lists(st.integers(0, 400), max_size=60)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["add", "remove"]), numbers), max_size=30), st.sampled_from([1, 3, 400]))
def test_an_index_finds_what_a_dict_would(steps: list[tuple[str, list[int]]], homes: int) -> None:
    """`homes`: so many different low halves, so that many ids want the same slot."""
    low = np.array([number % homes for number in range(401)], np.uint64)
    columns = Ids(low, np.arange(401, dtype=np.uint64))
    index, model = SeriesIndex(), dict[int, int]()
    for step, wanted in steps:
        chosen = [number for number in dict.fromkeys(wanted) if (number in model) == (step == "remove")]
        rows = np.array(chosen, np.intp)
        if step == "add":
            index.add(columns.at(rows), rows, columns)
            model.update(zip(chosen, chosen, strict=True))
        else:
            index.remove(columns.at(rows), rows)
            for number in chosen:
                del model[number]
        found = index.find(columns.at(np.arange(401)), columns)
        assert found.tolist() == [model.get(number, -1) for number in range(401)]


def make(table: SeriesTable, first: int, count: int) -> list[int]:
    family = table.enter(family_of(ORDERS))
    rows = []
    for number in range(first, first + count):
        labels = ("user", f"u{number}")
        rows.append(table.make(series_id(ORDERS.id, labels), family, labels))
    table.settle()
    return rows


def test_a_table_grows_and_keeps_what_it_has() -> None:
    table = SeriesTable()
    rows = np.array(make(table, 0, 900))
    table.value[rows] = np.arange(900)
    more = np.array(make(table, 900, 9_100))
    assert len(table) == 10_000
    assert table.value[rows].tolist() == list(range(900))
    assert not table.value[more].any()
    everyone = np.concatenate([rows, more])
    assert table.find(table.ids(everyone)).tolist() == everyone.tolist()
    assert [table.label_pairs(row) for row in (0, 899, 9_999)] == [("user", f"u{row}") for row in (0, 899, 9_999)]


def test_a_newcomer_is_known_before_it_has_settled() -> None:
    table = SeriesTable()
    identity = series_id(ORDERS.id, ("plan", "pro"))
    row = table.make(identity, table.enter(family_of(ORDERS)), ("plan", "pro"))
    assert (table.row_of(identity), len(table)) == (row, 1)
    table.settle()
    assert (table.row_of(identity), len(table)) == (row, 1)


def test_an_id_of_another_length_is_refused() -> None:
    with pytest.raises(UnreadableLogError):
        Ids.of(b"short")


# --- rows


def test_a_row_is_used_again_once_everything_that_refers_to_it_is_delivered() -> None:
    table = SeriesTable()
    rows = np.array(make(table, 0, 3))
    table.value[rows] = 7.0
    table.remove(rows[1:])
    table.leave(rows[1:])
    table.committed(2000)
    table.delivered(1999)
    assert table.label_pairs(1) == ("user", "u1"), "a sink may still write its stale marker"
    assert make(table, 3, 1) == [3]
    table.delivered(2000)
    assert sorted(make(table, 10, 3)) == [1, 2, 4]
    assert table.value[:5].tolist() == [7.0, 0.0, 0.0, 0.0, 0.0]
    assert table.row_of(series_id(ORDERS.id, ("user", "u1"))) == -1
    assert table.label_pairs(table.row_of(series_id(ORDERS.id, ("user", "u10")))) == ("user", "u10")


def test_a_definition_without_rows_is_forgotten_and_its_number_used_again() -> None:
    table = SeriesTable()
    rows = np.array(make(table, 0, 2))
    table.remove(rows)
    assert table.family_of(ORDERS.id) is not None
    table.reclaim(rows)
    assert table.family_of(ORDERS.id) is None
    other = table.enter(family_of(LOAD))
    assert other.number == 0
    table.make(b"x" * 16, other, ())
    table.settle()
    assert table.of_family(LOAD.id).size == 1


@given(st.lists(st.tuples(st.sampled_from(["make", "remove", "commit", "deliver"]), st.integers(1, 9)), max_size=60))
def test_no_row_is_used_again_while_a_commit_that_may_show_it_is_not_delivered(steps: list[tuple[str, int]]) -> None:
    table, number, commit_ms, delivered_ms = SeriesTable(), 0, 0, 0
    held: dict[int, int] = {}  # rows that left, and the commit that has to be delivered first
    alive: list[int] = []
    leaving: list[int] = []
    for step, amount in steps:
        if step == "make":
            rows = make(table, number, amount)
            number += amount
            assert not set(rows) & set(alive)
            assert all(held.get(row, 0) <= delivered_ms for row in rows)
            assert not set(rows) & set(leaving)
            alive += rows
        elif step == "remove":
            gone, alive = alive[:amount], alive[amount:]
            table.remove(np.array(gone, np.intp))
            table.leave(np.array(gone, np.intp))
            leaving += gone
        elif step == "commit":
            commit_ms += 3
            table.committed(commit_ms)
            held.update(dict.fromkeys(leaving, commit_ms))
            leaving = []
        else:
            delivered_ms = max(delivered_ms, commit_ms - 3 * (amount % 3))
            table.delivered(delivered_ms)
    assert len(table) == len(alive)


def test_labels_are_kept_as_they_were() -> None:
    labels = ("note", "\U0001f600 é", "zone", "")
    assert decode_labels(encode_labels(labels)) == labels


# --- memory


def test_a_live_counter_takes_less_than_a_kilobyte() -> None:
    """With three labels, its share of free room in the columns, and what remote write keeps of its labels."""
    count = 100_000
    labels = [("plan", f"plan{n % 7}", "region", f"eu-{n % 13}", "user", f"user-{n:08d}") for n in range(count)]
    sink = RemoteWrite(session=None, url=str)  # type: ignore[arg-type]  # nothing is sent
    gc.collect()
    tracemalloc.start()
    try:
        table = SeriesTable()
        family = table.enter(family_of(ORDERS))
        for pairs in labels:
            table.make(series_id(ORDERS.id, pairs), family, pairs)
        table.settle()
        for first in range(0, count, 10_000):
            sink.encode(Samples.values(table, np.arange(first, first + 10_000), NOW_MS))
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / count < 600
