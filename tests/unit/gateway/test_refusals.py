"""Refusals that are told again without asking anybody, until their wait is over."""

from services.gateway.domain import Quota
from services.gateway.rate_limits import Decision, Refusals, Standing
from tests.moved_clock import MovedClock


def test_a_refusal_holds_until_its_wait_is_over() -> None:
    clock = MovedClock()
    refusals = Refusals(clock)
    standing = Standing(quota=Quota(name="address", limit=100, period_seconds=900), remaining=0, reset_seconds=900)
    refusals.remember(
        "192.0.2.1", Decision(allowed=False, retry_after_seconds=9, standings=[standing], decided_by="redis")
    )
    clock.seconds += 4
    told = refusals.of("192.0.2.1")
    assert told is not None
    assert (told.allowed, told.retry_after_seconds, told.standings[0].reset_seconds) == (False, 5, 896)
    assert refusals.of("192.0.2.2") is None
    clock.seconds += 5
    assert refusals.of("192.0.2.1") is None
