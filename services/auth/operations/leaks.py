"""Keys that somebody has found where they should not be."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from chassis.audit import Party
from chassis.clock import Clock, from_unix_ms
from chassis.errors import Invalid
from chassis.postgres import Connection, Database
from services.auth import metrics
from services.auth.domain import LEAK_MAILS_PERIOD, MOST_LEAK_MAILS
from services.auth.keys import ApiKey, KeyKind
from services.auth.operations.audit import AuditTrail, Change
from services.auth.outbox import Outbox
from services.auth.storage.feed import FeedStorage
from services.auth.storage.keys import KeyStorage
from services.auth.storage.members import MemberStorage
from services.auth.storage.row_access import show_rows
from services.auth.storage.verdicts import KeyVerdict, VerdictStorage

_SHA256_BYTES = 32
_LONGEST_PLACE = 500


@dataclass(frozen=True, kw_only=True)
class LeakReport:
    """A key's SHA-256: whoever reports it had the key."""

    key_hash: bytes
    #: Where it was found, in the words of whoever reports it.
    place: str


class Leaks:
    """Whoever has a secret key may have it revoked: it is no secret any more."""

    def __init__(
        self,
        database: Database,
        verdicts: VerdictStorage,
        keys: KeyStorage,
        members: MemberStorage,
        feed: FeedStorage,
        trail: AuditTrail,
        outbox: Outbox,
        clock: Clock,
        *,
        only_verified: bool,
    ) -> None:
        self._database = database
        self._verdicts = verdicts
        self._keys = keys
        self._members = members
        self._feed = feed
        self._trail = trail
        self._outbox = outbox
        self._clock = clock
        #: Whether nobody is mailed whose address is not verified: anybody may have signed up with it.
        self._only_verified = only_verified

    async def report(self, reports: Sequence[LeakReport]) -> Sequence[bool]:
        """Revokes what are live secret keys, and tells their tenants. Raises Invalid.

        Which of them were live until they were reported, now or before: a report whose answer was lost comes again.
        A publishable key is public by nature: it goes on working.
        """
        if any(len(report.key_hash) != _SHA256_BYTES for report in reports):
            raise Invalid("A key is named by its SHA-256.")
        return [await self._judge(report) for report in reports]

    async def _judge(self, report: LeakReport) -> bool:
        now = from_unix_ms(self._clock.now_ms())
        async with self._database.transaction(key_hash=report.key_hash.hex()) as connection:
            found = (await self._verdicts.of_key(connection, report.key_hash, now)).found
            if found is None:
                return await self._keys.is_leaked(connection, report.key_hash)
            if found.kind != KeyKind.SECRET:
                return False
            await show_rows(connection, "tenant_id", found.tenant_id)
            if not await self._revoke(connection, found, _printable(report.place), now):
                return await self._keys.is_leaked(connection, report.key_hash)
            return True

    async def _revoke(self, connection: Connection, found: KeyVerdict, place: str, now: datetime) -> bool:
        key = await self._keys.lock(connection, found.project_id, found.key_id)
        if key is None or not await self._keys.revoke(connection, found.project_id, found.key_id, now):
            return False
        await self._keys.mark_leaked(connection, found.key_id, now)
        target = Party(kind="key", id=key.id, name=key.name)
        change = Change(action="key.leaked", target=target, project_id=key.project_id, details={"place": place})
        await self._trail.by(connection, key.tenant_id, Party(kind="reporter", id=""), change)
        await self._mail_admins(connection, key, place, now)
        await self._feed.announce(connection, [key.id])
        metrics.KEYS_LEAKED.inc()
        return True

    async def _mail_admins(self, connection: Connection, key: ApiKey, place: str, now: datetime) -> None:
        """Up to a number a day, however many keys are reported; once the trail is told, others who count wait."""
        if await self._keys.leaks_mailed(connection, key.tenant_id, now - LEAK_MAILS_PERIOD) >= MOST_LEAK_MAILS:
            return
        await self._keys.note_leak_mail(connection, key, now)
        details = {"key": key.name, "prefix": key.prefix, "found": place or "a place that was not named"}
        for email in await self._members.emails_of_admins(connection, key.tenant_id, only_verified=self._only_verified):
            await self._outbox.queue_leak(connection, email, details, now)


def _printable(place: str) -> str:
    return "".join(filter(str.isprintable, place))[:_LONGEST_PLACE]
