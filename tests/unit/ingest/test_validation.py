"""Metrics against their definitions: each code, the order of checks, and what is folded before the log."""

from sys import float_info
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.domain import Fault, MetricType
from services.ingest.native_histograms import NativeBuckets
from services.ingest.records import Distribution, Identity
from services.ingest.validation import CompiledDefinition, LabelSet, LabelSetMemory, Validated
from tests.unit.ingest.ingestion import DAY_MS, NOW_MS, batch_of, definition, label, validated, validation_of

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


def labels_of(label_set: LabelSet) -> tuple[str, ...]:
    return msgspec.msgpack.decode(label_set.identity, type=Identity).labels


def only_distribution(result: Validated) -> Distribution:
    [(label_set, distribution)] = result.distributions.values()
    assert distribution.id == label_set.id
    return distribution


@pytest.mark.parametrize(
    ("metric", "code"),
    [
        ({"name": "unknown", "value": "NaN"}, "VALUE_NOT_FINITE"),
        ({"name": "unknown", "value": -1}, "METRIC_NOT_DEFINED"),
        ({"name": "", "value": 1}, "METRIC_NOT_DEFINED"),
        ({"name": "orders_total", "value": [1]}, "METRIC_TYPE_MISMATCH"),
        ({"name": "depth", "value": [1]}, "METRIC_TYPE_MISMATCH"),
        ({"name": "orders_total", "value": ["NaN"]}, "METRIC_TYPE_MISMATCH"),
        ({"name": "depth", "value": [1, 10**400]}, "METRIC_TYPE_MISMATCH"),
        ({"name": "depth", "value": ["x", None]}, "METRIC_TYPE_MISMATCH"),
        ({"name": "load_seconds", "value": [1, "NaN"]}, "VALUE_NOT_FINITE"),
        ({"name": "load_seconds", "value": [1, None]}, "METRIC_MALFORMED"),
        ({"name": "unknown", "value": ["NaN"]}, "VALUE_NOT_FINITE"),
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
    assert [labels_of(each) for each in result.label_sets] == [("plan", "pro"), ("note", "fine", "plan", "pro")]
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
    assert not any(result.timestamps)


def test_a_batch_of_nothing_but_faults_keeps_nothing() -> None:
    result = validated(ALL, {"name": "x", "value": 1}, 5, {"name": "depth", "value": "NaN"})
    assert codes(result) == [(0, "METRIC_NOT_DEFINED"), (1, "METRIC_MALFORMED"), (2, "VALUE_NOT_FINITE")]
    assert (result.accepted, result.label_sets, result.values, result.distributions) == (0, [], [], {})


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


# --- what a record will hold


def test_equal_label_sets_have_one_id_however_they_are_written() -> None:
    written = [order(1, note="x", zone=""), order(2, zone="", note="x"), order(4, note="x")]
    result = validated(ALL, *written)
    assert len({label_set.id for label_set in result.label_sets}) == 1
    assert [labels_of(label_set) for label_set in result.label_sets] == [("note", "x", "plan", "pro")] * 3
    assert (result.values, result.accepted) == ([1.0, 2.0, 4.0], 3)


def test_an_empty_label_value_is_an_absent_label() -> None:
    one, other = validated(ALL, order(note=""), order()).label_sets
    assert one.id == other.id


@pytest.mark.parametrize(("offset", "expected"), [(-2000, -2000), (500, 500), (None, 0), (0.9, 0)])
def test_a_gauge_has_its_own_time_or_the_receivers(offset: float | None, expected: int) -> None:
    gauge = {"name": "depth", "value": 3} | ({} if offset is None else {"timestamp": NOW_MS + offset})
    result = validated(ALL, order(2), gauge)
    assert (result.values, result.timestamps) == ([2.0, 3.0], [0, NOW_MS + expected])


@given(st.lists(st.sampled_from([("orders_total", 1.0), ("depth", 7.0), ("size_bytes", 3.0), ("unknown", 1.0)])))
def test_what_is_accepted_keeps_its_order(sent: list[tuple[str, float]]) -> None:
    metrics = [order(value) if name == "orders_total" else {"name": name, "value": value} for name, value in sent]
    if metrics:
        result = validated(ALL, *metrics)
        assert result.values == [value for name, value in sent if name in ("orders_total", "depth")]


def test_equal_distributions_are_one() -> None:
    labelled = definition("took_seconds", MetricType.SUMMARY, labels={"a": label(), "b": label()})
    written = ({"a": "x", "b": "y"}, {"b": "y", "a": "x"})
    result = validated([labelled], *({"name": "took_seconds", "value": 1, "labels": labels} for labels in written))
    assert only_distribution(result).count == 2


def test_observations_go_to_the_first_bucket_whose_bound_is_not_below_them() -> None:
    observed = [0.1, 0.05, -3, 0.100001, 1, 1.0000001, 10, 10.5, 1e300]
    distribution = only_distribution(validated(ALL, {"name": "load_seconds", "value": observed}))
    assert distribution.buckets == [3, 2, 2, 2]
    assert distribution.count == len(observed)


observations = st.lists(st.floats(min_value=-1e6, max_value=1e6), min_size=1, max_size=20)


@given(st.lists(observations, min_size=1, max_size=5))
def test_arrays_and_single_observations_come_to_the_same(arrays: list[list[float]]) -> None:
    together = validated(ALL, *({"name": "load_seconds", "value": array} for array in arrays))
    flat = [value for array in arrays for value in array]
    alone = validated(ALL, *({"name": "load_seconds", "value": value} for value in flat[:100]))
    distribution, expected = only_distribution(together), only_distribution(alone)
    assert (distribution.metrics, expected.metrics) == (len(arrays), len(flat))
    assert distribution == msgspec.structs.replace(expected, metrics=len(arrays))
    assert distribution.buckets == [
        sum(value <= 0.1 for value in flat),
        sum(0.1 < value <= 1 for value in flat),
        sum(1 < value <= 10 for value in flat),
        sum(value > 10 for value in flat),
    ]


def test_observations_of_a_native_histogram_come_in_its_own_buckets() -> None:
    native = definition("wait_seconds", MetricType.NATIVE_HISTOGRAM)
    sent = ({"name": "wait_seconds", "value": [1, -2, 0]}, {"name": "wait_seconds", "value": 1})
    distribution = only_distribution(validated([native], *sent))
    buckets = NativeBuckets()
    buckets.observe([1, -2, 0, 1])
    assert (distribution.sum, distribution.count, distribution.metrics) == (0, 4, 2)
    assert distribution.buckets == buckets.packed()


def test_the_last_exemplar_of_each_series_that_can_show_one_is_kept() -> None:
    first, last = ({"traceId": each * 32, "spanId": "1" * 16} for each in "ab")
    result = validated(
        ALL,
        order(1) | {"exemplar": first},
        order(2) | {"exemplar": last},
        order(-1) | {"exemplar": first},
        {"name": "load_seconds", "value": [1, 2], "exemplar": last},
        {"name": "depth", "value": 1, "exemplar": last},
        {"name": "size_bytes", "value": 1, "exemplar": last},
    )
    assert [(each.value, each.trace_id) for each in result.exemplars.values()] == [(2, b"\xbb" * 16)] * 2
    assert list(result.exemplars) == [result.label_sets[0].id, next(iter(result.distributions))]


def test_a_summary_counts_and_sums_without_buckets() -> None:
    sent = ({"name": "size_bytes", "value": [1, 2.5]}, {"name": "size_bytes", "value": 4})
    distribution = only_distribution(validated(ALL, *sent))
    assert (distribution.sum, distribution.count, distribution.buckets) == (7.5, 3, [])


def test_a_sum_that_would_overflow_stays_at_the_largest_number() -> None:
    assert only_distribution(validated(ALL, {"name": "size_bytes", "value": [1.7e308] * 2})).sum == float_info.max


def test_each_definition_comes_with_what_the_aggregator_must_know() -> None:
    limited = definition("visits_total", labels={"page": label(max_distinct=7), "plan": label()})
    [compiled] = validated([limited], *[{"name": "visits_total", "value": 1}] * 2).definitions
    facts = compiled.facts
    assert (facts.id, facts.name, facts.type) == (limited.id, "visits_total", MetricType.COUNTER)
    assert facts.max_distinct == {"page": 7}


# --- memory of label sets


def raw(note: str) -> bytes:
    return b'{"plan":"pro","note":"%s"}' % note.encode()


def test_a_label_set_is_remembered_by_its_bytes() -> None:
    compiled = CompiledDefinition(COUNTER, LabelSetMemory())
    first, other = compiled.label_set(raw("a")), compiled.label_set(raw("b"))
    assert compiled.label_set(raw("a")) is first
    assert compiled.label_set(raw("b")) is other


def test_a_refusal_is_remembered_too() -> None:
    compiled = CompiledDefinition(COUNTER, LabelSetMemory())
    refused = compiled.label_set(b'{"plan":"none"}')
    assert isinstance(refused, Fault)
    assert compiled.label_set(b'{"plan":"none"}') is refused


@pytest.mark.parametrize(
    "last",
    [
        order(3, zone="eu-1"),
        order(0),
        order(-1),
        order([1]),
        order("NaN"),
        order(plan="none"),
        {"name": "unknown", "value": 1},
        {"name": "depth", "value": 1},
        {"name": "load_seconds", "value": 1},
        {"name": "size_bytes", "value": [1, 2]},
    ],
)
def test_a_batch_comes_to_the_same_whether_its_label_sets_are_remembered_or_not(last: dict[str, Any]) -> None:
    metrics = [order(1), order(2, zone="eu-1"), {"name": "visits_total", "value": 0.5}, last]
    compiled = {each.name: CompiledDefinition(each, LabelSetMemory()) for each in [*ALL, definition("visits_total")]}
    first, second = (validation_of(batch_of(*metrics), compiled) for _ in range(2))
    assert second.rejections == first.rejections
    assert second.accepted == first.accepted == len(metrics) - len(first.rejections)
    assert second.definitions == first.definitions
    assert second.distributions == first.distributions
    assert columns(second) == columns(first)


def columns(result: Validated) -> list[tuple[bytes, float, int]]:
    timestamps = result.timestamps or [0] * len(result.values)
    return list(zip([each.id for each in result.label_sets], result.values, timestamps, strict=True))


def test_a_definition_that_has_as_many_label_sets_as_it_may_forgets_none_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.ingest.validation._MOST_REMEMBERED", 4)
    memory = LabelSetMemory(most_bytes=6 * 700)
    one, another = CompiledDefinition(COUNTER, memory), CompiledDefinition(COUNTER, memory)
    kept = another.label_set(raw("kept"))
    for number in range(50):
        one.label_set(raw(f"{number}"))
    assert another.label_set(raw("kept")) is kept


def test_a_definition_that_is_gone_leaves_its_room_to_others() -> None:
    memory = LabelSetMemory(most_bytes=6 * 700)
    one = CompiledDefinition(COUNTER, memory)
    kept = one.label_set(raw("kept"))
    for number in range(50):
        CompiledDefinition(COUNTER, memory).label_set(raw(f"{number}"))
    assert one.label_set(raw("kept")) is kept


def test_label_sets_of_all_definitions_together_are_bounded() -> None:
    memory = LabelSetMemory(most_bytes=2_400)
    one, another = CompiledDefinition(COUNTER, memory), CompiledDefinition(COUNTER, memory)
    first, *_ = [one.label_set(raw(note)) for note in "abc"]
    fourth = another.label_set(raw("a"))
    assert another.label_set(raw("a")) is fourth
    again = one.label_set(raw("a"))
    assert isinstance(first, LabelSet)
    assert isinstance(again, LabelSet)
    assert again.id == first.id
    assert again is not first, "the fourth one was beyond the bound: all were forgotten"
    assert one.label_set(raw("a")) is again
