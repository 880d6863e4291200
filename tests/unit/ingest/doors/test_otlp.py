"""OTLP metrics in protobuf and JSON: the same points from both, names as Prometheus has them, hostile bytes."""

import json
import math
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from services.ingest.domain import Fault
from services.ingest.doors import otlp
from services.ingest.doors.otlp_names import label_name, metric_names
from services.ingest.errors import BatchTooLarge, MalformedBody, MalformedJson
from services.ingest.exemplars import Span
from services.ingest.native_histograms import NativeBuckets
from services.ingest.points import (
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    NATIVE_HISTOGRAMS,
    Buckets,
    ExponentialBuckets,
    Origin,
    Point,
)
from tests.stepping import at_once

DELTA, CUMULATIVE = 1, 2


def decode_json(body: bytes) -> list[Point | Fault]:
    return list(at_once(otlp.decode_json(body)))


def decode_protobuf(body: bytes) -> list[Point | Fault]:
    return list(otlp.decode_protobuf(body))


def attribute(key: str, **value: Any) -> dict[str, Any]:
    return {"key": key, "value": value or {"stringValue": "x"}}


def request(*metrics: dict[str, Any], attributes: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    scope = {"scope": {"name": "shop", "version": "1.2"}, "metrics": list(metrics)}
    return {"resourceMetrics": [{"resource": {"attributes": attributes or []}, "scopeMetrics": [scope]}]}


def decoded(body: dict[str, Any]) -> list[Point | Fault]:
    """From JSON, once it is the same from protobuf."""
    from_json = decode_json(json.dumps(body).encode())
    message = json_format.ParseDict(body, ExportMetricsServiceRequest())
    assert decode_protobuf(message.SerializeToString()) == from_json
    return from_json


def counter(**point: Any) -> dict[str, Any]:
    data = {"aggregationTemporality": DELTA, "isMonotonic": True, "dataPoints": [{"asInt": "3", **point}]}
    return {"name": "shop.orders", "unit": "{order}", "sum": data}


def test_a_monotonic_delta_sum_is_a_counter() -> None:
    attributes = [attribute("plan.name", stringValue="pro")]
    [found] = decoded(request(counter(attributes=attributes, timeUnixNano="1795200000000000000")))
    assert isinstance(found, Point)
    assert (found.names, found.types, found.value) == (("shop_orders_total",), COUNTERS, 3.0)
    assert found.labels == {"plan_name": "pro"}
    assert found.timestamp_ms == 1_795_200_000_000


def test_the_newest_exemplar_that_names_a_span_comes_along() -> None:
    def exemplar(at: int, **ids: str) -> dict[str, Any]:
        return {"timeUnixNano": str(at), "asDouble": at / 2, **ids}

    ids = {"traceId": "q6urq6urq6urq6urq6urqw==", "spanId": "q6urq6urq6s="}  # protobuf's mapping has Base64
    sent = [exemplar(5, **ids), exemplar(6, **ids), exemplar(4, **ids), exemplar(9)]
    message = json_format.ParseDict(request(counter(exemplars=sent)), ExportMetricsServiceRequest())
    [found] = decode_protobuf(message.SerializeToString())
    assert isinstance(found, Point)
    assert found.exemplar == (3.0, Span(b"\xab" * 16, b"\xab" * 8))
    hexadecimal = {"traceId": "ab" * 16, "spanId": "ab" * 8}
    broken = exemplar(7, **hexadecimal) | {"asDouble": "x"}
    sent = [exemplar(6, **hexadecimal), exemplar(8, traceId="x"), broken]
    assert decode_json(json.dumps(request(counter(exemplars=sent))).encode()) == [found]


def test_where_a_point_comes_from_is_offered_as_labels() -> None:
    resource = [
        attribute("service.name", stringValue="checkout"),
        attribute("service.namespace", stringValue="shop"),
        attribute("service.instance.id", stringValue="i-1"),
    ]
    [found] = decoded(request(counter(), attributes=resource))
    assert isinstance(found, Point)
    assert found.offered == {
        "job": "shop/checkout",
        "instance": "i-1",
        "service_name": "checkout",
        "service_namespace": "shop",
        "service_instance_id": "i-1",
        "otel_scope_name": "shop",
        "otel_scope_version": "1.2",
    }


def test_gauges_and_sums_that_may_fall_are_gauges() -> None:
    gauge = {"name": "load", "unit": "1", "gauge": {"dataPoints": [{"asDouble": 0.5}, {"asInt": "-2"}]}}
    level = {"name": "depth", "sum": {"aggregationTemporality": CUMULATIVE, "dataPoints": [{"asInt": "0"}]}}
    found = decoded(request(gauge, level))
    assert [each.value for each in found if isinstance(each, Point)] == [0.5, -2.0, 0.0]
    assert [each.names[0] for each in found if isinstance(each, Point)] == ["load_ratio", "load_ratio", "depth"]
    assert all(isinstance(each, Point) and each.types == GAUGES for each in found)


def origin(of: dict[str, Any], resource: list[dict[str, Any]] | None = None) -> Origin:
    [found] = decoded(request(of, attributes=resource))
    assert isinstance(found, Point)
    assert found.origin is not None
    return found.origin


def total(name: str = "orders", **point: Any) -> dict[str, Any]:
    times = {"startTimeUnixNano": "1795200000000000007", "timeUnixNano": "1795200000000000009"}
    data = {"aggregationTemporality": CUMULATIVE, "isMonotonic": True, "dataPoints": [{"asInt": "3", **times, **point}]}
    return {"name": name, "sum": data}


def test_a_cumulative_series_is_known_by_all_that_identifies_it() -> None:
    host = [attribute("host.name", stringValue="h"), attribute("process.pid", intValue="1")]
    plan = [attribute("plan", stringValue="1"), attribute("zone")]
    known = origin(total(attributes=plan), host)
    assert known.taken_ns == 1_795_200_000_000_000_009
    assert origin(total(asInt="4", attributes=plan[::-1], timeUnixNano="1795200000000000010"), host[::-1]) == Origin(
        known.source, known.taken_ns + 1
    )
    others = [
        origin(total("order", attributes=plan), host),
        origin({**total(attributes=plan), "unit": "1"}, host),
        origin(total(attributes=plan), host[:1]),
        origin(total(attributes=[attribute("plan", intValue="1"), plan[1]]), host),
        origin(total(attributes=plan, startTimeUnixNano="1795200000000000008"), host),
    ]
    assert len({known.source, *(each.source for each in others)}) == 6


@pytest.mark.parametrize("kind", ["sum", "histogram", "exponentialHistogram"])
def test_a_total_that_was_taken_at_its_start_says_that_the_start_is_not_known(kind: str) -> None:
    numbers: dict[str, dict[str, Any]] = {
        "sum": {"asInt": "3"},
        "histogram": {"count": "3", "sum": 2.5, "bucketCounts": ["3"]},
        "exponentialHistogram": {"count": "3", "sum": 2.5, "zeroCount": "3"},
    }

    def baseline(**times: str) -> bool:
        data = {"aggregationTemporality": CUMULATIVE, "dataPoints": [numbers[kind] | times]}
        return origin({"name": "orders", kind: data | ({"isMonotonic": True} if kind == "sum" else {})}).baseline

    assert baseline(startTimeUnixNano="7", timeUnixNano="7")
    assert not baseline(startTimeUnixNano="7", timeUnixNano="8")
    assert not baseline(timeUnixNano="7")


def test_a_cumulative_histogram_is_a_total() -> None:
    point = {"count": "6", "sum": 2.5, "bucketCounts": ["1", "2", "3"], "explicitBounds": [0.1, 1]}
    histogram = {"aggregationTemporality": CUMULATIVE, "dataPoints": [point, point]}
    first, second = decoded(request({"name": "load", "unit": "s", "histogram": histogram}))
    assert isinstance(first, Point)
    assert first.origin is not None
    assert (first, first.value) == (second, Buckets((0.1, 1.0), [1, 2, 3], 2.5))


def test_a_delta_histogram_keeps_its_buckets() -> None:
    point = {"count": "6", "sum": 2.5, "bucketCounts": ["1", "2", "3"], "explicitBounds": [0.1, 1]}
    histogram = {"aggregationTemporality": DELTA, "dataPoints": [point]}
    [found] = decoded(request({"name": "load", "unit": "s", "histogram": histogram}))
    assert isinstance(found, Point)
    assert found.value == Buckets((0.1, 1.0), [1, 2, 3], 2.5)
    assert (found.names, found.types) == (("load_seconds", "load"), HISTOGRAMS)


def exponential(**changes: Any) -> dict[str, Any]:
    point = {
        "count": "8",
        "sum": 2.5,
        "scale": 4,
        "zeroCount": "1",
        "positive": {"offset": -1, "bucketCounts": ["2", "0", "3"]},
        "negative": {"offset": 14, "bucketCounts": ["1", "1"]},
        **changes,
    }
    point = {name: value for name, value in point.items() if value is not None}
    return {"exponentialHistogram": {"aggregationTemporality": DELTA, "dataPoints": [point]}}


def test_an_exponential_histogram_is_a_native_one_of_the_finest_schema_at_most() -> None:
    [found] = decoded(request({"name": "load", "unit": "s", **exponential()}))
    assert isinstance(found, Point)
    assert found.types == NATIVE_HISTOGRAMS
    assert isinstance(found.value, ExponentialBuckets)
    assert found.value.sum == 2.5
    # (2^(-1/16), 1] and (2^(1/16), 2^(2/16)] of scale 4 are in buckets 0 and 1 of schema 3.
    buckets = NativeBuckets.unpacked(found.value.packed)
    assert (buckets.schema, buckets.zero, buckets.positive) == (3, 1, {0: 2, 1: 3})
    assert buckets.negative == {8: 2}
    [coarse] = decoded(request({"name": "load", **exponential(scale=-4)}))
    assert isinstance(coarse, Point)
    assert isinstance(coarse.value, ExponentialBuckets)
    buckets = NativeBuckets.unpacked(coarse.value.packed)
    assert (buckets.schema, buckets.positive) == (-4, {0: 2, 2: 3})


@pytest.mark.parametrize(
    ("metric", "code", "says"),
    [
        ({"sum": {"aggregationTemporality": DELTA, "dataPoints": [{"asInt": "1"}]}}, "METRIC_TYPE_MISMATCH", "level"),
        ({"sum": {"isMonotonic": True, "dataPoints": [{"asInt": "1"}]}}, "METRIC_MALFORMED", "temporality"),
        ({"histogram": {"dataPoints": [{}]}}, "METRIC_MALFORMED", "temporality"),
        ({"histogram": {"aggregationTemporality": DELTA, "dataPoints": [{"count": "2", "sum": 1.0}]}},
         "METRIC_MALFORMED", "without buckets"),
        ({"histogram": {"aggregationTemporality": DELTA,
                        "dataPoints": [{"count": "2", "sum": 1.0, "bucketCounts": ["1"]}]}},
         "METRIC_MALFORMED", "add up"),
        ({"exponentialHistogram": {"dataPoints": [{"sum": 0.0}]}}, "METRIC_MALFORMED", "temporality"),
        (exponential(scale=-5), "METRIC_MALFORMED", "scale"),
        (exponential(sum=None), "METRIC_MALFORMED", "sum"),
        (exponential(count="7"), "METRIC_MALFORMED", "add up"),
        (exponential(zeroThreshold=0.1), "METRIC_MALFORMED", "wide"),
        (exponential(positive={"offset": 1 << 14, "bucketCounts": ["2", "0", "3"]}), "METRIC_MALFORMED", "finite"),
        ({"summary": {"dataPoints": [{}]}}, "METRIC_TYPE_MISMATCH", "Quantiles"),
        ({"gauge": {"dataPoints": [{}]}}, "METRIC_MALFORMED", "no value"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_says_why(metric: dict[str, Any], code: str, says: str) -> None:
    [found] = decoded(request({"name": "a", **metric}))
    assert isinstance(found, Fault)
    assert found.code == code
    assert says in found.message


def test_a_point_without_a_recorded_value_is_passed_over() -> None:
    assert decoded(request(counter(flags=1))) == []
    assert decode_protobuf(b"") == decode_json(b"{}") == []


def test_attributes_of_every_kind_become_text() -> None:
    attributes = [
        attribute("yes", boolValue=True),
        attribute("number", intValue="7"),
        attribute("half", doubleValue=0.5),
        attribute("list", arrayValue={"values": [{"stringValue": "a"}, {"intValue": "1"}]}),
        attribute("map", kvlistValue={"values": [attribute("k", boolValue=False)]}),
        {"key": "none", "value": {}},
        attribute("same.name", stringValue="1"),
        attribute("same_name", stringValue="2"),
    ]
    [found] = decoded(request(counter(attributes=attributes)))
    assert isinstance(found, Point)
    assert found.labels == {
        "yes": "true",
        "number": "7",
        "half": "0.5",
        "list": '["a",1]',
        "map": '{"k":false}',
        "none": "",
        "same_name": "1;2",
    }


@pytest.mark.parametrize(
    ("name", "unit", "monotonic", "expected"),
    [
        ("http.server.request.duration", "s", False, ("http_server_request_duration_seconds",
                                                      "http_server_request_duration")),
        ("load_seconds", "s", False, ("load_seconds",)),
        ("net.io", "By", True, ("net_io_bytes_total", "net_io_total")),
        ("total.seen__x", "", True, ("seen_x_total",)),
        ("speed", "m/s", False, ("speed_meters_per_second", "speed")),
        ("rate", "{packet}/s", False, ("rate_per_second", "rate")),
        ("2fast", "widgets", False, ("_2fast_widgets", "_2fast")),
    ],
)  # fmt: skip
def test_names_are_those_of_the_specification(name: str, unit: str, monotonic: bool, expected: tuple[str, ...]) -> None:
    assert metric_names(name, unit, monotonic=monotonic, gauge=False) == expected


def test_label_names_are_those_of_the_specification() -> None:
    assert [label_name(each) for each in ("http.route", "a..b", "2nd", "é")] == ["http_route", "a_b", "key_2nd", "_"]


def with_nulls(value: Any) -> Any:
    """Whatever a member may be besides, each object has a member that is null, and so are those that say nothing."""
    if isinstance(value, list):
        return [with_nulls(each) for each in value]
    if isinstance(value, dict):
        return {name: with_nulls(each) if each not in ([], "0") else None for name, each in value.items()} | {"x": None}
    return value


def test_null_is_as_good_as_nothing_wherever_it_is() -> None:
    named = attribute('"a\\":null', stringValue='x,":null')
    sent = counter(attributes=[named], startTimeUnixNano="0", timeUnixNano="1", exemplars=[], flags="0")
    bounds = {"bucketCounts": ["1"], "explicitBounds": [], "count": "1", "sum": 2.5, "exemplars": []}
    load = {"name": "load", "unit": "0", "histogram": {"aggregationTemporality": DELTA, "dataPoints": [bounds]}}
    nulls = {"gauge": None, "sum": None, "histogram": None, "exponentialHistogram": None, "summary": None, "unit": None}
    body = request(nulls | sent, nulls | load | {"unit": "0"}, attributes=[named])
    expected = decoded(request(sent, load | {"unit": ""}, attributes=[named]))
    assert len(expected) == 2
    assert decode_json(json.dumps(with_nulls(body), indent=1).encode()) == expected
    assert decode_json(b'{"resourceMetrics":[{"resource":null,"scopeMetrics":[{"scope":null,"metrics":null}]}]}') == []
    with pytest.raises(MalformedJson):
        decode_json(b'{"resourceMetrics":[null], "x":null}')
    with pytest.raises(MalformedJson):
        decode_json(b'{"resourceMetrics":null, "x":' + b'"\\"' * 1_000_000)


def test_whole_numbers_are_whole_and_have_64_bits() -> None:
    points = [{"asInt": each} for each in ("1.5", 2**63, str(-(2**63) - 1), "9223372036854775807", -5)]
    points += [{"asInt": "1", "flags": each} for each in ("0", "1", "x")]
    metric = {"name": "a", "gauge": {"dataPoints": points}}
    found = decode_json(json.dumps(request(metric)).encode())
    assert [each.code if isinstance(each, Fault) else each.value for each in found] == [
        *["METRIC_MALFORMED"] * 3,
        float(2**63),
        -5.0,
        1.0,
        "METRIC_MALFORMED",
    ]


def test_numbers_that_json_has_as_text_are_read_or_refused_alone() -> None:
    body = request(
        {"name": "a", "gauge": {"dataPoints": [{"asDouble": "NaN"}, {"asInt": "x"}, {"asInt": 9 * 10**400}]}}
    )
    nan, *others = decode_json(json.dumps(body).encode())
    assert isinstance(nan, Point)
    assert isinstance(nan.value, float)
    assert math.isnan(nan.value)
    assert [each.code for each in others if isinstance(each, Fault)] == ["METRIC_MALFORMED", "METRIC_MALFORMED"]


def test_bodies_that_mean_harm_are_refused() -> None:
    with pytest.raises(MalformedBody):
        decode_protobuf(b"\xff\xff")
    with pytest.raises(BatchTooLarge):
        decode_protobuf(b"\x0a\x00" * 2_000_000)
    with pytest.raises(BatchTooLarge):
        decode_json(b'{"resourceMetrics":[' + b"{}," * 1_000_000 + b"{}]}")
    crowded = request(counter(attributes=[attribute("a")] * 128))
    point = crowded["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["sum"]["dataPoints"]
    point *= 1600
    with pytest.raises(BatchTooLarge):
        decode_json(json.dumps(crowded).encode())
    nested = b'{"arrayValue":{"values":[' * 50_000
    with pytest.raises(MalformedJson):
        decode_json(b'{"resourceMetrics":[{"resource":{"attributes":[{"key":"a","value":' + nested)
    with pytest.raises(MalformedJson):
        decode_json(json.dumps(request(counter(), attributes=[attribute("a", intValue="x")])).encode())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["key", "value", "asInt", "dataPoints", "sum", "flags", "name"]), inner)
    ),
    max_leaves=8,
)


_KINDS = st.sampled_from(["gauge", "sum", "histogram", "exponentialHistogram", "summary"])


@given(st.binary(max_size=100), _JSON, _KINDS)
def test_whatever_the_bytes_they_are_points_or_a_known_error(body: bytes, inner: Any, kind: str) -> None:
    known = ExportMetricsServiceRequest()
    known.resource_metrics.add().scope_metrics.add().metrics.add(name="a").sum.data_points.add(as_int=1)
    shaped = json.dumps(request({"name": "a", kind: {"aggregationTemporality": 1, "dataPoints": [inner]}})).encode()
    for decode, hostile in [
        (decode_protobuf, body),
        (decode_protobuf, known.SerializeToString() + body),
        (decode_json, body),
        (decode_json, shaped),
    ]:
        try:
            found = decode(hostile)
        except (MalformedBody, MalformedJson):
            continue
        assert all(isinstance(each, Point | Fault) for each in found)
