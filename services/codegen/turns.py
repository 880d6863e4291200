"""Turns at what takes much memory, however large the definitions are: few at a time, and one of each tenant, so that
nobody's large clients keep the others waiting for more than one of them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis import context, shares
from chassis.errors import Unavailable

#: Less than a call may take: what comes then needs time too.
_LONGEST_WAIT_SECONDS = 3.0
_RETRY_AFTER_SECONDS = 1.0


class Turns:
    """Turns by tenant, as `shares.Turns` has it."""

    def __init__(self, most: int) -> None:
        """`most`: at a time. Of less than eight a tenant has one."""
        self._turns = shares.Turns(most)

    @asynccontextmanager
    async def one(self, tenant_id: str) -> AsyncIterator[None]:
        """A turn for the block. Raises Unavailable where none comes in time."""
        holders = (tenant_id,)
        try:
            async with asyncio.timeout(context.remaining_seconds(_LONGEST_WAIT_SECONDS)):
                await self._turns.take(holders)
        except TimeoutError as error:
            message = "Too many clients are wanted at this moment; nothing was generated."
            raise Unavailable.waiting_for("turn", message, _RETRY_AFTER_SECONDS) from error
        try:
            yield
        finally:
            self._turns.give_back(holders)
