"""Signs the heads of the audit log's chains, so that who rewrites a chain in the database is found out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis import logs
from chassis.clock import Clock, from_unix_ms
from chassis.errors import Unavailable
from chassis.loop_turns import LoopTurns
from chassis.postgres import Connection, Database
from chassis.tasks import heed_cancellation, in_background
from services.auth import metrics
from services.auth.audit_chain import GENESIS, ChainCheck, Head, HeadSignature
from services.auth.domain import TenantId
from services.auth.storage.audit import AUDITOR_ROLE, AnchorStorage, AuditStorage, SignedHeadStorage

log = logs.get(__name__)

_SIGNING_SECONDS = 60.0
_MOST_AT_A_TIME = 500
_MOST_ENTRIES_AT_A_TIME = 1000


class HeadSigner:
    """Signs what has grown, about once a minute, while `signing` is open, and whenever a reader asks.

    A head is signed only where its chain goes on from the last head that is signed in the database, and from the last
    one that this process has signed: so nobody has a chain signed that they have rewritten.
    """

    def __init__(
        self,
        database: Database,
        chains: AuditStorage,
        signed_heads: SignedHeadStorage,
        anchors: AnchorStorage,
        signature: HeadSignature,
        clock: Clock,
    ) -> None:
        self._database = database
        self._chains = chains
        self._signed_heads = signed_heads
        self._anchors = anchors
        self._signature = signature
        self._clock = clock
        #: The last that this process has signed of each chain.
        self._last: dict[TenantId, Head] = {}

    @asynccontextmanager
    async def signing(self) -> AsyncIterator[None]:
        async with in_background(self._keep_signing()):
            yield

    async def sign(self) -> int:
        """How many heads it has signed, up to a bound. Raises Unavailable."""
        async with self._database.transaction(role=AUDITOR_ROLE) as connection:
            await self._anchors.hold(connection)
            heads = await self._signed_heads.unsigned(connection, _MOST_AT_A_TIME)
            genuine = [head for head in heads if await self._goes_on(connection, head)]
            for head in genuine:
                await self._signed_heads.insert(connection, head, self._signed(head))
        for head in genuine:
            _tell(head)
        return len(genuine)

    async def signed_now(self, tenant_id: TenantId) -> str:
        """Where a chain ends at this moment, signed; "" where it does not go on from what was signed before.

        Raises Unavailable.
        """
        async with self._database.transaction(role=AUDITOR_ROLE) as connection:
            await self._anchors.hold(connection)
            head = await self._chains.head(connection, tenant_id)
            head = head or _nothing(tenant_id)
            return self._signed(head) if await self._goes_on(connection, head) else ""

    def _signed(self, head: Head) -> str:
        self._last[head.tenant_id] = max(head, self._last.get(head.tenant_id, head), key=_sequence)
        return self._signature.sign(head, from_unix_ms(self._clock.now_ms()))

    async def _goes_on(self, connection: Connection, head: Head) -> bool:
        """Whether the chain contains every head that is known to be signed, and each hash since the last fits."""
        signed = await self._signed_before(connection, head.tenant_id)
        if signed is not None and await self._leads_to(connection, signed, head):
            return True
        metrics.AUDIT_HEADS_REFUSED.inc()
        log.error("audit head not signed: the chain is not the one that was signed", tenant_id=head.tenant_id)
        return False

    async def _signed_before(self, connection: Connection, tenant_id: TenantId) -> list[Head] | None:
        """With where the chain begins, first; None where what is in the database is not genuine."""
        beginning = await self._beginning(connection, tenant_id)
        if beginning is None:
            return None
        known = [beginning]
        if tenant_id in self._last:
            known.append(self._last[tenant_id])
        text = await self._signed_heads.newest(connection, tenant_id)
        if text is not None:
            stored = self._signature.read(text)
            if stored is None or stored.tenant_id != tenant_id:
                return None
            known.append(stored)
        return known

    async def _leads_to(self, connection: Connection, signed: list[Head], head: Head) -> bool:
        beginning = signed[0]
        for one in signed:
            if not await self._contains(connection, one, beginning):
                return False
        # Meanwhile another call may have signed what was appended after `head` was read.
        before = max((one for one in signed if one.sequence <= head.sequence), key=_sequence)
        check, turns = ChainCheck(head.tenant_id, {}, after=before), LoopTurns()
        while check.entries < head.sequence:
            most = min(_MOST_ENTRIES_AT_A_TIME, head.sequence - check.entries)
            entries = await self._chains.page(connection, head.tenant_id, check.entries, most)
            if not entries:
                return False
            for entry in entries:
                if any(check.faults_of(entry)):
                    return False
                await turns.pause()
        return not any(check.faults_of_end(head))

    async def _beginning(self, connection: Connection, tenant_id: TenantId) -> Head | None:
        """What the first entry that is there follows; None where the anchor that says it is not genuine."""
        text = await self._anchors.find(connection, tenant_id)
        if text is None:
            return _nothing(tenant_id)
        anchor = self._signature.read_anchor(text)
        return anchor if anchor is not None and anchor.tenant_id == tenant_id else None

    async def _contains(self, connection: Connection, signed: Head, beginning: Head) -> bool:
        if signed.sequence < beginning.sequence:  # pruned, after it was verified
            return True
        if signed.sequence == beginning.sequence:
            return signed.hash == beginning.hash
        entries = await self._chains.page(connection, signed.tenant_id, signed.sequence - 1, 1)
        return [(entry.sequence, entry.hash) for entry in entries] == [(signed.sequence, signed.hash)]

    async def _keep_signing(self) -> None:
        while True:
            try:
                signed = await self.sign()
                if signed < _MOST_AT_A_TIME:
                    metrics.AUDIT_HEADS_LOOKED_AT.set(self._clock.now_ms() / 1000)
            except Unavailable as error:
                log.warning("audit heads not signed", reason=str(error))
                signed = 0
            heed_cancellation()
            if signed < _MOST_AT_A_TIME:
                await self._clock.sleep(_SIGNING_SECONDS)


def _nothing(tenant_id: TenantId) -> Head:
    return Head(tenant_id=tenant_id, sequence=0, hash=GENESIS)


def _sequence(head: Head) -> int:
    return head.sequence


def _tell(head: Head) -> None:
    """The log is kept elsewhere than the database: what is cut off there, signatures and all, still shows here."""
    metrics.AUDIT_HEADS_SIGNED.inc()
    log.info("audit head signed", tenant_id=head.tenant_id, sequence=head.sequence, hash=head.hash.hex())
