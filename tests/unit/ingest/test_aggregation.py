"""A lane's state: whatever is lost, repeated or restarted, what is committed is what was sent."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.domain import OTHER, MetricType, is_other
from services.ingest.errors import UnreadableLogError
from services.ingest.native_histograms import NativeBuckets
from services.ingest.records import Kind, Record
from services.ingest.sealing import REWRITE_SECONDS, Checkpoint
from tests.stepping import at_once
from tests.unit.ingest.ingestion import (
    DAY_MS,
    NOW_MS,
    PROJECT,
    definition,
    delta,
    delta_of,
    ended,
    label,
    pairs_of,
    record,
    renamed,
)
from tests.unit.ingest.lane_store import STEPS, Sample, Store, each_of

ORDERS = definition("orders_total", labels={"plan": label()})
DEPTH = definition("depth", MetricType.GAUGE)
WAIT = definition("wait_seconds", MetricType.NATIVE_HISTOGRAM)
LOAD = definition("load_seconds", MetricType.HISTOGRAM, bounds=(0.1, 1.0))


def written(checkpoint: Checkpoint) -> list[tuple[str, int, float]]:
    """Name, time and value; a stale marker's value is NaN."""
    samples = each_of(checkpoint.samples_for(0))
    return [(each.name, each.at_ms, float("nan") if each.stale else each.value) for each in samples]


def ordinary(checkpoint: Checkpoint) -> dict[tuple[str, ...], float]:
    """What is written with the commit's own time."""
    return {
        (each.name, *each.labels): each.value
        for each in each_of(checkpoint.samples_for(0))
        if each.at_ms == checkpoint.commit_ms
    }


def lives(checkpoint: Checkpoint) -> list[tuple[int, float | None]]:
    """Times and values in order; a stale marker's value is None."""
    samples = sorted(each_of(checkpoint.samples_for(0)), key=lambda each: each.at_ms)
    return [(each.at_ms, None if each.stale else each.value) for each in samples]


def marked_stale(checkpoint: Checkpoint) -> list[str]:
    return [each.name for each in each_of(checkpoint.samples_for(0)) if each.stale]


# --- exactly once

producers = st.sampled_from([b"A" * 16, b"B" * 16, b"C" * 16])
batches = st.lists(
    st.tuples(producers, st.integers(1, 12), st.sampled_from(["free", "pro"]), st.integers(1, 5)), max_size=60
)


@settings(max_examples=300)
@given(batches, st.lists(st.sampled_from(STEPS), max_size=80))
def test_any_mixture_of_retries_commits_and_crashes_counts_each_batch_once(
    sent: list[tuple[bytes, int, str, int]], plan: list[str]
) -> None:
    store = Store()
    log = [
        record(delta(ORDERS, float(value), plan=which), producer=producer, sequence=sequence)
        for producer, sequence, which, value in sent
    ]
    store.live_through(log, plan)
    assert store.totals() == model(sent)


def model(sent: Sequence[tuple[bytes, int, str, int]]) -> dict[tuple[str, ...], float]:
    totals: Counter[tuple[str, ...]] = Counter()
    seen: set[tuple[bytes, int]] = set()
    for producer, sequence, plan, value in sent:
        if (producer, sequence) not in seen:
            seen.add((producer, sequence))
            totals["orders_total", "plan", plan] += value
    return dict(totals)


def test_batches_without_a_producer_all_count() -> None:
    store = Store()
    store.fold(*[record(delta(ORDERS))] * 3)
    store.commit(NOW_MS)
    assert store.totals() == {("orders_total",): 3.0}


def test_the_same_producer_in_another_project_is_another_producer() -> None:
    store = Store()
    mine = record(delta(ORDERS), producer=b"A" * 16, sequence=1)
    store.fold(mine)
    store.fold(mine)
    other = record(delta(definition("orders_total", id=b"2" * 16)), producer=b"A" * 16, sequence=1)
    other.project_id = b"q" * 16
    assert store.missing(other).producers == {(b"q" * 16, b"A" * 16)}
    assert store.missing(mine).producers == set()


def test_a_checkpoint_is_a_copy_also_of_series_that_it_makes() -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 1.0), delta(LOAD, 0.05)))
    first = at_once(store.state.sealing(NOW_MS))
    store.fold(record(delta(ORDERS, 10.0), delta(LOAD, 0.05)))
    second = at_once(store.state.sealing(NOW_MS + 1000))
    store.fold(record(delta(ORDERS, 100.0), delta(LOAD, 0.05)))
    assert first.made.values.value.tolist() == [1.0, 0.05]
    assert [None if counts is None else counts.tolist() for counts in first.made.values.counts] == [None, [1, 1, 0, 0]]
    assert second.changed.value.tolist() == [11.0, 0.1]
    assert [each.counts for each in each_of(second.samples_for(0)) if each.name == "load_seconds"] == [(2, 2, 0, 0)]
    assert ordinary(first) == {("orders_total",): 1.0, ("load_seconds",): 0.05}
    assert [row.position for row in (first, second)] == [1, 2]


def test_records_that_do_not_fit_their_series_halt_the_lane() -> None:
    store = Store()
    store.fold(record(delta(LOAD, 0.5)))
    changed = definition("load_seconds", MetricType.HISTOGRAM, bounds=(0.1, 2.0))
    with pytest.raises(UnreadableLogError, match="load_seconds"):
        store.fold(record(delta(changed, 0.5)))


def test_buckets_that_are_no_native_histogram_halt_the_lane() -> None:
    store = Store()
    broken = record(delta(WAIT, 1.0))
    broken.distributions[0].buckets = [1]
    with pytest.raises(UnreadableLogError, match="wait_seconds"):
        store.fold(broken)


def test_a_native_histogram_adds_up_over_crashes_and_retries() -> None:
    store = Store()
    for sequence, value in enumerate([1.0, 2.0, -1.0, 0.0, 2.0], 1):
        batch = record(delta(WAIT, value), producer=b"A" * 16, sequence=sequence)
        store.fold(batch, batch)
        store.commit(NOW_MS + sequence * 1000)
        store.fold(record(delta(WAIT, 5.0)))  # is lost with the crash: its commit never was
        store.crash()
        store.fold(batch)
    store.fold(record(delta(WAIT, 0.5)))
    last = store.commit(NOW_MS + 60_000)
    assert store.totals() == {("wait_seconds",): 4.5}
    buckets = NativeBuckets()
    buckets.observe([1.0, 2.0, -1.0, 0.0, 2.0, 0.5])
    [row] = store.rows.values()
    assert row.counts == (6, *buckets.packed())
    assert [each.counts for each in each_of(last.samples) if each.at_ms == last.commit_ms] == [row.counts]


# --- time


def test_commit_times_grow_when_the_clock_steps_back_and_stands_still() -> None:
    store, times = Store(), []
    for now_ms in (NOW_MS, NOW_MS - 2000, NOW_MS - 1000, NOW_MS - 1000, NOW_MS + 5000):
        store.fold(record(delta(ORDERS)))
        checkpoint = store.commit(now_ms)
        times.append(checkpoint.commit_ms)
        assert ordinary(checkpoint) == {("orders_total",): float(len(times))}
    assert times == [NOW_MS, NOW_MS + 5, NOW_MS + 10, NOW_MS + 15, NOW_MS + 5000]


def test_times_grow_over_a_takeover_by_a_clock_that_is_behind() -> None:
    store = Store()
    store.fold(record(delta(ORDERS)))
    store.commit(NOW_MS)
    store.crash()
    store.fold(record(delta(ORDERS)))
    checkpoint = store.commit(NOW_MS - 2000)
    assert written(checkpoint) == [
        ("orders_total", NOW_MS - 1000, 0.0),
        ("orders_total", NOW_MS + 5, 2.0),
    ], "the first zero is sent again with its own time: whether it arrived is not known"


def test_a_first_value_follows_a_zero_one_interval_earlier() -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 5.0), delta(LOAD, 0.5), delta(DEPTH, 7.0, timestamp_ms=NOW_MS)))
    assert sorted(each_of(store.commit(NOW_MS).samples_for(0))) == [
        Sample("depth", (), NOW_MS, 7.0),
        Sample("load_seconds", (), NOW_MS - 1000, 0.0, (0, 0, 0, 0)),
        Sample("load_seconds", (), NOW_MS, 0.5, (1, 1, 0, 0)),
        Sample("orders_total", (), NOW_MS - 1000, 0.0),
        Sample("orders_total", (), NOW_MS, 5.0),
    ]
    store.fold(record(delta(ORDERS, 5.0)))
    assert written(store.commit(NOW_MS + 1000))[0] == ("orders_total", NOW_MS + 1000, 10.0)


def test_a_gauge_keeps_its_newest_timestamp_over_batches_and_restarts() -> None:
    store = Store()
    for value, offset in ((1.0, 0), (2.0, -5), (3.0, 0)):
        store.fold(record(delta(DEPTH, value, timestamp_ms=NOW_MS + offset)))
        store.commit(store.commit_ms + 1000 if store.commit_ms else NOW_MS)
        store.crash()
    assert store.totals() == {("depth",): 3.0}


# --- quiet series


def test_every_quiet_series_is_rewritten_within_30_seconds_spread_out() -> None:
    store = Store()
    store.fold(*[record(delta(ORDERS, plan=f"p{number}")) for number in range(600)])
    store.commit(NOW_MS)
    sizes = []
    rewritten: Counter[tuple[str, ...]] = Counter()
    for second in range(1, REWRITE_SECONDS + 1):
        values = ordinary(store.commit(NOW_MS + second * 1000))
        assert all(value == 1.0 for value in values.values())
        sizes.append(len(values))
        rewritten.update(values.keys())
    assert set(rewritten.values()) == {1}
    assert len(rewritten) == 600
    assert max(sizes) < 60


def test_after_a_long_pause_every_series_is_rewritten_at_once() -> None:
    store = Store()
    store.fold(*[record(delta(ORDERS, plan=f"p{number}")) for number in range(100)])
    store.commit(NOW_MS)
    assert len(ordinary(store.commit(NOW_MS + 300_000))) == 100


@pytest.mark.parametrize(("away_ms", "rewritten"), [(300_000, 90), (3_000, 9)])
def test_a_new_owner_rewrites_at_once_what_became_due_while_nobody_owned_the_lane(away_ms: int, rewritten: int) -> None:
    store = Store()
    store.fold(*[record(delta(ORDERS, plan=f"p{number}")) for number in range(90)])
    store.delivered_ms = store.commit(NOW_MS).commit_ms
    store.crash()
    assert len(ordinary(store.commit(NOW_MS + away_ms))) == rewritten


def run_to(store: Store, from_ms: int, to_ms: int, step_ms: int = 1000) -> list[Checkpoint]:
    return [store.commit(now_ms) for now_ms in range(from_ms, to_ms + 1, step_ms)]


def test_a_series_without_data_for_a_day_ends_and_wakes_without_a_second_zero() -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 5.0)))
    store.commit(NOW_MS)
    checkpoints = run_to(store, NOW_MS + DAY_MS, NOW_MS + DAY_MS + 30_000)
    assert [name for checkpoint in checkpoints for name in marked_stale(checkpoint)] == ["orders_total"]
    assert len(store.state) == 0
    store.delivered_ms = store.commit_ms
    store.crash()
    assert len(store.state) == 0
    store.fold(record(delta(ORDERS, 2.0)))
    woken = store.commit(store.commit_ms + 1000)
    assert written(woken) == [("orders_total", woken.commit_ms, 7.0)]


def test_a_marker_that_was_not_delivered_before_a_crash_is_sent_afterwards() -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 5.0)))
    store.delivered_ms = store.commit(NOW_MS).commit_ms
    run_to(store, NOW_MS + DAY_MS, NOW_MS + DAY_MS + 30_000)
    store.crash()
    again = run_to(store, store.commit_ms + 1000, store.commit_ms + 31_000)
    assert [name for checkpoint in again for name in marked_stale(checkpoint)] == ["orders_total"]


def test_a_duplicate_does_not_wake_a_quiet_series() -> None:
    store = Store()
    first = record(delta(ORDERS, 5.0), producer=b"A" * 16, sequence=1)
    store.fold(first)
    store.commit(NOW_MS)
    run_to(store, NOW_MS + DAY_MS, NOW_MS + DAY_MS + 30_000)
    store.fold(first)
    assert len(store.state) == 0
    assert written(store.commit(store.commit_ms + 1000)) == []


# --- what a new owner delivers


def test_a_new_owner_writes_what_may_not_have_been_delivered_once() -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 1.0, plan="old")))
    store.delivered_ms = store.commit(NOW_MS).commit_ms
    store.fold(record(delta(ORDERS, 2.0, plan="new")))
    store.commit(NOW_MS + 1000)
    store.crash()
    first = store.commit(NOW_MS + 2000)
    assert sorted((each.at_ms, each.value) for each in each_of(first.samples_for(0)) if "new" in each.labels) == [
        (NOW_MS, 0.0),
        (NOW_MS + 2000, 2.0),
    ]
    assert written(store.commit(NOW_MS + 2003)) == []


def test_a_new_owner_writes_to_each_sink_what_that_one_lacks() -> None:
    store = Store()
    gone = definition("gone_total", id=b"5" * 16)
    store.fold(record(delta(ORDERS, 1.0, plan="old"), delta(gone)))
    slow = store.delivered_ms = store.commit(NOW_MS).commit_ms
    store.fold(record(delta(ORDERS, 2.0, plan="new")), ended(gone))
    fast = store.commit(NOW_MS + 1000).commit_ms
    store.fold(record(delta(ORDERS, 3.0, plan="newest")))
    fastest = store.commit(NOW_MS + 2000).commit_ms
    store.crash()
    store.fold(record(delta(ORDERS, 4.0, plan="now")))
    first = store.commit(NOW_MS + 3000)

    def given(delivered_ms: int) -> list[float]:
        samples = each_of(first.samples_for(delivered_ms))
        return sorted(0.0 if each.stale else each.value for each in samples if each.stale or each.value)

    assert given(slow) == [0.0, 2.0, 3.0, 4.0]
    assert given(fast) == [3.0, 4.0]
    assert given(fastest) == [4.0]
    zeros = [
        len([each for each in each_of(first.samples_for(at)) if not each.value and not each.stale])
        for at in (slow, fast, fastest)
    ]
    assert zeros == [3, 2, 1]


def test_a_new_owner_writes_all_that_lives_where_a_sink_remembers_nothing() -> None:
    store = Store(write_all=True)
    store.fold(record(delta(ORDERS, 1.0, plan="old"), delta(ORDERS, 2.0, plan="new")))
    store.delivered_ms = store.commit(NOW_MS).commit_ms
    store.crash()
    first = store.commit(NOW_MS + 1000)
    assert [each.value for each in each_of(first.samples_for(-1))] == [1.0, 2.0]
    assert each_of(first.samples_for(store.delivered_ms)) == []


def test_what_was_quiet_for_a_day_while_the_sink_was_away_is_still_written() -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 5.0)))
    store.commit(NOW_MS)
    run_to(store, NOW_MS + DAY_MS, NOW_MS + DAY_MS + 60_000)
    store.delivered_ms = NOW_MS - 1
    store.crash()
    first, *later = run_to(store, store.commit_ms + 1000, store.commit_ms + 40_000)
    assert ordinary(first) == {("orders_total",): 5.0}
    assert marked_stale(first) == []
    assert [name for checkpoint in later for name in marked_stale(checkpoint)] == ["orders_total"]


# --- deleted definitions


def test_what_a_deleted_definition_has_come_to_is_written_before_its_end() -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 1.0)))
    store.commit(NOW_MS)
    store.fold(record(delta(ORDERS, 2.0)), ended(ORDERS), ended(ORDERS), record(delta(ORDERS, 4.0)))
    checkpoint = store.commit(NOW_MS + 1000)
    assert lives(checkpoint) == [(NOW_MS + 997, 7.0), (NOW_MS + 998, None)]
    assert [definition_id for _, _, definition_id in checkpoint.ended] == [ORDERS.id]
    assert store.totals() == {("orders_total",): 7.0}
    assert len(store.state) == 0
    later = run_to(store, store.commit_ms + 1000, store.commit_ms + 31_000)
    assert all(written(each) == [] for each in later)


def test_a_series_that_is_deleted_before_its_first_commit_shows_all_the_same() -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 7.0)), ended(ORDERS))
    checkpoint = store.commit(NOW_MS)
    assert lives(checkpoint) == [(NOW_MS - 1000, 0.0), (NOW_MS - 3, 7.0), (NOW_MS - 2, None)]
    assert store.totals() == {("orders_total",): 7.0}


@pytest.mark.parametrize("crash", [True, False])
def test_what_a_receiver_took_that_did_not_know_of_the_deletion_counts_too(*, crash: bool) -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 1.0)), ended(ORDERS))
    store.commit(NOW_MS)
    if crash:
        store.delivered_ms = store.commit_ms
        store.crash()
    store.fold(record(delta(ORDERS, 2.0)), record(delta_of(ORDERS, {"plan": "pro"}, 5.0)))
    checkpoint = store.commit(NOW_MS + 1000)
    assert sorted(marked_stale(checkpoint)) == ["orders_total", "orders_total"]
    assert store.totals() == {("orders_total",): 3.0, ("orders_total", "plan", "pro"): 5.0}
    assert (NOW_MS + 997, 3.0) in lives(checkpoint)
    assert len(store.state) == 0
    assert written(store.commit(NOW_MS + 2000)) == []


def test_late_data_of_a_deleted_definition_goes_to_the_one_that_bears_its_name_now() -> None:
    store, anew = Store(), renamed(ORDERS, b"n" * 16)
    store.fold(record(delta(ORDERS, 100.0)), ended(ORDERS), record(delta(anew, 5.0)))
    store.commit(NOW_MS)
    store.fold(record(delta(ORDERS, 2.0)))
    checkpoint = store.commit(NOW_MS + 1000)
    assert (marked_stale(checkpoint), ordinary(checkpoint)) == ([], {("orders_total",): 7.0})


def test_late_data_that_the_namesake_cannot_take_stays_with_its_own_definition() -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 100.0)), ended(ORDERS))
    store.fold(record(delta(definition("orders_total", MetricType.GAUGE, id=b"n" * 16), 5.0, NOW_MS)))
    store.commit(NOW_MS)
    store.fold(record(delta(ORDERS, 2.0)))
    checkpoint = store.commit(NOW_MS + 1000)
    assert (marked_stale(checkpoint), ordinary(checkpoint)) == (["orders_total"], {("orders_total",): 5.0})
    assert (NOW_MS + 997, 102.0) in lives(checkpoint)


def test_lives_of_one_name_that_end_together_follow_one_another() -> None:
    store = Store()
    for letter, value in ((b"a", 100.0), (b"b", 200.0), (b"c", 300.0)):
        life = renamed(ORDERS, letter * 16)
        store.fold(record(delta(life, value)), ended(life))
    store.fold(record(delta(renamed(ORDERS, b"d" * 16), 400.0)))
    checkpoint = store.commit(NOW_MS)
    shown = lives(checkpoint)
    assert [value for _, value in shown] == [0.0, 100.0, None, 0.0, 200.0, None, 0.0, 300.0, None, 0.0, 400.0]
    assert len({at_ms for at_ms, _ in shown}) == len(shown)
    store.crash()
    again = lives(store.commit(NOW_MS + 1))
    assert [value for _, value in again if value != 0.0] == [100.0, None, 200.0, None, 300.0, None, 400.0]
    assert min(at_ms for at_ms, value in again if value) > NOW_MS


def test_values_before_an_end_that_may_not_be_delivered_are_written_again() -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 1.0)))
    store.delivered_ms = store.commit(NOW_MS).commit_ms
    store.fold(record(delta(ORDERS, 2.0)), ended(ORDERS))
    store.commit(NOW_MS + 1000)
    store.crash()
    assert lives(store.commit(NOW_MS + 2000)) == [(NOW_MS + 1997, 3.0), (NOW_MS + 1998, None)]


@pytest.mark.parametrize("crash", [True, False])
def test_definitions_that_one_record_ends_end_once_each_however_often_it_is_read(*, crash: bool) -> None:
    store, visits, logins = Store(), definition("visits_total"), definition("logins_total")
    store.fold(record(delta(ORDERS, 1.0), delta(visits, 2.0), delta(logins, 3.0)))
    store.delivered_ms = store.commit(NOW_MS).commit_ms
    store.fold(record(delta(visits, 5.0)), ended(ORDERS, visits))
    if crash:  # before it was committed
        store.crash()
        store.fold(record(delta(visits, 5.0)), ended(ORDERS, visits))
    checkpoint = store.commit(NOW_MS + 1000)
    assert sorted(marked_stale(checkpoint)) == ["orders_total", "visits_total"]
    assert {each.definition_id for each in checkpoint.ended} == {ORDERS.id, visits.id}
    assert store.totals() == {("orders_total",): 1.0, ("visits_total",): 7.0, ("logins_total",): 3.0}
    store.delivered_ms = store.commit_ms
    if crash:
        store.crash()
    store.fold(ended(ORDERS), ended(visits, ORDERS), ended(logins))
    assert marked_stale(store.commit(NOW_MS + 2000)) == ["logins_total"]


def test_many_definitions_end_in_steps_between_which_others_go_on() -> None:
    store, many = Store(), [definition(f"a{number}_total") for number in range(50)]
    store.fold(record(*map(delta, many)), ended(*many))
    assert sum(1 for _ in store.state.sealing(NOW_MS)) >= len(many)


def test_the_end_of_a_definition_survives_a_crash_before_its_markers_are_delivered() -> None:
    store = Store()
    store.fold(record(delta(ORDERS)))
    store.delivered_ms = store.commit(NOW_MS).commit_ms
    store.fold(ended(ORDERS))
    store.commit(NOW_MS + 1000)
    store.crash()
    assert marked_stale(store.commit(NOW_MS + 2000)) == ["orders_total"]
    store.delivered_ms = store.commit_ms
    store.crash()
    assert written(store.commit(NOW_MS + 3000)) == []


def test_a_client_cannot_take_a_deletions_place() -> None:
    store = Store()
    store.fold(record(delta(ORDERS), producer=ORDERS.id, sequence=1))
    store.commit(NOW_MS)
    store.fold(ended(ORDERS))
    assert marked_stale(store.commit(NOW_MS + 1000)) == ["orders_total"]


@pytest.mark.parametrize("together", [True, False])
def test_a_definition_made_anew_under_the_same_name_follows_the_old_ones_end(together: bool) -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 100.0)))
    store.commit(NOW_MS)
    store.fold(record(delta(ORDERS, 1.0)))
    store.commit(NOW_MS + 1000)
    store.fold(ended(ORDERS))
    samples: list[tuple[int, float | None]] = []
    if not together:
        samples += lives(store.commit(NOW_MS + 1900))
    store.fold(record(delta(renamed(ORDERS, b"n" * 16), 5.0)))
    samples += lives(store.commit(NOW_MS + 2000))
    assert [value for _, value in sorted(samples)] == [None, 0.0, 5.0]
    assert min(samples)[0] > NOW_MS + 1000


def test_another_names_end_does_not_shorten_a_first_zeros_lead() -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 1.0)), ended(ORDERS), record(delta(definition("visits_total"), 1.0)))
    zeros = {at_ms for name, at_ms, value in written(store.commit(NOW_MS)) if name == "visits_total" and not value}
    assert zeros == {NOW_MS - 1000}


def test_a_definition_made_anew_is_written_again_when_the_old_ones_end_comes_late() -> None:
    store = Store()
    store.fold(record(delta(ORDERS, 100.0)))
    store.commit(NOW_MS)
    store.fold(record(delta(renamed(ORDERS, b"n" * 16), 5.0)))
    store.commit(NOW_MS + 1000)
    store.fold(ended(ORDERS))
    checkpoint = store.commit(NOW_MS + 2000)
    assert marked_stale(checkpoint) == ["orders_total"]
    assert ordinary(checkpoint) == {("orders_total",): 5.0}


# --- budgets

#: Each label set takes a KB.
BUDGETS: list[dict[str, Any]] = [{"per_metric": 3}, {"per_project": 4}, {"per_tenant": 3}, {"per_lane": 4}, {}]
plans = st.lists(st.tuples(st.text("abcdef", min_size=1, max_size=2), st.text("xyz", max_size=2)), max_size=80)


@settings(max_examples=200)
@given(plans, st.sampled_from(BUDGETS), st.integers(0, 3), st.sets(st.integers(0, 80)))
def test_over_any_budget_nothing_is_lost(
    sent: list[tuple[str, str]], budget: dict[str, Any], limit: int, crashes: set[int]
) -> None:
    limited = definition("orders_total", labels={"plan": label(max_distinct=limit), "zone": label()})
    store = Store(**budget)
    for number, (plan, zone) in enumerate(sent):
        labels = {"plan": plan} | ({"zone": zone} if zone else {})
        store.fold(record(delta_of(limited, labels)))
        store.commit(NOW_MS + number * 1000)
        if number in crashes:
            store.crash()
    totals = store.totals()
    assert sum(totals.values()) == len(sent)
    own = [labels for labels in totals if OTHER not in labels]
    assert len(own) <= min(budget.values(), default=100)
    if limit:
        assert len({dict(zip(labels[1::2], labels[2::2], strict=True))["plan"] for labels in totals} - {OTHER}) <= limit


def sends(store: Store, *label_sets: dict[str, str], limits: dict[str, Any] | None = None) -> None:
    of = definition("orders_total", labels={name: label(max_distinct=most) for name, most in (limits or {}).items()})
    store.fold(*[record(delta_of(of, labels)) for labels in label_sets])


def test_over_the_metrics_budget_every_label_of_a_new_label_set_is_folded() -> None:
    store = Store(per_metric=2)
    sends(store, {"plan": "a", "zone": "1"}, {"plan": "b", "zone": "1"}, {"plan": "c", "zone": "1"}, {"plan": "a"})
    sends(store, {"plan": "a", "zone": "1"}, {"plan": "d", "zone": "9"})
    store.commit(NOW_MS)
    assert store.totals() == {
        ("orders_total", "plan", "a", "zone", "1"): 2.0,
        ("orders_total", "plan", "b", "zone", "1"): 1.0,
        ("orders_total", "plan", OTHER, "zone", OTHER): 2.0,
        ("orders_total", "plan", OTHER): 1.0,
    }


def test_over_max_distinct_that_one_label_is_folded() -> None:
    store = Store()
    users = [{"plan": "pro", "user": user} for user in ("ann", "bob", "cy", "dee", "ann")]
    sends(store, *users, {"plan": "free", "user": "bob"}, {"plan": "free", "user": "eve"}, limits={"user": 2})
    store.commit(NOW_MS)
    assert store.totals() == {
        ("orders_total", "plan", "pro", "user", "ann"): 2.0,
        ("orders_total", "plan", "pro", "user", "bob"): 1.0,
        ("orders_total", "plan", "pro", "user", OTHER): 2.0,
        ("orders_total", "plan", "free", "user", "bob"): 1.0,
        ("orders_total", "plan", "free", "user", OTHER): 1.0,
    }


def test_a_label_set_without_labels_is_never_folded() -> None:
    store = Store(per_metric=1)
    sends(store, {"plan": "a"}, {})
    store.commit(NOW_MS)
    assert store.totals() == {("orders_total", "plan", "a"): 1.0, ("orders_total",): 1.0}


def test_budgets_hold_after_a_restart_and_quiet_series_free_their_place() -> None:
    store = Store(per_metric=2)
    sends(store, {"plan": "a"}, {"plan": "b"}, {"plan": "c"}, limits={"plan": 2})
    store.commit(NOW_MS)
    store.crash()
    sends(store, {"plan": "d"}, {"plan": "a"}, limits={"plan": 2})
    store.commit(NOW_MS + 1000)
    assert store.totals()["orders_total", "plan", OTHER] == 2.0
    run_to(store, NOW_MS + DAY_MS, NOW_MS + DAY_MS + 60_000, step_ms=15_000)
    sends(store, {"plan": "e"}, {"plan": "a"}, limits={"plan": 2})
    store.commit(store.commit_ms + 1000)
    totals = store.totals()
    assert totals["orders_total", "plan", "a"] == 3.0, "what was stored goes on"
    assert sum(totals.values()) == 7.0


def fall_quiet(store: Store) -> None:
    """A day without data goes by, and everybody who is quiet leaves memory."""
    for checkpoint in run_to(store, store.commit_ms + DAY_MS, store.commit_ms + DAY_MS + 30_000):
        store.delivered_ms = checkpoint.commit_ms


@pytest.mark.parametrize("crashes", [False, True])
def test_label_sets_of_which_a_part_is_folded_free_their_place_too(crashes: bool) -> None:
    def released(week: int, release: str) -> dict[tuple[str, ...], float]:
        label_sets = [{"customer": f"c{number}", "release": release} for number in range(4)]
        sends(store, *label_sets, limits={"customer": 2, "release": 3})
        store.commit(NOW_MS + week * 7 * DAY_MS)
        fall_quiet(store)
        assert len(store.state) == 0
        if crashes:
            store.crash()
        return {labels[2::2]: total for labels, total in store.totals().items() if release in labels}

    store = Store()
    for week in range(6):
        release = f"v{week}"
        assert released(week, release) == {("c0", release): 1.0, ("c1", release): 1.0, (OTHER, release): 2.0}
    assert released(6, "v0") == {("c0", "v0"): 2.0, ("c1", "v0"): 2.0, (OTHER, "v0"): 4.0}


def test_what_may_be_in_the_state_and_was_not_looked_for_is_not_made_anew() -> None:
    store, limits = Store(), dict.fromkeys("abcd", 1)
    after = dict.fromkeys("abcd", "2")
    sends(store, {"a": "1"}, limits=limits)
    store.commit(NOW_MS)
    sends(store, after, limits=limits)  # only of `a` there are too many values
    store.commit(NOW_MS + 1000)
    assert store.totals()["orders_total", *pairs_of(after | {"a": OTHER})] == 1.0
    fall_quiet(store)
    store.crash()
    assert len(store.state) == 0
    sends(store, {"a": "3"}, after, limits=limits)  # who takes the room of `a` comes with it
    store.commit(store.commit_ms + 1000)
    assert store.totals()["orders_total", *pairs_of(after | {"a": OTHER})] == 1.0
    assert store.totals()["orders_total", *pairs_of(dict.fromkeys("abcd", OTHER))] == 1.0


#: Two lives of one name, and a metric beside them.
LIVES = [ORDERS, renamed(ORDERS, b"n" * 16), definition("visits_total")]
label_sets = st.dictionaries(st.sampled_from("abcde"), st.sampled_from("123"))
limits = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 2))
told = st.one_of(st.tuples(st.integers(0, 2), label_sets, limits), st.integers(0, 1))
weeks = st.lists(
    st.tuples(st.lists(told, max_size=6), st.sampled_from(["goes on", "falls quiet", "crashes"])), max_size=12
)


@settings(max_examples=200, deadline=None)
@given(weeks, st.sampled_from(BUDGETS))
def test_whatever_leaves_and_comes_back_every_total_goes_on(
    plan: list[tuple[list[Any], str]], budget: dict[str, Any]
) -> None:
    store = Store(**budget, stale_after_ms=60_000)
    sent: Counter[str] = Counter()
    for number, (together, then) in enumerate(plan):
        before = dict(store.rows)
        records = [told_of(*each) if isinstance(each, tuple) else ended(LIVES[each]) for each in together]
        for at, each in enumerate(records):
            each.producer, each.sequence = b"A" * 16, 1 + 6 * number + at
        sent.update(each.definitions[0].name for each in records if each.kind is Kind.DELTA)
        store.fold(*records, *records[:2])
        store.delivered_ms = store.commit(NOW_MS if not store.commit_ms else store.commit_ms + 1000).commit_ms
        assert all(store.rows[identity].value >= row.value for identity, row in before.items())
        if then == "falls quiet":
            for _ in range(4):
                store.delivered_ms = store.commit(store.commit_ms + 30_000).commit_ms
            rows = np.flatnonzero(store.table.present[: store.table.size]).tolist()
            assert all(is_other(store.table.label_pairs(row)) for row in rows)
        elif then == "crashes":
            store.crash()
    counted: Counter[str] = Counter()
    for row in store.rows.values():
        counted[row.family.name] += int(row.value)
    assert counted == sent


def told_of(which: int, labels: dict[str, str], limits: dict[str, int]) -> Record:
    """One of a definition's label sets, as of a version with these limits."""
    rules = {name: label(max_distinct=most) for name, most in limits.items()}
    return record(delta_of(replace(LIVES[which], labels=rules), labels))


OPTIONAL = [f"label_{letter}" for letter in "abcdefghij"]
CHOICES = [[name for at, name in enumerate(OPTIONAL) if number >> at & 1] for number in range(1, 1024)]


@pytest.mark.parametrize("budget", [{"per_metric": 4}, {"per_project": 4}, {"full_of_series": {PROJECT}}])
def test_choices_of_optional_labels_do_not_multiply_what_is_folded_without_end(budget: dict[str, Any]) -> None:
    store, of = Store(**budget), [definition(f"{name}_total") for name in ("orders", "visits", "logins")]
    for half in (CHOICES[:512], CHOICES[512:]):
        store.fold(*(record(delta_of(each, dict.fromkeys(choice, "x"))) for each in of for choice in half))
        store.commit(store.commit_ms + 1000 if store.commit_ms else NOW_MS)
        store.crash()
    assert len(store.totals()) <= 4 * len(of) + 64 * len(of)
    assert sum(store.totals().values()) == 1023 * len(of)


def test_nor_where_each_of_the_labels_has_too_many_values() -> None:
    store = Store()
    label_sets = [dict.fromkeys(choice, f"v{number}") for number, choice in enumerate(CHOICES)]
    sends(store, *label_sets, limits=dict.fromkeys(OPTIONAL, 1))
    store.commit(NOW_MS)
    totals = store.totals()
    assert sum(set(labels[2::2]) == {OTHER} for labels in totals) == 64
    assert sum(totals.values()) == 1023


# --- memory


def test_windows_of_producers_leave_memory_and_come_back() -> None:
    store = Store()
    batch = record(delta(ORDERS), producer=b"A" * 16, sequence=1)
    store.fold(batch)
    store.state.producers.drop_idle(NOW_MS + DAY_MS)
    assert store.missing(batch).producers == set(), "not before it is committed"
    store.commit(NOW_MS)
    store.state.producers.drop_idle(NOW_MS + 60_000)
    assert store.missing(batch).producers == set()
    store.state.producers.drop_idle(NOW_MS + 11 * 60_000)
    assert store.missing(batch).producers == {(batch.project_id, batch.producer)}
    store.fold(batch)
    store.commit(NOW_MS + 1000)
    assert store.totals() == {("orders_total",): 1.0}


def test_too_many_producers_leave_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ingest.producers._MOST", 10)
    store = Store()
    sent = [record(delta(ORDERS), producer=bytes([number]) * 16, sequence=1) for number in range(30)]
    store.fold(*sent)
    store.commit(NOW_MS)
    store.state.producers.drop_idle(NOW_MS)
    assert len(store.missing(*sent).producers) == 20
    store.fold(*sent)
    store.commit(NOW_MS + 1000)
    assert store.totals() == {("orders_total",): 30.0}


def test_the_producer_that_has_been_quiet_longest_leaves_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ingest.producers._MOST", 2)
    store = Store()
    of = {name: record(delta(ORDERS), producer=name * 16, sequence=1) for name in (b"A", b"B", b"C")}
    for name in (b"A", b"B", b"A", b"C"):
        store.fold(of[name])
        store.commit(store.commit_ms + 1000 if store.commit_ms else NOW_MS)
    store.state.producers.drop_idle(NOW_MS)
    assert {producer for _, producer in store.missing(*of.values()).producers} == {b"B" * 16}


def test_a_state_that_saw_a_million_label_sets_holds_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ingest.substitutes._MOST", 1000)
    store = Store(per_metric=50)
    for first in range(0, 20_000, 100):
        store.fold(*(record(delta(ORDERS, plan=f"p{first + number}")) for number in range(100)))
    assert len(store.state) == 51
    store.commit(NOW_MS)
    assert sum(store.totals().values()) == 20_000
