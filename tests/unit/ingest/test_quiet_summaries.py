"""Very many summaries that nobody observes: a commit settles some of them at once, and none is written before it is."""

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest import summary_windows
from services.ingest.domain import MetricType
from services.ingest.records import Record
from services.ingest.samples import Samples
from services.ingest.sealing import REWRITE_SECONDS
from services.ingest.sketches import Sketch, bin_of
from services.ingest.summary_windows import MINUTE_MS, MINUTES, MOST_QUIET, SummaryWindows
from tests.stepping import at_once
from tests.unit.ingest.ingestion import NOW_MS, definition, delta, ended, label, record
from tests.unit.ingest.lane_store import Store, each_of

SIZE = definition("size_bytes", MetricType.SUMMARY, objectives=(0.5, 0.9), labels={"plan": label()})
#: The beginning of a minute.
START_MS = NOW_MS // MINUTE_MS * MINUTE_MS
#: Of the tests with a whole lane.
PLANS = tuple("abcdefg")
AT_ONCE = 2
IN_ALL = -(-len(PLANS) // AT_ONCE)

Quantiles = tuple[float, ...]


@pytest.fixture(scope="module", autouse=True)
def few_at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(summary_windows, "MOST_QUIET", AT_ONCE)
        yield


def observed(value: float, received_ms: int = START_MS, plans: Iterable[str] = PLANS) -> Record:
    """A batch in which each of the series observes the value."""
    return record(*(delta(SIZE, value, plan=plan) for plan in plans), received_ms=received_ms)


def quantiles_of(*values: float) -> Quantiles:
    return tuple(Sketch.of([{bin_of(value): 1} for value in values]).quantiles(SIZE.objectives).tolist())


def written(samples: Samples) -> dict[str, Quantiles]:
    """The quantiles of each series that is written, but for first zeros."""
    return {each.labels[1]: each.quantiles for each in each_of(samples) if each.counts != (0,)}


def commit_each_second(store: Store, first_ms: int, commits: int) -> list[dict[str, Quantiles]]:
    """What each of the commits gives the sinks."""
    found = []
    for second in range(commits):
        checkpoint = store.commit(first_ms + 1000 * second)
        store.delivered_ms = checkpoint.commit_ms
        found.append(written(checkpoint.samples))
    return found


def test_the_turn_of_a_minute_costs_nothing_where_no_minute_leaves() -> None:
    store = Store()
    store.fold(observed(5.0))
    store.commit(START_MS + 1000)
    for minute in range(1, MINUTES):
        assert list(store.table.windows.settle(START_MS + minute * MINUTE_MS)) == []


def test_others_may_have_their_turn_while_many_that_observed_something_are_settled() -> None:
    store = Store()
    plans = [f"plan-{number}" for number in range(1000)]
    store.fold(observed(5.0, plans=plans))
    steps = store.state.sealing(START_MS + 1000)
    pauses = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            sealed = done.value
            break
        pauses += 1
    assert pauses >= 10
    assert written(sealed.samples) == dict.fromkeys(plans, quantiles_of(5.0))


def test_minutes_of_quiet_series_leave_in_portions() -> None:
    store = Store()
    store.fold(observed(1.0), observed(5.0, START_MS + MINUTE_MS))
    commit_each_second(store, START_MS + 2 * MINUTE_MS, 1)
    settled = []
    for second in range(REWRITE_SECONDS + 1):
        checkpoint = store.commit(START_MS + MINUTES * MINUTE_MS + 1000 * second)
        settled.append(len(checkpoint.changed))
        both, later = quantiles_of(1.0, 5.0), quantiles_of(5.0)
        assert set(written(checkpoint.samples).values()) <= ({both, later} if second < IN_ALL - 1 else {later})
    assert settled[:IN_ALL] == [2, 2, 2, 1]
    assert not any(settled[IN_ALL:])


def test_what_has_data_is_settled_however_many_are_quiet() -> None:
    store = Store()
    store.fold(observed(5.0))
    store.commit(START_MS + 1000)
    late_ms = START_MS + MINUTES * MINUTE_MS
    store.fold(observed(1.0, late_ms, "efg"))
    first = written(store.commit(late_ms).samples)
    assert {plan: first[plan] for plan in "efg"} == dict.fromkeys("efg", quantiles_of(1.0))


def test_a_new_owner_writes_each_series_once_it_is_settled_and_soon_all_of_them() -> None:
    store = Store()
    store.fold(observed(5.0))
    commit_each_second(store, START_MS + 1000, 1)
    store.crash()
    commits = commit_each_second(store, START_MS + 60_000, IN_ALL)
    assert all(each == quantiles_of(5.0) for shown in commits for each in shown.values())
    assert len(commits[0]) == AT_ONCE
    assert set().union(*commits) == set(PLANS)
    again = commit_each_second(store, START_MS + 60_000 + 1000 * IN_ALL, REWRITE_SECONDS)
    assert set().union(*again) == set(PLANS), "and every half minute from then on"


def test_what_sinks_may_lack_is_settled_before_a_new_owner_writes_it() -> None:
    store = Store()
    store.fold(observed(5.0))
    store.commit(START_MS + 1000)
    store.crash()
    checkpoint = store.commit(START_MS + 2000)
    assert written(checkpoint.samples_for(0)) == dict.fromkeys(PLANS, quantiles_of(5.0))


def last_values(samples: Samples) -> list[tuple[str, Quantiles]]:
    """Of series that end, ordered."""
    return sorted((each.labels[1], each.quantiles) for each in each_of(samples) if not each.stale)


def test_the_last_values_of_a_deleted_summary_are_settled_before_a_new_owner_writes_them() -> None:
    store, last_ms = Store(), START_MS + 2 * MINUTE_MS
    store.fold(observed(5.0))
    commit_each_second(store, START_MS + 1000, 1)
    store.fold(observed(1.0, last_ms, "bcdefg"), ended(SIZE))
    values = [(plan, quantiles_of(5.0, 1.0)) for plan in "bcdefg"]
    assert last_values(store.commit(last_ms).samples) == values
    for _ in range(2):
        store.crash()
        again = store.commit(store.commit_ms + 1000).samples_for(store.delivered_ms)
        assert last_values(again) == values
        assert sum(each.stale for each in each_of(again)) == len(PLANS)


def test_a_sink_without_anything_is_given_all_of_them_settled() -> None:
    store = Store(write_all=True)
    store.fold(observed(5.0))
    commit_each_second(store, START_MS + 1000, 1)
    store.crash()
    checkpoint = store.commit(START_MS + 2000)
    assert written(checkpoint.samples_for(0)) == dict.fromkeys(PLANS, quantiles_of(5.0))


def test_data_for_a_series_that_still_waits_adds_to_what_the_state_had() -> None:
    store = Store()
    store.fold(observed(5.0))
    commit_each_second(store, START_MS + 1000, 1)
    store.crash()
    store.fold(observed(1.0, START_MS + 3000, "g"))
    assert written(store.commit(START_MS + 3000).samples)["g"] == quantiles_of(5.0, 1.0)
    store.crash()
    assert written(store.commit(START_MS + 4000).samples_for(0))["g"] == quantiles_of(5.0, 1.0)


def test_a_series_that_was_quiet_for_too_long_before_a_new_owner_came_still_ends() -> None:
    store = Store(stale_after_ms=20 * MINUTE_MS)
    store.fold(observed(5.0))
    commit_each_second(store, START_MS + 1000, 1)
    store.crash()
    commits = commit_each_second(store, START_MS + 21 * MINUTE_MS, IN_ALL + REWRITE_SECONDS)
    assert all(not each for shown in commits for each in shown.values())
    assert len(store.state) == 0


steps = st.lists(st.sampled_from(["fold", "fold", "commit", "crash", "lose the commit", "wait"]), max_size=60)
batches = st.lists(st.tuples(st.sets(st.sampled_from(PLANS), min_size=1), st.floats(-1e6, 1e6)), max_size=20)


@settings(max_examples=60)
@given(batches, steps)
def test_whatever_crashes_nothing_is_written_that_was_not_true_a_moment_ago(
    sent: list[tuple[set[str], float]], plan: list[str]
) -> None:
    store, now_ms, arrived = Store(), START_MS, list[tuple[int, set[str], float]]()
    for step in [*plan, *["fold"] * len(sent), "commit", *["settle"] * IN_ALL]:
        now_ms += 130_000 if step == "wait" else 500
        if step == "fold" and store.state.position < len(sent):
            if store.state.position == len(arrived):
                arrived.append((now_ms, *sent[len(arrived)]))
            received_ms, plans, value = arrived[store.state.position]
            store.fold(observed(value, received_ms, sorted(plans)))
        elif step in ("commit", "settle"):
            counted_by_now = arrived[: store.state.position]
            checkpoint = store.commit(now_ms // MINUTE_MS * MINUTE_MS if step == "settle" else now_ms)
            _expect_some_time_ago(written(checkpoint.samples), counted_by_now, checkpoint.commit_ms)
            _expect_some_time_ago(written(checkpoint.overdue.samples), counted_by_now, checkpoint.commit_ms)
            store.delivered_ms = checkpoint.commit_ms
        elif step == "lose the commit":
            at_once(store.state.sealing(now_ms))
            store.crash()
        elif step == "crash":
            store.crash()
    for row in range(store.table.size):
        name = store.table.label_pairs(row)[1]
        expected = _expected(arrived, name, store.commit_ms // MINUTE_MS) or None
        found = store.table.quantiles.get(row)
        assert (None if found is None else tuple(found.tolist())) == expected


def _expect_some_time_ago(
    shown: dict[str, Quantiles], arrived: list[tuple[int, set[str], float]], commit_ms: int
) -> None:
    """Minutes may leave late, but nothing that counts is missing and nothing else is there."""
    for plan, quantiles in shown.items():
        oldest = min((received_ms for received_ms, plans, _ in arrived if plan in plans), default=commit_ms)
        minutes = range(oldest // MINUTE_MS, commit_ms // MINUTE_MS + 1)
        assert quantiles in [_expected(arrived, plan, minute) for minute in minutes]


def _expected(arrived: list[tuple[int, set[str], float]], plan: str, minute: int) -> Quantiles:
    values = [value for at_ms, plans, value in arrived if plan in plans and at_ms // MINUTE_MS > minute - MINUTES]
    return quantiles_of(*values) if values else ()


def test_of_a_hundred_thousand_quiet_series_a_few_thousand_are_settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary_windows, "MOST_QUIET", MOST_QUIET)
    windows, series, minute = SummaryWindows(), 100_000, START_MS // MINUTE_MS
    encoded = Sketch.of([{bin_of(1.0): 1}]).encoded()
    windows.restore((row, minute, encoded) for row in range(series))
    last, settled = series - 1, set[int]()
    for commit in range(3):
        windows.observe(last, START_MS, {bin_of(2.0): 1})
        rows = {row for row, _ in windows.settle(START_MS + commit)}
        assert last in rows
        assert MOST_QUIET <= len(rows) <= MOST_QUIET + 1
        settled |= rows
        assert np.count_nonzero(windows.waiting(np.arange(series))) == series - len(settled)
    assert len(settled) >= 3 * MOST_QUIET
    assert len(list(windows.settle(START_MS + MINUTES * MINUTE_MS))) == MOST_QUIET
