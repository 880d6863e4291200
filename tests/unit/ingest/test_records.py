"""The log's format: what is written is read back, and what is not known is refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.domain import MetricType
from services.ingest.errors import UnreadableLogError
from services.ingest.records import Kind, Record, decode_frame, encode, encode_frame
from tests.unit.ingest.ingestion import definition, delta, ended, record

HISTOGRAM = definition("load_seconds", MetricType.HISTOGRAM, bounds=(0.1, 1e300))

values = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(values, st.text(max_size=5), st.integers(0, 2**62)), max_size=5))
def test_a_frame_holds_its_records_in_order(parts: list[tuple[float, str, int]]) -> None:
    records = [
        record(delta(HISTOGRAM, value, note=note), producer=b"A" * 16, sequence=sequence, floor=1)
        for value, note, sequence in parts
    ]
    assert decode_frame(encode_frame([encode(each) for each in records])) == records


def test_the_end_of_a_definition_is_a_record_too() -> None:
    assert decode_frame(encode_frame([encode(ended(HISTOGRAM))])) == [ended(HISTOGRAM)]


def test_a_reader_takes_fields_that_a_later_version_adds_at_the_end() -> None:
    fields = msgspec.msgpack.decode(encode(record()))
    assert decode_frame(encode_frame([msgspec.msgpack.encode([*fields, "more"])])) == [record()]


def _changed(**members: object) -> bytes:
    changed = msgspec.structs.replace(record(delta(HISTOGRAM)), **members)
    return encode_frame([encode(changed)])


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"not msgpack at all",
        encode_frame([encode(record())])[:-3],
        encode_frame([b"\x90"]),
        _changed(version=2),
        _changed(kind=Kind.REPLACE),
        _changed(kind=9),
        _changed(metrics=[["definition", "name", 7, [], {}, []]]),
    ],
)
def test_what_cannot_be_read_is_not_skipped(frame: bytes) -> None:
    with pytest.raises(UnreadableLogError):
        decode_frame(frame)


def test_a_record_is_small() -> None:
    assert len(encode(record(delta(definition(), plan="pro"), producer=b"A" * 16, sequence=1))) < 200
    assert isinstance(record(), Record)
