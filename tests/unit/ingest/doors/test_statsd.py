"""StatsD lines: what each comes to, what is refused and why, and bytes that mean harm."""

import socket

import pytest
from datadog.dogstatsd.base import DogStatsd
from hypothesis import given
from hypothesis import strategies as st
from statsd import StatsClient

from services.ingest.domain import MOST_POINTS_IN_REQUEST, Fault, MetricType
from services.ingest.doors import statsd
from services.ingest.errors import BatchEmpty, BatchTooLarge
from services.ingest.point_validation import validate_points
from services.ingest.points import COUNTERS, DISTRIBUTIONS, GAUGES, Observations, Point
from services.ingest.validation import CompiledDefinition, LabelSetMemory
from tests.stepping import at_once
from tests.unit.ingest.ingestion import NOW_MS, definition


def decode(body: bytes) -> list[Point | Fault]:
    return list(statsd.decode(body))


def one(line: str) -> Point | Fault:
    [found] = decode(line.encode())
    return found


def point(line: str) -> Point:
    found = one(line)
    assert isinstance(found, Point), found
    return found


def refused(line: str) -> str:
    found = one(line)
    assert isinstance(found, Fault), found
    return found.code


def test_a_counter_is_named_as_a_counter_and_divided_by_its_sampling_rate() -> None:
    assert point("shop.orders:3|c|@0.1|#plan:pro,region.name:eu") == Point(
        names=("shop_orders_total",), labels={"plan": "pro", "region_name": "eu"}, types=COUNTERS, value=30.0
    )
    assert point("orders_total:1|c").names == ("orders_total",)


def test_timings_are_seconds_and_each_stands_for_those_that_were_not_sampled() -> None:
    assert point("render:250|ms|@0.5") == Point(
        names=("render", "render_seconds"), labels={}, types=DISTRIBUTIONS, value=Observations([0.25], 2)
    )
    assert point("size:1:2.5:3e2|h").value == Observations([1.0, 2.5, 300.0])
    assert point("size:7|d").value == Observations([7.0])


def weights(body: str) -> list[int]:
    found = [each.value for each in decode(body.encode()) if isinstance(each, Point)]
    return [each.weight for each in found if isinstance(each, Observations)]


def test_where_a_rate_is_no_whole_number_a_request_counts_to_the_unit_what_was_sampled() -> None:
    """100 of 0.7 stand for 142.9, and 100 of 0.3 for 333.3; their neighbours carry nothing of it."""
    lines = ["t:1|h|@0.7", "u:1|ms|@0.3", "t:1|h|@0.7|#plan:pro", "v:1|d|@0.1"] * 100
    found = weights("\n".join(lines))
    assert {*found[::4], *found[2::4]} == {1, 2}
    assert {sum(found[::4]), sum(found[2::4])} <= {142, 143}
    assert sum(found[1::4]) in (333, 334)
    assert found[3::4] == [10] * 100


def test_requests_of_one_line_count_on_the_average_what_was_sampled() -> None:
    """Of 10 000 with a standard deviation of 49 in all: six of these either way is once in 500 million runs."""
    assert abs(sum([weights("t:1|h|@0.7")[0] for _ in range(10_000)]) - 10_000 / 0.7) < 300


def test_rates_are_as_exact_as_they_are_written() -> None:
    for whole in (1, 3, 7, 49, 333, 1_000, 999_999, 1_000_000):
        assert weights(f"t:1|h|@{1 / whole!r}") == [whole]


def test_a_gauge_with_a_sign_changes_what_the_same_request_has_set() -> None:
    found = decode(b"depth:10|g|#q:a\ndepth:-4|g|#q:a\ndepth:+1.5|g|#q:a\ndepth:-1|g|#q:b")
    assert [each.value for each in found if isinstance(each, Point)] == [10.0, 6.0, 7.5]
    assert isinstance(found[3], Fault)
    assert found[3].code == "METRIC_MALFORMED"
    assert point("depth:3|g").types == GAUGES


def test_several_values_of_a_gauge_follow_each_other_as_lines_do() -> None:
    found = decode(b"depth:10:+5|g\ndepth:-1:-2|g\ndepth:+1:3:+1|g\nnew:+5:-1|g\nlate:+5:10|g")
    assert [each.value for each in found if isinstance(each, Point)] == [15.0, 12.0, 4.0, 10.0]
    assert isinstance(found[3], Fault)
    assert found[3].code == "METRIC_MALFORMED"


def test_a_gauge_has_the_time_of_its_line_and_what_is_added_up_has_none() -> None:
    assert point("depth:3|g|#q:a|T1656581400|c:in-abc").timestamp_ms == 1_656_581_400_000
    changes = decode(b"depth:3|g|T1656581400\ndepth:+1|g\ndepth:+1|g|T1656581409\ndepth:4|g\ndepth:+1|g")
    assert [(each.value, each.timestamp_ms) for each in changes if isinstance(each, Point)] == [
        (3.0, 1_656_581_400_000),
        (4.0, 1_656_581_400_000),
        (5.0, 1_656_581_409_000),
        (4.0, None),
        (5.0, None),
    ]
    assert [point(f"took:3|{kind}|T1656581400").timestamp_ms for kind in ("c", "ms", "h", "d")] == [None] * 4


def test_a_gauge_that_is_late_does_not_pass_for_the_level_now() -> None:
    definitions = {"depth": CompiledDefinition(definition("depth", MetricType.GAUGE), LabelSetMemory())}
    now_s = NOW_MS // 1000
    body = "\n".join(f"depth:{at}|g|T{now_s + at}" for at in (0, -8 * 86_400, -8 * 86_400 - 1, 600, 601, 10**14))
    [found] = at_once(validate_points(decode(body.encode()), definitions, now_s * 1000))
    assert [each.index for each in found.rejections] == [2, 4, 5]
    assert {each.code for each in found.rejections} == {"TIMESTAMP_OUT_OF_RANGE"}
    assert found.timestamps == [(now_s + at) * 1000 for at in (0, -8 * 86_400, 600)]


def test_names_and_tags_become_those_of_prometheus() -> None:
    found = point("9-lives.café:1|c|#env-name:a:b,canary,:x,2nd:y|c:in-abc|T1656581400")
    assert found.names == ("_9_lives_caf__total",)
    assert found.labels == {"env_name": "a:b", "canary": "true", "": "x", "_2nd": "y"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("orders", "METRIC_MALFORMED"),
        ("orders:1", "METRIC_MALFORMED"),
        (":1|c", "METRIC_MALFORMED"),
        ("orders:|c", "METRIC_MALFORMED"),
        ("orders:1|x", "METRIC_MALFORMED"),
        ("orders:1_000|c", "METRIC_MALFORMED"),
        ("orders:0x10|c", "METRIC_MALFORMED"),
        ("orders:\u0661|c", "METRIC_MALFORMED"),
        ("orders:nan|c", "VALUE_NOT_FINITE"),
        ("orders:-Infinity|g", "VALUE_NOT_FINITE"),
        ("orders:1|c|@0", "METRIC_MALFORMED"),
        ("orders:1|c|@2", "METRIC_MALFORMED"),
        ("orders:1|c|@nan", "METRIC_MALFORMED"),
        ("orders:1|g|T", "METRIC_MALFORMED"),
        ("orders:1|g|T-5", "METRIC_MALFORMED"),
        ("orders:1|c|T1.5", "METRIC_MALFORMED"),
        ("orders:1|g|T1234567890123456", "METRIC_MALFORMED"),
        ("visitors:alice|s", "METRIC_MALFORMED"),
        ("visitors:7|s", "METRIC_TYPE_MISMATCH"),
        ("_e{5,4}:title|text", "METRIC_MALFORMED"),
        ("_sc|name|0", "METRIC_MALFORMED"),
        ("h:" + "1:" * 1000 + "1|h", "METRIC_MALFORMED"),
    ],
)
def test_what_a_line_cannot_be_is_refused_alone(line: str, code: str) -> None:
    found = decode(f"a:1|c\n{line}\nb:1|c\n".encode())
    assert [type(each) for each in found] == [Point, Fault, Point]
    assert isinstance(found[1], Fault)
    assert found[1].code == code


def test_lines_are_bounded_and_there_must_be_one() -> None:
    with pytest.raises(BatchEmpty):
        decode(b"\r\n \n")
    assert len(decode(b"a:1|c\n" * MOST_POINTS_IN_REQUEST)) == MOST_POINTS_IN_REQUEST
    with pytest.raises(BatchTooLarge):
        decode(b"a:1|c\n" * (MOST_POINTS_IN_REQUEST + 1))
    assert isinstance(decode(b"\xff:1|c")[0], Fault)


@given(st.binary(max_size=200) | st.text("a:1|c@#.,+-eg\n\x00é", max_size=100).map(str.encode))
def test_whatever_the_bytes_every_line_is_a_point_or_has_a_fault(body: bytes) -> None:
    try:
        found = decode(body)
    except BatchEmpty:
        assert not body.strip()
        return
    assert all(isinstance(each, Point | Fault) for each in found)


def sent_to(server: socket.socket, packets: int) -> bytes:
    """What a client has sent by UDP, as a forwarder posts it."""
    server.settimeout(10)
    return b"\n".join(server.recv(65_535) for _ in range(packets))


def test_the_bytes_of_statsd_clients_are_understood() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        host, port = server.getsockname()
        plain = StatsClient(host, port)
        plain.incr("orders", 2)
        plain.timing("render", 320)
        plain.gauge("balance", -5)
        body = sent_to(server, 3)
        tagged = DogStatsd(host=host, port=port, disable_telemetry=True, disable_buffering=True)
        tagged.increment("orders", 3, tags=["plan:pro"])
        tagged.distribution("size", 1.5, tags=["plan:pro"])
        body += b"\n" + sent_to(server, 2)
    found = decode(body)
    assert [(each.names[0], each.value) for each in found if isinstance(each, Point)] == [
        ("orders_total", 2.0),
        ("render", Observations([0.32])),
        ("balance", 0.0),
        ("balance", -5.0),
        ("orders_total", 3.0),
        ("size", Observations([1.5])),
    ]
    assert all(each.labels == {"plan": "pro"} for each in found[4:] if isinstance(each, Point))
