"""Large limits without a round trip: a replica leases shares of a bucket from Redis and allows their calls by itself.

A share holds what a second needs, at the rate that was seen last, and never more than a small part of the limit. It is
renewed before it runs out, and ends by itself; what an ended share had left is given back with the next question. Redis
is asked before a call is refused.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Protocol

from chassis.clock import Clock
from chassis.ids import uuid7
from services.gateway.domain import Bucket, Quota
from services.gateway.rate_limits import Decision, Limiter, Standing
from services.gateway.redis_limits import Grant

#: Limits up to this are decided in Redis, call by call.
EXACT_PER_MINUTE = 600

#: How long the calls of a share are good for, and for how long they should last at the rate seen last.
_LEASE_SECONDS = 2.0
_SHARE_SECONDS = 1.0
#: A share has at most this part of the limit, all replicas together.
_PARTS = 50
_MOST_SHARES = 100_000
#: A renewal in the background that failed is not tried again at once.
_PAUSE_SECONDS = 0.1
_LEAST_ELAPSED_SECONDS = 0.001


class Lessor(Limiter, Protocol):
    """Who decides over all replicas: Redis."""

    async def lease(
        self, bucket: Bucket, replica: str, *, left: int, given_back: int, wanted: int, lasts_seconds: float
    ) -> Grant: ...


class _Share:
    """Calls of one bucket that this replica may allow. Times are in seconds of the monotonic clock."""

    __slots__ = (
        "bucket",
        "ends_at",
        "full_at",
        "interval",
        "leased_at",
        "left",
        "renewal",
        "renewed_after",
        "size",
        "tolerance",
        "used",
        "waiting",
    )

    def __init__(self, bucket: Bucket, now: float) -> None:
        quota = bucket.quota
        self.bucket = bucket
        self.interval = quota.period_seconds / quota.limit
        self.tolerance = self.interval * quota.limit
        self.left = 0
        self.ends_at = 0.0
        #: When the bucket will be full again if every call of the share is used, as Redis said.
        self.full_at = now
        self.size = 1
        #: Calls allowed since it was leased, and when that was.
        self.used = 0
        self.leased_at = now
        #: Who waits for calls.
        self.waiting = 0
        self.renewal: asyncio.Task[float] | None = None
        self.renewed_after = 0.0

    def standing(self, now: float) -> Standing:
        """As far as it is known here."""
        until_full = max(0.0, self.full_at - self.left * self.interval - now)
        remaining = int((self.tolerance - until_full) / self.interval)
        return Standing(quota=self.bucket.quota, remaining=remaining, reset_seconds=until_full)

    def wanted(self, now: float, most: int) -> int:
        """How many calls the share should have now: for the rate seen last, and growing step by step."""
        rate = self.used / max(now - self.leased_at, _LEAST_ELAPSED_SECONDS)
        grown = min(math.ceil(rate * _SHARE_SECONDS), 2 * self.size)
        return max(1, min(max(grown, self.waiting), most))


class LeasingLimiter:
    """Decides about small limits in Redis and about large ones here."""

    def __init__(
        self, lessor: Lessor, clock: Clock, *, replicas: int = 1, exact_per_minute: int = EXACT_PER_MINUTE
    ) -> None:
        self._lessor = lessor
        self._clock = clock
        self._replicas = replicas
        self._exact_per_minute = exact_per_minute
        self._name = uuid7().hex[-16:]
        #: By the quota's name, limit and period, and the subject; the oldest first.
        self._shares: dict[tuple[str, int, int, str], _Share] = {}

    async def take(self, buckets: Sequence[Bucket]) -> Decision:
        """See `Limiter`. Raises what the lessor raises."""
        now = self._clock.monotonic()
        shares = [self._share(bucket, now) for bucket in buckets if self._is_leased(bucket.quota)]
        if not shares:
            return await self._lessor.take(buckets)
        refused_for = 0.0 if self._use(shares, now) else await self._use_more(shares)
        if refused_for or len(shares) == len(buckets):
            return self._decision(shares, refused_for)
        return await self._with_exact(buckets, shares)

    def _is_leased(self, quota: Quota) -> bool:
        return quota.limit * 60 > self._exact_per_minute * quota.period_seconds

    def _share(self, bucket: Bucket, now: float) -> _Share:
        quota = bucket.quota
        key = (quota.name, quota.limit, quota.period_seconds, bucket.subject)
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = _Share(bucket, now)
            if len(self._shares) > _MOST_SHARES:
                del self._shares[next(iter(self._shares))]
        return share

    def _use(self, shares: Sequence[_Share], now: float) -> bool:
        """Takes a call of each share, where each has one."""
        for share in shares:
            if share.left <= 0 or share.ends_at <= now:
                return False
        for share in shares:
            share.left -= 1
            share.used += 1
            if share.left * 2 < share.size and share.size > 1 and share.renewed_after <= now:
                self._renew(share)
        return True

    async def _use_more(self, shares: Sequence[_Share]) -> float:
        """The same, after more was leased for those that have none. Seconds to wait where there is no more, else 0."""
        while not self._use(shares, now := self._clock.monotonic()):
            lacking = [share for share in shares if share.left <= 0 or share.ends_at <= now]
            for share in lacking:
                share.waiting += 1
            try:
                renewals = [self._renew(share) for share in lacking]
                wait_seconds = max([await asyncio.shield(renewal) for renewal in renewals])
            finally:
                for share in lacking:
                    share.waiting -= 1
            if wait_seconds:
                return wait_seconds
        return 0.0

    def _renew(self, share: _Share) -> "asyncio.Task[float]":
        """The lease under way, or a new one."""
        if share.renewal is None:
            share.renewal = asyncio.create_task(self._lease(share))
            share.renewal.add_done_callback(_seen)
        return share.renewal

    async def _lease(self, share: _Share) -> float:
        """Asks for more calls. Seconds to wait where there are none, else 0."""
        now = self._clock.monotonic()
        left, ended = (share.left, 0) if share.ends_at > now else (0, share.left)
        share.left = left
        size = share.wanted(now, self._most(share.bucket.quota))
        try:
            grant = await self._lessor.lease(
                share.bucket,
                self._name,
                left=left,
                given_back=ended,
                wanted=max(1, size - left),
                lasts_seconds=_LEASE_SECONDS,
            )
        except Exception:
            share.renewed_after = now + _PAUSE_SECONDS
            raise
        finally:
            share.renewal = None
        share.left += grant.calls
        share.ends_at = now + _LEASE_SECONDS
        share.full_at = self._clock.monotonic() + grant.full_in_seconds
        share.size, share.used, share.leased_at = size, 0, now
        share.renewed_after = now + grant.wait_seconds
        return grant.wait_seconds

    def _most(self, quota: Quota) -> int:
        return max(1, quota.limit // (_PARTS * self._replicas))

    async def _with_exact(self, buckets: Sequence[Bucket], shares: Sequence[_Share]) -> Decision:
        """Decides in Redis about the small limits among the buckets, after calls were taken from the shares."""
        exact = [bucket for bucket in buckets if not self._is_leased(bucket.quota)]
        try:
            decision = await self._lessor.take(exact)
        except BaseException:
            self._put_back(shares)
            raise
        if not decision.allowed:
            self._put_back(shares)
        now = self._clock.monotonic()
        standings = {standing.quota: standing for standing in decision.standings}
        standings |= {share.bucket.quota: share.standing(now) for share in shares}
        return Decision(
            allowed=decision.allowed,
            retry_after_seconds=decision.retry_after_seconds,
            standings=[standings[bucket.quota] for bucket in buckets],
            decided_by=decision.decided_by,
        )

    def _put_back(self, shares: Sequence[_Share]) -> None:
        for share in shares:
            share.left += 1
            share.used -= 1

    def _decision(self, shares: Sequence[_Share], refused_for: float) -> Decision:
        now = self._clock.monotonic()
        return Decision(
            allowed=not refused_for,
            retry_after_seconds=refused_for,
            standings=[share.standing(now) for share in shares],
            decided_by="redis" if refused_for else "share",
        )


def _seen(renewal: "asyncio.Task[float]") -> None:
    """Whoever waits is told of an error; in the background nobody does."""
    if not renewal.cancelled():
        renewal.exception()
