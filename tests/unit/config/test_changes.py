"""Which changes can be made in place."""

import dataclasses
from contextlib import nullcontext

import pytest

from chassis.errors import Conflict
from services.config.changes import refuse_breaking, refuse_other_kind
from services.config.domain import GaugeMerge, Label, MetricDraft, MetricSpec, MetricType
from services.config.validation import validated

OLD = validated(
    MetricDraft(name="checkouts_total", type=MetricType.COUNTER, help="Checkouts.", labels=(Label(name="plan"),))
)


def with_label(**members: object) -> MetricSpec:
    """The definition with one label `plan` of these members."""
    label = Label(name="plan", **members)  # type: ignore[arg-type]
    return dataclasses.replace(OLD, labels=(label,))


def breaks(old: MetricSpec, new: MetricSpec) -> set[str]:
    """The members for which the change is refused."""
    try:
        refuse_breaking(old, new)
    except Conflict as error:
        return set((error.details or {})["fields"])
    return set()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (OLD, dataclasses.replace(OLD, help="A better text.", unit="checkouts")),
        (OLD, dataclasses.replace(OLD, labels=(Label(name="region", values=("eu",)), Label(name="plan")))),
        (with_label(values=("a", "b")), with_label(values=("c", "b", "a"))),
        (with_label(values=("a",)), with_label()),
        (with_label(pattern="a+"), with_label()),
        (with_label(pattern="a+"), with_label(pattern="a+")),
        (with_label(max_distinct=5), with_label(max_distinct=6)),
        (with_label(max_distinct=5), with_label(max_distinct=5)),
        (with_label(max_distinct=5), with_label(max_distinct=0)),
    ],
)
def test_changes_that_leave_every_series_what_it_was_are_made_in_place(old: MetricSpec, new: MetricSpec) -> None:
    assert not breaks(old, new)


@pytest.mark.parametrize(
    ("old", "new", "member"),
    [
        (OLD, dataclasses.replace(OLD, labels=()), "labels"),
        (OLD, dataclasses.replace(OLD, labels=(Label(name="tariff"),)), "labels"),
        (OLD, dataclasses.replace(OLD, labels=(*OLD.labels, Label(name="r", required=True))), "labels[1].required"),
        (OLD, with_label(required=True), "labels[0].required"),
        (with_label(required=True), OLD, "labels[0].required"),
        (OLD, with_label(values=("a",)), "labels[0].values"),
        (with_label(values=("a", "b")), with_label(values=("a",)), "labels[0].values"),
        (with_label(pattern="a+"), with_label(values=("a",)), "labels[0].values"),
        (OLD, with_label(pattern="a+"), "labels[0].pattern"),
        (with_label(pattern="a+"), with_label(pattern="a*"), "labels[0].pattern"),
        (with_label(values=("a",)), with_label(pattern="a"), "labels[0].pattern"),
        (with_label(max_distinct=5), with_label(max_distinct=4), "labels[0].maxDistinct"),
        (OLD, with_label(max_distinct=10_000), "labels[0].maxDistinct"),
        (
            dataclasses.replace(OLD, gauge_merge=GaugeMerge.LAST),
            dataclasses.replace(OLD, gauge_merge=GaugeMerge.SUM),
            "gaugeMerge",
        ),
        (OLD, dataclasses.replace(OLD, buckets=(1.0,)), "buckets"),
        (OLD, dataclasses.replace(OLD, native_histogram=True), "nativeHistogram"),
        (OLD, dataclasses.replace(OLD, objectives=(0.5,)), "objectives"),
    ],
)
def test_other_changes_are_refused_by_member(old: MetricSpec, new: MetricSpec, member: str) -> None:
    assert breaks(old, new) == {member}


def test_the_refusal_says_what_to_do() -> None:
    with pytest.raises(Conflict, match=r"needs a new definition: labels cannot lose plan\. Define a metric"):
        refuse_breaking(OLD, dataclasses.replace(OLD, labels=()))


@pytest.mark.parametrize(
    ("name", "metric_type", "members"),
    [
        ("checkouts_total", MetricType.COUNTER, set()),
        ("checkouts_total", None, set()),  # not a type at all: the validation says so
        ("payments_total", MetricType.COUNTER, {"name"}),
        ("depth", MetricType.GAUGE, {"name", "type"}),
    ],
)
def test_name_and_type_are_for_life(name: str, metric_type: MetricType | None, members: set[str]) -> None:
    draft = MetricDraft(name=name, type=metric_type, help="")
    with pytest.raises(Conflict) if members else nullcontext() as caught:
        refuse_other_kind(OLD, draft)
    if caught:
        assert set((caught.value.details or {})["fields"]) == members
