"""Rate limits by the generic cell rate algorithm (GCRA): a burst of `limit` calls, refilled at limit / period.

A bucket is one number: the moment when it will be full again ("theoretical arrival time"). Over all replicas Redis
decides, by one script for each request and on its own clock, so that there are never more calls than burst + refill x
time. While Redis is slow or away each replica decides for its own share.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from chassis import logs
from chassis.breakers import Breaker
from chassis.clock import Clock
from chassis.errors import Unavailable
from services.gateway import metrics
from services.gateway.domain import Bucket, Quota

log = logs.get(__name__)

_TIMEOUT_SECONDS = 0.05
_CONNECTIONS = 32

#: Buckets that one replica remembers for itself.
_MOST_LOCAL_BUCKETS = 100_000

# For each key: microseconds for one call, calls of a burst. Takes from all buckets or from none.
# Answers allowed, microseconds to wait, then for each bucket: calls left, microseconds until it is full.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full_at, wait, answer = {}, 0, {0, 0}
for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  full_at[i] = math.max(tonumber(redis.call('GET', key) or 0), now)
  wait = math.max(wait, full_at[i] + interval - interval * burst - now)
end
if wait <= 0 then answer[1] = 1 else answer[2] = wait end
for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  if answer[1] == 1 then
    full_at[i] = full_at[i] + interval
    local milliseconds = math.ceil((full_at[i] - now) / 1000)
    redis.call('SET', key, string.format('%.0f', full_at[i]), 'PX', milliseconds)
  end
  answer[#answer + 1] = math.floor((now + interval * burst - full_at[i]) / interval)
  answer[#answer + 1] = full_at[i] - now
end
return answer
"""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one bucket stands after a decision."""

    quota: Quota
    remaining: int
    #: Until the whole limit is there again.
    reset_seconds: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a call may go on."""

    allowed: bool
    #: 0 where it is allowed.
    retry_after_seconds: float
    #: In the order of the buckets.
    standings: Sequence[Standing]

    @property
    def refused_by(self) -> Quota:
        """The quota that has the least left."""
        return min(self.standings, key=lambda standing: standing.remaining).quota


class Limiter(Protocol):
    """Decides whether a call may go on."""

    async def take(self, buckets: Sequence[Bucket]) -> Decision:
        """Takes one call from every bucket, or from none where one of them is empty."""
        ...


def _interval_us(quota: Quota) -> int:
    return math.ceil(quota.period_seconds * 1_000_000 / quota.limit)


def _key(bucket: Bucket) -> str:
    """The bucket's name in Redis: it shows no address and no e-mail address."""
    quota = bucket.quota
    subject = blake2b(bucket.subject.encode(), digest_size=16).hexdigest()
    return f"limits:{quota.name}:{quota.limit}/{quota.period_seconds}:{subject}"


class RedisLimiter:
    """Decides for all replicas together."""

    def __init__(self, redis: Redis) -> None:
        self._script = redis.register_script(_SCRIPT)

    async def take(self, buckets: Sequence[Bucket]) -> Decision:
        """See `Limiter`. Raises TimeoutError, OSError or RedisError where Redis does not answer in 50 ms."""
        keys = [_key(bucket) for bucket in buckets]
        arguments = [number for bucket in buckets for number in (_interval_us(bucket.quota), bucket.quota.limit)]
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            allowed, wait_us, *states = await self._script(keys, arguments)
        standings = [
            Standing(quota=bucket.quota, remaining=states[2 * i], reset_seconds=states[2 * i + 1] / 1_000_000)
            for i, bucket in enumerate(buckets)
        ]
        return Decision(allowed=bool(allowed), retry_after_seconds=wait_us / 1_000_000, standings=standings)


class LocalLimiter:
    """Decides for this replica alone, which has its share of every limit."""

    def __init__(self, clock: Clock, replicas: int = 1) -> None:
        self._clock = clock
        self._replicas = replicas
        #: When each bucket will be full, in microseconds of the monotonic clock; the longest unused first.
        self._full_at: dict[str, int] = {}

    async def take(self, buckets: Sequence[Bucket]) -> Decision:
        """See `Limiter`. Never raises."""
        now = int(self._clock.monotonic() * 1_000_000)
        states = [self._state(bucket, now) for bucket in buckets]
        wait_us = max(full_at + interval - interval * burst - now for _, full_at, interval, burst in states)
        standings = []
        for bucket, (key, full_at, interval, burst) in zip(buckets, states, strict=True):
            after = full_at + interval if wait_us <= 0 else full_at
            self._remember(key, after)
            remaining = (now + interval * burst - after) // interval
            standings.append(Standing(quota=bucket.quota, remaining=remaining, reset_seconds=(after - now) / 1_000_000))
        return Decision(allowed=wait_us <= 0, retry_after_seconds=max(0, wait_us) / 1_000_000, standings=standings)

    def _state(self, bucket: Bucket, now: int) -> tuple[str, int, int, int]:
        key = _key(bucket)
        burst = max(1, bucket.quota.limit // self._replicas)
        interval = math.ceil(bucket.quota.period_seconds * 1_000_000 / burst)
        return key, max(self._full_at.get(key, 0), now), interval, burst

    def _remember(self, key: str, full_at: int) -> None:
        self._full_at.pop(key, None)
        self._full_at[key] = full_at
        if len(self._full_at) > _MOST_LOCAL_BUCKETS:
            del self._full_at[next(iter(self._full_at))]


class SteadyLimiter:
    """Redis decides; while it is slow or away, this replica does. Neither is an outage."""

    def __init__(self, shared: Limiter, local: Limiter, breaker: Breaker) -> None:
        self._shared = shared
        self._local = local
        self._breaker = breaker

    async def take(self, buckets: Sequence[Bucket]) -> Decision:
        """See `Limiter`. Never raises."""
        decided_by = "redis"
        try:
            async with self._breaker.guarded():
                decision = await self._shared.take(buckets)
        except (RedisError, OSError, Unavailable) as error:
            if not isinstance(error, Unavailable):
                log.warning("rate limit decided without Redis", reason=type(error).__name__)
            decided_by, decision = "local", await self._local.take(buckets)
        outcome = "allowed" if decision.allowed else "refused"
        metrics.LIMIT_DECISIONS.labels(buckets[0].quota.name, decided_by, outcome).inc()
        return decision


def headers(decision: Decision) -> dict[str, str]:
    """`RateLimit` and `RateLimit-Policy` as in draft-ietf-httpapi-ratelimit-headers-10."""
    standings = decision.standings
    return {
        "RateLimit-Policy": ", ".join(
            f'"{standing.quota.name}";q={standing.quota.limit};w={standing.quota.period_seconds}'
            for standing in standings
        ),
        "RateLimit": ", ".join(
            f'"{standing.quota.name}";r={max(0, standing.remaining)};t={math.ceil(standing.reset_seconds)}'
            for standing in standings
        ),
    }


@asynccontextmanager
async def connected(redis_url: str) -> AsyncIterator[Redis]:
    """A client of Redis that never waits long. It connects by itself, now or later."""
    pool = BlockingConnectionPool.from_url(
        redis_url,
        max_connections=_CONNECTIONS,
        timeout=None,
        socket_connect_timeout=_TIMEOUT_SECONDS,
        socket_timeout=_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 1),
        driver_info=None,
    )
    client = Redis.from_pool(pool)
    try:
        yield client
    finally:
        await client.aclose()


async def probe(redis: Redis) -> None:
    """A health check. Raises where Redis does not answer."""
    await redis.ping()
