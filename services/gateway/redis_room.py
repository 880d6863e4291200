"""How much is put into Redis, whose memory limits, kept answers and kept reads share: nobody's pushes out others'."""

from collections.abc import Sequence

from redis.asyncio import Redis

from services.gateway import metrics
from services.gateway.sealing import Sealing

#: What an entry takes in Redis beyond its content: its name, its place in the dictionaries.
ENTRY_BYTES = 150


class Room:
    """Bytes of one purpose, over all gateways and by holder (`shares.HOLDERS`), counted for a period from the first on:
    at most twice as much as is let in is there. Raises what Redis raises."""

    def __init__(self, redis: Redis, purpose: str, sealing: Sealing, *, period_seconds: int) -> None:
        self._redis = redis
        self._purpose = purpose
        self._sealing = sealing
        self._period_seconds = period_seconds

    async def is_left(self, holders: Sequence[str], size: int, *, most: int, times: int) -> bool:
        """Whether these may put so much more there, where all together may put `most`.

        So many times a holder's part of it is at most the square of the part that is left: with 4, one alone may have a
        sixth, and whoever comes after it less, so that however many take theirs, something is left for the next.
        """
        in_all, *of_holders = [int(found or 0) for found in await self._redis.mget(self._counters(holders))]
        left = most - in_all - size
        enough = left >= 0 and times * (max(of_holders, default=0) + size) * most <= left**2
        if not enough:
            metrics.ROOM_REFUSALS.labels(self._purpose).inc()
        return enough

    async def count(self, holders: Sequence[str], size: int) -> None:
        """So much more is put there."""
        async with self._redis.pipeline(transaction=True) as asked:
            for counter in self._counters(holders):
                asked.set(counter, 0, nx=True, ex=self._period_seconds)
                asked.incrby(counter, size)
            await asked.execute()

    async def take(self, holders: Sequence[str], size: int, *, most: int, times: int) -> bool:
        """Counts it where it is left."""
        if left := await self.is_left(holders, size, most=most, times=times):
            await self.count(holders, size)
        return left

    def _counters(self, holders: Sequence[str]) -> list[str]:
        """Of all, and of each holder, whom Redis does not see."""
        in_all = f"room:{self._purpose}"
        return [in_all, *(f"{in_all}:{self._sealing.digest(holder.encode()).hex()}" for holder in holders)]
