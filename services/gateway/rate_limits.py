"""Rate limits by the generic cell rate algorithm (GCRA): a burst of `limit` calls, refilled at limit / period.

A bucket is one number: the moment when it will be full again ("theoretical arrival time"). Over all replicas Redis
decides about each request, by a script and on its own clock, so that there are never more calls than burst + refill x
time. While Redis is slow or away each replica decides for its own share.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
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
_CONNECTIONS = 4
#: Calls that are decided in one round trip.
_MOST_AT_ONCE = 256

#: Buckets that one replica remembers for itself.
_MOST_LOCAL_BUCKETS = 100_000

# Decides about several calls, one after the other; each takes from all of its buckets or from none.
# Arguments of a call: how many buckets, then for each: microseconds for one call, calls of a burst.
# Answers for a call: allowed, microseconds to wait, then for each bucket: calls left, microseconds until it is full.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer, next_key, next_argument = {}, 1, 1

local function decide(count)
  local buckets, wait = {}, 0
  for i = 1, count do
    local interval, burst = tonumber(ARGV[next_argument]), tonumber(ARGV[next_argument + 1])
    local key = KEYS[next_key]
    next_key, next_argument = next_key + 1, next_argument + 2
    local full_at = math.max(tonumber(redis.call('GET', key) or 0), now)
    buckets[i] = {key, interval, interval * burst, full_at}
    wait = math.max(wait, full_at + interval - interval * burst - now)
  end
  answer[#answer + 1] = wait <= 0 and 1 or 0
  answer[#answer + 1] = wait
  for _, bucket in ipairs(buckets) do
    local key, interval, tolerance, full_at = unpack(bucket)
    if wait <= 0 then
      full_at = full_at + interval
      redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
    end
    answer[#answer + 1] = math.floor((now + tolerance - full_at) / interval)
    answer[#answer + 1] = full_at - now
  end
end

while next_argument <= #ARGV do
  local count = tonumber(ARGV[next_argument])
  next_argument = next_argument + 1
  decide(count)
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
    """Decides for all replicas together. Calls that arrive during a round trip are decided together in the next one."""

    def __init__(self, redis: Redis) -> None:
        self._script = redis.register_script(_SCRIPT)
        self._waiting: deque[tuple[Sequence[Bucket], asyncio.Future[Decision]]] = deque()
        self._deciding: asyncio.Task[None] | None = None

    async def take(self, buckets: Sequence[Bucket]) -> Decision:
        """See `Limiter`. Raises TimeoutError, OSError or RedisError where Redis does not answer in 50 ms."""
        decided: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._waiting.append((buckets, decided))
        if self._deciding is None:
            self._deciding = asyncio.create_task(self._decide_waiting())
        return await decided

    async def _decide_waiting(self) -> None:
        try:
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_AT_ONCE))]
                try:
                    decisions = await self._ask([buckets for buckets, _ in group])
                except Exception as error:  # noqa: BLE001 - whoever waits is told
                    for _, decided in group:
                        if not decided.done():
                            decided.set_exception(error)
                else:
                    for (_, decided), decision in zip(group, decisions, strict=True):
                        if not decided.done():
                            decided.set_result(decision)
        finally:
            self._deciding = None

    async def _ask(self, calls: Sequence[Sequence[Bucket]]) -> list[Decision]:
        """One round trip."""
        keys, arguments = [], []
        for buckets in calls:
            arguments.append(len(buckets))
            for bucket in buckets:
                keys.append(_key(bucket))
                arguments += (_interval_us(bucket.quota), bucket.quota.limit)
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            answer = iter(await self._script(keys, arguments))
        return [_decision(buckets, answer) for buckets in calls]


def _decision(buckets: Sequence[Bucket], answer: Iterator[int]) -> Decision:
    """The next call's decision in the script's answer."""
    allowed, wait_us = next(answer), next(answer)
    standings = [
        Standing(quota=bucket.quota, remaining=next(answer), reset_seconds=next(answer) / 1_000_000)
        for bucket in buckets
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
            with self._breaker.guarded():
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
