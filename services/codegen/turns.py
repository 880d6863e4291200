"""Turns at what takes much memory, however large the definitions are: few at a time, and one of each tenant, so that
nobody's large clients keep the others waiting for more than one of them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from chassis import context
from chassis.errors import Unavailable

_MOST_AT_A_TIME = 2
#: Less than a call may take: what comes then needs time too.
_LONGEST_WAIT_SECONDS = 3.0
_RETRY_AFTER_SECONDS = 1.0


class Turns:
    """Turns in the order in which they were asked for, each tenant's one after the other."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(_MOST_AT_A_TIME)
        #: Of tenants that have or wait for a turn.
        self._of_tenants: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def one(self, tenant_id: str) -> AsyncIterator[None]:
        """A turn for the block. Raises Unavailable where none comes in time."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(context.remaining_seconds(_LONGEST_WAIT_SECONDS)):
                    # Their own first: who waits for all together is the only one of their tenant.
                    await stack.enter_async_context(self._of_tenants.setdefault(tenant_id, asyncio.Lock()))
                    await stack.enter_async_context(self._all)
            except TimeoutError as error:
                message = "Too many clients are wanted at this moment; nothing was generated."
                raise Unavailable.waiting_for("turn", message, _RETRY_AFTER_SECONDS) from error
            yield
