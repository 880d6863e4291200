"""From bytes to a typed batch: every code, and bodies that mean harm."""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import cramjam
import pytest
import zstandard

from chassis.errors import PulsegateError
from services.ingest.decoding import MOST_BODY_BYTES, Batch, Metric, decode
from services.ingest.domain import Fault
from services.ingest.exemplars import Span

PRODUCER = "0192f0c1-7d3a-7c6e-9a55-3f6f0c1b2a4d"
GOOD = b'{"metrics":[{"name":"a","value":1}]}'


def with_value(value: bytes) -> bytes:
    return b'{"metrics":[{"name":"a","value":%s},{"name":"b","value":2}]}' % value


def batch(**members: Any) -> bytes:
    return json.dumps({"metrics": [{"name": "a", "value": 1}], **members}).encode()


def refused(body: bytes, encoding: str = "") -> PulsegateError:
    with pytest.raises(PulsegateError) as caught:
        decode(body, encoding)
    return caught.value


def fault_of(body: bytes) -> str:
    """The code of the first metric's fault; the second metric must be untouched."""
    first, second = decode(body, "").metrics
    assert isinstance(second, Metric)
    assert isinstance(first, Fault), first
    return first.code


# --- what is taken


def test_spans_of_exemplars_are_read_where_they_are_well_formed() -> None:
    span = {"traceId": "0A" * 16, "spanId": "01" * 8}
    sent: list[Any] = [
        {"name": "a", "value": 1, "exemplar": span},
        {"name": "a", "value": 1},
        {"name": "a", "value": 1, "exemplar": {**span, "traceId": "00" * 16}},
        {"name": "a", "value": 1, "exemplar": {**span, "spanId": "xy"}},
        {"name": "a", "value": 1, "exemplar": {"traceId": 5}},
        {"name": "a", "value": 1, "exemplar": "none"},
        {"name": "a", "value": 1, "exemplar": None},
        5,
        {"name": "a", "value": 1, "exemplar": span},
    ]
    batch = decode(json.dumps({"metrics": sent}).encode(), "")
    well_formed = Span(b"\x0a" * 16, b"\x01" * 8)
    assert batch.spans == {0: well_formed, 8: well_formed}
    assert [isinstance(each, Fault) for each in batch.metrics] == [at == 7 for at in range(9)]


def test_a_batch_as_the_contract_shows_it() -> None:
    body = batch(
        producer=PRODUCER,
        sequence=17,
        floor=15,
        future={"ignored": True},
        metrics=[{"name": "a", "value": 1, "labels": {"plan": "pro"}, "timestamp": 1795200000000, "more": None}],
    )
    decoded = decode(body, "")
    assert (decoded.producer.hex(), decoded.sequence, decoded.floor) == (PRODUCER.replace("-", ""), 17, 15)
    [metric] = decoded.metrics
    assert isinstance(metric, Metric)
    assert (metric.name, metric.value, metric.timestamp) == ("a", 1.0, 1795200000000)
    assert json.loads(bytes(metric.labels)) == {"plan": "pro"}


@pytest.mark.parametrize("body", [batch(), batch(producer=None, sequence=None, floor=None)])
def test_no_producer_and_no_sequence(body: bytes) -> None:
    assert decode(body, "") == Batch(producer=b"", sequence=0, floor=0, metrics=decode(body, "").metrics)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"1", 1.0), (b"-0", 0.0), (b"1e-400", 0.0), (b"[1,2.5]", [1.0, 2.5]), (b"1" * 30, float("1" * 30)), (b"[]", [])],
)
def test_a_value_is_read_as_a_float_and_an_array_as_floats(value: bytes, expected: float | list[float]) -> None:
    [metric, _] = decode(with_value(value), "").metrics
    assert isinstance(metric, Metric)
    assert metric.value == expected
    assert isinstance(metric.value, float | list)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_compressed_bodies_of_one_or_several_parts(encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zstandard.ZstdCompressor(write_content_size=False).compress
    assert len(decode(pack(GOOD), encoding).metrics) == 1
    assert len(decode(pack(GOOD[:7]) + pack(GOOD[7:]), encoding).metrics) == 1


# --- the whole body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        GOOD[:-1],
        GOOD + b"x",
        GOOD + b"\xff",
        b'{"metrics":5',
        b'{"metrics":[{"name":5}]',
        with_value(b"NaN"),
        with_value(b"-Infinity"),
        with_value(b"[1,Infinity]"),
        with_value(b"01"),
        with_value(b'"\xff"'),
        with_value(b'"\xed\xa0\x80"'),
        b'{"metrics":[{"name":"\\ud8","value":1}]}',
        b'{"metrics":[{"name":"\\ud800","value":NaN}]}',
        b'{"metrics":[{"name":"a","value":1,"labels":{"plan":"\\ud800\n"}}]}',
        b'{"metrics":[{"name":"\\ud800\xff","value":1}]}',
        b'{"metrics":[{"name":"%s","value":1}]}' % (rb"\ud83d" * 1_001),
        b'{"metrics":[{"name":"\\ud83d","value":1}]}' + b" " * (1 << 20),
        b'{"metrics":[{"name":"a","value":1,"labels":{"plan":"\n"}}]}',
        b'{"metrics":[{"name":"a","value":1,"labels":{"plan":NaN}}]}',
        b'{"producer":"\xc3","metrics":[{"name":"a","value":1}]}',
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
    ],
)
def test_what_is_not_json(body: bytes) -> None:
    error = refused(body)
    assert (error.http_status, error.code) == (400, "MALFORMED_JSON")


@pytest.mark.parametrize(
    "half",
    [
        rb"\ud83d",
        rb"\uDBFF",
        rb"\ude00",
        rb"\uDFff x",
        rb"\ud83d\u0041",
        rb"\ud83d\n",
        rb"\ud83d\ud83d\ude00",
        rb"\ud83d\ude00\ude00",
        rb"\\\ud83d",
        rb"\\ud83d\ude00",
        rb"\ud83d\\\ude00",
    ],
)
def test_half_a_character_costs_its_own_metric_alone(half: bytes) -> None:
    whole = rb"\ud83d\ude00 \\ud83d \\\\ude00 \uffef"
    metrics = [
        b'{"name":"%s","value":1}' % half,
        b'{"name":"a","value":1,"labels":{"plan":"%s"}}' % half,
        b'{"name":"a","value":1,"labels":{"%s":""}}' % half,
        b'{"name":"a","value":"%s"}' % half,
        b'{"name":"%s","value":2,"labels":{"plan":"%s"}}' % (whole, whole),
        b'{"name":"a","value":"NaN"}',
    ]
    decoded = decode(
        b'{"%s":1,"producer":"%s","sequence":1,"metrics":[%s]}' % (half, PRODUCER.encode(), b",".join(metrics)), ""
    )
    *halves, good, not_finite = decoded.metrics
    assert [each.code for each in halves if isinstance(each, Fault)] == ["METRIC_MALFORMED"] * 4
    assert isinstance(good, Metric)
    assert [good.name, json.loads(bytes(good.labels))] == [
        "😀 \\ud83d \\\\ude00 \uffef",
        {"plan": json.loads(b'"%s"' % whole)},
    ]
    assert isinstance(not_finite, Fault)
    assert not_finite.code == "VALUE_NOT_FINITE"


def test_an_escaped_backslash_beside_half_a_character_is_no_escape() -> None:
    [_, good] = decode(
        rb'{"metrics":[{"name":"\ud83d","value":1},{"name":"a","value":1,"labels":{"path":"C:\\uffff"}}]}', ""
    ).metrics
    assert isinstance(good, Metric)
    assert json.loads(bytes(good.labels)) == {"path": r"C:\uffff"}


def test_an_array_with_half_a_character_is_an_array_first() -> None:
    halves = decode(
        rb'{"metrics":[{"name":"a","value":["\ud83d"]},{"name":"a","value":[1],"labels":{"x":"\ud83d"}},'
        rb'{"name":"a","value":1,"labels":{"x":"\ud83d"}}]}',
        "",
    ).metrics
    assert [each.is_array for each in halves if isinstance(each, Fault)] == [True, True, False]


def test_half_a_character_elsewhere_is_judged_where_it_is() -> None:
    [metric] = decode(rb'{"\ud800":"\udc00","metrics":[{"name":"a","value":1}]}', "").metrics
    assert isinstance(metric, Metric)
    error = refused(rb'{"producer":"\ud800","sequence":1,"metrics":[{"name":"a","value":1}]}')
    assert list((error.details or {})["fields"]) == ["producer"]


def test_spans_are_read_beside_half_a_character() -> None:
    span = b'"exemplar":{"traceId":"%s","spanId":"%s"}' % (b"0a" * 16, b"01" * 8)
    decoded = decode(rb'{"metrics":[{"name":"\ud800","value":1},{"name":"a","value":1,' + span + b"}]}", "")
    assert decoded.spans == {1: Span(b"\x0a" * 16, b"\x01" * 8)}


@pytest.mark.parametrize(
    "around",
    [
        (b"", b""),
        (b'{"metrics":', b"}"),
        (b'{"metrics":[{"name":"a","value":', b"}]}"),
        (b'{"ignored":', b',"metrics":[{"name":"a","value":1}]}'),
        (b'{"metrics":[{"name":"a","value":1,"labels":', b"}]}"),
    ],
)
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_json_200_000_deep(around: tuple[bytes, bytes], brackets: tuple[bytes, bytes]) -> None:
    deep = around[0] + brackets[0] * 200_000 + b"1" + brackets[1] * 200_000 + around[1]
    assert refused(deep).code == "MALFORMED_JSON"


@pytest.mark.parametrize("body", [b"[]", b"null", b"{}", b'{"metrics":null}', b'{"metrics":{}}', b'"metrics"'])
def test_what_is_json_and_no_batch(body: bytes) -> None:
    error = refused(body)
    assert (error.http_status, error.code) == (422, "VALIDATION_FAILED")
    assert "metrics" in (error.details or {})["fields"]


def test_an_empty_batch() -> None:
    assert refused(batch(metrics=[])).code == "BATCH_EMPTY"


@pytest.mark.parametrize("metric", [{"name": "a", "value": 1}, {"name": 1}, 7])
def test_a_batch_of_101(metric: Any) -> None:
    assert len(decode(batch(metrics=[metric] * 100), "").metrics) == 100
    error = refused(batch(metrics=[metric] * 101))
    assert (error.http_status, error.code) == (422, "BATCH_TOO_LARGE")
    assert "101" in error.message


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"producer": "x", "sequence": 1}, "producer"),
        ({"producer": 5, "sequence": 1}, "producer"),
        ({"producer": PRODUCER.replace("-", ""), "sequence": 1}, "producer"),
        ({"producer": "00000000-0000-0000-0000-000000000000", "sequence": 1}, "producer"),
        ({"producer": "{" + PRODUCER[1:-1] + "}", "sequence": 1}, "producer"),
        ({"producer": PRODUCER}, "sequence"),
        ({"sequence": 1}, "producer"),
        ({"producer": PRODUCER, "sequence": 0}, "sequence"),
        ({"producer": PRODUCER, "sequence": -1}, "sequence"),
        ({"producer": PRODUCER, "sequence": 1.5}, "sequence"),
        ({"producer": PRODUCER, "sequence": "1"}, "sequence"),
        ({"producer": PRODUCER, "sequence": True}, "sequence"),
        ({"producer": PRODUCER, "sequence": 10**30}, "sequence"),
        ({"producer": PRODUCER, "sequence": 5, "floor": 6}, "floor"),
        ({"producer": PRODUCER, "sequence": 5, "floor": 0}, "floor"),
        ({"producer": PRODUCER, "sequence": 5, "floor": []}, "floor"),
        ({"floor": 1}, "floor"),
    ],
)
def test_a_bad_producer_sequence_or_floor(members: dict[str, Any], field: str) -> None:
    error = refused(batch(**members))
    assert (error.http_status, error.code) == (422, "VALIDATION_FAILED")
    assert list((error.details or {})["fields"]) == [field]


def test_every_bad_member_is_named_at_once() -> None:
    error = refused(batch(producer=1, sequence="x", floor=-1))
    assert set((error.details or {})["fields"]) == {"producer", "sequence", "floor"}


def test_the_window_from_floor_to_sequence_holds_4096_numbers() -> None:
    assert decode(batch(producer=PRODUCER, sequence=4_100, floor=5), "").floor == 5
    error = refused(batch(producer=PRODUCER, sequence=4_100, floor=4))
    assert (error.http_status, error.code) == (422, "SEQUENCE_OUT_OF_WINDOW")
    assert decode(batch(producer=PRODUCER, sequence=1_000_000), "").sequence == 1_000_000, "without floor: no limit"


# --- one metric


@pytest.mark.parametrize(
    "value",
    [
        b'"NaN"',
        b'"Infinity"',
        b'"-Infinity"',
        b'"+Inf"',
        b'" inf "',
        b"1e400",
        b"-1e400",
        b"9" * 400,
        b"-" + b"9" * 400,
        b'[1,"NaN"]',
        b"[1,1e400]",
        b"[1," + b"9" * 400 + b"]",
    ],
)
def test_values_that_are_not_finite(value: bytes) -> None:
    assert fault_of(with_value(value)) == "VALUE_NOT_FINITE"


@pytest.mark.parametrize("value", [b"true", b"null", b'"1"', b'""', b"{}", b'["x"]', b"[[1]]", b"[null]", b"[true]"])
def test_values_of_another_shape(value: bytes) -> None:
    assert fault_of(with_value(value)) == "METRIC_MALFORMED"


@pytest.mark.parametrize(
    "metric",
    [
        b"5",
        b"null",
        b"[]",
        b"{}",
        b'{"name":"a"}',
        b'{"value":1}',
        b'{"name":null,"value":1}',
        b'{"name":["a"],"value":1}',
        b'{"name":1e999,"value":1}',
        b'{"name":"a","value":1,"timestamp":"now"}',
        b'{"name":"a","value":1,"timestamp":true}',
    ],
)
def test_metrics_of_another_shape(metric: bytes) -> None:
    assert fault_of(b'{"metrics":[%s,{"name":"b","value":2}]}' % metric) == "METRIC_MALFORMED"


@pytest.mark.parametrize("timestamp", [b"1e999", b"-1e999", b"9" * 400])
def test_a_timestamp_that_is_no_64_bit_float_is_out_of_range_whatever_the_value(timestamp: bytes) -> None:
    for value in (b"1", b'"NaN"'):
        metric = b'{"name":"a","value":%s,"timestamp":%s}' % (value, timestamp)
        assert fault_of(b'{"metrics":[%s,{"name":"b","value":2}]}' % metric) == "TIMESTAMP_OUT_OF_RANGE"


def test_duplicate_members_count_once_and_the_last_wins() -> None:
    [metric] = decode(b'{"metrics":[],"metrics":[{"name":"x","name":"a","value":1,"value":2}]}', "").metrics
    assert isinstance(metric, Metric)
    assert (metric.name, metric.value) == ("a", 2.0)


# --- compression


def test_an_unknown_encoding() -> None:
    for encoding in ("br", "deflate", "GZIP, gzip", "gzip, gzip"):
        error = refused(GOOD, encoding)
        assert (error.http_status, error.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


def _zstd(plain: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(plain)


def _snappy(plain: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(plain))


def _frames(plain: bytes) -> bytes:
    return bytes(cramjam.snappy.compress(plain))


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (GOOD, "gzip"),
        (b"", "gzip"),
        (gzip.compress(GOOD, mtime=0)[:-1], "gzip"),
        (gzip.compress(GOOD, mtime=0)[:12], "gzip"),
        (gzip.compress(GOOD, mtime=0)[:-8] + bytes(8), "gzip"),
        (gzip.compress(GOOD, mtime=0) + b"trailing", "gzip"),
        (zlib.compress(GOOD), "gzip"),
        (gzip.compress(b"", mtime=0) * 101 + gzip.compress(GOOD), "gzip"),
        (GOOD, "zstd"),
        (b"", "zstd"),
        (_zstd(GOOD)[:-1], "zstd"),
        (_zstd(GOOD, write_checksum=True)[:-1], "zstd"),
        (_zstd(GOOD, write_checksum=True)[:-1] + b"\x00", "zstd"),
        (_zstd(GOOD, write_content_size=False)[:-1], "zstd"),
        (_zstd(GOOD) + _zstd(b" ")[:-1], "zstd"),
        (_zstd(GOOD) + b"trailing", "zstd"),
        (_zstd(b"") * 101 + _zstd(GOOD), "zstd"),
        (b"", "snappy"),
        (_snappy(GOOD)[:-1], "snappy"),
        (_snappy(GOOD) + b"trailing", "snappy"),
        (b"\xff" * 20, "snappy"),
        (_frames(GOOD), "snappy"),
        (_snappy(GOOD), "x-snappy-framed"),
        (_frames(GOOD)[:-1], "x-snappy-framed"),
        (_frames(GOOD)[:-1] + b"\x00", "x-snappy-framed"),
        (_frames(GOOD) + b"trailing", "x-snappy-framed"),
    ],
)
def test_broken_compression_is_refused(body: bytes, encoding: str) -> None:
    error = refused(body, encoding)
    assert (error.http_status, error.code) == (400, "MALFORMED_REQUEST")


def _bombs() -> list[tuple[bytes, str]]:
    zeros = bytes(8 << 20)
    packer = zlib.compressobj(9, wbits=31)
    gzip_bomb = b"".join(packer.compress(zeros) for _ in range(16)) + packer.flush()
    chunked = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    unsized = b"".join(chunked.compress(zeros) for _ in range(16)) + chunked.flush()
    return [
        (gzip_bomb, "gzip"),
        (gzip.compress(zeros[: 1 << 20], mtime=0) * 8, "gzip"),
        (_zstd(zeros * 16), "zstd"),
        (unsized, "zstd"),
        (_zstd(zeros[: 1 << 20]) * 8, "zstd"),
        (_snappy(zeros), "snappy"),
        (_frames(zeros), "x-snappy-framed"),
        (_frames(zeros[: 1 << 20]) * 8, "x-snappy-framed"),
    ]


@pytest.mark.parametrize("bomb", range(8))
def test_a_bomb_is_cut_at_4_mib(bomb: int) -> None:
    body, encoding = _bombs()[bomb]
    assert len(body) < 1 << 20
    tracemalloc.start()
    error = refused(body, encoding)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (error.http_status, error.code) == (413, "BODY_TOO_LARGE")
    assert peak < 4 * MOST_BODY_BYTES


def test_a_window_that_would_take_much_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=0)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = packer.compress(GOOD) + packer.flush()
    assert refused(body, "zstd").code == "MALFORMED_REQUEST"


@pytest.mark.parametrize("encoding", ["", "gzip", "zstd", "snappy", "x-snappy-framed"])
def test_4_mib_are_taken_and_one_byte_more_is_not(encoding: str) -> None:
    packers: dict[str, Callable[[bytes], bytes]] = {
        "": bytes, "gzip": gzip.compress, "zstd": _zstd, "snappy": _snappy, "x-snappy-framed": _frames
    }  # fmt: skip
    pack = packers[encoding]
    full = GOOD + b" " * (MOST_BODY_BYTES - len(GOOD))
    assert len(decode(pack(full), encoding).metrics) == 1
    error = refused(pack(full + b" "), encoding)
    assert (error.http_status, error.code) == (413, "BODY_TOO_LARGE")
