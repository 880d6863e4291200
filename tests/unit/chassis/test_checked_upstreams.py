"""What health checks tell the breakers towards a service."""

from typing import Any, cast

import pytest

from chassis.breakers import Breaker
from chassis.checked_upstreams import Checked, breaker_of
from chassis.errors import Unavailable


class Service:
    """Says whether it serves."""

    def __init__(self) -> None:
        self.serves = True

    async def probe(self) -> None:
        if not self.serves:
            raise Unavailable("Its database is away.")


def _opened() -> Breaker:
    breaker = breaker_of("auth", reset_seconds=600, timeout_seconds=1)
    while not breaker.is_open:
        with pytest.raises(Unavailable), breaker.guarded():
            raise Unavailable("The database is away.")
    return breaker


async def test_a_service_that_serves_again_is_tried_at_once() -> None:
    service, breaker = Service(), _opened()
    checked = Checked(cast("Any", service), [breaker])
    service.serves = False
    for _ in range(2):
        with pytest.raises(Unavailable):
            await checked.probe()
    assert breaker.is_open
    service.serves = True
    await checked.probe()
    assert breaker.state == "half-open"


async def test_a_service_whose_calls_fail_while_it_says_that_it_serves_is_left_alone() -> None:
    breaker = _opened()
    checked = Checked(cast("Any", Service()), [breaker])
    for _ in range(2):
        with pytest.raises(Unavailable, match="circuit breaker"):
            await checked.probe()
    assert breaker.is_open
