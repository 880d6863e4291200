"""Signs the heads of the audit log's chains, so that who rewrites a chain in the database is found out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis import logs
from chassis.clock import Clock, from_unix_ms
from chassis.errors import Unavailable
from chassis.postgres import Database
from chassis.tasks import heed_cancellation, in_background
from services.auth import metrics
from services.auth.audit_chain import Head, HeadSignature
from services.auth.storage.audit import AUDITOR_ROLE, SignedHeadStorage

log = logs.get(__name__)

_SIGNING_SECONDS = 60.0
_MOST_AT_A_TIME = 500


class HeadSigner:
    """Signs what has grown, about once a minute, while `signing` is open."""

    def __init__(self, database: Database, storage: SignedHeadStorage, signature: HeadSignature, clock: Clock) -> None:
        self._database = database
        self._storage = storage
        self._signature = signature
        self._clock = clock

    @asynccontextmanager
    async def signing(self) -> AsyncIterator[None]:
        async with in_background(self._keep_signing()):
            yield

    async def sign(self) -> int:
        """How many heads there were to sign, up to a bound. Raises Unavailable."""
        now = from_unix_ms(self._clock.now_ms())
        async with self._database.transaction(role=AUDITOR_ROLE) as connection:
            heads = await self._storage.unsigned(connection, _MOST_AT_A_TIME)
            for head in heads:
                await self._storage.insert(connection, head, self._signature.sign(head, now))
        for head in heads:
            _tell(head)
        return len(heads)

    async def _keep_signing(self) -> None:
        while True:
            try:
                signed = await self.sign()
            except Unavailable as error:
                log.warning("audit heads not signed", reason=str(error))
                signed = 0
            heed_cancellation()
            if signed < _MOST_AT_A_TIME:
                await self._clock.sleep(_SIGNING_SECONDS)


def _tell(head: Head) -> None:
    """The log is kept elsewhere than the database: what is cut off there, signatures and all, still shows here."""
    metrics.AUDIT_HEADS_SIGNED.inc()
    log.info("audit head signed", tenant_id=head.tenant_id, sequence=head.sequence, hash=head.hash.hex())
