"""Shares of large limits, leased from a real Valkey by several replicas."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from chassis.breakers import Breaker
from chassis.clock import SystemClock
from chassis.ids import uuid7
from deploy.local.servers import Valkey
from services.gateway import redis_limits
from services.gateway.domain import Bucket, Quota
from services.gateway.leases import LeasingLimiter
from services.gateway.rate_limits import name_of
from services.gateway.redis_limits import Grant, RedisLimiter
from tests.suite_servers import RunningServer
from tests.waiting import eventually

#: A call may be stamped so much later or earlier than Redis decided about it.
_CLOCKS_SECONDS = 0.02


class CountedLessor(RedisLimiter):
    """Counts leases, begun and under way, and single decisions."""

    leases = 0
    leasing = 0
    decisions = 0

    async def at_rest(self) -> bool:
        return not self.leasing

    async def lease(self, *buckets: Any, **arguments: Any) -> Grant:
        self.leases += 1
        self.leasing += 1
        try:
            return await super().lease(*buckets, **arguments)
        finally:
            self.leasing -= 1

    async def take(self, buckets: Any) -> Any:
        self.decisions += 1
        return await super().take(buckets)


class Replica:
    """One gateway's limiter, and when it allowed calls."""

    def __init__(self, lessor: CountedLessor, replicas: int) -> None:
        self.lessor = lessor
        self.limiter = LeasingLimiter(lessor, SystemClock(), replicas=replicas)
        self.allowed_at: list[float] = []

    async def call(self, bucket: Bucket) -> bool:
        decision = await self.limiter.take([bucket])
        if decision.allowed:
            self.allowed_at.append(time.monotonic())
        return decision.allowed

    async def hammer(self, bucket: Bucket, seconds: float, *, callers: int = 4, pause_seconds: float = 0.0) -> None:
        """Calls without rest."""
        until = time.monotonic() + seconds

        async def call() -> None:
            while time.monotonic() < until:
                await self.call(bucket)
                await asyncio.sleep(pause_seconds)

        await asyncio.gather(*(call() for _ in range(callers)))


@pytest.fixture
async def replicas(
    valkey_server: RunningServer[Valkey], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[int], list[Replica]]]:
    """So many, which wait for Redis' answers for two seconds."""
    monkeypatch.setattr(redis_limits, "_STEPS", 400)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_limits.connected(valkey_server.server.url))
        await redis.ping()
        yield lambda count: [Replica(CountedLessor(redis, Breaker("redis")), count) for _ in range(count)]


def bucket(limit: int, period_seconds: int) -> Bucket:
    return Bucket(quota=Quota(name="test", limit=limit, period_seconds=period_seconds), subject=str(uuid7()))


def most_in_any_window(allowed_at: list[float], rate: float) -> float:
    """The most calls above refill x time, from whatever moment one counts."""
    level = highest = 0.0
    before = 0.0
    for moment in sorted(allowed_at):
        level = max(0.0, level - (moment - before) * rate) + 1
        highest, before = max(highest, level), moment
    return highest


async def test_replicas_together_allow_the_limit_and_no_more(replicas: Callable[[int], list[Replica]]) -> None:
    limit, period = 2_000, 10
    tested, gateways = bucket(limit, period), replicas(3)
    began = time.monotonic()
    await asyncio.gather(*(gateway.hammer(tested, 6.0) for gateway in gateways))
    took = time.monotonic() - began
    allowed = sum(len(gateway.allowed_at) for gateway in gateways)
    possible = limit + took * limit / period
    assert allowed <= possible + 1
    assert allowed >= 0.95 * possible
    assert all(gateway.allowed_at for gateway in gateways)


@pytest.mark.parametrize("seed", range(4))
async def test_however_calls_come_and_go_no_window_has_more_than_burst_and_refill(
    replicas: Callable[[int], list[Replica]], seed: int
) -> None:
    """Replicas fall silent with shares in their hands while the bucket fills up, and come back."""
    chance = random.Random(seed)
    limit, period = chance.choice([(150, 1), (400, 2), (900, 1)])
    tested, gateways = bucket(limit, period), replicas(3)

    async def come_and_go(gateway: Replica) -> None:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            await gateway.hammer(
                tested, chance.uniform(0.02, 0.5), callers=chance.randint(1, 8), pause_seconds=chance.choice([0, 0.005])
            )
            await asyncio.sleep(chance.choice([chance.uniform(0, 1), 2.2]))

    await asyncio.gather(*(come_and_go(gateway) for gateway in gateways))
    moments = [moment for gateway in gateways for moment in gateway.allowed_at]
    rate = limit / period
    assert most_in_any_window(moments, rate) <= limit + 1 + rate * _CLOCKS_SECONDS


async def granted(lessor: RedisLimiter, tested: Bucket, replica: str, **changes: Any) -> int:
    """How many of a hundred calls are leased."""
    asked = {"left": 0, "given_back": 0, "wanted": 100, "lasts_seconds": 5.0, **changes}
    return (await lessor.lease(tested, replica, **asked)).calls


async def test_what_is_held_in_shares_does_not_come_back_as_refill(
    replicas: Callable[[int], list[Replica]],
) -> None:
    tested, lessor = bucket(100, 1), replicas(1)[0].lessor
    assert await granted(lessor, tested, "one", wanted=60) == 60
    await asyncio.sleep(1.0)  # on Redis' clock: without shares the bucket would be full again
    assert await granted(lessor, tested, "two") == 40
    assert await granted(lessor, tested, "three") <= 2  # what came back since


async def test_what_an_ended_share_held_comes_back_from_its_end_on(
    replicas: Callable[[int], list[Replica]],
) -> None:
    tested, lessor = bucket(1000, 10), replicas(1)[0].lessor
    began = time.monotonic()
    assert await granted(lessor, tested, "one", wanted=600, lasts_seconds=1.0) == 600
    await asyncio.sleep(1.2)  # the share ends by Redis' clock
    calls = await granted(lessor, tested, "two", wanted=1000)
    since_its_end = time.monotonic() - began - 1.0
    assert 400 < calls <= 400 + since_its_end * 100 + 1


async def test_a_share_that_is_renewed_keeps_its_calls_and_one_that_ended_gives_them_back(
    replicas: Callable[[int], list[Replica]],
) -> None:
    tested, lessor = bucket(100, 3600), replicas(1)[0].lessor
    assert await granted(lessor, tested, "one", wanted=60) == 60
    assert await granted(lessor, tested, "one", left=50, wanted=10) == 10
    assert await granted(lessor, tested, "one", given_back=60) == 90
    assert await granted(lessor, tested, "stranger", given_back=60) == 0


async def test_where_the_clock_of_redis_was_set_back_shares_end_and_the_bucket_fills_up_again(
    replicas: Callable[[int], list[Replica]], valkey_server: RunningServer[Valkey]
) -> None:
    tested, lessor = bucket(100, 1), replicas(1)[0].lessor
    async with redis_limits.connected(valkey_server.server.url) as redis:
        seconds, _ = await redis.time()
        ahead, name = (seconds + 3600) * 1_000_000, f"leases:{name_of(tested)}"
        await redis.hset(name, mapping={"full_at": ahead, "one": f"60 {ahead}"})
    refused = await lessor.lease(tested, "two", left=0, given_back=0, wanted=100, lasts_seconds=1.0)
    assert (refused.calls, refused.wait_seconds) == (0, 0.01)
    await asyncio.sleep(0.6)  # on Redis' clock
    assert await granted(lessor, tested, "two", lasts_seconds=1.0) >= 40
    await asyncio.sleep(0.6)  # the share of "one" has ended
    assert await granted(lessor, tested, "three", lasts_seconds=1.0) > 0


async def test_the_hot_path_asks_seldom(replicas: Callable[[int], list[Replica]]) -> None:
    tested = bucket(100_000, 60)
    (gateway,) = replicas(1)
    for _ in range(20_000):
        assert await gateway.call(tested)
        if not gateway.lessor.leases % 5:
            await asyncio.sleep(0)
    assert gateway.lessor.leases < 100
    assert gateway.lessor.decisions == 0


async def test_a_crowd_at_a_cold_start_is_let_in_together(replicas: Callable[[int], list[Replica]]) -> None:
    tested = bucket(100_000, 60)
    (gateway,) = replicas(1)
    assert all(await asyncio.gather(*(gateway.call(tested) for _ in range(256))))
    assert gateway.lessor.leases <= 3


async def test_a_share_is_used_although_redis_hangs(
    replicas: Callable[[int], list[Replica]], valkey_server: RunningServer[Valkey]
) -> None:
    tested = bucket(100_000, 60)
    (gateway,) = replicas(1)
    await asyncio.gather(*(gateway.call(tested) for _ in range(256)))
    await asyncio.gather(*(gateway.call(tested) for _ in range(256)))
    await eventually(gateway.lessor.at_rest, what="the share is renewed")
    with valkey_server.paused():
        began = time.monotonic()
        assert await gateway.call(tested)
        assert time.monotonic() - began < 1.0, "Redis was waited for"


async def test_what_a_share_had_left_is_given_back(replicas: Callable[[int], list[Replica]]) -> None:
    tested = bucket(100_000, 3600)
    (gateway,) = replicas(1)
    for _ in range(3):
        await asyncio.gather(*(gateway.call(tested) for _ in range(100)))
    used = len(gateway.allowed_at)
    await asyncio.sleep(2.1)  # shares end by Redis' clock
    decision = await gateway.limiter.take([tested])
    assert decision.standings[0].remaining >= 100_000 - used - 1


async def test_what_is_left_is_told_at_each_call(replicas: Callable[[int], list[Replica]]) -> None:
    tested = bucket(100_000, 3600)
    (gateway,) = replicas(1)
    began = time.monotonic()
    for used in range(1, 101):
        remaining = (await gateway.limiter.take([tested])).standings[0].remaining
        come_back = (time.monotonic() - began) * 100_000 / 3600
        assert 100_000 - used <= remaining <= 100_000 - used + come_back + 1


async def test_small_limits_are_decided_call_by_call(replicas: Callable[[int], list[Replica]]) -> None:
    one, two = replicas(2)
    tested = bucket(600, 60)
    began = time.monotonic()
    for gateway in (one, two):
        for _ in range(10):
            assert await gateway.call(tested)
    assert (one.lessor.decisions, one.lessor.leases) == (10, 0)
    remaining = (await one.limiter.take([tested])).standings[0].remaining
    assert 579 <= remaining <= 579 + (time.monotonic() - began) * 10 + 1


async def test_of_a_small_and_a_large_limit_both_are_taken_from_or_none(
    replicas: Callable[[int], list[Replica]],
) -> None:
    (gateway,) = replicas(1)
    small, large = bucket(3, 3600), bucket(5, 1)
    large = Bucket(quota=Quota(name="large", limit=4, period_seconds=60), subject=large.subject)
    limiter = LeasingLimiter(gateway.lessor, SystemClock(), exact_per_minute=3)
    decisions = [await limiter.take([small, large]) for _ in range(5)]
    assert [decision.allowed for decision in decisions] == [True] * 3 + [False] * 2
    assert [standing.quota for standing in decisions[0].standings] == [small.quota, large.quota]
    assert decisions[3].refused_by == small.quota
    assert (await limiter.take([large])).allowed
    refused = await limiter.take([large])
    assert not refused.allowed
    assert 0 < refused.retry_after_seconds <= 15
    assert (await limiter.take([small, large])).refused_by == large.quota
