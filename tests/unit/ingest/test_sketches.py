"""Quantile sketches: how far off they are, whatever is observed and however it is split up and joined."""

import math
import sys
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest
from ddsketch import DDSketch
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator

from services.ingest.columns import Floats
from services.ingest.sketches import MOST_BINS, RELATIVE_ERROR, Sketch, bin_of, count_into

OBJECTIVES = (0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)
#: What rounding may add to the error.
SLACK = 1e-9

DISTRIBUTIONS: dict[str, Callable[[Generator], Floats]] = {
    "latencies": lambda random: random.lognormal(-3.0, 1.5, 50_000),
    "uniform": lambda random: random.uniform(0.0, 1.0, 50_000),
    "heavy tail": lambda random: random.pareto(0.5, 50_000) + 1.0,
    "both signs": lambda random: random.normal(0.0, 10.0, 50_000),
    "two humps": lambda random: np.concatenate([random.normal(1e-6, 1e-8, 9_000), random.normal(1e9, 1e7, 1_000)]),
    "many zeros": lambda random: random.poisson(0.7, 50_000).astype(float) - 1.0,
    "all magnitudes": lambda random: random.choice([-1.0, 1.0], 1_500) * 10.0 ** random.uniform(-307, 308, 1_500),
    "few": lambda random: np.array([3.0, 1.0, 2.0]),
}

finite = st.floats(allow_nan=False, allow_infinity=False)


def sketch_of(observations: Iterable[float], weight: int = 1) -> Sketch:
    bins: dict[int, int] = {}
    count_into(bins, observations, weight)
    return Sketch.of([bins])


def expect_close(quantiles: Floats, observations: Sequence[float] | Floats) -> None:
    exact = np.quantile(np.array(observations), OBJECTIVES, method="lower")
    tolerance = np.abs(exact) * (RELATIVE_ERROR + SLACK) + sys.float_info.min * 1.1
    assert (np.abs(quantiles - exact) <= tolerance).all(), (quantiles, exact)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_quantiles_are_at_most_a_hundredth_off_those_of_numpy(name: str) -> None:
    observations = DISTRIBUTIONS[name](np.random.default_rng(7))
    expect_close(sketch_of(observations.tolist()).quantiles(OBJECTIVES), observations)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_parts_joined_in_any_order_say_what_the_whole_says(name: str) -> None:
    observations = DISTRIBUTIONS[name](np.random.default_rng(8))
    whole = sketch_of(observations.tolist())
    parts = [sketch_of(part.tolist()) for part in np.array_split(observations, 7)]
    for joined in (Sketch.joined(parts), Sketch.joined([Sketch.joined(parts[3:]), Sketch.joined(parts[:3])])):
        assert (joined.bins.tolist(), joined.counts.tolist()) == (whole.bins.tolist(), whole.counts.tolist())


@given(st.lists(finite, min_size=1, max_size=50))
def test_no_finite_observation_is_too_small_or_too_large(observations: list[float]) -> None:
    expect_close(sketch_of(observations).quantiles(OBJECTIVES), observations)


@given(finite, finite)
def test_bins_are_in_the_order_of_what_they_hold(left: float, right: float) -> None:
    assert (bin_of(left) <= bin_of(right)) or left > right


@pytest.mark.parametrize("name", ["latencies", "both signs", "many zeros"])
def test_the_authors_own_sketch_says_the_same(name: str) -> None:
    observations = DISTRIBUTIONS[name](np.random.default_rng(9)).tolist()
    theirs = DDSketch(RELATIVE_ERROR)
    for observation in observations:
        theirs.add(observation)
    ours = sketch_of(observations).quantiles(OBJECTIVES)
    assert ours.tolist() == [theirs.get_quantile_value(objective) for objective in OBJECTIVES]


def test_bins_mean_what_they_meant_when_they_were_stored() -> None:
    numbers = [-sys.float_info.max, -1.0, 0.0, 5e-324, 1e-9, 0.25, 1.0, 1e9, sys.float_info.max]
    assert [bin_of(number) for number in numbers] == [-75488, -40000, 0, 0, 38964, 39931, 40000, 41037, 75488]


def test_a_weight_counts_an_observation_as_often() -> None:
    assert sketch_of([1.0, 2.0], 3).counts.tolist() == [3, 3]


def test_nothing_observed_has_no_quantiles() -> None:
    for empty in (Sketch.of([]), Sketch.of([{}]), Sketch.joined([])):
        assert all(map(math.isnan, empty.quantiles((0.5, 0.9))))


@given(st.lists(finite, min_size=1, max_size=50), st.integers(1, 1 << 40))
def test_a_sketch_comes_back_from_the_state_as_it_was(observations: list[float], weight: int) -> None:
    sketch = sketch_of(observations, weight)
    again = Sketch.decoded(sketch.encoded())
    assert (again.bins.tolist(), again.counts.tolist()) == (sketch.bins.tolist(), sketch.counts.tolist())


def test_a_sketch_stays_small_and_what_is_largest_stays_exact() -> None:
    random = np.random.default_rng(10)
    observations = random.choice([-1.0, 1.0], 30_000) * 10.0 ** random.uniform(-300, 300, 30_000)
    parts = [sketch_of(part.tolist()) for part in np.array_split(observations, 5)]
    joined = Sketch.joined(parts)
    assert joined.bins.size == MOST_BINS
    assert joined.counts.sum() == observations.size
    objectives = (0.01, 0.99)
    exact = np.quantile(observations, objectives, method="lower")
    assert np.allclose(joined.quantiles(objectives), exact, rtol=RELATIVE_ERROR + SLACK)
