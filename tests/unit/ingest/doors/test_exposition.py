"""Bodies that clients push to a Pushgateway, in both formats: what each comes to, and what is refused whole."""

import math
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Summary, generate_latest

from contracts.pulsegate.ingest.v1 import exposition_pb2 as pb
from services.ingest.domain import MOST_POINTS_IN_REQUEST, Fault
from services.ingest.doors import exposition_protobuf, exposition_text
from services.ingest.doors.exposition import Push, points_of
from services.ingest.errors import BatchTooLarge, MalformedBody
from services.ingest.points import COUNTERS, GAUGES, HISTOGRAMS, SUMMARIES, Buckets, Point
from tests.stepping import at_once

JOB = {"job": "nightly"}
TWO_BUCKETS_UP_TO_ONE = pb.ExpositionHistogram(bucket=[pb.ExpositionBucket(upper_bound=1.0) for _ in range(2)])


def points(body: str | bytes, group: dict[str, str] = JOB, at: int = 1) -> list[Point | Fault]:
    text = body.encode() if isinstance(body, str) else body
    return list(points_of(at_once(exposition_text.parse(text)), Push(group, at)))


def of_protobuf(body: bytes) -> list[Point | Fault]:
    return list(points_of(at_once(exposition_protobuf.parse(body)), Push(JOB, 1)))


def point(body: str, **group: str) -> Point:
    [found] = points(body, {**JOB, **group})
    assert isinstance(found, Point), found
    return found


def source(body: str, **group: str) -> bytes:
    origin = point(body, **group).origin
    assert origin is not None
    return origin.source


def delimited(*families: pb.ExpositionFamily) -> bytes:
    body = b""
    for family in families:
        encoded, length = family.SerializeToString(), b""
        left = len(encoded)
        while left >= 0x80:
            length, left = length + bytes([left & 0x7F | 0x80]), left >> 7
        body += length + bytes([left]) + encoded
    return body


def family(name: str, kind: "pb.ExpositionType.ValueType", **metric: Any) -> pb.ExpositionFamily:
    return pb.ExpositionFamily(name=name, type=kind, metric=[pb.ExpositionMetric(**metric)])


def test_what_prometheus_client_writes_comes_to_points_of_its_metrics() -> None:
    registry = CollectorRegistry()
    Counter("orders", "Orders.", ["plan"], registry=registry).labels('a "b" \\ c\nd').inc(3)
    Gauge("depth", "Depth.", registry=registry).set(-7.5)
    Histogram("load_seconds", "Load.", buckets=[0.1, 1], registry=registry).observe(0.5)
    Summary("size_bytes", "Size.", registry=registry).observe(12)
    Info("build", "Build.", registry=registry).info({"version": "1"})
    found = {each.names[0]: each for each in points(generate_latest(registry)) if isinstance(each, Point)}
    assert {name: (each.value, each.types) for name, each in found.items()} == {
        "orders_total": (3.0, COUNTERS),
        "depth": (-7.5, GAUGES),
        "load_seconds": (Buckets((0.1, 1.0), [0, 1, 0], 0.5), HISTOGRAMS),
        "size_bytes": (Buckets((), [1], 12.0), SUMMARIES),
        "build_info": (1.0, GAUGES),
    }
    assert found["orders_total"].labels == {"plan": 'a "b" \\ c\nd'}
    assert {name for name, each in found.items() if each.origin is None} == {"depth", "build_info"}


def test_levels_and_totals_are_of_when_the_push_arrived() -> None:
    arrived_ns = 1_795_200_000_123_456_789
    [total, level] = points("# TYPE orders counter\norders 1\n# TYPE depth gauge\ndepth 2", at=arrived_ns)
    assert isinstance(total, Point)
    assert isinstance(level, Point)
    assert total.origin is not None
    assert (total.origin.taken_ns, level.timestamp_ms) == (arrived_ns, 1_795_200_000_123)


def test_the_groups_labels_are_offered_and_replace_labels_of_the_body() -> None:
    found = point('rows{job="mine",kind="new"} 5', instance="db-1")
    assert (found.labels, found.offered) == ({"kind": "new"}, {"job": "nightly", "instance": "db-1"})
    assert found.types == COUNTERS | GAUGES


def test_a_series_of_a_group_is_one_source_and_each_run_of_it_that_is_known_another() -> None:
    begun = '# TYPE a counter\na_total{x="1"} 5\n# TYPE a_created gauge\na_created{x="1"} '
    same = source('# TYPE a_total counter\na_total{x="1"} 7')
    assert same == source('# TYPE a_total counter\na_total{ x = "1" , } +7.0')
    others = [
        source('# TYPE a_total counter\na_total{x="1"} 7', instance="other"),
        source('# TYPE a_total counter\na_total{x="2"} 7'),
        source(begun + "1.7e9"),
        source(begun + "1.8e9"),
    ]
    assert len({same, *others}) == 5


def test_a_label_with_an_empty_value_makes_no_other_source() -> None:
    for lines in ("# TYPE a counter\na_total%s 7", "# TYPE a summary\na_count%s 7\na_sum%s 9"):
        assert source(lines.replace("%s", '{x=""}')) == source(lines.replace("%s", ""))


def test_a_gauge_named_created_is_a_gauge() -> None:
    assert point("# TYPE file_created gauge\nfile_created 1.7e9").names == ("file_created",)
    both = points("# TYPE file gauge\nfile 1\n# TYPE file_created gauge\nfile_created 2")
    assert [each.names for each in both if isinstance(each, Point)] == [("file",), ("file_created",)]


@pytest.mark.parametrize(
    "lines",
    [
        'h_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_count 1\nh_sum 1',
        'h_bucket{le="1"} 1\nh_bucket{le="+Inf"} 2\nh_count 3\nh_sum 1',
        'h_bucket{le="1"} 0.5\nh_bucket{le="+Inf"} 2\nh_count 2\nh_sum 1',
        'h_bucket{le="+Inf"} 2\nh_count 2',
        'h_bucket{le="NaN"} 2\nh_bucket{le="+Inf"} NaN\nh_count 2\nh_sum 1',
        "h_sum 1",
    ],
)
def test_a_histogram_that_does_not_add_up_costs_only_itself(lines: str) -> None:
    [bad, good] = points(f"# TYPE h histogram\n{lines}\nother 1")
    assert isinstance(bad, Fault)
    assert bad.code == "METRIC_MALFORMED"
    assert isinstance(good, Point)


def test_a_histogram_without_a_last_bucket_has_its_count() -> None:
    found = point('# TYPE h histogram\nh_bucket{le="1"} 1\nh_count 3\nh_sum 9')
    assert found.value == Buckets((1.0,), [1, 2], 9.0)


def test_comments_blank_lines_and_line_ends_of_windows_are_nothing() -> None:
    assert point("# HELP a What.\r\n\r\n# EOF\r\n# TYPE a gauge\r\na\t 1 \r\n").value == 1.0
    assert math.isnan(float(point("a NaN").value))  # type: ignore[arg-type]
    assert points(b"") == []


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("a 1\nb", 2),
        ("a{} x", 1),
        ("a 1 1700000000000", 1),
        ('a{x="1"', 1),
        ('a{x="\\t"} 1', 1),
        ('a{x="1",x="2"} 1', 1),
        ("a{x=1} 1", 1),
        ('a{x="1"}{y="2"} 1', 1),
        ("a 1\na 1", 2),
        ("# TYPE a counter\na 1\na_total 2", 3),
        ('# TYPE h histogram\nh_bucket{le="1"} 1\nh_bucket{le="1.0"} 2', 3),
        ('a{x="1"} 1\na{x="1"} 2', 2),
        ("# TYPE a counter\n# TYPE a counter", 2),
        ("a 1\n# TYPE a counter", 2),
        ("# TYPE a stateset", 1),
        ("# TYPE 1a counter", 1),
        ("9a 1", 1),
        ("a 1_000", 1),
        ("a \u0661", 1),
        ("a " + "9" * 500, 1),
        ('# TYPE h histogram\nh_bucket{le="x"} 1', 2),
    ],
)
def test_a_body_that_pushgateway_would_refuse_is_refused_with_the_line(body: str, line: int) -> None:
    with pytest.raises(MalformedBody) as caught:
        points(body)
    assert caught.value.message.startswith(f"Line {line}: ")


@pytest.mark.parametrize(
    "body",
    [
        '# TYPE a counter\na{x="1"} 1\n# TYPE a_total counter\na_total{x="1"} 2',
        'a_total{x="1"} 1\n# TYPE a counter\na{x="1"} 2',
        'a_total{x="1",job="this"} 1\na_total{x="1",job="that"} 2',
        'a_total{x="1",y=""} 1\na_total{x="1"} 2',
    ],
)
def test_series_that_come_to_the_same_are_refused_because_one_would_be_lost(body: str) -> None:
    with pytest.raises(MalformedBody, match=r'The series a_total\{x="1"\} is there twice'):
        points(body)


def test_a_body_without_end_is_refused() -> None:
    with pytest.raises(BatchTooLarge):
        points("\n".join(f"a{number} 1" for number in range(MOST_POINTS_IN_REQUEST + 1)))
    with pytest.raises(BatchTooLarge):
        points("\n" * 60_000)
    with pytest.raises(MalformedBody):
        points("a{" + ",".join(f'l{number}=""' for number in range(65)) + "} 1")
    labels = ",".join(f'l{number}=""' for number in range(64))
    with pytest.raises(BatchTooLarge):
        points("\n".join(f"a{number}{{{labels}}} 1" for number in range(4_000)))
    with pytest.raises(MalformedBody):
        points(b"\xff")


def test_a_name_that_no_definition_can_have_is_refused_with_each_of_its_series() -> None:
    metrics: Any = [pb.ExpositionMetric(label=[pb.ExpositionLabel(name="x", value=str(at))]) for at in range(3)]
    long = pb.ExpositionFamily(name="a" * 195, metric=metrics)
    found = of_protobuf(delimited(long))
    assert [each.code for each in found if isinstance(each, Fault)] == ["METRIC_MALFORMED"] * 3
    assert [type(each) for each in points("a" * 201 + " 1\nb 1")] == [Fault, Point]


@given(st.text(alphabet='ab{}=",\\\n# TYPEcounter 1.eN_', max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(MalformedBody):
        points(text)


def test_protobuf_comes_to_the_same_points_as_text() -> None:
    began = Timestamp(seconds=1_700_000_000, nanos=500_000_000)
    labels = [pb.ExpositionLabel(name="plan", value="pro")]
    counter = pb.ExpositionMetric(label=labels, counter=pb.ExpositionCounter(value=3, created=began))
    buckets = [pb.ExpositionBucket(cumulative_count=1, upper_bound=0.1), pb.ExpositionBucket(upper_bound=math.inf)]
    buckets[1].cumulative_count = 4
    histogram = pb.ExpositionHistogram(sample_count=4, sample_sum=9, bucket=buckets)
    families = [
        pb.ExpositionFamily(name="orders_total", metric=[counter]),
        family("depth", pb.EXPOSITION_TYPE_GAUGE, gauge=pb.ExpositionNumber(value=2)),
        family("load", pb.EXPOSITION_TYPE_HISTOGRAM, histogram=histogram),
        family("size", pb.EXPOSITION_TYPE_SUMMARY, summary=pb.ExpositionSummary(sample_count=1, sample_sum=12)),
        family("rows", pb.EXPOSITION_TYPE_UNTYPED, untyped=pb.ExpositionNumber(value=8)),
    ]
    text = """
# TYPE orders_total counter
orders_total{plan="pro"} 3
# TYPE orders_created gauge
orders_created{plan="pro"} 1700000000.5
# TYPE depth gauge
depth 2
# TYPE load histogram
load_bucket{le="0.1"} 1
load_bucket{le="+Inf"} 4
load_sum 9
load_count 4
# TYPE size summary
size{quantile="0.5"} 12
size_sum 12
size_count 1
rows 8
"""
    assert of_protobuf(delimited(*families)) == points(text)


def test_an_unknown_kind_of_histogram_costs_only_itself() -> None:
    unknown = family("h", pb.EXPOSITION_TYPE_GAUGE_HISTOGRAM)
    [found] = of_protobuf(delimited(unknown))
    assert isinstance(found, Fault)
    assert found.code == "METRIC_TYPE_MISMATCH"


@pytest.mark.parametrize(
    "body",
    [
        b"\x05ab",
        b"\xff\xff\xff\xff\xff\xff\x01",
        b"\x80",
        b"\x02\xff\xff",
        delimited(pb.ExpositionFamily(name="a"), pb.ExpositionFamily(name="a")),
        delimited(pb.ExpositionFamily(name="a", metric=[pb.ExpositionMetric(), pb.ExpositionMetric()])),
        delimited(pb.ExpositionFamily(name="a", metric=[pb.ExpositionMetric(timestamp_ms=1)])),
        delimited(family("h", pb.EXPOSITION_TYPE_HISTOGRAM, histogram=TWO_BUCKETS_UP_TO_ONE)),
    ],
)
def test_protobuf_that_pushgateway_would_refuse_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        of_protobuf(body)


def test_protobuf_without_end_is_refused() -> None:
    with pytest.raises(BatchTooLarge):
        of_protobuf(delimited(*[pb.ExpositionFamily(name=str(at)) for at in range(MOST_POINTS_IN_REQUEST + 1)]))
    many: Any = [pb.ExpositionMetric()] * (MOST_POINTS_IN_REQUEST + 1)
    with pytest.raises(BatchTooLarge):
        of_protobuf(delimited(pb.ExpositionFamily(name="a", metric=many)))
    endless = pb.ExpositionHistogram(bucket=[pb.ExpositionBucket()] * 60_000)
    with pytest.raises(BatchTooLarge):
        of_protobuf(delimited(pb.ExpositionFamily(name="a", metric=[pb.ExpositionMetric(histogram=endless)])))
    labels = [pb.ExpositionLabel(name=f"l{number}") for number in range(65)]
    with pytest.raises(MalformedBody):
        of_protobuf(delimited(pb.ExpositionFamily(name="a", metric=[pb.ExpositionMetric(label=labels)])))
