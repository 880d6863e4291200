"""From a draft to a definition."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chassis.errors import Invalid
from services.config.domain import GaugeMerge, Label, MetricDraft, MetricSpec, MetricType
from services.config.naming import suggested_name
from services.config.validation import validated

COUNTER = MetricDraft(name="checkouts_total", type=MetricType.COUNTER, help="Checkouts.")
GAUGE = MetricDraft(name="depth", type=MetricType.GAUGE, help="Depth.")
HISTOGRAM = MetricDraft(name="latency_seconds", type=MetricType.HISTOGRAM, help="Latency.")
SUMMARY = MetricDraft(name="latency_seconds", type=MetricType.SUMMARY, help="Latency.")


def faults(draft: MetricDraft, **changes: Any) -> dict[str, str]:
    """What is answered about the draft with these members changed."""
    try:
        validated(dataclasses.replace(draft, **changes))
    except Invalid as error:
        return dict((error.details or {})["fields"])
    return {}


def test_defaults_are_those_of_the_type() -> None:
    assert validated(HISTOGRAM).buckets == (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
    assert validated(SUMMARY).objectives == (0.5, 0.9, 0.99)
    assert validated(GAUGE).gauge_merge is GaugeMerge.LAST
    counter = validated(COUNTER)
    assert (counter.buckets, counter.objectives, counter.gauge_merge) == ((), (), None)


def test_a_native_histogram_has_no_buckets_of_its_own() -> None:
    native = validated(dataclasses.replace(HISTOGRAM, native_histogram=True))
    assert (native.native_histogram, native.buckets) == (True, ())
    assert not validated(HISTOGRAM).native_histogram
    assert set(faults(HISTOGRAM, native_histogram=True, buckets=(1.0,))) == {"buckets"}
    assert set(faults(COUNTER, native_histogram=True)) == {"nativeHistogram"}


@pytest.mark.parametrize("merge", GaugeMerge)
def test_a_gauge_may_have_any_merge_rule(merge: GaugeMerge) -> None:
    assert validated(dataclasses.replace(GAUGE, gauge_merge=merge)).gauge_merge is merge


def test_what_is_given_is_kept() -> None:
    labels = (Label(name="plan", required=True, values=("free", "pro"), max_distinct=2), Label(name="r", pattern="a+"))
    assert validated(dataclasses.replace(COUNTER, labels=labels, unit="checkouts")).labels == labels
    assert validated(dataclasses.replace(HISTOGRAM, buckets=(-1.0, 0.0, 3.5))).buckets == (-1.0, 0.0, 3.5)
    assert validated(dataclasses.replace(SUMMARY, objectives=(0.95,))).objectives == (0.95,)


def test_a_bound_of_minus_zero_is_zero() -> None:
    (bound,) = validated(dataclasses.replace(HISTOGRAM, buckets=(-0.0,))).buckets
    assert math.copysign(1, bound) == 1


@pytest.mark.parametrize("text", ["", "  \n", "x" * 1001, "a\0b"])
def test_help_must_say_something_and_fit(text: str) -> None:
    assert set(faults(COUNTER, help=text)) == {"help"}


def test_a_type_is_needed() -> None:
    assert set(faults(COUNTER, type=None)) == {"type"}


@pytest.mark.parametrize("buckets", [(1.0, 1.0), (2.0, 1.0), (0.0, -0.0), (math.inf,), (math.nan,), (-math.inf, 1.0)])
def test_buckets_must_be_finite_and_ascending(buckets: tuple[float, ...]) -> None:
    assert [path.partition("[")[0] for path in faults(HISTOGRAM, buckets=buckets)] == ["buckets"]


def test_there_may_be_a_hundred_buckets() -> None:
    assert not faults(HISTOGRAM, buckets=tuple(map(float, range(100))))
    assert set(faults(HISTOGRAM, buckets=tuple(map(float, range(101))))) == {"buckets"}


@pytest.mark.parametrize("objectives", [(0.0,), (1.0,), (0.9, 0.5), (math.nan,), (0.5, 0.5)])
def test_objectives_must_lie_between_0_and_1_and_ascend(objectives: tuple[float, ...]) -> None:
    assert [path.partition("[")[0] for path in faults(SUMMARY, objectives=objectives)] == ["objectives"]


def test_there_may_be_twenty_objectives() -> None:
    many = tuple(number / 100 for number in range(1, 22))
    assert not faults(SUMMARY, objectives=many[:20])
    assert set(faults(SUMMARY, objectives=many)) == {"objectives"}


@pytest.mark.parametrize(
    ("draft", "member", "value"),
    [
        (COUNTER, "buckets", (1.0,)),
        (SUMMARY, "buckets", (1.0,)),
        (GAUGE, "objectives", (0.5,)),
        (HISTOGRAM, "objectives", (0.5,)),
    ],
)
def test_members_of_another_type_are_refused(draft: MetricDraft, member: str, value: tuple[float, ...]) -> None:
    assert set(faults(draft, **{member: value})) == {member}


def test_a_merge_rule_is_for_gauges() -> None:
    assert set(faults(COUNTER, gauge_merge=GaugeMerge.MAX)) == {"gaugeMerge"}


def test_there_may_be_sixteen_labels() -> None:
    labels = tuple(Label(name=f"l{number}") for number in range(17))
    assert not faults(COUNTER, labels=labels[:16])
    assert set(faults(COUNTER, labels=labels)) == {"labels"}


@pytest.mark.parametrize(
    ("label", "path"),
    [
        (Label(name="le"), "labels[1].name"),
        (Label(name="ok"), "labels[1].name"),
        (Label(name="a", values=("x", "")), "labels[1].values[1]"),
        (Label(name="a", values=("x", "x")), "labels[1].values[1]"),
        (Label(name="a", values=("__other__",)), "labels[1].values[0]"),
        (Label(name="a", values=("\0",)), "labels[1].values[0]"),
        (Label(name="a", values=("é" * 101,)), "labels[1].values[0]"),
        (Label(name="a", values=tuple(map(str, range(1001)))), "labels[1].values"),
        (Label(name="a", values=("x",), pattern="x"), "labels[1].pattern"),
        (Label(name="a", pattern="(x"), "labels[1].pattern"),
        (Label(name="a", pattern=r"(x)\1"), "labels[1].pattern"),
        (Label(name="a", pattern="(?=x)x"), "labels[1].pattern"),
        (Label(name="a", pattern="x\0"), "labels[1].pattern"),
        (Label(name="a", pattern="x" * 501), "labels[1].pattern"),
        (Label(name="a", max_distinct=-1), "labels[1].maxDistinct"),
        (Label(name="a", max_distinct=10_001), "labels[1].maxDistinct"),
    ],
)
def test_a_fault_of_a_label_is_named_by_its_place(label: Label, path: str) -> None:
    assert set(faults(COUNTER, labels=(Label(name="ok"), label))) == {path}


def test_values_of_200_bytes_and_all_limits_together_are_taken() -> None:
    label = Label(name="a", values=("é" * 100, *map(str, range(999))), max_distinct=10_000)
    assert not faults(COUNTER, labels=(label,))


def test_all_faults_come_at_once() -> None:
    found = faults(COUNTER, name="x", type=None, unit="ms", help="", labels=(Label(name="", max_distinct=-1),))
    assert set(found) == {"type", "unit", "help", "labels[0].name", "labels[0].maxDistinct"}


words = st.sampled_from(["a", "b", "bucket", "sum", "count", "total", "created", "info"])


@st.composite
def specs(draw: st.DrawFn) -> MetricSpec:
    """Valid definitions whose names are made of dangerous words."""
    metric_type = draw(st.sampled_from(MetricType))
    name = "_".join(draw(st.lists(words, min_size=1, max_size=4)))
    if draw(st.booleans()):
        name = suggested_name(name, metric_type)
    assume(not faults(GAUGE, name=name, type=metric_type))
    return validated(MetricDraft(name=name, type=metric_type, help="A metric."))


def series_names(spec: MetricSpec) -> set[str]:
    """Every name under which series of this metric appear in Prometheus, or in a sink that knows no native ones."""
    if spec.type is MetricType.HISTOGRAM:
        return {spec.name, f"{spec.name}_bucket", f"{spec.name}_sum", f"{spec.name}_count"}
    if spec.type is MetricType.SUMMARY:
        return {spec.name, f"{spec.name}_sum", f"{spec.name}_count"}
    return {spec.name}


@given(one=specs(), other=specs())
def test_series_of_two_definitions_never_share_a_name(one: MetricSpec, other: MetricSpec) -> None:
    assume(one.name != other.name)
    assert not series_names(one) & series_names(other)


def test_the_patterns_of_a_definition_are_small_enough_together() -> None:
    labels = (Label(name="city", pattern=r"\pL+.{1,80}"), Label(name="street", pattern=r"\pL+ \d+"))
    assert set(faults(COUNTER, labels=labels)) == {"labels"}
    assert not any(faults(COUNTER, labels=(label,)) for label in labels)
