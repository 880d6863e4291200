"""How often a lane commits."""

import pytest

from services.ingest.commit_pace import CommitPace


@pytest.mark.parametrize(
    ("interval_seconds", "series", "expected"),
    [
        (1.0, 0, 1.0),
        (1.0, 45_000, 1.0),
        (1.0, 50_000, 2.5),
        (1.0, 100_000, 4.0),
        (1.0, 10_000_000, 4.0),
        (60.0, 10_000_000, 60.0),
    ],
)
def test_commits_come_less_often_the_more_series_change(interval_seconds: float, series: int, expected: float) -> None:
    assert CommitPace(interval_seconds).after(series) == expected


@pytest.mark.parametrize("changed_a_second", [20_000, 30_000, 44_000])
def test_a_moment_of_backlog_slows_no_lane_for_good(changed_a_second: int) -> None:
    """Of many live series others change each second: a longer interval has more of them."""
    pace = CommitPace(1.0)
    interval, waited = pace.after(60_000), 0.0
    while interval > 1.0:
        waited += interval
        interval = pace.after(int(changed_a_second * interval))
    assert waited < 40.0
    assert pace.after(changed_a_second) == 1.0


def test_a_lane_that_goes_on_having_many_goes_on_being_slow() -> None:
    pace = CommitPace(1.0)
    intervals = [pace.after(100_000) for _ in range(90)]
    assert intervals.count(4.0) == 80
