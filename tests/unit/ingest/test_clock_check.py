"""This machine's clock is told to be wrong where it is far from the one that all share."""

import pytest

from chassis.errors import Unavailable
from services.ingest import clock_check
from tests.moved_clock import MovedClock


@pytest.mark.parametrize(
    ("ahead_seconds", "reason"),
    [
        (5, ""),
        (-60, ""),
        (6, "this machine's clock is 6 s ahead of Postgres'"),
        (-600, "this machine's clock is 600 s behind Postgres'"),
    ],
)
async def test_a_clock_may_be_a_little_ahead_and_somewhat_behind(ahead_seconds: int, reason: str) -> None:
    shared = MovedClock()

    async def shared_now_ms() -> int:
        return shared.now_ms()

    try:
        await clock_check.probe(MovedClock(shared.seconds + ahead_seconds), shared_now_ms)
        told = ""
    except Unavailable as error:
        told = error.message
    assert told == reason
