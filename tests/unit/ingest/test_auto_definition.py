"""What data asks to be defined: name, type and labels of its points."""

from services.ingest.auto_definition import wanted_by
from services.ingest.clients import Provisional
from services.ingest.domain import Fault, MetricType
from services.ingest.points import (
    COUNTERS,
    DISTRIBUTIONS,
    GAUGES,
    HISTOGRAMS,
    NATIVE_HISTOGRAMS,
    SUMMARIES,
    Buckets,
    Component,
    ComponentKind,
    Observations,
    Point,
)


def point(name: str, types: frozenset[MetricType], value: float | Buckets | Component | Observations = 1.0) -> Point:
    return Point(names=(name, "a_second_name"), labels={"plan": "pro", "empty": ""}, types=types, value=value)


def test_the_type_is_the_doors() -> None:
    points: list[Point | Fault] = [
        point("a_total", COUNTERS),
        point("b", GAUGES),
        point("c", HISTOGRAMS, Buckets((1.0, 2.0), [1, 0, 0], 1.0)),
        point("d", DISTRIBUTIONS, Observations([1.0])),
        point("e", SUMMARIES, Buckets((), [1], 1.0)),
        point("f", NATIVE_HISTOGRAMS),
        point("g_total", COUNTERS | GAUGES),
        point("h", COUNTERS | GAUGES),
        point("i", HISTOGRAMS, Component(ComponentKind.SUM, 1.0)),
        Fault("METRIC_MALFORMED", "No."),
    ]
    kinds = {each.name: each.type.name.lower() for each in wanted_by(points, {})}
    assert kinds == {
        "a_total": "counter",
        "b": "gauge",
        "c": "histogram",
        "d": "histogram",
        "e": "summary",
        "f": "native_histogram",
        "g_total": "counter",
        "h": "gauge",
    }
    assert wanted_by(points, {})[2].bounds == (1.0, 2.0)


def test_a_metric_has_all_labels_of_its_points_and_what_is_there_is_not_asked_for() -> None:
    other = Point(names=("b",), labels={"region": "eu"}, offered={"job": "x"}, types=GAUGES, value=1.0)
    asked = wanted_by([point("b", GAUGES), other, point("known", GAUGES)], {"known": None})
    assert asked == [Provisional("b", MetricType.GAUGE, {"plan": None, "region": None}, ())]
    assert wanted_by([point("b", GAUGES)], {"a_second_name": None}) == []


def test_a_request_brings_so_many_new_names_at_most() -> None:
    assert len(wanted_by([point(f"g{number}", GAUGES) for number in range(200)], {})) == 50
