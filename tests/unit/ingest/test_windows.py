"""A producer's window, against a model that remembers every number."""

from hypothesis import given
from hypothesis import strategies as st

from services.ingest.windows import MOST_GAPS, Window


class Model:
    """All numbers seen, and the floor below which everything counts as seen."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.floor = 1

    def claim(self, sequence: int, floor: int) -> bool:
        self.floor = max(self.floor, floor)
        if sequence < self.floor or sequence in self.seen:
            return False
        self.seen.add(sequence)
        return True


def check_shape(window: Window) -> None:
    ranges = window.ranges
    assert list(ranges) == sorted(ranges)
    assert len(ranges) % 2 == 0
    assert all(last < first - 1 for last, first in zip(ranges[1::2], ranges[2::2], strict=False)), "ranges touch"
    assert not ranges or ranges[0] > window.floor


numbers = st.integers(min_value=1, max_value=60)
claims = st.lists(st.tuples(numbers, st.one_of(st.just(0), numbers)))


@given(claims)
def test_claims_agree_with_a_set(claimed: list[tuple[int, int]]) -> None:
    window, model = Window(), Model()
    for sequence, floor in claimed:
        floor = min(floor, sequence)
        assert window.claim(sequence, floor) == model.claim(sequence, floor)
        check_shape(window)


@given(claims)
def test_a_window_that_was_stored_and_loaded_goes_on_the_same(claimed: list[tuple[int, int]]) -> None:
    window, model = Window(), Model()
    for sequence, floor in claimed:
        window = Window(window.floor, list(window.ranges), window.used_ms)
        floor = min(floor, sequence)
        assert window.claim(sequence, floor) == model.claim(sequence, floor)


@given(st.permutations(range(1, 40)))
def test_any_order_without_gaps_ends_as_a_bare_floor(order: list[int]) -> None:
    window = Window()
    assert all(window.claim(sequence) for sequence in order)
    assert (window.floor, list(window.ranges)) == (40, [])
    assert not any(window.claim(sequence) for sequence in order)


def test_a_floor_in_the_middle_of_a_range_keeps_what_is_above_it_seen() -> None:
    window = Window()
    for sequence in (5, 6, 7, 8, 9, 20):
        window.claim(sequence)
    assert not window.claim(9, floor=7)
    assert (window.floor, list(window.ranges)) == (10, [20, 20])
    assert window.claim(10)
    assert not window.claim(4)


def test_past_the_most_gaps_the_oldest_closes() -> None:
    window = Window()
    odd = range(3, 3 + 2 * MOST_GAPS, 2)
    assert all(window.claim(sequence) for sequence in odd)
    assert window.floor == 1
    assert window.claim(2 * MOST_GAPS + 3)
    assert window.floor == 4, "the gap below 3 is closed, the one at 4 is not"
    assert not window.claim(2)
    assert window.claim(4)
    assert len(window.ranges) // 2 <= MOST_GAPS


def test_one_producer_in_order_costs_no_memory() -> None:
    window = Window()
    for sequence in range(1, 100_000):
        assert window.claim(sequence, max(1, sequence - 3))
    assert (window.floor, list(window.ranges)) == (100_000, [])
