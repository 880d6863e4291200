"""What label sets were folded into over a limit, and what becomes of it when the limit changes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.domain import OTHER, Definition
from services.ingest.records import Record
from services.ingest.substitutes import Substitutes
from tests.unit.ingest.ingestion import NOW_MS, Told, definition, delta, ended, label, record, renamed, totals
from tests.unit.ingest.lane_store import Store


def limited(most: int) -> Definition:
    """The definition as of a version in which its label may have so many values; 0: any number."""
    return definition("visits_total", labels={"user": label(max_distinct=most)}, version=most + 1)


def visits(most: int, *users: str) -> Record:
    return record(*(delta(limited(most), user=user) for user in users))


def of_users(store: Store) -> dict[str, float]:
    return {row.labels[1]: row.value for row in store.rows.values()}


@pytest.mark.parametrize("raised", [100, 0])
@pytest.mark.parametrize("crashes", [False, True])
def test_a_raised_limit_gives_series_to_values_that_were_over_it(raised: int, crashes: bool) -> None:
    store = Store()
    store.fold(visits(1, "ann", "bob"))
    store.commit(NOW_MS)
    if crashes:
        store.crash()
    store.fold(visits(raised, "bob", "cy"))
    store.commit(NOW_MS + 1000)
    store.fold(visits(raised, "ann", "bob", "cy"))
    store.commit(NOW_MS + 2000)
    assert of_users(store) == {"ann": 2.0, OTHER: 1.0, "bob": 2.0, "cy": 2.0}


def test_totals_go_on_where_a_raised_limit_puts_their_series() -> None:
    def told(most: int, at: int, value: float) -> Record:
        return totals(*(Told(limited(most), user, at, value, labels=("user", user)) for user in ("ann", "bob")))

    store = Store()
    store.fold(told(1, 1, 10.0))
    store.commit(NOW_MS)
    store.fold(told(2, 2, 13.0))
    store.commit(NOW_MS + 1000)
    assert of_users(store) == {"ann": 13.0, OTHER: 10.0, "bob": 3.0}


def test_receivers_that_do_not_know_the_new_limit_yet_take_no_series_away() -> None:
    store = Store()
    store.fold(visits(1, "ann", "bob"), visits(100, "bob"), visits(1, "bob", "cy"))
    store.fold(visits(100, "bob", "cy"))
    store.fold(visits(1, "bob", "cy", "dee"))
    store.commit(NOW_MS)
    found = of_users(store)
    assert sum(found.values()) == 10.0
    assert found["bob"] >= 2.0
    assert found["cy"] == 2.0
    assert "dee" not in found


def test_the_limit_of_a_deleted_metric_does_not_stay_with_the_one_that_bears_its_name() -> None:
    store, deleted, anew = Store(), limited(1), renamed(limited(100), b"2" * 16)
    store.fold(record(delta(deleted, user="ann")))
    store.commit(NOW_MS)
    store.fold(ended(deleted))
    store.delivered_ms = store.commit(NOW_MS + 1000).commit_ms
    store.fold(record(delta(anew, user="ann")))
    store.commit(NOW_MS + 2000)
    store.fold(record(delta(deleted, user="bob")))  # from a receiver that does not know yet
    store.commit(NOW_MS + 3000)
    store.fold(record(delta(anew, user="bob")))
    store.commit(NOW_MS + 4000)
    of_new = {row.labels[1]: row.value for row in store.rows.values() if row.family.definition_id == anew.id}
    assert of_new == {"ann": 1.0, OTHER: 1.0, "bob": 1.0}


sendings = st.lists(st.lists(st.tuples(st.integers(0, 4), st.text("abcdef", min_size=1, max_size=1)), max_size=4))


@settings(max_examples=200, deadline=None)
@given(sendings, st.sets(st.integers(0, 20)), st.integers(1, 3))
def test_whatever_limits_come_nothing_is_lost(
    sent: list[list[tuple[int, str]]], crashes: set[int], stale_steps: int
) -> None:
    store = Store(stale_after_ms=stale_steps * 40_000)
    for number, together in enumerate(sent):
        store.fold(*(visits(most, user) for most, user in together))
        store.delivered_ms = store.commit(NOW_MS + number * 40_000).commit_ms
        if number in crashes:
            store.crash()
    assert sum(of_users(store).values()) == sum(map(len, sent))


def test_those_of_other_definitions_stay() -> None:
    substitutes, other = Substitutes(), definition("other_total", labels={"user": label(max_distinct=1)})
    substitutes.remember(b"a", b"A", delta(limited(1), user="a").facts)
    substitutes.remember(b"b", b"B", delta(other, user="b").facts)
    substitutes.heed([visits(1, "a")])
    assert substitutes.of_each([b"a", b"b", b"c"]) == b"ABc"
    substitutes.heed([visits(2, "a")])
    assert (substitutes.of(b"a"), substitutes.of(b"b"), len(substitutes)) == (b"a", b"B", 1)
