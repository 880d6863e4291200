"""What a tenant, and all tenants of a lane, may have in memory; budgets of projects and metrics: `test_aggregation`."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.ingest.domain import OTHER, Definition, MetricType, partition_of
from services.ingest.series import encode_labels
from tests.unit.ingest.ingestion import DAY_MS, NOW_MS, PROJECT, definition, delta_of, label, pairs_of, record
from tests.unit.ingest.lane_store import Store, family_of

ONE, ANOTHER = b"1" * 16, b"2" * 16
#: All in one partition, as `Store` has it.
PROJECTS = [each for each in (n.to_bytes(16) for n in range(5_000)) if partition_of(each) == partition_of(PROJECT)][:4]
FREE = {"user": label()}


def counter_of(project: int, name: str = "logins_total") -> Definition:
    """One with labels; its name tells the projects apart."""
    return definition(f"p{project}_{name}", project_id=PROJECTS[project], labels={"user": label(), "zone": label()})


def sends(store: Store, tenant_id: bytes, project: int, *users: str, of: Definition | None = None) -> None:
    told = record(*(delta_of(of or counter_of(project), {"user": user}) for user in users))
    told.tenant_id, told.project_id = tenant_id, PROJECTS[project]
    store.fold(told)
    commits(store)


def commits(store: Store) -> None:
    store.delivered_ms = store.commit(store.commit_ms + 1000 if store.commit_ms else NOW_MS).commit_ms


def users_of(store: Store, project: int) -> dict[str, float]:
    name = counter_of(project).name
    return {labels[2]: total for labels, total in store.totals().items() if labels[0] == name}


def falls_quiet(store: Store) -> None:
    """The last ten minutes of summaries pass, then a day without data."""
    for later_ms in (600_000, 60_000, DAY_MS, 30_000, 30_000, 30_000):
        store.delivered_ms = store.commit(store.commit_ms + later_ms).commit_ms


@pytest.mark.parametrize("crashes", [False, True])
def test_what_is_new_to_a_tenant_that_has_as_much_as_it_may_is_folded_in_all_its_projects(crashes: bool) -> None:
    store = Store(per_tenant=6, per_project=4, per_lane=100)
    for project in range(3):
        sends(store, ONE, project, "ann", "bob")
    assert (store.state.label_sets.full_tenants, store.state.label_sets.fill) == (1, 0.06)
    if crashes:
        store.crash()
    for project in range(3):
        sends(store, ONE, project, "ann", "cy")
        assert users_of(store, project) == {"ann": 2.0, "bob": 1.0, OTHER: 1.0}
    sends(store, ANOTHER, 3, "dee")
    assert users_of(store, 3) == {"dee": 1.0}, "another tenant has room"


@pytest.mark.parametrize("crashes", [False, True])
def test_in_a_lane_that_has_as_much_as_it_may_what_is_new_is_folded_and_what_is_known_goes_on(crashes: bool) -> None:
    store = Store(per_lane=4)
    sends(store, ONE, 0, "ann", "bob")
    sends(store, ANOTHER, 1, "ann", "bob")
    if crashes:
        store.crash()
    assert (store.state.label_sets.full_tenants, store.state.label_sets.fill) == (0, 1.0)
    for tenant_id, project in ((ONE, 0), (ANOTHER, 1)):
        sends(store, tenant_id, project, "ann", "bob", "cy", "dee")
        assert users_of(store, project) == {"ann": 2.0, "bob": 2.0, OTHER: 2.0}


@pytest.mark.parametrize("crashes", [False, True])
def test_label_sets_that_fall_quiet_leave_room_and_wake_up_where_there_is_some(crashes: bool) -> None:
    store = Store(per_tenant=3)
    sends(store, ONE, 0, "ann", "bob", "cy")
    falls_quiet(store)
    if crashes:
        store.crash()
    assert store.state.label_sets.fill == 0
    sends(store, ONE, 1, "dee", "eve")
    sends(store, ONE, 0, "ann")
    sends(store, ONE, 0, "bob", "ann")
    assert users_of(store, 0) == {"ann": 3.0, "bob": 1.0, "cy": 1.0, OTHER: 1.0}
    assert users_of(store, 1) == {"dee": 1.0, "eve": 1.0}
    falls_quiet(store)
    if crashes:
        store.crash()
        sends(store, ONE, 0, "bob")
        assert users_of(store, 0)["bob"] == 2.0, "judged anew, it goes on"


def test_what_has_no_labels_wakes_up_without_room_too() -> None:
    store, bare = Store(per_tenant=1), definition("bare_total", project_id=PROJECTS[0])
    told = record(delta_of(bare, {}))
    told.project_id = PROJECTS[0]
    store.fold(told)
    commits(store)
    falls_quiet(store)
    sends(store, told.tenant_id, 1, "ann")
    store.fold(told)
    commits(store)
    assert store.totals()["bare_total",] == 2.0


def test_choices_of_labels_share_what_is_folded_where_there_is_no_room() -> None:
    store, of = Store(per_tenant=1), counter_of(0)
    choices = [{"user": "ann"}, {"user": "bob"}, {"zone": "eu"}, {"user": "ann", "zone": "eu"}]
    told = record(*(delta_of(of, choice) for choice in choices))
    told.project_id = PROJECTS[0]
    store.fold(told)
    commits(store)
    assert store.totals() == {(of.name, "user", "ann"): 1.0, (of.name, "user", OTHER): 3.0}


@pytest.mark.parametrize(
    ("kind", "more", "labels", "kilobytes"),
    [
        (MetricType.COUNTER, {}, {"user": "ann"}, 1),
        (MetricType.COUNTER, {}, {"user": "x" * 200, "zone": "y" * 200}, 2),
        (MetricType.HISTOGRAM, {"bounds": tuple(map(float, range(12)))}, {"user": "ann"}, 5),
        (MetricType.HISTOGRAM, {"bounds": tuple(map(float, range(100)))}, {"user": "ann"}, 28),
        (MetricType.NATIVE_HISTOGRAM, {}, {"user": "ann"}, 3),
        (MetricType.SUMMARY, {"objectives": (0.5, 0.9, 0.99)}, {"user": "ann"}, 13),
    ],
)
def test_a_label_set_counts_as_one_for_each_kilobyte_that_it_takes(
    kind: MetricType, more: dict[str, Any], labels: dict[str, str], kilobytes: int
) -> None:
    of = definition("seconds", kind, labels={"user": label(), "zone": label()}, **more)
    assert family_of(of).kilobytes(np.array([len(encode_labels(pairs_of(labels)))])) == kilobytes
    store = Store(per_lane=1000)
    store.fold(record(delta_of(of, labels)))
    commits(store)
    assert store.state.label_sets.fill == kilobytes / 1000
    falls_quiet(store)
    assert store.state.label_sets.fill == 0


def test_objectives_that_a_summary_is_given_later_count_too() -> None:
    early, store = definition("seconds", MetricType.SUMMARY, labels=FREE), Store(per_lane=1000)
    store.fold(record(delta_of(early, {"user": "ann"}), delta_of(early, {"user": "bob"})))
    before = store.state.label_sets.fill
    told = replace(early, objectives=tuple(n / 30 for n in range(1, 21)))
    store.fold(record(delta_of(told, {"user": "ann"})))
    after = store.state.label_sets.fill
    assert after > before
    commits(store)
    store.crash()
    assert store.state.label_sets.fill == after
    falls_quiet(store)
    assert store.state.label_sets.fill == 0
