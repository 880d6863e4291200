"""Series that leave memory: what of them is in no other place than a commit under way, and what must not find them."""

from msgspec.structs import replace

from services.ingest.domain import Definition, GaugeMerge, MetricType, series_id
from services.ingest.native_histograms import NativeBuckets
from services.ingest.records import Distribution, RecordedExemplar
from tests.stepping import at_once
from tests.unit.ingest.ingestion import (
    DAY_MS,
    NOW_MS,
    Told,
    definition,
    delta,
    ended,
    label,
    record,
    renamed,
    totals,
)
from tests.unit.ingest.lane_store import Store

ORDERS = definition("orders_total")
PAYMENTS = definition("pay_total")
DEPTH = definition("depth", MetricType.GAUGE, gauge_merge=GaugeMerge.SUM)
_MOST_COUNT = 2**61


def test_a_commit_says_that_it_alone_has_the_values_of_a_deleted_definition() -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 10.0)))
    assert not store.commit(NOW_MS).forgotten
    store.fold(record(delta(ORDERS, 5.0)), ended(ORDERS))
    sealed = at_once(store.state.sealing(NOW_MS + 1000))
    assert sealed.forgotten
    # What another receiver sends meanwhile is folded when it is stored, and adds to it.
    store.store(sealed)
    store.fold(record(delta(ORDERS, 1.0)))
    store.commit(NOW_MS + 2000)
    assert store.totals() == {("orders_total",): 16.0}


def test_a_commit_says_that_it_alone_has_a_gauge_whose_levels_are_too_old() -> None:
    store, late_ms = Store(), NOW_MS - 400_000
    store.fold(record(delta(DEPTH, 1.0, late_ms)))
    sealed = at_once(store.state.sealing(NOW_MS))
    assert sealed.forgotten
    store.store(sealed)
    store.fold(record(delta(DEPTH, 1.0, late_ms + 1000)))
    store.commit(NOW_MS + 1000)
    assert len(store.rows) == 1


def test_an_exemplar_of_a_repeated_total_stays_off_the_series_that_takes_its_row() -> None:
    store = Store()
    store.fold(totals(Told(ORDERS, "a", 5, 10)))
    store.delivered_ms = store.commit(NOW_MS).commit_ms
    for round_ in (1, 2, 3):  # a day later the series is out of memory
        store.delivered_ms = store.commit(NOW_MS + DAY_MS + round_ * 40_000).commit_ms
    exemplar = RecordedExemplar(series_id(ORDERS.id, ()), 7.0, b"t" * 16, b"s" * 8)
    store.fold(replace(totals(Told(ORDERS, "a", 5, 10)), exemplars=[exemplar]))
    store.fold(record(delta(PAYMENTS)))
    assert store.commit(NOW_MS + DAY_MS + 200_000).samples.exemplars == {}


def test_late_data_of_a_deleted_gauge_finds_the_stored_series_of_its_namesake() -> None:
    store, heir = Store(), renamed(DEPTH, b"2" * 16)

    def live_with(level: float, of: Definition, at_ms: int) -> None:
        store.fold(record(delta(of, level, at_ms), received_ms=at_ms))
        store.delivered_ms = store.commit(at_ms).commit_ms

    live_with(1.0, DEPTH, NOW_MS)
    store.fold(ended(DEPTH))
    store.delivered_ms = store.commit(NOW_MS + 1000).commit_ms
    live_with(2.0, heir, NOW_MS + 2000)
    live_with(3.0, DEPTH, NOW_MS + 3000)  # from a receiver that does not know yet
    for round_ in range(4):  # five minutes later the gauge has no level and is out of memory
        store.delivered_ms = store.commit(NOW_MS + 320_000 + round_ * 1000).commit_ms
    other = definition("depth", MetricType.GAUGE, gauge_merge=GaugeMerge.SUM, id=heir.id, labels={"x": label()})
    store.fold(record(delta(other, 1.0, NOW_MS + 330_000, x="1"), received_ms=NOW_MS + 330_000))
    store.delivered_ms = store.commit(NOW_MS + 330_000).commit_ms
    live_with(4.0, DEPTH, NOW_MS + 340_000)
    assert store.totals()[("depth",)] == 4.0


def test_counts_stay_at_the_largest_one() -> None:
    for kind, bounds in ((MetricType.NATIVE_HISTOGRAM, ()), (MetricType.HISTOGRAM, (1.0,))):
        of, store = definition("wait_seconds", kind, bounds=bounds), Store()
        buckets = NativeBuckets()
        buckets.observe([1.0], _MOST_COUNT)
        huge = buckets.packed() if kind is MetricType.NATIVE_HISTOGRAM else [_MOST_COUNT, 0]
        for _ in range(3):
            sent = record(delta(of))
            [only] = sent.distributions
            store.fold(replace(sent, distributions=[Distribution(only.id, 1.0, _MOST_COUNT, huge)]))
        store.commit(NOW_MS)
        [row] = store.rows.values()
        assert row.counts is not None
        assert row.counts[0] == max(row.counts) == _MOST_COUNT
