"""Folding thousands at once gives what folding one by one would, and copies stay what they were."""

from sys import float_info
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.domain import MetricType, add_finite
from services.ingest.errors import UnreadableLogError
from services.ingest.folding import portions_of
from services.ingest.records import Record
from services.ingest.sealing import Checkpoint
from tests.unit.ingest.ingestion import NOW_MS, Delta, definition, delta, ended, record
from tests.unit.ingest.lane_store import Store, each_of

COUNTER = definition("orders_total")
GAUGE = definition("depth", MetricType.GAUGE)
HISTOGRAM = definition("load_seconds", MetricType.HISTOGRAM, bounds=(0.1, 1.0))
SUMMARY = definition("size_bytes", MetricType.SUMMARY)

finite = st.floats(allow_nan=False, allow_infinity=False)
increments = st.floats(0, float_info.max)
plans = st.sampled_from(["a", "b", "c"])
deltas = st.one_of(
    st.builds(lambda value, plan: delta(COUNTER, value, plan=plan), increments, plans),
    st.builds(lambda value, at, plan: delta(GAUGE, value, at, plan=plan), finite, st.integers(1, 6), plans),
    st.builds(lambda value, plan: delta(HISTOGRAM, value, plan=plan), finite, plans),
    st.builds(lambda value, plan: delta(SUMMARY, value, plan=plan), finite, plans),
)
frames = st.lists(st.lists(st.lists(deltas, max_size=8), min_size=1, max_size=5), max_size=8)


class Model:
    """One series after the other, one value after the other."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, ...], tuple[float, tuple[int, ...], int]] = {}

    def fold(self, each: Delta) -> None:
        nothing = (0,) * len(self._counts(each))
        value, counts, newest = self.series.get((each.of.name, *each.labels), (0.0, nothing, 0))
        if each.of.type is MetricType.GAUGE:
            if each.timestamp_ms >= newest:
                value, newest = each.value, each.timestamp_ms
        else:
            value = add_finite(value, each.value)
            counts = tuple(have + more for have, more in zip(counts, self._counts(each), strict=True))
        self.series[each.of.name, *each.labels] = (value, counts, newest)

    def _counts(self, each: Delta) -> tuple[int, ...]:
        if each.of.type in (MetricType.COUNTER, MetricType.GAUGE):
            return ()
        return (each.distribution.count, *each.distribution.buckets)


@settings(max_examples=200)
@given(frames, st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)))
def test_any_values_of_all_types_add_up_as_one_by_one(
    sent: list[list[list[Delta]]], commits: set[int], crashes: set[int]
) -> None:
    store, model = Store(), Model()
    copies: list[tuple[Checkpoint, Any]] = []
    for number, frame in enumerate(sent):
        store.fold(*(record(*batch) for batch in frame))
        for batch in frame:
            # A record holds its scalar values first.
            for each in sorted(batch, key=lambda each: each.of.type in (MetricType.HISTOGRAM, MetricType.SUMMARY)):
                model.fold(each)
        if number in commits | crashes:
            checkpoint = store.commit(NOW_MS + number * 1000)
            copies.append((checkpoint, seen(checkpoint)))
        if number in crashes:
            store.crash()
    checkpoint = store.commit(NOW_MS + 10_000)
    stored = {
        (row.family.name, *row.labels): (row.value, row.counts or (), row.timestamp_ms) for row in store.rows.values()
    }
    assert stored == model.series
    assert all(seen(checkpoint) == copy for checkpoint, copy in copies), "folding went on after each of them"


def seen(checkpoint: Checkpoint) -> Any:
    """All values of a checkpoint."""
    parts = (checkpoint.made.values, checkpoint.changed)
    return (
        each_of(checkpoint.samples_for(0)),
        [
            (part.value.tolist(), part.timestamp_ms.tolist(), [None if c is None else c.tolist() for c in part.counts])
            for part in parts
        ],
    )


def test_a_counter_that_overflows_stays_at_the_largest_number() -> None:
    store = Store()
    store.fold(record(delta(COUNTER, 1e308), delta(COUNTER, 1e308), delta(COUNTER, 1.0)))
    store.commit(NOW_MS)
    store.fold(record(delta(COUNTER, 1e308)))
    store.commit(NOW_MS + 1000)
    assert store.totals() == {("orders_total",): float_info.max}


def test_every_series_of_a_record_is_counted_as_often_as_it_comes() -> None:
    store = Store()
    store.fold(record(delta(COUNTER, 1.0), delta(COUNTER, 2.0), delta(COUNTER, 3.0), producer=b"A" * 16, sequence=1))
    store.commit(NOW_MS)
    assert store.totals() == {("orders_total",): 6.0}


def test_a_duplicate_between_good_batches_is_left_out_of_the_same_frame() -> None:
    store = Store()
    batches = [
        record(delta(COUNTER, float(10**sequence)), delta(HISTOGRAM, 0.5), producer=b"A" * 16, sequence=sequence)
        for sequence in (1, 2, 1, 3, 2)
    ]
    store.fold(*batches)
    store.commit(NOW_MS)
    assert store.totals() == {("orders_total",): 1110.0, ("load_seconds",): 1.5}


def test_what_comes_after_an_ending_in_one_frame_counts_and_ends_too() -> None:
    store = Store()
    store.fold(record(delta(COUNTER, 1.0), delta(SUMMARY, 1.0)))
    store.commit(NOW_MS)
    store.fold(
        record(delta(COUNTER, 1.0), delta(SUMMARY, 1.0)),
        ended(COUNTER),
        record(delta(COUNTER, 1.0), delta(SUMMARY, 1.0)),
        record(delta(COUNTER, 1.0, plan="new"), delta(SUMMARY, 1.0, plan="new")),
    )
    checkpoint = store.commit(NOW_MS + 1000)
    assert {each.name for each in each_of(checkpoint.samples_for(0)) if each.stale} == {"orders_total"}
    assert store.totals() == {
        ("orders_total",): 3.0,
        ("orders_total", "plan", "new"): 1.0,
        ("size_bytes",): 3.0,
        ("size_bytes", "plan", "new"): 1.0,
    }


def test_a_portion_ends_with_a_run_of_endings() -> None:
    values, end = record(delta(COUNTER)), ended(COUNTER)
    portions = portions_of([values, values, end, end, values, end])
    assert [(len(portion.records), len(portion.endings)) for portion in portions] == [(2, 2), (1, 1)]
    assert [(len(portion.records), len(portion.endings)) for portion in portions_of([end])] == [(0, 1)]
    assert portions_of([]) == []


def other_type() -> Record:
    """A single value under the id of a histogram."""
    wrong = record(delta(COUNTER))
    wrong.ids = delta(HISTOGRAM).id
    return wrong


def without_definition() -> Record:
    wrong = record(delta(COUNTER, plan="new"))
    wrong.definitions = []
    return wrong


def without_identities() -> Record:
    wrong = record(delta(COUNTER, plan="new"))
    wrong.identities = b""
    return wrong


def too_few_buckets() -> Record:
    wrong = record(delta(HISTOGRAM))
    wrong.distributions[0].buckets = [1]
    return wrong


def cut_off_id() -> Record:
    wrong = record(delta(HISTOGRAM))
    wrong.distributions[0].id = b"short"
    return wrong


@pytest.mark.parametrize(
    "wrong", [other_type(), without_definition(), without_identities(), too_few_buckets(), cut_off_id()]
)
def test_what_does_not_fit_together_is_not_folded(wrong: Record) -> None:
    store = Store()
    store.fold(record(delta(COUNTER), delta(HISTOGRAM)))
    with pytest.raises(UnreadableLogError):
        store.fold(wrong)
