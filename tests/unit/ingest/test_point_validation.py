"""Data points of the other doors against definitions: the rules of the first door, and those of their own."""

import math

import pytest

from services.ingest.domain import Definition, Fault, GaugeMerge, MetricType, Rejection
from services.ingest.point_validation import validate_points
from services.ingest.points import (
    COUNTERS,
    DISTRIBUTIONS,
    GAUGES,
    HISTOGRAMS,
    Buckets,
    Component,
    ComponentKind,
    Observations,
    Origin,
    Point,
)
from services.ingest.records import Distribution
from services.ingest.sketches import bin_of
from services.ingest.validation import CompiledDefinition, LabelSetMemory, Validated
from tests.stepping import at_once
from tests.unit.ingest.ingestion import NOW_MS, definition, label

ORDERS = definition(labels={"plan": label(values=["pro", "free"]), "job": label()})
DEPTH = definition("depth", MetricType.GAUGE)
LOAD = definition("load", MetricType.HISTOGRAM, bounds=(0.1, 1.0))
SIZE = definition("size", MetricType.SUMMARY)


def parts(points: list[Point | Fault], *definitions: Definition) -> list[Validated]:
    memory = LabelSetMemory()
    compiled = {each.name: CompiledDefinition(each, memory) for each in definitions or (ORDERS, DEPTH, LOAD, SIZE)}
    return at_once(validate_points(points, compiled, NOW_MS))


def validated(*points: Point | Fault) -> Validated:
    [part] = parts(list(points))
    return part


def order(value: float = 1.0, **changes: object) -> Point:
    fields: dict[str, object] = {"names": ("orders_total",), "labels": {}, "types": COUNTERS, "value": value}
    return Point(**{**fields, **changes})  # type: ignore[arg-type]


def load(value: Observations | Buckets) -> Point:
    return Point(names=("load",), labels={}, types=HISTOGRAMS, value=value)


def total(value: float | Buckets | Component | Observations, taken_ms: int = NOW_MS, **changes: object) -> Point:
    fields = {"origin": Origin(b"s" * 16, taken_ms * 1_000_000), **changes}
    if isinstance(value, float):
        return order(value, **fields)
    return Point(names=("load",), labels={}, types=HISTOGRAMS, value=value, **fields)  # type: ignore[arg-type]


def code(point: Point) -> str:
    [rejection] = validated(point).rejections
    return rejection.code


def test_offered_labels_count_where_the_definition_has_them_and_never_over_the_points_own() -> None:
    offered = {"job": "shop", "plan": "free", "host": "h"}
    result = validated(order(2.0, labels={"plan": "pro"}, offered=offered), order(3.0, labels={"host": "h"}))
    assert [(each.id, value) for each, value in zip(result.label_sets, result.values, strict=True)] == [
        (result.label_sets[0].id, 2.0)
    ]
    assert b"shop" in result.label_sets[0].identity
    assert b"pro" in result.label_sets[0].identity
    assert [each.code for each in result.rejections] == ["LABEL_UNKNOWN"]


def test_an_offered_label_that_the_definition_does_not_allow_is_refused_like_any() -> None:
    assert code(order(offered={"plan": "gold"})) == "LABEL_VALUE_NOT_ALLOWED"


def test_the_first_name_that_is_defined_counts() -> None:
    assert validated(order(names=("orders_bytes_total", "orders_total"))).accepted == 1
    [rejection] = validated(order(names=("a", "b"))).rejections
    assert rejection == Rejection(index=0, code="METRIC_NOT_DEFINED", message="This project has no metric 'a' or 'b'.")


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        (order(-1.0), "VALUE_NEGATIVE"),
        (order(math.inf), "VALUE_NOT_FINITE"),
        (order(math.nan), "VALUE_NOT_FINITE"),
        (order(names=("depth",)), "METRIC_TYPE_MISMATCH"),
        (order(names=("depth",), types=GAUGES, timestamp_ms=1.0), "TIMESTAMP_OUT_OF_RANGE"),
        (load(Observations([math.nan])), "VALUE_NOT_FINITE"),
        (load(Buckets((0.1, 2.0), [1, 1, 1], 1.0)), "METRIC_TYPE_MISMATCH"),
        (load(Buckets((), [1], 1.0)), "METRIC_TYPE_MISMATCH"),
        (load(Buckets((0.1, 1.0), [1, 1], 1.0)), "METRIC_MALFORMED"),
        (load(Buckets((0.1, 1.0), [1, -1, 1], 1.0)), "METRIC_MALFORMED"),
        (load(Buckets((0.1, 1.0), [1 << 62, 1 << 62, 0], 1.0)), "METRIC_MALFORMED"),
        (load(Buckets((0.1, 1.0), [1 << 32, 1, 0], 1.0)), "METRIC_MALFORMED"),
        (load(Buckets((0.1, 1.0), [1, 1, 1], math.inf)), "VALUE_NOT_FINITE"),
        (order(labels={f"l{number}": "x" for number in range(100)}), "LABEL_UNKNOWN"),
    ],
)
def test_a_point_that_breaks_a_rule_is_refused(point: Point, expected: str) -> None:
    assert code(point) == expected


def test_labels_without_values_are_absent_however_many_there_are() -> None:
    labels = {**{f"l{number}": "" for number in range(100)}, "plan": "pro"}
    result = validated(order(labels=labels), order(labels={"plan": "pro"}))
    assert result.accepted == 2
    assert len({each.id for each in result.label_sets}) == 1


def test_a_total_may_stand_for_more_observations_than_an_increment() -> None:
    assert validated(total(Buckets((0.1, 1.0), [1 << 39, 0, 0], 1.0))).accepted == 1


def test_observations_and_buckets_of_one_label_set_add_up() -> None:
    result = validated(load(Observations([0.05, 5.0], 10)), load(Buckets((0.1, 1.0), [1, 2, 3], 4.0)))
    [(label_set, distribution)] = result.distributions.values()
    assert distribution == Distribution(label_set.id, 54.5, 26, [11, 2, 13], metrics=2)


def test_a_summary_takes_observations() -> None:
    result = validated(Point(names=("size",), labels={}, types=DISTRIBUTIONS, value=Observations([2.0], 3)))
    [(label_set, distribution)] = result.distributions.values()
    assert distribution == Distribution(label_set.id, 6.0, 3, [], bins={bin_of(2.0): 3})


def test_many_points_are_several_parts_with_positions_among_all() -> None:
    points: list[Point | Fault] = [order() for _ in range(250)]
    points[240] = Fault("METRIC_MALFORMED", "no")
    found = parts(points)
    assert [part.accepted for part in found] == [100, 100, 49]
    assert [each.index for each in found[2].rejections] == [240]
    assert not found[2].curable


def test_totals_are_kept_apart_each_with_its_origin() -> None:
    buckets = Buckets((0.1, 1.0), [1, 0, 2], 7.5)
    result = validated(order(1.0), total(3.0), total(4.0), total(buckets), total(Component(ComponentKind.SUM, -1.5)))
    assert (result.accepted, result.values, result.distributions) == (5, [1.0], {})
    assert [each.value for each in result.totals] == [
        3.0,
        4.0,
        Distribution(result.totals[2].label_set.id, 7.5, 3, [1, 0, 2]),
        -1.5,
    ]
    assert {each.origin for each in result.totals} == {Origin(b"s" * 16, NOW_MS * 1_000_000)}
    assert result.definitions


@pytest.mark.parametrize(
    ("component", "part"),
    [
        (Component(ComponentKind.SUM, 0.5), 0),
        (Component(ComponentKind.COUNT, 3.0), 1),
        (Component(ComponentKind.BUCKET, 3.0, 0.1), 2),
        (Component(ComponentKind.BUCKET, 3.0, 1.0), 3),
        (Component(ComponentKind.BUCKET, 3.0), 4),
    ],
)
def test_a_component_is_a_part_of_its_histogram(component: Component, part: int) -> None:
    [found] = validated(total(component)).totals
    assert (found.value, found.part) == (component.total, part)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        (total(-1.0), "VALUE_NEGATIVE"),
        (total(math.nan), "VALUE_NOT_FINITE"),
        (total(1.0, NOW_MS - 9 * 24 * 3_600_000), "TIMESTAMP_OUT_OF_RANGE"),
        (total(1.0, NOW_MS + 700_000), "TIMESTAMP_OUT_OF_RANGE"),
        (total(1.0, 10**30), "TIMESTAMP_OUT_OF_RANGE"),
        (total(1.0, labels={"host": "h"}), "LABEL_UNKNOWN"),
        (total(Buckets((0.1,), [1, 0], 1.0)), "METRIC_TYPE_MISMATCH"),
        (total(Buckets((0.1, 1.0), [1 << 40, 1, 0], 1.0)), "METRIC_MALFORMED"),
        (total(Observations([1.0])), "METRIC_MALFORMED"),
        (total(Component(ComponentKind.COUNT, 1.5)), "METRIC_MALFORMED"),
        (total(Component(ComponentKind.COUNT, -1.0)), "METRIC_MALFORMED"),
        (total(Component(ComponentKind.COUNT, 1e30)), "METRIC_MALFORMED"),
        (total(Component(ComponentKind.SUM, math.inf)), "VALUE_NOT_FINITE"),
        (total(Component(ComponentKind.BUCKET, 1.0, 0.2)), "METRIC_TYPE_MISMATCH"),
        (total(Component(ComponentKind.COUNT, 1.0), origin=None), "METRIC_MALFORMED"),
    ],
)
def test_a_total_that_cannot_be_one_is_rejected(point: Point, expected: str) -> None:
    assert code(point) == expected


def test_who_reports_a_gauge_is_kept_where_that_matters() -> None:
    busy = definition("busy", MetricType.GAUGE, gauge_merge=GaugeMerge.SUM)

    def level(name: str, reporter: bytes) -> Point:
        return Point(names=(name,), labels={}, types=GAUGES, value=1.0, reporter=reporter)

    sent: list[Point | Fault] = [level("depth", b"a" * 16), level("busy", b"b" * 16), level("busy", b"")]
    [result] = parts(sent, DEPTH, busy)
    assert (result.accepted, result.reporters) == (3, {1: b"b" * 16})
