"""Gauges made of several producers' levels and quantiles of summaries: what they are at any time, through any crash."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from services.ingest.columns import Ids
from services.ingest.domain import OTHER, GaugeMerge, MetricType, series_id
from services.ingest.gauge_levels import KEPT_MS, MOST_LEVELS, GaugeLevels, Reports, merged
from services.ingest.records import Record
from services.ingest.sealing import REWRITE_SECONDS, Checkpoint
from services.ingest.sketches import Sketch, bin_of
from services.ingest.summary_windows import MINUTE_MS
from tests.stepping import at_once
from tests.unit.ingest.ingestion import NOW_MS, definition, delta, ended, label, record, renamed
from tests.unit.ingest.lane_store import Sample, Store, each_of

SESSIONS = definition("sessions", MetricType.GAUGE, gauge_merge=GaugeMerge.SUM)
SIZE = definition("size_bytes", MetricType.SUMMARY, objectives=(0.5, 0.9), labels={"plan": label()})
A, B, C = b"A" * 16, b"B" * 16, b"C" * 16
MERGES: dict[GaugeMerge, Callable[[list[float]], float]] = {
    GaugeMerge.MIN: min,
    GaugeMerge.MAX: max,
    GaugeMerge.SUM: sum,
}
#: The beginning of a minute.
START_MS = NOW_MS // MINUTE_MS * MINUTE_MS

_sequences = itertools.count(1)


def level(value: float, producer: bytes = b"", at_ms: int = NOW_MS, received_ms: int | None = None) -> Record:
    """A batch with one level. It arrives when its client says, unless `received_ms` says otherwise."""
    return by(
        producer, record(delta(SESSIONS, value, at_ms), received_ms=at_ms if received_ms is None else received_ms)
    )


def by(producer: bytes, batch: Record) -> Record:
    """The producer's next batch."""
    return structs.replace(batch, producer=producer, sequence=next(_sequences) if producer else 0)


def numbered(batch: Record, sequence: int) -> Record:
    return structs.replace(batch, producer=batch.producer or C, sequence=sequence)


def shown(checkpoint: Checkpoint) -> dict[str, float]:
    """What is written with the commit's own time, by name."""
    return {each.name: each.value for each in each_of(checkpoint.samples) if each.at_ms == checkpoint.commit_ms}


def sample(checkpoint: Checkpoint) -> Sample:
    """The only one with the commit's own time."""
    [found] = [each for each in each_of(checkpoint.samples) if each.at_ms == checkpoint.commit_ms]
    return found


def marked_stale(checkpoint: Checkpoint) -> list[str]:
    return [each.name for each in each_of(checkpoint.samples) if each.stale]


# --- gauges


@pytest.mark.parametrize("rule", MERGES)
def test_a_gauge_is_made_of_each_producers_latest_level(rule: GaugeMerge) -> None:
    of = replace(SESSIONS, gauge_merge=rule)
    store = Store()
    for producer, value, at_ms in ((A, 3.0, 5), (B, 4.0, 1), (A, -1.5, 7), (A, 9.0, 6), (B, 2.0, 1)):
        store.fold(by(producer, record(delta(of, value, NOW_MS + at_ms))))
    assert shown(store.commit(NOW_MS + 1000)) == {"sessions": MERGES[rule]([-1.5, 2.0])}


def test_batches_without_a_producer_are_one_producers() -> None:
    store = Store()
    store.fold(level(5.0), level(7.0), level(1.0, A))
    assert shown(store.commit(NOW_MS + 1000)) == {"sessions": 8.0}


def test_levels_of_one_batch_are_told_apart_by_their_series() -> None:
    store = Store()
    store.fold(
        by(A, record(delta(SESSIONS, 1.0, NOW_MS, plan="pro"), delta(SESSIONS, 2.0, NOW_MS, plan="free"))),
        by(B, record(delta(SESSIONS, 4.0, NOW_MS, plan="pro"))),
    )
    store.commit(NOW_MS + 1000)
    assert store.totals() == {("sessions", "plan", "pro"): 5.0, ("sessions", "plan", "free"): 2.0}


def test_a_level_counts_for_five_minutes_and_the_value_changes_without_data() -> None:
    store = Store()
    store.fold(level(5.0, A), level(7.0, B, NOW_MS + 60_000))
    assert shown(store.commit(NOW_MS + 61_000)) == {"sessions": 12.0}
    assert shown(store.commit(NOW_MS + KEPT_MS - 1)).get("sessions", 12.0) == 12.0
    later = store.commit(NOW_MS + KEPT_MS)
    assert shown(later) == {"sessions": 7.0}
    assert store.totals() == {("sessions",): 7.0}


def test_a_gauge_that_nobody_reports_any_more_ends_until_somebody_does() -> None:
    store = Store()
    store.fold(level(5.0, A))
    store.commit(NOW_MS + 1000)
    quiet = store.commit(NOW_MS + KEPT_MS)
    assert (shown(quiet), marked_stale(quiet)) == ({}, ["sessions"])
    assert len(store.state) == 0
    for seconds in range(1, REWRITE_SECONDS + 2):
        assert each_of(store.commit(NOW_MS + KEPT_MS + 1000 * seconds).samples) == []
    store.fold(level(2.0, B, NOW_MS + KEPT_MS + 60_000))
    assert shown(store.commit(NOW_MS + KEPT_MS + 61_000)) == {"sessions": 2.0}


def test_a_clock_that_is_ahead_keeps_no_level_longer_than_its_arrival_would() -> None:
    store = Store()
    store.fold(level(5.0, A, NOW_MS + 500_000, received_ms=NOW_MS))
    assert shown(store.commit(NOW_MS + 1000)) == {"sessions": 5.0}
    assert marked_stale(store.commit(NOW_MS + KEPT_MS)) == ["sessions"]


def test_a_level_that_arrives_too_late_is_not_shown() -> None:
    store = Store()
    store.fold(level(5.0, A, NOW_MS - KEPT_MS, received_ms=NOW_MS))
    first = store.commit(NOW_MS)
    assert (shown(first), store.levels) == ({}, {})
    assert len(first.made) == 1
    store.fold(level(6.0, A))
    assert shown(store.commit(NOW_MS + 1000)) == {"sessions": 6.0}


def test_levels_are_stored_once_and_gone_with_their_definition() -> None:
    store = Store()
    store.fold(level(5.0, A), level(7.0, B))
    store.commit(NOW_MS + 1000)
    assert store.levels == {
        (series_id(SESSIONS.id, ()), A): (NOW_MS, NOW_MS, 5.0),
        (series_id(SESSIONS.id, ()), B): (NOW_MS, NOW_MS, 7.0),
    }
    assert store.commit(NOW_MS + 2000).recent.levels == [], "the state has them"
    store.fold(level(8.0, A, NOW_MS + 1), ended(SESSIONS))
    written = [(each.value, each.stale) for each in each_of(store.commit(NOW_MS + 4000).samples)]
    assert written == [(15.0, False), (0.0, True)]
    assert len(store.table.levels) == 0


def test_label_sets_over_a_budget_are_added_up_to_the_unit() -> None:
    store = Store(per_metric=1)
    for producer in (A, B):
        users = [delta(SESSIONS, float(n), NOW_MS, user=str(n)) for n in (1, 10, 100)]
        store.fold(by(producer, record(*users)))
    store.commit(NOW_MS + 1000)
    store.crash()
    store.fold(by(B, record(delta(SESSIONS, 20.0, NOW_MS + 1, user="10"))))
    store.commit(NOW_MS + 2000)
    assert store.totals() == {("sessions", "user", "1"): 2.0, ("sessions", "user", OTHER): 230.0}


@pytest.mark.parametrize("rule", MERGES)
@pytest.mark.parametrize("crashes", [(), ("before",), ("after",), ("before", "after")])
def test_a_level_goes_with_its_label_set_when_that_gets_a_series_of_its_own(
    rule: GaugeMerge, crashes: tuple[str, ...]
) -> None:
    def said(producer: bytes, most: int, user: str, value: float, at_ms: int) -> Record:
        limited = replace(SESSIONS, gauge_merge=rule, labels={"user": label(max_distinct=most)}, version=most)
        return by(producer, record(delta(limited, value, NOW_MS + at_ms, user=user)))

    store = Store()
    store.fold(said(A, 1, "ann", 1.0, 1), said(A, 1, "bob", 10.0, 2), said(B, 1, "bob", 7.0, 3))
    store.commit(NOW_MS + 1000)
    if "before" in crashes:
        store.crash()
    store.fold(said(A, 5, "bob", 2.0, 1001))
    store.commit(NOW_MS + 2000)
    assert store.totals() == {of_user("ann"): 1.0, of_user("bob"): 2.0, of_user(OTHER): 7.0}
    if "after" in crashes:
        store.crash()
    store.fold(said(B, 5, "bob", 5.0, 1))  # said before what is known of B: that goes along
    last = store.commit(NOW_MS + 3000)
    assert store.totals()[of_user("bob")] == MERGES[rule]([2.0, 7.0])
    assert [each.labels[1] for each in each_of(last.samples) if each.stale] == [OTHER]
    store.crash()
    store.fold(said(A, 5, "bob", 4.0, 3001))
    store.commit(NOW_MS + 4000)
    assert store.totals()[of_user("bob")] == MERGES[rule]([4.0, 7.0])


@pytest.mark.parametrize("crashes", [False, True])
def test_what_label_sets_share_in_part_leaves_without_levels_and_comes_back(crashes: bool) -> None:
    def said(at_ms: int, **levels: float) -> Record:
        limited = replace(SESSIONS, labels={"user": label(max_distinct=1)})
        users = [delta(limited, value, NOW_MS + at_ms, user=user, zone="z") for user, value in levels.items()]
        return by(A, record(*users, received_ms=NOW_MS + at_ms))

    store = Store()
    store.fold(said(0, ann=1.0, bob=10.0, cy=100.0))
    store.commit(NOW_MS + 1000)
    own, shared = (("sessions", "user", user, "zone", "z") for user in ("ann", OTHER))
    assert store.totals() == {own: 1.0, shared: 110.0}
    store.commit(NOW_MS + KEPT_MS)
    assert len(store.state) == 0
    if crashes:
        store.crash()
        store.commit(store.commit_ms + 1000)
    store.fold(said(KEPT_MS + 1500, ann=2.0, bob=20.0), by(B, said(KEPT_MS + 1500, cy=300.0)))
    last = store.commit(NOW_MS + KEPT_MS + 2000)
    assert store.totals() == {own: 2.0, shared: 320.0}
    assert sorted(each.value for each in each_of(last.samples)) == [2.0, 320.0]
    assert len(last.made) == 0


@pytest.mark.parametrize("budget", [1, 1000])
@pytest.mark.parametrize("user", [{}, {"user": "ann"}], ids=["unlabelled", "labelled"])
def test_a_producers_id_that_is_chosen_to_meet_anothers_level_does_not(budget: int, user: dict[str, str]) -> None:
    """Ids of definitions are seen by former viewers, and a producer's id is the client's."""
    other = renamed(replace(SESSIONS, name="others"), b"2" * 16)
    theirs, ours = (series_id(each.id, tuple(*user.items())) for each in (SESSIONS, other))
    chosen = bytes(left ^ right for left, right in zip(theirs, ours, strict=True))
    store = Store(per_metric=budget)
    store.fold(record(*(delta(each, 1.0, NOW_MS, user="first") for each in (SESSIONS, other))))
    store.fold(record(delta(SESSIONS, 7.0, NOW_MS, **user)))
    for number in (1, 2):
        store.fold(by(chosen, record(delta(other, 600.0 + number, NOW_MS + number, **user))))
        store.commit(NOW_MS + 1000 * number)
        assert sum_of(store, "sessions") == 8.0
        assert sum_of(store, "others") == 601.0 + number
        store.crash()


@pytest.mark.parametrize("crashes", [False, True])
def test_a_late_level_of_a_deleted_definition_counts_once_among_its_namesakes_others(crashes: bool) -> None:
    store, anew = Store(per_metric=1), renamed(SESSIONS, b"n" * 16)
    store.fold(ended(SESSIONS))
    store.fold(*(by(A, record(delta(anew, 5.0, NOW_MS + 10, user=user))) for user in ("first", "bob")))
    store.commit(NOW_MS + 1000)
    if crashes:
        store.crash()
    store.fold(by(A, record(delta(SESSIONS, 4.0, NOW_MS + 20, user="bob"))))
    store.commit(NOW_MS + 2000)
    assert store.totals() == {of_user("first"): 5.0, of_user(OTHER): 4.0}


def sum_of(store: Store, name: str) -> float:
    return sum(value for key, value in store.totals().items() if key[0] == name)


def of_user(user: str) -> tuple[str, ...]:
    return ("sessions", "user", user)


def test_a_series_that_left_memory_comes_back_with_what_still_counts() -> None:
    store = Store(stale_after_ms=60_000)
    store.fold(level(5.0, A), level(7.0, B), observed(1.0, received_ms=NOW_MS))
    store.commit(NOW_MS + 1000)
    for second in range(2, 100):
        store.commit(NOW_MS + second * 1000)
        store.delivered_ms = store.commit_ms
    assert len(store.state) == 0
    store.fold(level(6.0, A, NOW_MS + 100_000), observed(9.0, received_ms=NOW_MS + 100_000))
    written = {each.name: each for each in each_of(store.commit(NOW_MS + 100_000).samples)}
    assert written["sessions"].value == 13.0
    assert (written["size_bytes"].counts, written["size_bytes"].quantiles) == ((2,), close(1.0, 1.0))


def test_of_too_many_levels_the_latest_count() -> None:
    levels, count = GaugeLevels(), MOST_LEVELS + 5
    ids = Ids.of(np.random.default_rng(1).bytes(16 * count))
    times = np.arange(count, dtype=np.int64) + NOW_MS
    nowhere = np.zeros(count, np.uint64)
    rows, own = np.zeros(count, np.intp), np.zeros(count, np.bool_)
    levels.report(Reports(rows, Ids(nowhere, nowhere), ids, own, times * 0, times, times, times.astype(float)))
    [kept] = levels.of(np.array([0]))
    assert sorted(kept) == times[5:].tolist()
    assert len(levels) == MOST_LEVELS


def test_slots_of_levels_are_used_again() -> None:
    store = Store()
    for minute in range(60):
        store.fold(*(level(1.0, bytes([minute, n + 1]) * 8, NOW_MS + minute * 60_000) for n in range(20)))
        store.commit(NOW_MS + minute * 60_000)
    assert store.totals() == {("sessions",): 100.0}
    assert len(store.table.levels) == 100


def test_a_sum_is_exact_and_stays_finite() -> None:
    assert merged(GaugeMerge.SUM, np.array([1e100, 1.0, -1e100])) == 1.0
    assert merged(GaugeMerge.SUM, np.array([0.1] * 10)) == 1.0
    most = np.finfo(np.float64).max
    assert merged(GaugeMerge.SUM, np.array([most, most, most])) == most
    assert merged(GaugeMerge.SUM, np.array([-most, -most, 1.0])) == -most
    assert merged(GaugeMerge.SUM, np.array([most, most, -most])) == pytest.approx(most)


class Report(NamedTuple):
    producer: bytes
    #: How long before its arrival, in minutes; negative: after it.
    age: int
    value: int


reports = st.lists(
    st.builds(Report, st.sampled_from([A, B, C, b""]), st.integers(-2, 6), st.integers(-9, 9)), max_size=40
)
steps = st.lists(st.sampled_from(["fold", "fold", "commit", "crash", "lose the commit", "wait"]), max_size=80)


@settings(max_examples=100)
@given(st.sampled_from(list(MERGES)), reports, steps)
def test_whatever_crashes_a_gauge_is_what_its_producers_report(
    rule: GaugeMerge, sent: list[Report], plan: list[str]
) -> None:
    store, now_ms = Store(), NOW_MS
    of, arrived = replace(SESSIONS, gauge_merge=rule), list[Record]()
    for step in [*plan, *["fold"] * len(sent), "commit"]:
        now_ms += 70_000 if step == "wait" else 500
        if step == "fold" and store.state.position < len(sent):
            if store.state.position == len(arrived):
                report = sent[len(arrived)]
                batch = record(delta(of, float(report.value), now_ms - report.age * 60_000), received_ms=now_ms)
                arrived.append(by(report.producer, batch))
            store.fold(arrived[store.state.position])
        elif step == "commit":
            checkpoint = store.commit(now_ms)
            store.delivered_ms = checkpoint.commit_ms
            _expect_merged(store, checkpoint, arrived[: store.state.position], rule)
        elif step == "lose the commit":
            at_once(store.state.sealing(now_ms))
            store.crash()
        elif step == "crash":
            store.crash()


def _expect_merged(store: Store, checkpoint: Checkpoint, arrived: list[Record], rule: GaugeMerge) -> None:
    latest: dict[bytes, tuple[int, int, float]] = {}
    for batch in arrived:
        at_ms = int(np.frombuffer(batch.timestamps, "<i8")[0])
        known = latest.get(batch.producer)
        as_of_ms = min(at_ms, batch.received_ms)
        # A level that does not count any more is forgotten, whatever it said of its time.
        if known is None or at_ms >= known[0] or known[1] <= batch.received_ms - KEPT_MS - 1000:
            latest[batch.producer] = (at_ms, as_of_ms, float(np.frombuffer(batch.values, "<f8")[0]))
    values = [value for _, as_of_ms, value in latest.values() if as_of_ms > checkpoint.commit_ms - KEPT_MS]
    if not values:
        assert shown(checkpoint) == {}
        return
    assert store.totals() == {("sessions",): float(MERGES[rule](values))}
    assert set(shown(checkpoint).values()) <= {float(MERGES[rule](values))}


# --- summaries


def quantiles(store: Store, now_ms: int) -> tuple[float, ...]:
    """Those that the table has after a commit; none where nothing was observed lately."""
    store.commit(now_ms)
    found = store.table.quantiles.get(0)
    return () if found is None else tuple(found.tolist())


def observed(*values: float, received_ms: int = START_MS) -> Record:
    return record(*(delta(SIZE, value) for value in values), received_ms=received_ms)


def close(*values: float) -> object:
    return pytest.approx(values, rel=0.01 + 1e-9)


def test_quantiles_stand_beside_sum_and_count() -> None:
    store = Store()
    store.fold(*(observed(float(n)) for n in range(1, 101)))
    written = sample(store.commit(START_MS + 1000))
    assert (written.value, written.counts, written.quantiles) == (5050.0, (100,), close(50.0, 90.0))


def test_an_observation_counts_for_ten_minutes_at_most_and_quantiles_change_without_data() -> None:
    store = Store()
    store.fold(observed(1000.0))
    store.fold(observed(1.0, received_ms=START_MS + 3 * MINUTE_MS))
    assert quantiles(store, START_MS + 4 * MINUTE_MS) == close(1.0, 1.0)
    store.fold(observed(1000.0, received_ms=START_MS + 5 * MINUTE_MS))
    assert quantiles(store, START_MS + 10 * MINUTE_MS - 1) == close(1000.0, 1000.0)
    after = store.commit(START_MS + 10 * MINUTE_MS)
    assert sample(after).quantiles == close(1.0, 1.0)
    assert sample(after).counts == (3,), "the total stays what it was"
    assert sample(store.commit(START_MS + 15 * MINUTE_MS)).quantiles == ()
    for second in range(1, REWRITE_SECONDS + 1):
        assert sample_or_none(store.commit(START_MS + 15 * MINUTE_MS + second * 1000)) in (None, (3,))


def sample_or_none(checkpoint: Checkpoint) -> tuple[int, ...] | None:
    counts = [each.counts for each in each_of(checkpoint.samples)]
    return counts[0] if counts else None


def test_before_the_first_observation_there_was_none() -> None:
    store = Store()
    store.fold(observed(5.0))
    zero, first = each_of(store.commit(START_MS + 1000).samples)
    assert (zero.counts, zero.quantiles) == ((0,), ())
    assert (first.counts, first.quantiles) == ((1,), close(5.0, 5.0))


def test_a_batch_that_is_read_again_is_observed_once() -> None:
    store = Store()
    store.fold(numbered(observed(1.0), 1))
    store.commit(START_MS + 1000)
    store.fold(numbered(observed(9.0), 2))
    store.crash()
    store.fold(numbered(observed(9.0), 2), numbered(observed(1.0), 1), numbered(observed(9.0), 2))
    assert sample(store.commit(START_MS + 2000)).counts == (2,)
    assert stored_observations(store) == {bin_of(1.0): 1, bin_of(9.0): 1}


def stored_observations(store: Store) -> dict[int, int]:
    total = Sketch.joined([Sketch.decoded(each) for each in store.sketches.values()])
    return dict(zip(total.bins.tolist(), total.counts.tolist(), strict=True))


def test_a_receiver_whose_clock_is_ahead_observes_now() -> None:
    store = Store()
    store.fold(observed(1.0, received_ms=START_MS + 60 * MINUTE_MS))
    assert quantiles(store, START_MS + 1000) == close(1.0, 1.0)
    assert quantiles(store, START_MS + 10 * MINUTE_MS) == ()


def test_what_was_received_long_ago_counts_without_being_recent() -> None:
    store = Store()
    store.fold(observed(1.0, received_ms=START_MS - 10 * MINUTE_MS))
    written = sample(store.commit(START_MS))
    assert (written.counts, written.quantiles, store.sketches) == ((1,), (), {})


def test_a_definition_known_from_older_records_gets_its_objectives() -> None:
    old = record(delta(replace(SIZE, objectives=()), 4.0), received_ms=START_MS)
    store = Store()
    store.fold(old, structs.replace(old, distributions=[structs.replace(old.distributions[0], bins={})]))
    assert sample(store.commit(START_MS + 1000)).quantiles == ()
    store.fold(observed(2.0))
    written = sample(store.commit(START_MS + 2000))
    assert (written.counts, written.quantiles) == ((3,), close(2.0, 2.0))
    store.crash()
    assert sample(store.commit(START_MS + 3000)).quantiles == close(2.0, 2.0)
    assert [family.width for family in store.table.families] == [4]


batches = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4)), min_size=1, max_size=30
)


@settings(max_examples=100)
@given(batches, steps)
def test_whatever_crashes_quantiles_are_those_of_ten_minutes(
    sent: list[tuple[int, list[float]]], plan: list[str]
) -> None:
    store, now_ms, arrived = Store(), START_MS, list[Record]()
    for step in [*plan, *["fold"] * len(sent), "commit"]:
        now_ms += 130_000 if step == "wait" else 500
        if step == "fold" and store.state.position < len(sent):
            if store.state.position == len(arrived):
                age, values = sent[len(arrived)]
                arrived.append(numbered(observed(*values, received_ms=now_ms - age * MINUTE_MS), len(arrived) + 1))
            store.fold(arrived[store.state.position])
        elif step == "commit":
            checkpoint = store.commit(now_ms)
            store.delivered_ms = checkpoint.commit_ms
            _expect_quantiles(store, checkpoint, arrived[: store.state.position])
        elif step == "lose the commit":
            at_once(store.state.sealing(now_ms))
            store.crash()
        elif step == "crash":
            store.crash()


def _expect_quantiles(store: Store, checkpoint: Checkpoint, arrived: list[Record]) -> None:
    oldest = checkpoint.commit_ms // MINUTE_MS - 9
    recent = [each for batch in arrived if batch.received_ms // MINUTE_MS >= oldest for each in batch.distributions]
    expected = Sketch.of([each.bins for each in recent]).quantiles(SIZE.objectives)
    found = store.table.quantiles.get(0, np.full(2, np.nan))
    assert np.array_equal(found, expected, equal_nan=True)
