"""What every limiter must do: the one in Redis, the one that leases shares there, the local one, and the steady one.

The real Redis decides on its own clock; the local one is given a clock that a test moves.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from chassis.breakers import Breaker
from chassis.clock import SystemClock
from chassis.ids import uuid7
from deploy.local.servers import Valkey
from services.gateway import redis_limits
from services.gateway.domain import Bucket, Quota
from services.gateway.leases import LeasingLimiter
from services.gateway.rate_limits import Limiter, LocalLimiter, SteadyLimiter, name_of
from services.gateway.redis_limits import RedisLimiter
from tests.moved_clock import MovedClock
from tests.suite_servers import RunningServer


@dataclass(frozen=True)
class Subject:
    """A limiter under test, and how its time passes."""

    limiter: Limiter
    wait: Callable[[float], Awaitable[None]]
    now: Callable[[], float]


@pytest.fixture(params=["redis", "leasing", "local", "steady"])
async def subject(request: pytest.FixtureRequest, valkey_server: RunningServer[Valkey]) -> AsyncIterator[Subject]:
    if request.param == "local":
        clock = MovedClock()
        yield Subject(LocalLimiter(clock), clock.sleep, clock.monotonic)
        return
    async with redis_limits.connected(valkey_server.server.url) as redis:
        await redis.ping()
        limiter: Limiter = in_redis(redis)
        if request.param != "redis":
            limiter = LeasingLimiter(in_redis(redis), SystemClock(), exact_per_minute=0)
        if request.param == "steady":
            limiter = SteadyLimiter(limiter, LocalLimiter(MovedClock()))
        yield Subject(limiter, asyncio.sleep, time.monotonic)


def in_redis(redis: Redis, breaker: Breaker | None = None) -> RedisLimiter:
    return RedisLimiter(redis, breaker or Breaker("redis"))


def bucket(limit: int, period_seconds: int = 60, subject: str = "") -> Bucket:
    """A bucket that no other test has touched."""
    return Bucket(quota=Quota(name="test", limit=limit, period_seconds=period_seconds), subject=subject or str(uuid7()))


async def test_the_whole_limit_may_come_at_once_and_then_no_more(subject: Subject) -> None:
    tested = bucket(7)
    decisions = [await subject.limiter.take([tested]) for _ in range(9)]
    assert [decision.allowed for decision in decisions] == [True] * 7 + [False] * 2
    assert [decision.standings[0].remaining for decision in decisions[:7]] == [6, 5, 4, 3, 2, 1, 0]


async def test_what_was_used_comes_back_at_the_rate_of_the_limit(subject: Subject) -> None:
    tested = bucket(4, period_seconds=1)
    for _ in range(4):
        assert (await subject.limiter.take([tested])).allowed
    refused = await subject.limiter.take([tested])
    assert not refused.allowed
    assert 0 < refused.retry_after_seconds <= 0.25
    await subject.wait(refused.retry_after_seconds + 0.001)
    assert (await subject.limiter.take([tested])).allowed


async def test_a_refused_call_takes_nothing(subject: Subject) -> None:
    tested = bucket(1, period_seconds=3600)
    await subject.limiter.take([tested])
    waits = [(await subject.limiter.take([tested])).retry_after_seconds for _ in range(20)]
    assert max(waits) <= 3600


async def test_subjects_and_limits_do_not_touch_each_other(subject: Subject) -> None:
    one = bucket(1)
    assert (await subject.limiter.take([one])).allowed
    assert not (await subject.limiter.take([one])).allowed
    assert (await subject.limiter.take([bucket(1)])).allowed
    assert (await subject.limiter.take([bucket(2, subject=one.subject)])).allowed


async def test_of_several_buckets_all_are_taken_from_or_none(subject: Subject) -> None:
    narrow, wide = bucket(2), bucket(3)
    assert (await subject.limiter.take([narrow, wide])).allowed
    assert (await subject.limiter.take([narrow, wide])).allowed
    refused = await subject.limiter.take([narrow, wide])
    assert not refused.allowed
    assert [standing.remaining for standing in refused.standings] == [0, 1]
    assert refused.refused_by == narrow.quota
    assert (await subject.limiter.take([wide])).allowed


async def test_never_more_than_burst_and_refill_however_many_ask_at_once(subject: Subject) -> None:
    tested = bucket(100, period_seconds=100)
    began = subject.now()
    decisions = await asyncio.gather(*(subject.limiter.take([tested]) for _ in range(300)))
    refilled = int(subject.now() - began) + 1
    assert 100 <= sum(decision.allowed for decision in decisions) <= 100 + refilled


async def test_replicas_share_a_limit_in_redis(valkey_server: RunningServer[Valkey]) -> None:
    tested = bucket(50, period_seconds=3600)
    async with (
        redis_limits.connected(valkey_server.server.url) as one,
        redis_limits.connected(valkey_server.server.url) as two,
    ):
        await asyncio.gather(one.ping(), two.ping())
        replicas = [in_redis(one), in_redis(two)]
        decisions = await asyncio.gather(*(replicas[i % 2].take([tested]) for i in range(80)))
    assert sum(decision.allowed for decision in decisions) == 50


async def test_a_replica_alone_allows_its_share() -> None:
    limiter = LocalLimiter(MovedClock(), replicas=4)
    tested = bucket(100)
    assert sum([(await limiter.take([tested])).allowed for _ in range(100)]) == 25


async def test_redis_holds_neither_addresses_nor_accounts(valkey_server: RunningServer[Valkey]) -> None:
    async with redis_limits.connected(valkey_server.server.url) as redis:
        await in_redis(redis).take([bucket(3, subject="somebody@example.com")])
        keys = [key async for key in redis.scan_iter("limits:test:3/60:*")]
        assert keys
        assert not any(b"example" in key for key in keys)
        assert all([await redis.pttl(key) > 0 for key in keys])


async def test_where_the_clock_of_redis_was_set_back_a_bucket_is_empty_and_fills_up_again(
    valkey_server: RunningServer[Valkey],
) -> None:
    used, untouched = bucket(4, period_seconds=1), bucket(4, period_seconds=1)
    async with redis_limits.connected(valkey_server.server.url) as redis:
        limiter = in_redis(redis)
        seconds, _ = await redis.time()
        await redis.set(f"limits:{name_of(used)}", (seconds + 3600) * 1_000_000, ex=3601)
        refused = await limiter.take([used, untouched])
        assert not refused.allowed
        assert refused.retry_after_seconds == 0.25
        assert [standing.remaining for standing in refused.standings] == [0, 4]
        await asyncio.sleep(0.3)  # on Redis' clock
        assert (await limiter.take([used, untouched])).allowed


@pytest.mark.parametrize("exact_per_minute", [0, 600])
async def test_without_redis_limits_go_on_locally_and_come_back(
    valkey_server: RunningServer[Valkey], exact_per_minute: int
) -> None:
    async with redis_limits.connected(valkey_server.server.url) as redis:
        breaker = Breaker("redis", reset_seconds=0.05, least_calls=5)
        leasing = LeasingLimiter(in_redis(redis, breaker), SystemClock(), exact_per_minute=exact_per_minute)
        limiter = SteadyLimiter(leasing, LocalLimiter(MovedClock()))
        tested = bucket(10, period_seconds=3600)
        with valkey_server.away():
            assert sum([(await limiter.take([tested])).allowed for _ in range(30)]) == 10
        shared = bucket(10, period_seconds=3600)
        began = time.monotonic()
        while breaker.is_open and time.monotonic() - began < 5:
            await limiter.take([shared])
        assert not breaker.is_open


async def test_a_redis_that_hangs_delays_a_few_calls_only(valkey_server: RunningServer[Valkey]) -> None:
    async with redis_limits.connected(valkey_server.server.url) as redis:
        await redis.ping()
        limiter = SteadyLimiter(
            in_redis(redis, Breaker("redis", reset_seconds=30, least_calls=5)), LocalLimiter(MovedClock())
        )
        tested = bucket(1000, period_seconds=3600)
        with valkey_server.paused():
            began = time.monotonic()
            decisions = [await limiter.take([tested]) for _ in range(200)]
            took = time.monotonic() - began
    assert all(decision.allowed for decision in decisions)
    assert took < 2
