"""Verifies the audit log's chains from their beginning, daily: signing looks only at what came since the last head."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis import logs
from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.postgres import Database
from chassis.tasks import heed_cancellation, in_background
from services.auth import metrics
from services.auth.audit_chain import HeadSignature
from services.auth.audit_verification import verified_chains

log = logs.get(__name__)

#: A process that has just started has other things to do, and need not live for a day.
_FIRST_SECONDS = 600.0
_EVERY_SECONDS = 86_400.0
_AGAIN_SECONDS = 600.0


class ChainWatch:
    """What `verify-audit` finds, as metrics and in the log, while `watching` is open."""

    def __init__(self, database: Database, signature: HeadSignature, clock: Clock) -> None:
        self._database = database
        self._signature = signature
        self._clock = clock

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        async with in_background(self._keep_verifying()):
            yield

    async def verify(self) -> int:
        """How many faults there are, each of which it logs. Raises Unavailable."""
        chains = await verified_chains(self._database, self._signature, {})
        faults = [(chain.tenant_id, fault) for chain in chains for fault in chain.faults]
        for tenant_id, fault in faults:
            log.error("audit chain is not what was written", tenant_id=tenant_id, fault=fault)
        metrics.AUDIT_FAULTS.set(len(faults))
        metrics.AUDIT_VERIFIED.set(self._clock.now_ms() / 1000)
        return len(faults)

    async def _keep_verifying(self) -> None:
        pause = _FIRST_SECONDS
        while True:
            await self._clock.sleep(pause)
            try:
                await self.verify()
                pause = _EVERY_SECONDS
            except Unavailable as error:
                log.warning("audit chains not verified", reason=str(error))
                pause = _AGAIN_SECONDS
            heed_cancellation()
