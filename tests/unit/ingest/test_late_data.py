"""Data of a metric that was deleted, from a receiver that did not know yet."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.domain import Definition, GaugeMerge, MetricType
from services.ingest.records import Record
from tests.unit.ingest.ingestion import NOW_MS, Told, definition, delta, ended, label, record, renamed, totals
from tests.unit.ingest.lane_store import Store

ORDERS = definition("orders_total", labels={"plan": label(max_distinct=2)})
VISITS = definition("visits_total")
DEPTH = definition("depth", MetricType.GAUGE, gauge_merge=GaugeMerge.SUM)
LIMITED = definition("limited_total", labels={"u": label(max_distinct=1)})
SIGNUPS = definition("signups_total", labels={"u": label()})
SIGNUPS_ANEW = renamed(SIGNUPS, b"5" * 16)


def commit(store: Store, seconds: int) -> None:
    store.delivered_ms = store.commit(NOW_MS + 1000 * seconds).commit_ms


def delete(store: Store, deleted: Definition, seconds: int) -> None:
    store.fold(ended(deleted))
    commit(store, seconds)
    commit(store, seconds + 1)


@pytest.mark.parametrize("crashes", [False, True])
def test_it_is_folded_into_what_the_state_has_already(crashes: bool) -> None:
    store = Store()
    store.fold(record(*(delta(ORDERS, 1, plan=plan) for plan in "abc")))
    commit(store, 0)
    delete(store, ORDERS, 1)
    if crashes:
        store.crash()
    store.fold(record(*(delta(ORDERS, 1, plan=plan) for plan in "abd")))
    commit(store, 3)
    plans = {"a": 2.0, "b": 2.0, "__other__": 2.0}
    assert store.totals() == {("orders_total", "plan", plan): total for plan, total in plans.items()}


@pytest.mark.parametrize("crashes", [False, True])
def test_in_a_project_that_is_full_it_is_folded_too(crashes: bool) -> None:
    store = Store(per_project=3)
    store.fold(record(*(delta(ORDERS, 1, other=each) for each in "123"), *(delta(VISITS, 1, u=each) for each in "45")))
    commit(store, 0)
    delete(store, VISITS, 1)
    if crashes:
        store.crash()
    store.fold(record(delta(VISITS, 1, u="6")))
    commit(store, 3)
    assert store.totals()["visits_total", "u", "__other__"] == 3.0


def test_it_counts_for_the_metric_that_bears_the_name_and_overwrites_nothing() -> None:
    store, anew = Store(), renamed(DEPTH, b"2" * 16)
    store.fold(record(delta(DEPTH, 1.0, NOW_MS), producer=b"B" * 16, sequence=1))
    commit(store, 0)
    delete(store, DEPTH, 1)
    store.fold(record(delta(anew, 10.0, NOW_MS + 2000), producer=b"A" * 16, sequence=1))
    commit(store, 3)
    store.fold(record(delta(anew, 50.0, NOW_MS + 3000), producer=b"A" * 16, sequence=2))
    store.fold(record(delta(DEPTH, 3.0, NOW_MS + 3100), producer=b"B" * 16, sequence=2))
    commit(store, 4)
    assert {row.family.definition_id: row.value for row in store.rows.values()} == {DEPTH.id: 1.0, anew.id: 53.0}


def test_increments_that_are_not_committed_yet_are_kept_beside_it() -> None:
    store, anew = Store(), renamed(VISITS, b"3" * 16)
    filling = definition("filling_total")
    store.fold(record(delta(VISITS, 1, u="0")))
    delete(store, VISITS, 1)
    store.fold(record(*(delta(filling, 1, n=str(each)) for each in range(500))))
    commit(store, 3)
    store.fold(record(*(delta(anew, 5, u=str(each)) for each in range(60))))
    commit(store, 4)
    delete(store, filling, 5)  # its places in the index are free for others
    for late, increment in ((anew, 100), (VISITS, 1), (anew, 1000)):
        store.fold(record(*(delta(late, increment, u=str(each)) for each in range(60))))
    commit(store, 7)
    assert {row.value for row in store.rows.values() if row.family.definition_id == anew.id} == {1106.0}


def test_what_was_over_a_budget_counts_for_the_metric_that_bears_the_name_too() -> None:
    store, anew = Store(), renamed(LIMITED, b"4" * 16)
    store.fold(record(delta(LIMITED, 1, u="1"), delta(LIMITED, 1, u="2")))
    delete(store, LIMITED, 1)
    store.fold(record(delta(anew, 10, u="1")))
    commit(store, 3)
    store.fold(record(delta(LIMITED, 5, u="2")))
    commit(store, 4)
    of_new = [row.value for row in store.rows.values() if row.family.definition_id == anew.id]
    assert sorted(of_new) == [5.0, 10.0]


def by_increment(of: Definition, at: int, value: float, u: str) -> Record:
    """A batch that adds so much."""
    return record(delta(of, value, u=u))


def by_total(of: Definition, at: int, value: float, u: str) -> Record:
    """What a source stands at by then."""
    return totals(Told(of, f"source {u}", at, value, labels=("u", u)))


TELLING = pytest.mark.parametrize("telling", [by_increment, by_total])


def of_each(store: Store) -> dict[tuple[bytes, str], float]:
    """The stored values, by definition and the label's value."""
    return {(row.family.definition_id, row.labels[1]): row.value for row in store.rows.values()}


@TELLING
def test_read_together_with_the_end_of_the_namesake_it_counts_for_that_one(
    telling: Callable[[Definition, int, float, str], Record],
) -> None:
    store = Store()
    store.fold(telling(SIGNUPS, 1, 1.0, "a"))
    commit(store, 0)
    delete(store, SIGNUPS, 1)
    store.fold(telling(SIGNUPS_ANEW, 2, 5.0, "b"))
    commit(store, 3)
    store.fold(ended(SIGNUPS_ANEW), telling(SIGNUPS, 3, 7.0, "a"))
    commit(store, 4)
    assert of_each(store) == {(SIGNUPS.id, "a"): 1.0, (SIGNUPS_ANEW.id, "b"): 5.0, (SIGNUPS_ANEW.id, "a"): 7.0}


@TELLING
def test_read_together_with_the_first_data_in_memory_of_the_namesake_it_counts_for_its_own_definition(
    telling: Callable[[Definition, int, float, str], Record],
) -> None:
    store = Store(stale_after_ms=10_000)
    store.fold(telling(SIGNUPS, 1, 1.0, "z"))
    commit(store, 0)
    delete(store, SIGNUPS, 1)
    store.fold(telling(SIGNUPS_ANEW, 2, 5.0, "a"))
    for seconds in range(3, 80):
        commit(store, seconds)
    assert len(store.state) == 0, "the namesake's series is in the state alone"
    store.fold(telling(SIGNUPS_ANEW, 90, 5.0, "b"), telling(SIGNUPS, 90, 7.0, "a"))
    commit(store, 90)
    new = {(SIGNUPS_ANEW.id, "b"): 5.0, (SIGNUPS.id, "a"): 7.0}
    assert of_each(store) == {(SIGNUPS.id, "z"): 1.0, (SIGNUPS_ANEW.id, "a"): 5.0, **new}


@TELLING
def test_read_together_with_its_own_definitions_end_it_counts_for_that_one(
    telling: Callable[[Definition, int, float, str], Record],
) -> None:
    store = Store(stale_after_ms=10_000)
    store.fold(telling(SIGNUPS_ANEW, 1, 5.0, "a"))
    for seconds in range(80):
        commit(store, seconds)
    store.fold(telling(SIGNUPS, 80, 1.0, "z"), telling(SIGNUPS_ANEW, 80, 5.0, "b"))
    commit(store, 80)
    store.fold(ended(SIGNUPS), telling(SIGNUPS, 90, 7.0, "a"))
    commit(store, 90)
    old = {(SIGNUPS_ANEW.id, "a"): 5.0, (SIGNUPS.id, "z"): 1.0, (SIGNUPS_ANEW.id, "b"): 5.0}
    assert of_each(store) == {**old, (SIGNUPS.id, "a"): 7.0}


LIVES = [renamed(definition("lives_total", labels={"u": label(max_distinct=2)}), bytes([n]) * 16) for n in range(3)]
read = st.lists(st.one_of(st.tuples(st.integers(0, 2), st.sampled_from("abcd")), st.integers(0, 2)), max_size=5)
lives = st.lists(st.tuples(read, st.booleans(), st.sampled_from([1, 1, 45])), max_size=25)


@settings(max_examples=150, deadline=None)
@given(lives)
def test_whatever_is_read_together_each_series_is_made_once_and_nothing_is_lost(
    plan: list[tuple[list[tuple[int, str] | int], bool, int]],
) -> None:
    store, seconds, sent = Store(stale_after_ms=30_000), 0, 0
    for together, crashes, later in plan:
        records = [
            ended(LIVES[each]) if isinstance(each, int) else record(delta(LIVES[each[0]], u=each[1]))
            for each in together
        ]
        store.fold(*records)
        seconds += later
        commit(store, seconds)
        sent += sum(isinstance(each, tuple) for each in together)
        if crashes:
            store.crash()
    assert sum(row.value for row in store.rows.values()) == sent
