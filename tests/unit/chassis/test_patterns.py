"""Patterns of label values."""

import time

import pytest

from chassis.patterns import Pattern, PatternError


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        ("[a-z]+", "abc", True),
        ("[a-z]+", "abc1", False),  # as a whole, not in part
        ("[a-z]+", "abc\n", False),
        ("a|ab", "ab", True),
        (r"\d{3}", "123", True),
        ("é.", "éü", True),  # characters, not bytes
        (r"\p{Greek}+", "λόγος", True),
        ("", "", True),
    ],
)
def test_a_value_must_match_as_a_whole(pattern: str, value: str, matches: bool) -> None:
    assert Pattern(pattern).matches(value) is matches


@pytest.mark.parametrize("pattern", ["(", "[z-a]", r"(a)\1", "(?=a)", "(?<!a)b", "x{2000}", "a" * 501, "é" * 251])
def test_what_is_not_re2_or_too_large_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        Pattern(pattern)


@pytest.mark.parametrize("pattern", [r"(\p{L}{1,100}\p{N}{1,100}){1,9}", r"\pL{50}", ".{1000}"])
def test_a_pattern_that_would_need_much_memory_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        Pattern(pattern)


@pytest.mark.parametrize("pattern", [r"\pL+", r"(?i)[a-zäöü ]{1,100}", r"[\w.+-]{1,64}@[\w-]{1,63}"])
def test_a_pattern_that_somebody_may_want_is_small_enough(pattern: str) -> None:
    assert 0 < Pattern(pattern).steps < 2_000


def test_a_pattern_that_backtracking_could_not_finish_takes_no_time() -> None:
    pattern, value = Pattern("(a+)+$"), "a" * 10_000 + "b"
    began = time.monotonic()
    assert not pattern.matches(value)
    assert time.monotonic() - began < 1
