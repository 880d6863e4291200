"""What travels with a request."""

import time

import pytest

from chassis import context
from chassis.ids import is_uuid


@pytest.mark.parametrize("offered", ["a", "A-Z.a_z-0.9", "x" * 128])
def test_a_well_formed_correlation_id_is_kept(offered: str) -> None:
    assert context.correlation_id_or_new(offered) == offered


@pytest.mark.parametrize("offered", [None, "", "x" * 129, "a b", "a\n", "a\r\nX-Forged: 1", "é", "<script>"])
def test_another_is_replaced(offered: str | None) -> None:
    assert is_uuid(context.correlation_id_or_new(offered))


def test_a_call_may_take_its_own_time_or_what_the_caller_has_left() -> None:
    assert context.remaining_seconds(5) == 5
    token = context.DEADLINE.set(time.monotonic() + 2)
    try:
        assert 1 < context.remaining_seconds(5) <= 2
        assert context.remaining_seconds(1) == 1
    finally:
        context.DEADLINE.reset(token)


def test_who_waits_ends_while_the_caller_can_still_be_told() -> None:
    assert context.waiting_seconds(5) == 5
    token = context.DEADLINE.set(time.monotonic() + 2)
    try:
        assert 1 < context.waiting_seconds(5) <= 1.5
        assert context.waiting_seconds(1) == 1
    finally:
        context.DEADLINE.reset(token)
