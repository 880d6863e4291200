"""Metric and label names, and the names suggested instead."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.config import naming
from services.config.domain import MetricType

COUNTER, GAUGE, HISTOGRAM, SUMMARY = MetricType.COUNTER, MetricType.GAUGE, MetricType.HISTOGRAM, MetricType.SUMMARY


@pytest.mark.parametrize(
    ("name", "metric_type", "unit"),
    [
        ("http_requests_total", COUNTER, ""),
        ("http_requests_total", COUNTER, "requests"),
        ("cpu_seconds_total", COUNTER, "seconds"),
        ("checkouts_total", COUNTER, "checkouts"),
        ("queue_depth", GAUGE, ""),
        ("_private", GAUGE, ""),
        ("camelCase", GAUGE, ""),
        ("build_info", GAUGE, ""),
        ("request_duration_seconds", HISTOGRAM, "seconds"),
        ("memory_used_ratio", GAUGE, "ratio"),
        ("requests_per_second", GAUGE, ""),
        ("visits_us", GAUGE, ""),  # a country, not microseconds
        ("day_of_week", GAUGE, ""),
        ("counts_total", COUNTER, ""),
        ("a" * 194 + "_total", COUNTER, ""),
    ],
)
def test_conventional_names_are_taken(name: str, metric_type: MetricType, unit: str) -> None:
    assert naming.name_fault(name, metric_type, unit) is None


@pytest.mark.parametrize(
    ("name", "metric_type", "unit", "suggestion"),
    [
        ("http_requests", COUNTER, "", "http_requests_total"),
        ("http_requests_count", COUNTER, "", "http_requests_total"),
        ("queue_depth_total", GAUGE, "", "queue_depth"),
        ("items_count", GAUGE, "", "items"),
        ("latency_sum", SUMMARY, "", "latency"),
        ("latency_bucket", HISTOGRAM, "", "latency"),
        ("user_created", GAUGE, "", "user"),
        ("latency_ms", HISTOGRAM, "", "latency_seconds"),
        ("latency_milliseconds", HISTOGRAM, "milliseconds", "latency_seconds"),
        ("latency_ms", HISTOGRAM, "ms", "latency_seconds"),
        ("latency", HISTOGRAM, "seconds", "latency_seconds"),
        ("sent_kilobytes_total", COUNTER, "", "sent_bytes_total"),
        ("sent", COUNTER, "bytes", "sent_bytes_total"),
        ("cpu_percent", GAUGE, "", "cpu_ratio"),
        ("cpu", GAUGE, "%", None),  # the fault is the unit's alone
        ("energy_kilowatt_hours_total", COUNTER, "", "energy_joules_total"),
        ("job:requests:rate5m", GAUGE, "", "job_requests_rate5m"),
        ("__name__", GAUGE, "", "name"),
        ("2fast", GAUGE, "", "metric_2fast"),
        ("checkout.completed", COUNTER, "", "checkout_completed_total"),
        ("kühl-schrank", GAUGE, "", "kuhl_schrank"),
        ("", GAUGE, "", "metric"),
        ("_", GAUGE, "", "metric"),
        ("_total", COUNTER, "", "metric_total"),
        ("ä_total", COUNTER, "", "a_total"),
        ("日_total", COUNTER, "", "metric_total"),
        ("9total", COUNTER, "", "metric_9total_total"),
        ("Orders_Total", COUNTER, "", "Orders_total"),
        ("a" * 201, GAUGE, "", "a" * 110),
    ],
)
def test_other_names_are_refused_with_one_to_use_instead(
    name: str, metric_type: MetricType, unit: str, suggestion: str | None
) -> None:
    fault = naming.name_fault(name, metric_type, unit)
    if suggestion is None:
        assert fault is None
    else:
        assert fault is not None
        assert fault.endswith(f'; use "{suggestion}"')


def test_all_faults_of_a_name_are_named_together() -> None:
    fault = naming.name_fault("__latency_ms_count", HISTOGRAM, "")
    assert fault is not None
    assert "two underscores" in fault
    assert "_count" in fault


names = st.one_of(
    st.text(max_size=300),
    st.from_regex(r"\A_{0,3}[a-zA-Z0-9_:]{0,210}\Z"),
    st.lists(
        st.sampled_from(["a", "ms", "total", "count", "sum", "bucket", "created", "percent", "per", "kilobytes", "9"]),
        max_size=8,
    ).map("_".join),
)
units = st.one_of(st.text(max_size=70), st.sampled_from(["", "ms", "seconds", "count", "total", "%", "requests"]))


@given(name=names, metric_type=st.sampled_from(MetricType), unit=units)
def test_a_suggested_name_is_always_a_valid_one(name: str, metric_type: MetricType, unit: str) -> None:
    suggestion = naming.suggested_name(name, metric_type, unit)
    usable_unit = unit if naming.unit_fault(unit) is None else ""
    assert naming.name_fault(suggestion, metric_type, usable_unit) is None


@given(name=names)
def test_a_suggested_label_name_is_always_a_valid_one(name: str) -> None:
    assert naming.label_name_fault(naming.suggested_label_name(name)) is None


@pytest.mark.parametrize("unit", ["seconds", "bytes", "ratio", "requests", "watts", "celsius"])
def test_base_units_and_countable_things_are_units(unit: str) -> None:
    assert naming.unit_fault(unit) is None


@pytest.mark.parametrize(
    ("unit", "base"),
    [
        ("ms", "seconds"),
        ("Minutes", "seconds"),
        ("MB", "bytes"),
        ("%", "ratio"),
        ("percent", "ratio"),
        ("°F", "celsius"),
        ("queue_ms", "seconds"),
    ],
)
def test_other_units_are_refused_with_their_base_unit(unit: str, base: str) -> None:
    fault = naming.unit_fault(unit)
    assert fault is not None
    assert f'"{base}"' in fault


@pytest.mark.parametrize("unit", ["total", "count", "per second", "Seconds", "1", "s\0", "a" * 65])
def test_what_cannot_end_a_name_is_no_unit(unit: str) -> None:
    assert naming.unit_fault(unit) is not None


@pytest.mark.parametrize("name", ["plan", "_x", "a" * 64, "job", "instance", "metric_le"])
def test_ordinary_label_names_are_taken(name: str) -> None:
    assert naming.label_name_fault(name) is None


@pytest.mark.parametrize("name", ["tenant_id", "project_id", "le", "quantile", "__name__", "a-b", "1a", "", "a" * 65])
def test_reserved_and_malformed_label_names_are_refused(name: str) -> None:
    assert naming.label_name_fault(name) is not None


def test_a_name_as_long_as_a_request_is_answered_soon() -> None:
    name = "caf\u00e9 visits" + "\u0301\u0316" * 200_000
    began = time.process_time()
    assert naming.suggested_name(name, MetricType.COUNTER) == "cafe_visits_total"
    assert naming.suggested_label_name(name) == "cafe_visits"
    assert time.process_time() - began < 1
