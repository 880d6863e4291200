"""The rules that need no I/O."""

from sys import float_info

from hypothesis import given
from hypothesis import strategies as st

from services.ingest.domain import PARTITIONS, add_finite, lane_of, partition_of, partitions_of, series_id


@given(st.integers(min_value=1, max_value=PARTITIONS))
def test_every_partition_belongs_to_exactly_the_lane_that_claims_it(lanes: int) -> None:
    claimed: list[int] = []
    for lane in range(lanes):
        first, last = partitions_of(lane, lanes)
        assert all(lane_of(partition, lanes) == lane for partition in range(first, last + 1))
        claimed += range(first, last + 1)
    assert claimed == list(range(PARTITIONS))


@given(st.binary(min_size=16, max_size=16))
def test_a_project_has_one_permanent_partition(project_id: bytes) -> None:
    assert 0 <= partition_of(project_id) < PARTITIONS
    assert partition_of(bytes(project_id)) == partition_of(project_id)


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, finite)
def test_a_sum_is_always_finite(left: float, right: float) -> None:
    total = add_finite(left, right)
    assert -float_info.max <= total <= float_info.max
    if abs(left) < 1e300 and abs(right) < 1e300:
        assert total == left + right


def test_label_sets_that_read_alike_are_different_series() -> None:
    definition = bytes(16)
    sets = [("a", "b"), ("ab", ""), ("a", "bc"), ("ab", "c"), ("a", "b", "c", "d"), ("a", "bcd"), ()]
    assert len({series_id(definition, labels) for labels in sets}) == len(sets)
    assert series_id(b"\x01" * 16, ("a", "b")) != series_id(definition, ("a", "b"))
