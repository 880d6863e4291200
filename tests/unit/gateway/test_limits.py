"""How many attempts to get in are counted towards what."""

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from chassis.errors import PulsegateError
from services.gateway.limits import Limits
from services.gateway.rate_limits import LocalLimiter
from services.gateway.routes import ADDED_HEADERS
from tests.moved_clock import MovedClock

STRANGER, OWNER = "192.0.2.1", "198.51.100.1"
EMAIL = "ada@example.com"


class Door:
    """Counts attempts, on a clock of its own."""

    def __init__(self) -> None:
        self.clock = MovedClock()
        self.limits = Limits(
            LocalLimiter(self.clock),
            self.clock,
            default_plan="free",
            auth_requests_per_minute=5,
            ingest_requests_per_minute=None,
            address_requests_per_15_minutes=100,
            trusted_proxies=(),
        )

    async def lets_sign_in(self, address: str) -> bool:
        try:
            await self.limits.charge_account(_from(address), EMAIL)
        except PulsegateError:
            return False
        return True

    async def lets_reset(self, address: str) -> bool:
        try:
            await self.limits.charge_reset(_from(address), EMAIL)
        except PulsegateError:
            return False
        return True


def _from(address: str) -> web.Request:
    request = make_mocked_request("POST", "/").clone(remote=address)
    request[ADDED_HEADERS] = {}
    return request


async def test_a_stranger_at_one_address_does_not_keep_the_owner_out() -> None:
    door = Door()
    assert [await door.lets_sign_in(STRANGER) for _ in range(6)] == [True] * 5 + [False]
    assert not await door.lets_sign_in(OWNER), "five a minute of the account in all"
    taken = 0
    for _ in range(600):  # who tries without a pause has each attempt as soon as it comes back
        door.clock.seconds += 0.1
        taken += await door.lets_sign_in(STRANGER)
    assert taken in (2, 3)
    assert await door.lets_sign_in(OWNER)


async def test_attempts_to_get_in_leave_those_to_reset_a_password_alone() -> None:
    door = Door()
    for number in range(5):
        assert await door.lets_sign_in(f"192.0.2.{number}")
    assert not await door.lets_sign_in(OWNER)
    assert [await door.lets_reset(OWNER) for _ in range(6)] == [True] * 5 + [False]
