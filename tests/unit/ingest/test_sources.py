"""Totals of cumulative sources: whatever is repeated, reordered or restarted, what a source has counted counts once."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.domain import OTHER, MetricType
from services.ingest.errors import UnreadableLogError
from services.ingest.native_histograms import NativeBuckets
from services.ingest.records import PART_BUCKETS, PART_COUNT, Record
from tests.unit.ingest.ingestion import DAY_MS, NOW_MS, Told, definition, delta, ended, label, record, renamed, totals
from tests.unit.ingest.lane_store import STEPS, Store

ORDERS = definition("orders_total", labels={"plan": label()})
LOAD = definition("load_seconds", MetricType.HISTOGRAM, bounds=(0.1, 1.0))
WAIT = definition("wait_seconds", MetricType.NATIVE_HISTOGRAM)
DEPTH = definition("depth", MetricType.GAUGE)


def committed(store: Store) -> tuple[int, int]:
    """Committed metrics and duplicates, as the next commit tells the ledger."""
    lines = store.commit(store.commit_ms + NOW_MS).ledger.counts.values()
    return sum(line.committed for line in lines), sum(line.duplicate for line in lines)


def counts_of(store: Store) -> tuple[float, tuple[int, ...] | None]:
    """The only series' stored value and counts."""
    [row] = store.rows.values()
    return row.value, row.counts


# --- exactly once


class Source:
    """A process that counts, sends what it stands at, and restarts."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._run = 0
        self._standing = 0
        #: All that was counted before a total that was sent.
        self.sent_of_run: dict[int, int] = {}

    def tell(self, at: int, more: int) -> Record:
        self._standing += more
        self.sent_of_run[self._run] = self._standing
        return totals(Told(ORDERS, f"{self._name}{self._run}", at, self._standing))

    def restart(self) -> None:
        self._run, self._standing = self._run + 1, 0


tellings = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.sampled_from(["", "restart", "again", "late"])), max_size=40
)


@settings(max_examples=200)
@given(tellings, st.lists(st.sampled_from(STEPS), max_size=60))
def test_any_mixture_of_replays_restarts_and_crashes_counts_what_sources_counted(
    told: Sequence[tuple[str, int, str]], plan: Sequence[str]
) -> None:
    sources, log = {name: Source(name) for name in "ab"}, list[Record]()
    for at, (name, more, what) in enumerate(told, start=1):
        if what == "restart":
            sources[name].restart()
        log.append(sources[name].tell(at, more))
        if what == "again":
            log += log[-3:]
        elif what == "late":
            log[-2:] = log[:-3:-1]
    store = Store()
    store.live_through(log, plan)
    counted = sum(standing for source in sources.values() for standing in source.sent_of_run.values())
    assert store.totals() == ({("orders_total",): counted} if log else {})


def test_a_new_source_counts_as_a_whole_and_then_by_what_it_gained() -> None:
    store = Store()
    store.fold(totals(Told(ORDERS, "a", 1, 100.0), Told(ORDERS, "b", 1, 7.0)), record(delta(ORDERS, 1.0)))
    assert committed(store) == (3, 0)
    store.fold(totals(Told(ORDERS, "a", 2, 130.0)), totals(Told(ORDERS, "b", 2, 7.0)))
    assert committed(store) == (2, 0)
    assert store.totals() == {("orders_total",): 138.0}


def test_a_total_that_is_not_newer_is_a_duplicate() -> None:
    store = Store()
    store.fold(totals(Told(ORDERS, "a", 5, 100.0)), totals(Told(ORDERS, "a", 5, 100.0)))
    store.crash()
    store.fold(totals(Told(ORDERS, "a", 5, 100.0)), totals(Told(ORDERS, "a", 4, 90.0)), totals(Told(ORDERS, "a", 5, 3)))
    assert committed(store) == (1, 2)
    store.crash()
    store.fold(totals(Told(ORDERS, "a", 5, 100.0)), totals(Told(ORDERS, "a", 6, 101.0)))
    assert committed(store) == (1, 1)
    assert store.totals() == {("orders_total",): 101.0}


def test_a_total_that_fell_has_begun_anew() -> None:
    store = Store()
    store.fold(
        totals(Told(ORDERS, "a", 1, 100.0)), totals(Told(ORDERS, "a", 2, 30.0)), totals(Told(ORDERS, "a", 3, 31))
    )
    assert committed(store) == (3, 0)
    assert store.totals() == {("orders_total",): 131.0}


@given(st.lists(st.sampled_from(STEPS), max_size=20))
def test_a_source_without_a_known_start_counts_from_its_first_total_on(plan: Sequence[str]) -> None:
    began = totals(Told(ORDERS, "a", 1, 1_000_000, baseline=True))
    gained = totals(Told(ORDERS, "a", 2, 1_000_010))
    anew = totals(Told(ORDERS, "b", 3, 1_000_020, baseline=True))
    fell = totals(Told(ORDERS, "b", 4, 5))
    store = Store()
    store.live_through([began, began, gained, began, anew, gained, anew, fell], plan)
    assert store.totals() == {("orders_total",): 15.0}


def test_the_series_of_a_source_without_a_known_start_is_there_from_its_first_total_on() -> None:
    store = Store()
    store.fold(totals(Told(ORDERS, "a", 1, 1_000_000, baseline=True)))
    assert committed(store) == (1, 0)
    assert store.totals() == {("orders_total",): 0.0}


def test_a_known_source_goes_on_whether_or_not_its_start_is_known() -> None:
    store = Store()
    store.fold(totals(Told(ORDERS, "a", 1, 100.0)), totals(Told(ORDERS, "a", 2, 130.0, baseline=True)))
    store.commit(NOW_MS)
    assert store.totals() == {("orders_total",): 130.0}


def test_a_source_that_was_quiet_is_remembered_by_the_state_alone() -> None:
    store = Store()
    store.fold(totals(Told(ORDERS, "a", 1, 100.0)))
    store.commit(NOW_MS)
    store.state.sources.drop_idle(NOW_MS + DAY_MS)
    again = totals(Told(ORDERS, "a", 2, 105.0))
    assert len(store.missing(again).sources) == 1
    store.fold(again)
    store.commit(NOW_MS + DAY_MS)
    assert store.totals() == {("orders_total",): 105.0}


def test_what_is_not_committed_or_was_used_lately_stays_in_memory() -> None:
    store = Store()
    first, second = totals(Told(ORDERS, "a", 1, 1.0)), totals(Told(ORDERS, "b", 1, 1.0), received_ms=NOW_MS + DAY_MS)
    store.fold(first)
    store.state.sources.drop_idle(NOW_MS + DAY_MS)
    assert not store.missing(first).sources
    store.commit(NOW_MS)
    store.fold(second)
    store.commit(NOW_MS + DAY_MS)
    store.state.sources.drop_idle(NOW_MS + DAY_MS)
    assert len(store.missing(first, second).sources) == 1


def test_a_metric_that_was_made_anew_has_an_account_of_its_own() -> None:
    store = Store()
    store.fold(totals(Told(ORDERS, "a", 1, 100.0)), ended(ORDERS))
    store.commit(NOW_MS)
    anew = renamed(ORDERS, b"n" * 16)
    store.fold(totals(Told(anew, "a", 2, 105.0)))
    store.fold(totals(Told(ORDERS, "a", 3, 110.0)))  # by a receiver that does not know yet
    store.fold(totals(Told(anew, "a", 4, 111.0)))
    store.commit(NOW_MS + 1000)
    assert {row.family.definition_id: row.value for row in store.rows.values()} == {ORDERS.id: 100.0, anew.id: 111.0}


def test_what_is_over_a_budget_adds_up_by_source_too() -> None:
    store = Store(per_metric=1)

    def told(at: int, *standing: float) -> Record:
        plans = (("plan", f"p{number}") for number in range(len(standing)))
        return totals(*(Told(ORDERS, f"s{n}", at, standing[n], labels=plan) for n, plan in enumerate(plans)))

    store.fold(told(1, 1.0, 10.0, 100.0))
    store.commit(NOW_MS)
    store.crash()
    store.fold(told(2, 2.0, 11.0, 101.0), told(2, 2.0, 11.0, 101.0))
    lines = store.commit(NOW_MS + 1000).ledger.counts.values()
    assert store.totals() == {("orders_total", "plan", "p0"): 2.0, ("orders_total", "plan", OTHER): 112.0}
    assert [(line.committed, line.duplicate, line.folded) for line in lines] == [(3, 3, 2)]


# --- histograms


def test_a_histogram_counts_by_what_each_bucket_gained() -> None:
    store = Store()
    store.fold(totals(Told(LOAD, "a", 1, 2.5, [1, 1, 1])), totals(Told(LOAD, "b", 1, 0.5, [0, 1, 0])))
    store.fold(totals(Told(LOAD, "a", 2, 2.0, [3, 1, 1])))  # observations may be negative
    store.fold(totals(Told(LOAD, "a", 2, 2.0, [3, 1, 1])), record(delta(LOAD, 0.05)))
    store.commit(NOW_MS)
    assert counts_of(store) == (2.55, (7, 4, 2, 1))
    store.crash()
    store.fold(totals(Told(LOAD, "a", 3, 9.0, [2, 5, 5])))  # began anew
    store.commit(NOW_MS + 1000)
    assert counts_of(store) == (11.55, (19, 6, 7, 6))


def test_a_histogram_without_a_known_start_counts_from_its_first_total_on() -> None:
    store = Store()
    store.fold(totals(Told(LOAD, "a", 1, 900.0, [100, 200, 300], baseline=True)))
    store.commit(NOW_MS)
    assert counts_of(store) == (0.0, (0, 0, 0, 0))
    store.crash()
    store.fold(totals(Told(LOAD, "a", 2, 902.0, [101, 202, 300])))
    store.fold(totals(Told(LOAD, "b", 3, 903.0, [101, 202, 301], baseline=True)))
    store.commit(NOW_MS + 1000)
    assert counts_of(store) == (2.0, (3, 1, 2, 0))


def test_a_native_histogram_without_a_known_start_counts_from_its_first_total_on() -> None:
    store = Store()
    for at, (source, count, baseline) in enumerate([("a", 600, True), ("a", 603, False), ("b", 604, True)], start=1):
        buckets = NativeBuckets(3)
        buckets.observe([1.5], weight=count)
        store.fold(totals(Told(WAIT, source, at, 1.5 * count, buckets.packed(), baseline=baseline)))
        store.commit(NOW_MS + at)
        store.crash()
    value, counts = counts_of(store)
    expected = NativeBuckets(3)
    expected.observe([1.5], weight=3)
    assert (value, counts) == (4.5, (3, *expected.packed()))


rescaled = st.lists(
    st.tuples(
        st.lists(st.sampled_from([-3.0, 0.0, 0.7, 1.0, 1.1, 1.2, 1e9]), max_size=4),
        st.integers(-2, 3),
        st.sampled_from(["", "", "again", "late", "restart"]),
    ),
    max_size=20,
)


@settings(max_examples=200)
@given(rescaled, st.lists(st.sampled_from(STEPS), max_size=40))
def test_a_native_histogram_may_change_its_scale_in_a_run(
    told: Sequence[tuple[list[float], int, str]], plan: Sequence[str]
) -> None:
    log, every, run, standing = list[Record](), list[float](), 0, list[float]()
    for at, (more, schema, what) in enumerate(told, start=1):
        if what == "restart":
            run, standing = run + 1, []
        every, standing = every + more, standing + more
        buckets = NativeBuckets(schema)
        buckets.observe(standing)
        log.append(totals(Told(WAIT, f"a{run}", at, sum(standing), buckets.packed())))
        if what == "again":
            log += log[-3:]
        elif what == "late":
            log[-2:] = log[:-3:-1]
    store = Store()
    store.live_through(log, plan)
    assert len(store.rows) == bool(log)
    for row in store.rows.values():
        assert row.counts is not None
        shown, expected = NativeBuckets.unpacked(row.counts[1:]), NativeBuckets(row.counts[1])
        expected.observe(every)
        assert (row.counts[0], shown.packed()) == (len(every), expected.packed())


def test_a_total_in_a_finer_scale_again_adds_the_difference() -> None:
    store = Store()
    for at, (count, schema) in enumerate([(3, 3), (6, 2), (7, 3)], start=1):
        buckets = NativeBuckets(schema)
        buckets.observe([1.5], weight=count)
        store.fold(totals(Told(WAIT, "a", at, 1.5 * count, buckets.packed())))
        store.commit(NOW_MS + at)
        store.crash()
    value, counts = counts_of(store)
    assert (value, counts and counts[0]) == (10.5, 7)


def test_the_parts_of_a_histogram_may_come_one_by_one_in_any_order() -> None:
    store = Store()

    def parts(at: int, of_sum: float, *up_to: int) -> list[Record]:
        """The last bucket is +Inf's, which equals the count."""
        cumulative = [Told(LOAD, f"le{n}", at, count, part=PART_BUCKETS + n) for n, count in enumerate(up_to)]
        rest = [Told(LOAD, "sum", at, of_sum), Told(LOAD, "count", at, up_to[-1], part=PART_COUNT)]
        return [totals(each) for each in (*cumulative, *rest)]

    store.fold(*reversed(parts(1, 3.5, 1, 3, 4)))
    first, second = parts(2, 4.0, 2, 4, 6), parts(3, 5.0, 2, 5, 7)
    store.fold(*first[:2])
    store.commit(NOW_MS)
    store.crash()
    store.fold(*first, *second[1:], second[0])
    store.commit(NOW_MS + 1000)
    assert counts_of(store) == (5.0, (7, 2, 3, 2))


@pytest.mark.parametrize(
    "told",
    [
        Told(LOAD, "a", 1, 1.0, part=PART_BUCKETS + 3),
        Told(LOAD, "a", 1, 1.0, [1, 0]),
        Told(DEPTH, "a", 1, 1.0),
        Told(ORDERS, "a", 1, 1.0, part=PART_COUNT),
    ],
)
def test_a_total_that_its_series_cannot_take_halts_the_lane(told: Told) -> None:
    with pytest.raises(UnreadableLogError):
        Store().fold(totals(told))
