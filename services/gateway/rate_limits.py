"""Rate limits by the generic cell rate algorithm (GCRA): a burst of `limit` calls, refilled at limit / period.

A bucket is one number: the moment when it will be full again ("theoretical arrival time"). Redis keeps it for all
replicas (`redis_limits`, `leases`). While Redis is slow or away each replica decides for its own share.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

from redis.exceptions import RedisError

from chassis import logs
from chassis.clock import Clock
from chassis.errors import Unavailable
from services.gateway import metrics
from services.gateway.domain import Bucket, Quota

log = logs.get(__name__)

#: Buckets that one replica remembers for itself.
_MOST_LOCAL_BUCKETS = 100_000


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
    #: In the order of the buckets; of those alone that were looked at, where it is not allowed.
    standings: Sequence[Standing]
    #: `redis`, `share` (of what Redis had leased), `local`, or `remembered` (see `Refusals`).
    decided_by: str

    @property
    def refused_by(self) -> Quota:
        """The quota that has the least left."""
        return min(self.standings, key=lambda standing: standing.remaining).quota


class Limiter(Protocol):
    """Decides whether a call may go on."""

    async def take(self, buckets: Sequence[Bucket]) -> Decision:
        """Takes one call from every bucket, or from none where one of them is empty."""
        ...


def interval_us(quota: Quota) -> int:
    """How long one call of a quota takes to come back."""
    return math.ceil(quota.period_seconds * 1_000_000 / quota.limit)


def name_of(bucket: Bucket) -> str:
    """The bucket's name: it shows no address and no e-mail address."""
    quota = bucket.quota
    subject = blake2b(bucket.subject.encode(), digest_size=16).hexdigest()
    return f"{quota.name}:{quota.limit}/{quota.period_seconds}:{subject}"


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
        for bucket, (name, full_at, interval, burst) in zip(buckets, states, strict=True):
            after = full_at + interval if wait_us <= 0 else full_at
            self._remember(name, after)
            remaining = (now + interval * burst - after) // interval
            standings.append(Standing(quota=bucket.quota, remaining=remaining, reset_seconds=(after - now) / 1_000_000))
        wait_seconds = max(0, wait_us) / 1_000_000
        return Decision(allowed=wait_us <= 0, retry_after_seconds=wait_seconds, standings=standings, decided_by="local")

    def _state(self, bucket: Bucket, now: int) -> tuple[str, int, int, int]:
        name = name_of(bucket)
        burst = max(1, bucket.quota.limit // self._replicas)
        interval = math.ceil(bucket.quota.period_seconds * 1_000_000 / burst)
        return name, max(self._full_at.get(name, 0), now), interval, burst

    def _remember(self, name: str, full_at: int) -> None:
        self._full_at.pop(name, None)
        self._full_at[name] = full_at
        if len(self._full_at) > _MOST_LOCAL_BUCKETS:
            del self._full_at[next(iter(self._full_at))]


class SteadyLimiter:
    """Redis decides; while it is slow or away, this replica does. Neither is an outage."""

    def __init__(self, shared: Limiter, local: Limiter) -> None:
        self._shared = shared
        self._local = local

    async def take(self, buckets: Sequence[Bucket]) -> Decision:
        """See `Limiter`. Never raises."""
        try:
            decision = await self._shared.take(buckets)
        except (RedisError, OSError, Unavailable) as error:
            if not isinstance(error, Unavailable):
                log.warning("rate limit decided without Redis", reason=type(error).__name__)
            decision = await self._local.take(buckets)
        metrics.limit_decided(buckets[0].quota.name, decision.decided_by, allowed=decision.allowed)
        return decision


class Refusals:
    """Refusals of this process whose wait is not over: who was told to wait is told again without asking anybody."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: When each was made; the oldest first.
        self._made: dict[str, tuple[float, Decision]] = {}

    def remember(self, subject: str, decision: Decision) -> None:
        """A decision that refused."""
        self._made.pop(subject, None)
        self._made[subject] = self._clock.monotonic(), decision
        if len(self._made) > _MOST_LOCAL_BUCKETS:
            del self._made[next(iter(self._made))]

    def of(self, subject: str) -> Decision | None:
        """The latest as it stands now; None where there is none, or the wait is over."""
        made_at, decision = self._made.get(subject, (0.0, None))
        if decision is None:
            return None
        waited = self._clock.monotonic() - made_at
        if waited >= decision.retry_after_seconds:
            del self._made[subject]
            return None
        standings = [replace(one, reset_seconds=max(0.0, one.reset_seconds - waited)) for one in decision.standings]
        left = decision.retry_after_seconds - waited
        metrics.limit_decided(standings[0].quota.name, "remembered", allowed=False)
        return replace(decision, retry_after_seconds=left, standings=standings, decided_by="remembered")


def headers(decision: Decision) -> dict[str, str]:
    """`RateLimit` and `RateLimit-Policy` as in draft-ietf-httpapi-ratelimit-headers-10."""
    standings = decision.standings
    return {
        "RateLimit-Policy": ", ".join([_policy(standing.quota) for standing in standings]),
        "RateLimit": ", ".join(
            [
                f'"{standing.quota.name}";r={max(0, standing.remaining)};t={math.ceil(standing.reset_seconds)}'
                for standing in standings
            ]
        ),
    }


@lru_cache(maxsize=1024)
def _policy(quota: Quota) -> str:
    return f'"{quota.name}";q={quota.limit};w={quota.period_seconds}'
