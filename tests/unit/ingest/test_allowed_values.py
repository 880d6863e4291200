"""What a label allows is exactly what its definition lists, and short values cost about their bytes."""

import sys
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from services.ingest.allowed_values import AllowedValues

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(st.lists(TEXTS), st.lists(TEXTS))
def test_it_holds_what_it_was_made_of_and_nothing_else(values: list[str], others: list[str]) -> None:
    allowed = AllowedValues.of(values)
    for text in (*values, *others, *map("".join, zip(values, others, strict=False))):
        assert (text in allowed) == (text in set(values))


@given(st.lists(TEXTS), st.lists(TEXTS))
def test_it_equals_another_of_the_same_values_in_whichever_order(values: list[str], others: list[str]) -> None:
    assert AllowedValues.of(values) == AllowedValues.of([*reversed(values), *values])
    assert (AllowedValues.of(values) == AllowedValues.of(others)) == (set(values) == set(others))


def test_it_takes_little_more_memory_than_its_values_have_bytes() -> None:
    values = [f"{number:x}" for number in range(1_000)]
    tracemalloc.start()
    kept = [AllowedValues.of(values) for _ in range(10)]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 10 * (sum(map(len, values)) + 5 * len(values))
    assert sys.getsizeof(frozenset(values)) > 3 * taken / len(kept)
