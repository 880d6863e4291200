"""Metrics against their definitions: each code, the order of checks, and what is folded before the log."""

from sys import float_info
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.domain import MetricType
from services.ingest.records import SeriesDelta
from services.ingest.validation import CompiledDefinition, LabelSetMemory, Validated
from tests.unit.ingest.ingestion import DAY_MS, NOW_MS, definition, label, validated

COUNTER = definition(
    "orders_total",
    labels={
        "plan": label(required=True, values=["free", "pro"]),
        "zone": label(pattern="[a-z]+-[0-9]"),
        "note": label(),
    },
)
GAUGE = definition("depth", MetricType.GAUGE)
HISTOGRAM = definition("load_seconds", MetricType.HISTOGRAM, bounds=(0.1, 1.0, 10.0))
SUMMARY = definition("size_bytes", MetricType.SUMMARY)
ALL = [COUNTER, GAUGE, HISTOGRAM, SUMMARY]


def order(value: Any = 1, **labels: Any) -> dict[str, Any]:
    return {"name": "orders_total", "value": value, "labels": {"plan": "pro", **labels}}


def codes(result: Validated) -> list[tuple[int, str]]:
    return [(rejection.index, rejection.code) for rejection in result.rejections]


def only_series(result: Validated) -> SeriesDelta:
    [metric] = result.metrics
    [series] = metric.series
    return series


@pytest.mark.parametrize(
    ("metric", "code"),
    [
        ({"name": "unknown", "value": "NaN"}, "VALUE_NOT_FINITE"),
        ({"name": "unknown", "value": -1}, "METRIC_NOT_DEFINED"),
        ({"name": "", "value": 1}, "METRIC_NOT_DEFINED"),
        ({"name": "orders_total", "value": [1]}, "METRIC_TYPE_MISMATCH"),
        ({"name": "depth", "value": [1]}, "METRIC_TYPE_MISMATCH"),
        ({"name": "load_seconds", "value": []}, "METRIC_MALFORMED"),
        ({"name": "load_seconds", "value": [1] * 1001}, "METRIC_MALFORMED"),
        ({"name": "orders_total", "value": -1e-9, "labels": 5}, "VALUE_NEGATIVE"),
        ({"name": "orders_total", "value": 1, "labels": 5}, "METRIC_MALFORMED"),
        ({"name": "orders_total", "value": 1, "labels": ["plan"]}, "METRIC_MALFORMED"),
        ({"name": "orders_total", "value": 1, "labels": {"plan": 1}}, "METRIC_MALFORMED"),
        ({"name": "orders_total", "value": 1, "labels": {"plan": None}}, "METRIC_MALFORMED"),
        ({"name": "orders_total", "value": 1}, "LABEL_MISSING"),
        ({"name": "orders_total", "value": 1, "labels": None}, "LABEL_MISSING"),
        ({"name": "orders_total", "value": 1, "labels": {"other": "x"}}, "LABEL_MISSING"),
        (order(plan=""), "LABEL_MISSING"),
        (order(other="x"), "LABEL_UNKNOWN"),
        (order(__name__="x"), "LABEL_UNKNOWN"),
        (order(tenant_id="x"), "LABEL_UNKNOWN"),
        (order(le="x"), "LABEL_UNKNOWN"),
        (order(plan="gold"), "LABEL_VALUE_NOT_ALLOWED"),
        (order(plan="Pro"), "LABEL_VALUE_NOT_ALLOWED"),
        (order(zone="eu-1x"), "LABEL_VALUE_NOT_ALLOWED"),
        (order(zone="xeu-1\n"), "LABEL_VALUE_NOT_ALLOWED"),
        (order(note="__other__"), "LABEL_VALUE_NOT_ALLOWED"),
        (order(note="a\x00b"), "LABEL_VALUE_NOT_ALLOWED"),
        (order(note="é" * 101), "LABEL_VALUE_TOO_LONG"),
        (order(zone="a" * 10_000), "LABEL_VALUE_TOO_LONG"),
        ({"name": "depth", "value": 1, "timestamp": NOW_MS - 8 * DAY_MS - 1}, "TIMESTAMP_OUT_OF_RANGE"),
        ({"name": "depth", "value": 1, "timestamp": NOW_MS + 600_001}, "TIMESTAMP_OUT_OF_RANGE"),
        ({"name": "depth", "value": 1, "timestamp": -1e300}, "TIMESTAMP_OUT_OF_RANGE"),
    ],
)
def test_a_rejected_metric_does_not_hold_up_the_others(metric: dict[str, Any], code: str) -> None:
    result = validated(ALL, order(), metric, order(note="fine"))
    assert codes(result) == [(1, code)]
    assert result.accepted == 2
    assert sum(len(each.series) for each in result.metrics) == 2
    assert all(len(rejection.message) < 300 for rejection in result.rejections)


@pytest.mark.parametrize(
    "metric",
    [
        order(note="é" * 100),
        order(zone="eu-1"),
        order(note="\U0001f600"),
        order(value=0),
        {"name": "depth", "value": -5, "timestamp": NOW_MS - 8 * DAY_MS},
        {"name": "depth", "value": 5, "timestamp": NOW_MS + 600_000},
        {"name": "load_seconds", "value": [1] * 1000},
        {"name": "size_bytes", "value": [1, -2]},
    ],
)
def test_what_is_just_within_the_limits(metric: dict[str, Any]) -> None:
    assert codes(validated(ALL, metric)) == []


@pytest.mark.parametrize("timestamp", [0, -1, 1e300, 1e19, NOW_MS - 100 * DAY_MS])
@pytest.mark.parametrize("name", ["orders_total", "load_seconds", "size_bytes"])
def test_timestamps_of_others_than_gauges_do_not_matter(name: str, timestamp: float) -> None:
    labels = {"plan": "pro"} if name == "orders_total" else {}
    result = validated(ALL, {"name": name, "value": 1, "labels": labels, "timestamp": timestamp})
    assert codes(result) == []
    assert only_series(result).timestamp_ms == 0


def test_a_batch_of_nothing_but_faults_keeps_nothing() -> None:
    result = validated(ALL, {"name": "x", "value": 1}, 5, {"name": "depth", "value": "NaN"})
    assert codes(result) == [(0, "METRIC_NOT_DEFINED"), (1, "METRIC_MALFORMED"), (2, "VALUE_NOT_FINITE")]
    assert (result.accepted, result.metrics) == (0, [])


@pytest.mark.parametrize(
    ("metric", "curable"),
    [
        ({"name": "unknown", "value": 1}, True),
        ({"name": "depth", "value": [1]}, True),
        (order(plan="gold"), True),
        (order(other="x"), True),
        ({"name": "depth", "value": "NaN"}, False),
        (order(value=-1), True),
        ({"name": "depth", "value": 1, "timestamp": 1}, True),
        (order(note="x" * 201), False),
    ],
)
def test_only_what_a_newer_definition_could_take_is_worth_a_question(metric: dict[str, Any], *, curable: bool) -> None:
    assert validated(ALL, metric).curable is curable


# --- folding


def test_equal_label_sets_fold_however_they_are_written() -> None:
    written = [order(1, note="x", zone=""), order(2, zone="", note="x"), order(4, note="x")]
    result = validated(ALL, *written)
    series = only_series(result)
    assert (series.value, series.labels) == (7.0, ("note", "x", "plan", "pro"))
    assert result.accepted == 3


def test_an_empty_label_value_is_an_absent_label() -> None:
    assert only_series(validated(ALL, order(note=""))) == only_series(validated(ALL, order()))


def test_a_counter_that_would_overflow_stays_at_the_largest_number() -> None:
    assert only_series(validated(ALL, order(1.7e308), order(1.7e308))).value == float_info.max


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([(1, -1000), (2, -2000)], (1, -1000)),
        ([(1, -2000), (2, -1000)], (2, -1000)),
        ([(1, -1000), (2, -1000)], (2, -1000)),
        ([(1, None), (2, -1)], (1, 0)),
        ([(1, 500), (2, None)], (1, 500)),
        ([(1, None), (2, None)], (2, 0)),
    ],
)
def test_a_gauge_keeps_the_newest_and_among_equals_the_later(
    samples: list[tuple[int, int | None]], expected: tuple[int, int]
) -> None:
    sent = [
        {"name": "depth", "value": value} | ({} if offset is None else {"timestamp": NOW_MS + offset})
        for value, offset in samples
    ]
    series = only_series(validated(ALL, *sent))
    assert (series.value, series.timestamp_ms - NOW_MS) == expected


def test_observations_go_to_the_first_bucket_whose_bound_is_not_below_them() -> None:
    observed = [0.1, 0.05, -3, 0.100001, 1, 1.0000001, 10, 10.5, 1e300]
    series = only_series(validated(ALL, {"name": "load_seconds", "value": observed}))
    assert series.buckets == [3, 2, 2, 2]
    assert series.count == len(observed)


observations = st.lists(st.floats(min_value=-1e6, max_value=1e6), min_size=1, max_size=20)


@given(st.lists(observations, min_size=1, max_size=5))
def test_arrays_and_single_observations_come_to_the_same(arrays: list[list[float]]) -> None:
    together = validated(ALL, *({"name": "load_seconds", "value": array} for array in arrays))
    flat = [value for array in arrays for value in array]
    alone = validated(ALL, *({"name": "load_seconds", "value": value} for value in flat[:100]))
    series, expected = only_series(together), only_series(alone)
    assert series == expected
    assert series.buckets == [
        sum(value <= 0.1 for value in flat),
        sum(0.1 < value <= 1 for value in flat),
        sum(1 < value <= 10 for value in flat),
        sum(value > 10 for value in flat),
    ]


def test_a_summary_counts_and_sums_without_buckets() -> None:
    series = only_series(validated(ALL, {"name": "size_bytes", "value": [1, 2.5]}, {"name": "size_bytes", "value": 4}))
    assert (series.value, series.count, series.buckets) == (7.5, 3, [])


def test_each_metric_carries_what_the_aggregator_must_know() -> None:
    limited = definition("visits_total", labels={"page": label(max_distinct=7), "plan": label()})
    [metric] = validated([limited], {"name": "visits_total", "value": 1}).metrics
    assert (metric.definition_id, metric.name, metric.type) == (limited.id, "visits_total", MetricType.COUNTER)
    assert metric.max_distinct == {"page": 7}


# --- memory of label sets


def raw(note: str) -> msgspec.Raw:
    return msgspec.Raw(b'{"plan":"pro","note":"%s"}' % note.encode())


def test_a_label_set_is_remembered_by_its_bytes() -> None:
    compiled = CompiledDefinition(COUNTER, LabelSetMemory())
    first, other = compiled.label_set(raw("a")), compiled.label_set(raw("b"))
    assert compiled.label_set(raw("a")) is first
    assert compiled.label_set(raw("b")) is other


def test_label_sets_of_all_definitions_together_are_bounded() -> None:
    memory = LabelSetMemory(most_bytes=2_400)
    one, another = CompiledDefinition(COUNTER, memory), CompiledDefinition(COUNTER, memory)
    first, *_ = [one.label_set(raw(note)) for note in "abc"]
    fourth = another.label_set(raw("a"))
    assert another.label_set(raw("a")) is fourth
    again = one.label_set(raw("a"))
    assert again == first
    assert again is not first, "the fourth one was beyond the bound: all were forgotten"
    assert one.label_set(raw("a")) is again
