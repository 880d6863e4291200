"""Exponential buckets: where observations go, and that merging loses none."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.native_histograms import (
    COARSEST_SCHEMA,
    EMPTY,
    FINEST_SCHEMA,
    MOST_BUCKETS,
    ZERO_THRESHOLD,
    NativeBuckets,
    emptied,
    increase,
    merged,
)

finite = st.floats(allow_nan=False, allow_infinity=False)


def observed(*observations: float, weight: int = 1) -> NativeBuckets:
    buckets = NativeBuckets()
    buckets.observe(observations, weight)
    return buckets


def holds(index: int, schema: int, magnitude: float) -> bool:
    """Whether the bucket holds the number, in exact arithmetic; but Prometheus' bounds are rounded, by less than a part
    in 10^15."""
    steps, factor = 1 << max(schema, 0), 1 << max(-schema, 0)
    slightly = Fraction(1, 10**15)
    above = (Fraction(magnitude) * (1 + slightly)) ** steps > Fraction(2) ** ((index - 1) * factor)
    return above and (Fraction(magnitude) * (1 - slightly)) ** steps <= Fraction(2) ** (index * factor)


@pytest.mark.parametrize(
    ("observation", "index"),
    [(1.0, 0), (1.0000000000000002, 1), (2.0, 8), (0.5, -8), (0.3, -13), (1.5, 5), (1e6, 160), (5e-324, None)],
)
def test_buckets_are_those_of_schema_3(observation: float, index: int | None) -> None:
    buckets = observed(observation)
    assert buckets.positive == ({index: 1} if index is not None else {})
    assert observed(-observation).negative == buckets.positive


def test_what_is_within_the_threshold_is_in_the_zero_bucket() -> None:
    assert math.ldexp(1.0, -128) == ZERO_THRESHOLD
    buckets = observed(0.0, -0.0, ZERO_THRESHOLD, -ZERO_THRESHOLD, math.nextafter(ZERO_THRESHOLD, 1.0))
    assert (buckets.zero, buckets.positive, buckets.negative) == (4, {-128 * 8 + 1: 1}, {})


@given(st.lists(finite.filter(lambda number: abs(number) > ZERO_THRESHOLD), max_size=300), st.integers(-4, 3))
def test_each_observation_is_in_the_bucket_that_holds_it(observations: list[float], schema: int) -> None:
    buckets = NativeBuckets()
    buckets.coarsen(schema)
    for observation in observations:
        buckets.observe([observation])
    assert buckets.count == len(observations)
    assert COARSEST_SCHEMA <= buckets.schema <= schema
    for side, sign in ((buckets.positive, 1), (buckets.negative, -1)):
        left = [abs(observation) for observation in observations if observation * sign > 0]
        for index in sorted(side):
            left = left_after(left, index, buckets.schema, side[index])
        assert not left


def left_after(numbers: list[float], index: int, schema: int, count: int) -> list[float]:
    """What is left without the smallest numbers, so many as the bucket counts, all of which it must hold."""
    ordered = sorted(numbers)
    assert len(ordered) >= count
    assert all(holds(index, schema, number) for number in ordered[:count])
    return ordered[count:]


@given(st.lists(st.lists(finite, max_size=200), max_size=6))
def test_merging_in_any_order_keeps_every_count(parts: list[list[float]]) -> None:
    packed = [observed(*part).packed() for part in parts]
    forwards, backwards = list(EMPTY), list(EMPTY)
    for part in packed:
        forwards = merged(forwards, part)
    for part in reversed(packed):
        backwards = merged(backwards, part)
    at_once = observed(*(number for part in parts for number in part))
    assert NativeBuckets.unpacked(forwards).count == sum(map(len, parts))
    assert forwards == backwards == at_once.packed()


@given(st.lists(finite, max_size=200), st.lists(finite, max_size=200))
def test_what_a_total_has_more_than_before_is_what_came_between(before: list[float], after: list[float]) -> None:
    was, total = observed(*before).packed(), observed(*before, *after)
    more = increase(total.packed(), was)
    assert more is not None
    assert NativeBuckets.unpacked(more).count == len(after)
    assert merged(more, was) == total.packed()
    assert (increase(was, total.packed()) is None) == bool(after)


@given(st.lists(finite, max_size=200), st.lists(finite, max_size=200), st.integers(-4, 3), st.integers(-4, 3))
def test_a_total_in_another_schema_has_more_by_what_came_between(
    before: list[float], after: list[float], was_schema: int, schema: int
) -> None:
    was, total = observed(*before), observed(*before, *after)
    was.coarsen(was_schema)
    total.coarsen(schema)
    more = increase(total.packed(), was.packed())
    assert more is not None
    assert NativeBuckets.unpacked(more).count == len(after)
    total.coarsen(was.schema)
    assert merged(more, was.packed()) == total.packed()


def test_a_total_that_is_finer_and_fell_has_begun_anew() -> None:
    coarse = observed(1.0, 1.5)
    coarse.coarsen(1)
    assert increase(observed(1.0).packed(), coarse.packed()) is None
    assert increase(observed(1.0, 4.0, 8.0).packed(), coarse.packed()) is None, "it has more, but not there"


@pytest.mark.parametrize(
    ("schema", "factor", "off_by"), [(3, 9e5, 0.0906), (2, 2.0**39, 0.1893), (1, 2.0**79, 0.4143), (0, 2.0**159, 1.0)]
)
@pytest.mark.parametrize("lowest", [1e-38, 0.7071, 1.0, 1.001, 3.3e5])
def test_the_resolution_is_what_the_range_allows(schema: int, factor: float, off_by: float, lowest: float) -> None:
    """docs/histograms.md: how wide a range each schema has room for, however full, and the width of its buckets."""
    doublings = math.log2(factor)
    buckets = observed(*(lowest * 2 ** (step / 16) for step in range(int(doublings * 16) + 1)), lowest * factor)
    assert buckets.schema == schema
    assert 2 ** (1 / (1 << schema)) - 1 <= off_by


def test_resolution_is_halved_where_buckets_get_too_many() -> None:
    buckets = observed(*(1.09**step for step in range(MOST_BUCKETS)))
    assert (buckets.schema, len(buckets.positive)) == (FINEST_SCHEMA, MOST_BUCKETS)
    buckets.observe([1.09**MOST_BUCKETS])
    assert buckets.schema == FINEST_SCHEMA - 1
    assert len(buckets.positive) <= MOST_BUCKETS // 2 + 1
    assert buckets.count == MOST_BUCKETS + 1


def test_the_widest_range_fits_into_the_coarsest_schema() -> None:
    powers = [math.ldexp(sign, exponent) for exponent in range(-127, 1024) for sign in (1.0, -1.0)]
    buckets = observed(*powers)
    assert len(buckets.positive) + len(buckets.negative) <= MOST_BUCKETS
    assert buckets.count == len(powers)


def test_what_is_packed_is_read_back() -> None:
    buckets = observed(-3.0, 0.0, 1.0, 5.0, weight=7)
    assert NativeBuckets.unpacked(buckets.packed()).packed() == buckets.packed()
    assert buckets.packed() == [3, 7, 1, 13, 0, 19, 7, 7, 7]
    buckets.coarsen(1)
    assert emptied(buckets.packed()) == [1, 0, 0]


@pytest.mark.parametrize("packed", [[], [3, 0], [3, 0, 1], [3, 0, 0, 1], [3, 0, -1, 1, 1], [4, 0, 0], [-5, 0, 0]])
def test_what_is_no_packed_histogram_is_refused(packed: list[int]) -> None:
    with pytest.raises(ValueError, match=r"native histogram|schema"):
        NativeBuckets.unpacked(packed)


def test_foreign_buckets_are_settled() -> None:
    foreign = NativeBuckets(schema=2)
    foreign.zero, foreign.positive = 1, {-128 * 4: 2, -128 * 4 + 1: 3, 5: 0, 1024 * 4: 4}
    foreign.settle()
    assert (foreign.zero, foreign.positive) == (3, {-128 * 4 + 1: 3, 1024 * 4: 4})
    foreign.positive[1024 * 4 + 1] = 1
    with pytest.raises(ValueError, match="bucket 4097 of schema 2"):
        foreign.settle()
