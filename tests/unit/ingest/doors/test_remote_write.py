"""Remote write 1.0: what a series' name says it is, what identifies it, hostile bytes."""

import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.pulsegate.ingest.v1 import remote_write_pb2 as pb
from services.ingest.batch_records import encoded_records
from services.ingest.decoding import Batch
from services.ingest.domain import MOST_NAME_LENGTH, MOST_POINTS_IN_REQUEST, Definition, Fault, MetricType
from services.ingest.doors import remote_write
from services.ingest.errors import BatchTooLarge, MalformedBody
from services.ingest.point_validation import validate_points
from services.ingest.points import COUNTERS, GAUGES, HISTOGRAMS, Component, ComponentKind, Point, source_id
from services.ingest.records import Record, decode_frame, encode_frame
from services.ingest.validation import CompiledDefinition, LabelSetMemory
from tests.stepping import at_once
from tests.unit.ingest.ingestion import NOW_MS, definition
from tests.unit.ingest.lane_store import Store

AT_MS = 1_795_200_000_000
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]


def series(name: str, *values: float, **labels: str) -> pb.TimeSeries:
    pairs = {"__name__": name, "instance": "h:1", "job": "shop", **labels}
    return pb.TimeSeries(
        labels=[pb.Label(name=key, value=value) for key, value in sorted(pairs.items())],
        samples=[pb.Sample(value=value, timestamp=AT_MS + at) for at, value in enumerate(values)],
    )


def decode(body: bytes) -> list[Point | Fault]:
    return list(remote_write.decode(body))


def decoded(*every: pb.TimeSeries) -> list[Point | Fault]:
    return decode(pb.WriteRequest(timeseries=every).SerializeToString())


def point(of: pb.TimeSeries) -> Point:
    [found] = decoded(of)
    assert isinstance(found, Point)
    return found


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (series("orders_total", 3.0), ("orders_total", COUNTERS, 3.0)),
        (series("depth", -1.5), ("depth", GAUGES, -1.5)),
        (series("load_sum", 2.5), ("load", HISTOGRAMS, Component(ComponentKind.SUM, 2.5))),
        (series("load_count", 2.0), ("load", HISTOGRAMS, Component(ComponentKind.COUNT, 2.0))),
        (series("load_bucket", 2.0, le="0.5"), ("load", HISTOGRAMS, Component(ComponentKind.BUCKET, 2.0, 0.5))),
        (series("load_bucket", 2.0, le="+Inf"), ("load", HISTOGRAMS, Component(ComponentKind.BUCKET, 2.0))),
    ],
)
def test_a_name_says_what_its_series_is(of: pb.TimeSeries, expected: tuple[Any, ...]) -> None:
    found = point(of)
    assert (*found.names, found.types, found.value) == expected
    assert (found.labels, found.offered) == ({}, {"job": "shop", "instance": "h:1"})


def test_all_labels_identify_a_series_and_each_sample_has_its_time() -> None:
    first, second = decoded(series("orders_total", 1.0, 2.0, plan="pro"))
    assert isinstance(first, Point)
    assert isinstance(second, Point)
    assert first.labels == {"plan": "pro"}
    assert first.origin is not None
    assert second.origin is not None
    assert first.origin.source == second.origin.source
    assert [each.origin.taken_ns for each in (first, second) if each.origin] == [AT_MS * 10**6, (AT_MS + 1) * 10**6]
    sources = [
        point(each).origin
        for each in (
            series("orders_total", 1.0, plan="pro"),
            series("orders_total", 1.0, plan="pro", instance="h:2"),
            series("orders_total", 1.0),
            series("visits_total", 1.0, plan="pro"),
            series("load_bucket", 1.0, le="1"),
            series("load_bucket", 1.0, le="2"),
        )
    ]
    assert len({each.source for each in sources if each}) == 6


def test_a_label_with_an_empty_value_identifies_nothing() -> None:
    for name in ("orders_total", "load_sum", "depth"):
        bare, empty = point(series(name, 1.0)), point(series(name, 1.0, plan=""))
        assert (bare.origin, bare.reporter) == (empty.origin, empty.reporter)


@pytest.mark.parametrize(
    "spellings",
    [
        ("1.0", "1", "1.00", "+1", "1e0"),
        ("0.005", "5e-3", "0.0050"),
        ("100000.0", "100000", "1e5"),
        ("1e+06", "1000000", "1e6"),
        ("1.23456789e+08", "123456789"),
        ("2.5e-05", "0.000025"),
        ("-1.0", "-1"),
        ("0.0", "0", "-0"),
        ("+Inf", "Inf", "inf"),
    ],
)
def test_a_bucket_is_one_source_however_its_bound_is_spelled(spellings: tuple[str, ...]) -> None:
    as_prometheus_3_has_it = source_id(
        "remote write", "load_bucket", [("instance", "h:1"), ("job", "shop"), ("le", spellings[0])]
    )
    for spelled in spellings:
        found = point(series("load_bucket", 1.0, le=spelled))
        assert found.origin is not None
        assert found.origin.source == as_prometheus_3_has_it
        assert found.labels == {}


def test_a_histogram_counts_once_through_a_crash_and_another_spelling_of_its_bounds() -> None:
    load = definition("load", MetricType.HISTOGRAM, bounds=(1.0, 2.0))
    store = Store()
    store.fold(record_of(load, {"1": 70, "2": 90, "+Inf": 100}, 100))
    store.commit(NOW_MS)
    store.fold(record_of(load, {"1.0": 71, "2.0": 91, "+Inf": 101}, 101))
    store.crash()
    for _ in range(2):  # again, because it was not committed; and once more by its sender
        store.fold(record_of(load, {"1.0": 71, "2.0": 91, "+Inf": 101}, 101))
        store.commit(NOW_MS + 1_000)
        [row] = store.rows.values()
        assert row.counts == (101, 71, 20, 10)


def test_buckets_never_fall_where_a_sender_lacks_some_of_the_definitions() -> None:
    """Through a crash, a bound that comes later, and a restart of the sender."""
    load = definition("load", MetricType.HISTOGRAM, bounds=(1.0, 5.0, 9.0))
    store = Store()

    def shown(cumulative: dict[str, int], at: int) -> list[int]:
        for _ in range(2):
            store.fold(record_of(load, cumulative, at))
        samples = store.commit(NOW_MS + 1_000 * at).samples
        last: list[int] = samples.buckets_at(len(samples) - 1).tolist()
        return last

    assert shown({"1": 2, "5": 4, "+Inf": 6}, 1) == [2, 4, 4, 6]
    store.crash()
    assert shown({"1": 2, "5": 5, "+Inf": 9}, 2) == [2, 5, 5, 9]
    assert shown({"1": 3, "5": 6, "9": 8, "+Inf": 10}, 3) == [3, 6, 8, 10]
    assert shown({"5": 1, "+Inf": 1}, 4) == [3, 7, 8, 11]
    store.crash()
    assert shown({"5": 3, "+Inf": 3}, 5) == [3, 9, 9, 13]


def record_of(of: Definition, cumulative: dict[str, int], count: int) -> Record:
    """What a receiver writes of a histogram that was scraped `count` milliseconds after the start."""
    sent = [series("load_bucket", float(upto), le=le) for le, upto in cumulative.items()]
    request = pb.WriteRequest(timeseries=[*sent, series("load_count", float(count))])
    for each in request.timeseries:
        each.samples[0].timestamp = AT_MS + count
    batch = Batch(producer=b"", sequence=0, floor=0, metrics=[], points=decode(request.SerializeToString()))
    compiled = {of.name: CompiledDefinition(of, LabelSetMemory())}
    [part] = at_once(validate_points(batch.points, compiled, AT_MS))
    assert not part.rejections
    [encoded] = encoded_records((of.tenant_id, of.project_id), batch, part, AT_MS)
    [record] = decode_frame(encode_frame([encoded]))
    return record


def test_stale_markers_and_times_of_creation_are_passed_over() -> None:
    of_created = series("orders_created", 1.7e9)
    [found] = decoded(series("orders_total", STALE, 4.0), of_created, series("depth", STALE))
    assert isinstance(found, Point)
    assert found.value == 4.0
    of_metadata = b"\x1a\x02\x08\x01"
    assert decode(of_metadata) == []


@pytest.mark.parametrize(
    ("of", "code"),
    [
        (series("", 1.0), "METRIC_MALFORMED"),
        (series("load_bucket", 1.0), "METRIC_MALFORMED"),
        (series("load_bucket", 1.0, le="high"), "METRIC_MALFORMED"),
        (series("depth", 1.0, **{f"l{n}": "x" for n in range(200)}), "METRIC_MALFORMED"),
        (pb.TimeSeries(labels=[pb.Label(name="a", value="b")] * 2, samples=[pb.Sample()]), "METRIC_MALFORMED"),
        (pb.TimeSeries(labels=[pb.Label(name="__name__", value="a")], histograms=[b""]), "METRIC_TYPE_MISMATCH"),
    ],
)
def test_what_cannot_be_taken_says_why(of: pb.TimeSeries, code: str) -> None:
    [found] = decoded(of)
    assert isinstance(found, Fault)
    assert found.code == code


def test_a_request_is_bounded() -> None:
    many = MOST_POINTS_IN_REQUEST + 1
    with pytest.raises(BatchTooLarge):
        decoded(series("depth", *[1.0] * many))
    with pytest.raises(BatchTooLarge):
        decoded(*[pb.TimeSeries()] * many)
    with pytest.raises(BatchTooLarge):
        decoded(*[pb.TimeSeries(labels=[pb.Label()] * 1_000)] * 201)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(body: bytes) -> None:
    with suppress(MalformedBody):
        decode(body)


def test_a_name_that_no_definition_can_have_is_refused_before_its_samples_are_looked_at() -> None:
    found = decoded(series("a" * 100_000 + "_sum", *[1.0] * 500), series("depth", 1.0))
    assert [each.code for each in found if isinstance(each, Fault)] == ["METRIC_MALFORMED"] * 500
    assert isinstance(found[-1], Point)


@pytest.mark.parametrize("suffix", ["_bucket", "_sum", "_count"])
def test_a_part_of_a_histogram_may_have_the_longest_name_and_its_suffix(suffix: str) -> None:
    name = "h" * MOST_NAME_LENGTH
    assert point(series(f"{name}{suffix}", 1.0, le="1")).names == (name,)


def test_a_value_that_is_too_long_for_a_label_is_cut_to_one_that_still_is() -> None:
    found = point(series("depth", 1.0, plan="x" * 100_000))
    assert found.labels == {"plan": "x" * 201}
