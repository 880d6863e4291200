"""Rate limits as Redis keeps them, over all replicas and on its own clock.

A bucket is one number: the moment when it will be full again. A script takes single calls from it, or a share of calls
that one replica may then allow by itself (`leases`). Calls that are held in shares do not come back as refill, so that
never more than burst + refill x time are allowed, from whatever moment one counts. No bucket is more than empty: a
moment that is further ahead was told by a clock that has been set back since, and is replaced.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import MasterDownError, ReadOnlyError

from chassis.breakers import Breaker
from services.gateway.domain import Bucket
from services.gateway.rate_limits import Decision, Standing, interval_us, name_of
from services.gateway.round_trips import RoundTrips

T = TypeVar("T")

#: How long an answer is waited for, in short steps: where this process is too busy to look for it in time, a step is
#: longer, and that is no fault of Redis.
_STEPS, _STEP_SECONDS = 10, 0.005
_SOCKET_SECONDS = 1.0
_CONNECTIONS = 4

# Answers several questions, one after the other. Times are in microseconds.
#
# take: how many buckets, then for each: time for one call, calls of a burst. Takes from all of them or from none.
#   Answers: allowed, time to wait, then for each bucket: calls left, time until it is full.
# lease: time for one call, calls of a burst, who asks, calls of the share that it still has, calls of an ended share
#   that it gives back, calls wanted, how long they are held.
#   Answers: calls granted, time to wait where there are none, time until the bucket is full when all shares are used.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer, next_key, next_argument = {}, 1, 1

local function tell(value)
  answer[#answer + 1] = value
end

local function key()
  next_key = next_key + 1
  return KEYS[next_key - 1]
end

local function argument()
  next_argument = next_argument + 1
  return ARGV[next_argument - 1]
end

local function number()
  return tonumber(argument())
end

local function keep(name, full_at)
  redis.call('SET', name, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
end

local function take()
  local buckets, wait = {}, 0
  for i = 1, number() do
    local name, interval, burst = key(), number(), number()
    local tolerance = interval * burst
    local full_at = math.max(tonumber(redis.call('GET', name) or 0), now)
    if full_at > now + tolerance then
      full_at = now + tolerance
      keep(name, full_at)
    end
    buckets[i] = {name, interval, tolerance, full_at}
    wait = math.max(wait, full_at + interval - tolerance - now)
  end
  tell(wait <= 0 and 1 or 0)
  tell(wait)
  for _, bucket in ipairs(buckets) do
    local name, interval, tolerance, full_at = unpack(bucket)
    if wait <= 0 then
      full_at = full_at + interval
      keep(name, full_at)
    end
    tell(math.floor((now + tolerance - full_at) / interval))
    tell(full_at - now)
  end
end

local function put_share(name, replica, share)
  redis.call('HSET', name, replica, string.format('%.0f %.0f', share.calls, share.ends))
end

local function read(name, tolerance, lasts)
  local full_at, shares = now, {}
  local fields = redis.call('HGETALL', name)
  for i = 1, #fields, 2 do
    if fields[i] == 'full_at' then
      full_at = math.max(full_at, math.min(tonumber(fields[i + 1]), now + tolerance))
    else
      local calls, ends = string.match(fields[i + 1], '(%d+) (%d+)')
      local share = {calls = tonumber(calls), ends = tonumber(ends)}
      shares[fields[i]] = share
      if share.ends > now + lasts then
        share.ends = now + lasts
        put_share(name, fields[i], share)
      end
    end
  end
  return full_at, shares
end

-- When a bucket is full at the earliest: at each moment what is left and what is held in shares is the burst at most.
local function held_until(shares, interval)
  local full_at = now
  for _, share in pairs(shares) do
    local moment, held = math.min(share.ends, now), 0
    for _, other in pairs(shares) do
      if other.ends >= moment then held = held + other.calls end
    end
    full_at = math.max(full_at, moment + held * interval)
  end
  return full_at
end

local function lease()
  local name, interval, burst, me = key(), number(), number(), argument()
  local left, given_back, wanted, lasts = number(), number(), number(), number()
  local tolerance = interval * burst
  local full_at, shares = read(name, tolerance, lasts)
  full_at = math.max(full_at, held_until(shares, interval))
  local known = shares[me]
  shares[me] = nil
  for replica, share in pairs(shares) do
    if share.ends < now then
      shares[replica] = nil
      redis.call('HDEL', name, replica)
    end
  end
  if known then
    full_at = math.max(full_at - given_back * interval, held_until(shares, interval))
  end

  local granted = math.floor((now + tolerance - full_at) / interval)
  granted = math.max(0, math.min(granted, wanted))
  full_at = full_at + granted * interval
  local kept_until = math.max(full_at, now + lasts)
  for _, share in pairs(shares) do kept_until = math.max(kept_until, share.ends) end
  redis.call('HSET', name, 'full_at', string.format('%.0f', full_at))
  put_share(name, me, {calls = left + granted, ends = now + lasts})
  redis.call('PEXPIRE', name, math.ceil((kept_until - now) / 1000))
  tell(granted)
  tell(granted > 0 and 0 or full_at + interval - tolerance - now)
  tell(full_at - now)
end

while next_argument <= #ARGV do
  if argument() == 'take' then take() else lease() end
end
return answer
"""


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What of a share was granted."""

    calls: int
    #: 0 where something was granted.
    wait_seconds: float
    #: Until the whole limit is there again, with all shares used.
    full_in_seconds: float


@dataclass(frozen=True)
class _Question(Generic[T]):
    keys: Sequence[str]
    arguments: Sequence[str | int]
    #: Makes something of the answer, from which it takes as many numbers as belong to it.
    read: Callable[["_Numbers"], T]


class _Numbers:
    """The script's answer, number by number."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = iter(numbers)

    def next(self) -> int:
        return next(self._numbers)

    def seconds(self) -> float:
        return next(self._numbers) / 1_000_000


class RedisLimiter:
    """Decides for all replicas together. What is asked during a round trip is asked together in the next one.

    Raises OSError (TimeoutError too) or RedisError where Redis does not answer in 50 ms, Unavailable while it rests.
    """

    def __init__(self, redis: Redis, breaker: Breaker) -> None:
        self._redis = redis
        self._script = redis.register_script(_SCRIPT)
        self.breaker = breaker
        self._round_trips: RoundTrips[_Question[Any], Any] = RoundTrips(self._round_trip)

    async def probe(self) -> None:
        """A health check, which also sees to it that Redis has the script. Raises where Redis does not answer, or takes
        no writes, as a replica does not."""
        await self._script(["limits:probe"], ["take", 1, 1, 1])

    async def take(self, buckets: Sequence[Bucket]) -> Decision:
        """See `Limiter`."""
        keys = [f"limits:{name_of(bucket)}" for bucket in buckets]
        arguments: list[str | int] = ["take", len(buckets)]
        for bucket in buckets:
            arguments += (interval_us(bucket.quota), bucket.quota.limit)
        return await self._ask(keys, arguments, lambda numbers: _decision(buckets, numbers))

    async def lease(
        self, bucket: Bucket, replica: str, *, left: int, given_back: int, wanted: int, lasts_seconds: float
    ) -> Grant:
        """A share of a bucket, or more of it. `left` calls of the one before are kept, `given_back` ended unused."""
        quota, lasts = bucket.quota, int(lasts_seconds * 1_000_000)
        arguments: list[str | int] = [
            "lease",
            interval_us(quota),
            quota.limit,
            replica,
            left,
            given_back,
            wanted,
            lasts,
        ]
        return await self._ask([f"leases:{name_of(bucket)}"], arguments, _grant)

    async def _ask(self, keys: Sequence[str], arguments: Sequence[str | int], read: Callable[[_Numbers], T]) -> T:
        answer: T = await self._round_trips.answer(_Question(keys, arguments, read))
        return answer

    async def _round_trip(self, questions: Sequence[_Question[Any]]) -> list[Any]:
        keys = [key for question in questions for key in question.keys]
        arguments = [argument for question in questions for argument in question.arguments]
        with self.breaker.guarded():
            numbers = _Numbers(await _in_time(self._script(keys, arguments)))
        return [question.read(numbers) for question in questions]


async def _in_time(asking: Awaitable[T]) -> T:
    """What is answered. Raises TimeoutError."""
    answer = asyncio.ensure_future(asking)
    try:
        for _ in range(_STEPS):
            await asyncio.wait([answer], timeout=_STEP_SECONDS)
            if answer.done():
                return answer.result()
        raise TimeoutError("Redis did not answer in time")
    finally:
        answer.cancel()


def _decision(buckets: Sequence[Bucket], numbers: _Numbers) -> Decision:
    allowed, wait_seconds = bool(numbers.next()), numbers.seconds()
    standings = [
        Standing(quota=bucket.quota, remaining=numbers.next(), reset_seconds=numbers.seconds()) for bucket in buckets
    ]
    return Decision(allowed=allowed, retry_after_seconds=wait_seconds, standings=standings, decided_by="redis")


def _grant(numbers: _Numbers) -> Grant:
    return Grant(calls=numbers.next(), wait_seconds=numbers.seconds(), full_in_seconds=numbers.seconds())


class _Credentials(CredentialProvider):
    """Those in an address that may change."""

    def __init__(self, redis_url: Callable[[], str]) -> None:
        self._redis_url = redis_url

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        address = parse_url(self._redis_url())
        user, password = address.get("username"), address.get("password", "")
        return (user, password) if user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


@asynccontextmanager
async def connected(redis_url: str | Callable[[], str]) -> AsyncIterator[Redis]:
    """A client of Redis that never waits long. It connects by itself, now or later.

    `redis_url`: a function where it may change; each new connection asks it for its user and password.
    """
    address = parse_url(redis_url if isinstance(redis_url, str) else redis_url())
    if "password" in address and not isinstance(redis_url, str):
        del address["password"]
        address.pop("username", None)
        following: dict[str, Any] = {"credential_provider": _Credentials(redis_url)}
    else:
        following = {}
    pool = BlockingConnectionPool(
        **address,
        **following,
        max_connections=_CONNECTIONS,
        timeout=None,
        socket_connect_timeout=_SOCKET_SECONDS,
        socket_timeout=_SOCKET_SECONDS,
        retry=Retry(NoBackoff(), 1),
        # Who says so has become a replica since it was connected to; another may have its address now.
        retry_on_error=[ReadOnlyError, MasterDownError],
        driver_info=None,
    )
    client = Redis.from_pool(pool)
    try:
        yield client
    finally:
        await client.aclose()
