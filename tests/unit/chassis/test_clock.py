"""Times and how they are written."""

from datetime import UTC, datetime, timedelta, timezone

from chassis.clock import SystemClock, from_unix_ms, rfc3339, to_unix_ms


def test_milliseconds_lead_to_a_moment_and_back() -> None:
    moment = from_unix_ms(1_795_200_000_123)
    assert moment == datetime(2026, 11, 20, 18, 40, 0, 123_000, tzinfo=UTC)
    assert to_unix_ms(moment) == 1_795_200_000_123


def test_times_are_written_in_utc_with_milliseconds() -> None:
    moment = datetime(2026, 1, 31, 9, 15, 30, 123_456, tzinfo=timezone(timedelta(hours=1)))
    assert rfc3339(moment) == "2026-01-31T08:15:30.123Z"


def test_the_systems_clock_runs() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
    assert abs(clock.now_ms() - to_unix_ms(datetime.now(UTC))) < 5_000
