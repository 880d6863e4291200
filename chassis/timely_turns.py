"""Turns at what takes much memory or time: few at a time, and nobody waits longer than a caller does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis import context, metrics, shares
from chassis.errors import Unavailable

#: Less than a call may take: what comes then needs time too.
_LONGEST_WAIT_SECONDS = 3.0
_RETRY_AFTER_SECONDS = 1.0


class TimelyTurns:
    """Turns by tenant or person, as `shares.Turns` has it, that come in time or not at all."""

    def __init__(self, most: int, what: str, *, least: int = 1) -> None:
        """`most`: at a time. Of less than eight one holder has `least`. `what` there is too much of when none comes."""
        self._turns = shares.Turns(most, least=least)
        self._refusal = f"Too many {what} at this moment; nothing was done."
        self._refused = metrics.TURNS_REFUSED.labels(what)

    @asynccontextmanager
    async def one(self, holder: str) -> AsyncIterator[None]:
        """A turn for the block. Raises Unavailable where none comes in time, which says nothing against the service."""
        holders = (holder,)
        try:
            async with asyncio.timeout(context.waiting_seconds(_LONGEST_WAIT_SECONDS)):
                await self._turns.take(holders)
        except TimeoutError as error:
            self._refused.inc()
            raise Unavailable.waiting_for("turn", self._refusal, _RETRY_AFTER_SECONDS) from error
        try:
            yield
        finally:
            self._turns.give_back(holders)
