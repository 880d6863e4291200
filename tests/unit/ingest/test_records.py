"""The log's format: what is written is read back, and what is not known is refused."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.domain import GaugeMerge, MetricType, series_id
from services.ingest.errors import UnreadableLogError
from services.ingest.records import (
    DefinitionFacts,
    Distribution,
    Identity,
    Kind,
    Origins,
    Record,
    decode_frame,
    encode,
    encode_frame,
    encode_identity,
    float64s,
    identities_of,
    int64s,
)

ORDERS = DefinitionFacts(b"o" * 16, "orders_total", MetricType.COUNTER, (), {"plan": 7})
LOAD = DefinitionFacts(b"l" * 16, "load_seconds", MetricType.HISTOGRAM, (0.1, 1e300), {})


def record(numbers: list[float], distributed: list[Distribution] | None = None, **members: Any) -> Record:
    identities = [Identity(ORDERS.id, ("note", str(at))) for at in range(len(numbers))]
    identities += [Identity(LOAD.id, ("plan", "pro"))] * len(distributed or [])
    return Record(
        **{
            "kind": Kind.DELTA,
            "tenant_id": b"t" * 16,
            "project_id": b"p" * 16,
            "producer": b"A" * 16,
            "sequence": 1,
            "floor": 0,
            "received_ms": 1_795_200_000_000,
            "definitions": [ORDERS, LOAD],
            "ids": b"".join(series_id(each.definition_id, each.labels) for each in identities[: len(numbers)]),
            "values": float64s(numbers),
            "distributions": distributed or [],
            "identities": b"".join(map(encode_identity, identities)),
            **members,
        }
    )


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(st.lists(finite, max_size=5), st.integers(0, 2**62)), max_size=5))
def test_a_frame_holds_its_records_in_order(parts: list[tuple[list[float], int]]) -> None:
    records = [record(values, sequence=sequence) for values, sequence in parts]
    assert decode_frame(encode_frame([encode(each) for each in records])) == records


def test_a_record_names_each_of_its_series() -> None:
    load = Distribution(series_id(LOAD.id, ("plan", "pro")), 0.05, 1, [1, 0, 0])
    [read] = decode_frame(encode_frame([encode(record([1.0, 2.0], [load]))]))
    assert identities_of(read) == [
        Identity(ORDERS.id, ("note", "0")),
        Identity(ORDERS.id, ("note", "1")),
        Identity(LOAD.id, ("plan", "pro")),
    ]


def test_columns_are_little_endian_as_numpy_reads_them() -> None:
    assert float64s([1.0]) == bytes.fromhex("000000000000f03f")
    assert int64s([258]) == bytes.fromhex("0201000000000000")


def test_the_end_of_a_definition_is_a_record_too() -> None:
    end = record([], kind=Kind.END, producer=b"", sequence=0)
    assert decode_frame(encode_frame([encode(end)])) == [end]


def test_a_reader_takes_fields_that_a_later_version_adds_at_the_end() -> None:
    fields = msgspec.msgpack.decode(encode(record([1.0])))
    assert decode_frame(encode_frame([msgspec.msgpack.encode([*fields, "more"])])) == [record([1.0])]


def test_totals_say_where_they_come_from() -> None:
    origins = Origins(b"s" * 48, int64s([1, 2, 3]), int64s([0, 1]), bytes([0, 1, 0]))
    load = Distribution(series_id(LOAD.id, ("plan", "pro")), 0.05, 1, [1, 0, 0])
    told = record([1.0, 2.0], [load], kind=Kind.CUMULATIVE, origins=origins)
    assert decode_frame(encode_frame([encode(told)])) == [told]


def test_a_reader_takes_the_version_before_which_knows_neither_merge_rules_nor_bins() -> None:
    fields = msgspec.msgpack.decode(encode(record([1.0], [Distribution(b"i" * 16, 0.5, 1, [])])))
    names = list(Record.__struct_fields__)
    definitions, distributions = names.index("definitions"), names.index("distributions")
    fields[definitions] = [facts[:5] for facts in fields[definitions]]
    fields[distributions] = [each[:5] for each in fields[distributions]]
    [read] = decode_frame(b"\x02" + encode_frame([msgspec.msgpack.encode(fields)])[1:])
    assert {(facts.gauge_merge, facts.objectives) for facts in read.definitions} == {(GaugeMerge.LAST, ())}
    assert [each.bins for each in read.distributions] == [{}]


def _changed(**members: Any) -> bytes:
    return encode_frame([encode(record([1.0, 2.0], **members))])


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"not a frame at all",
        b"\x01" + encode_frame([encode(record([1.0]))])[1:],
        encode_frame([encode(record([1.0]))])[:-3],
        encode_frame([b"\x90"]),
        _changed(kind=3),
        _changed(kind=9),
        _changed(ids=b"i" * 33),
        _changed(values=b"v" * 8),
        _changed(timestamps=b"t" * 8),
        _changed(definitions=[["definition", "name", 7, [], {}]]),
        _changed(reporters=b"r" * 16),
        _changed(kind=Kind.CUMULATIVE),
        _changed(kind=Kind.CUMULATIVE, origins=Origins(b"s" * 16, int64s([1, 2]))),
        _changed(kind=Kind.CUMULATIVE, origins=Origins(b"s" * 32, int64s([1]))),
        _changed(kind=Kind.CUMULATIVE, origins=Origins(b"s" * 32, int64s([1, 2]), int64s([0]))),
        _changed(kind=Kind.CUMULATIVE, origins=Origins(b"s" * 32, int64s([1, 2]), b"", bytes(1))),
    ],
)
def test_what_cannot_be_read_is_not_skipped(frame: bytes) -> None:
    with pytest.raises(UnreadableLogError):
        decode_frame(frame)


@pytest.mark.parametrize("identities", [b"", encode_identity(Identity(ORDERS.id, ())), b"\xc1\xc1"])
def test_identities_that_do_not_fit_are_refused(identities: bytes) -> None:
    [read] = decode_frame(_changed(identities=identities))
    with pytest.raises(UnreadableLogError):
        identities_of(read)


def test_a_frame_is_small() -> None:
    batches = [encode(record([float(value) for value in range(100)], sequence=at)) for at in range(20)]
    assert len(encode_frame(batches)) < 20 * 2_500
