"""Data points of the other doors against definitions: the rules of the first door, and those of their own."""

import math

import pytest

from services.ingest.domain import Definition, Fault, MetricType, Rejection
from services.ingest.point_validation import validate_points
from services.ingest.points import COUNTERS, DISTRIBUTIONS, GAUGES, HISTOGRAMS, Buckets, Observations, Point
from services.ingest.records import Distribution
from services.ingest.validation import CompiledDefinition, LabelSetMemory, Validated
from tests.unit.ingest.ingestion import NOW_MS, definition, label

ORDERS = definition(labels={"plan": label(values=["pro", "free"]), "job": label()})
DEPTH = definition("depth", MetricType.GAUGE)
LOAD = definition("load", MetricType.HISTOGRAM, bounds=(0.1, 1.0))
SIZE = definition("size", MetricType.SUMMARY)


def parts(points: list[Point | Fault], *definitions: Definition) -> list[Validated]:
    memory = LabelSetMemory()
    compiled = {each.name: CompiledDefinition(each, memory) for each in definitions or (ORDERS, DEPTH, LOAD, SIZE)}
    return validate_points(points, compiled, NOW_MS)


def validated(*points: Point | Fault) -> Validated:
    [part] = parts(list(points))
    return part


def order(value: float = 1.0, **changes: object) -> Point:
    fields: dict[str, object] = {"names": ("orders_total",), "labels": {}, "types": COUNTERS, "value": value}
    return Point(**{**fields, **changes})  # type: ignore[arg-type]


def load(value: Observations | Buckets) -> Point:
    return Point(names=("load",), labels={}, types=HISTOGRAMS, value=value)


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
        (load(Buckets((0.1, 1.0), [1, 1, 1], math.inf)), "VALUE_NOT_FINITE"),
    ],
)
def test_a_point_that_breaks_a_rule_is_refused(point: Point, expected: str) -> None:
    assert code(point) == expected


def test_observations_and_buckets_of_one_label_set_add_up() -> None:
    result = validated(load(Observations([0.05, 5.0], 10)), load(Buckets((0.1, 1.0), [1, 2, 3], 4.0)))
    [(label_set, distribution)] = result.distributions.values()
    assert distribution == Distribution(label_set.id, 54.5, 26, [11, 2, 13], metrics=2)


def test_a_summary_takes_observations() -> None:
    result = validated(Point(names=("size",), labels={}, types=DISTRIBUTIONS, value=Observations([2.0], 3)))
    [(label_set, distribution)] = result.distributions.values()
    assert distribution == Distribution(label_set.id, 6.0, 3, [])


def test_many_points_are_several_parts_with_positions_among_all() -> None:
    points: list[Point | Fault] = [order() for _ in range(250)]
    points[240] = Fault("METRIC_MALFORMED", "no")
    found = parts(points)
    assert [part.accepted for part in found] == [100, 100, 49]
    assert [each.index for each in found[2].rejections] == [240]
    assert not found[2].curable
