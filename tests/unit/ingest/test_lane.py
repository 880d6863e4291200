"""How often a lane commits."""

import pytest

from services.ingest.lane import stretched


@pytest.mark.parametrize(
    ("interval_seconds", "series", "expected"),
    [
        (1.0, 0, 1.0),
        (1.0, 45_000, 1.0),
        (1.0, 50_000, 4.0),
        (1.0, 100_000, 8.0),
        (1.0, 10_000_000, 10.0),
        (60.0, 0, 60.0),
    ],
)
def test_commits_come_less_often_the_more_series_change(interval_seconds: float, series: int, expected: float) -> None:
    assert stretched(interval_seconds, series) == expected
