"""Mails on their way out: queued in the transaction that causes them, sent after it, tried again for a day.

Each is sent at least once: a process that dies between handing a mail over and deleting it leaves it to be sent again,
with the same Message-ID and the same token. Replicas share the queue; a claimed mail is left alone by the others.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import product

from chassis import logs
from chassis.clock import Clock, from_unix_ms
from chassis.emails import email_key
from chassis.errors import Unavailable
from chassis.ids import uuid7
from chassis.postgres import Connection, Database
from chassis.tasks import heed_cancellation, in_background
from services.auth import metrics
from services.auth.domain import MOST_TOKENS, TOKENS_PERIOD, MailId, User, email_fault
from services.auth.mailers import LONGEST_ATTEMPT_SECONDS, Mailer, MailNotSent, MailRefused
from services.auth.mails import Mail, MailPurpose, composed
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.invitations import InvitationStorage
from services.auth.storage.mails import MAILER_ROLE, MailedTokenStorage, MailStorage
from services.auth.tokens import MailedTokens

log = logs.get(__name__)

_POLL_SECONDS = 1.0
_MOST_AT_A_TIME = 10
#: A claimed mail whose sender died is free again after that; longer than any attempt takes.
_CLAIM = timedelta(seconds=LONGEST_ATTEMPT_SECONDS + 30)
_FIRST_WAIT = timedelta(seconds=15)
_LONGEST_WAIT = timedelta(hours=1)
_GIVEN_UP_AFTER = timedelta(days=1)


class Outbox:
    """Where mails are queued: a step of the operations that cause them."""

    def __init__(
        self,
        mails: MailStorage,
        mailed_tokens: MailedTokenStorage,
        accounts: AccountStorage,
        tokens: MailedTokens,
        *,
        only_verified: bool,
    ) -> None:
        self._mails = mails
        self._mailed_tokens = mailed_tokens
        self._accounts = accounts
        self._tokens = tokens
        #: Whether no notice goes to an address that is not verified: its reader need not be who signed up with it.
        self._only_verified = only_verified

    async def queue_token(
        self, connection: Connection, purpose: MailPurpose, recipient: str, now: datetime, life: timedelta
    ) -> None:
        """Mails a new token to an address whose rows are shown; older ones stay good, because anybody may ask for
        a newer one. Where there were several within half an hour, their mails must do."""
        key = email_key(recipient)
        await self._mailed_tokens.lock(connection, key)
        if await self._mailed_tokens.made_since(connection, purpose, key, now - TOKENS_PERIOD) >= MOST_TOKENS:
            return
        mail = _new_mail(purpose, recipient, {}, now)
        token_hash = self._tokens.digest(self._tokens.of(mail.id))
        await self._mailed_tokens.insert(connection, purpose, key, token_hash, now, now + life)
        await self._mails.insert(connection, mail)

    async def queue_invitation(
        self, connection: Connection, recipient: str, details: Mapping[str, str], now: datetime
    ) -> bytes:
        """Mails a token, by whose SHA-256, which is returned, the caller keeps the invitation.

        `details`: the names of `tenant` and `role`, and who the `inviter` is.
        """
        mail = _new_mail(MailPurpose.INVITATION, recipient, details, now)
        await self._mails.insert(connection, mail)
        return self._tokens.digest(self._tokens.of(mail.id))

    async def queue_notice(self, connection: Connection, user: User, change: str, now: datetime) -> None:
        """Tells the owner of an account whose rows are shown what was changed about it (`change`: sentences)."""
        if self._only_verified and not await self._accounts.email_verified(connection, user.id):
            return
        await self._mails.insert(connection, _new_mail(MailPurpose.NOTICE, user.email, {"change": change}, now))

    async def queue_leak(
        self, connection: Connection, recipient: str, details: Mapping[str, str], now: datetime
    ) -> None:
        """Tells an admin that a key (`key`, `prefix`) was found somewhere (`found`) and revoked."""
        await self._mails.insert(connection, _new_mail(MailPurpose.KEY_LEAKED, recipient, details, now))


def _new_mail(purpose: MailPurpose, recipient: str, details: Mapping[str, str], now: datetime) -> Mail:
    return Mail(id=MailId(str(uuid7())), purpose=purpose, recipient=recipient.strip(), details=details, created_at=now)


class Sender:
    """Sends what is queued while `sending` is open."""

    def __init__(
        self,
        database: Database,
        mails: MailStorage,
        mailed_tokens: MailedTokenStorage,
        accounts: AccountStorage,
        invitations: InvitationStorage,
        tokens: MailedTokens,
        mailer: Mailer,
        clock: Clock,
        *,
        sender: str,
        console_url: str | None,
    ) -> None:
        self._database = database
        self._mails = mails
        self._mailed_tokens = mailed_tokens
        self._accounts = accounts
        self._invitations = invitations
        self._tokens = tokens
        self._mailer = mailer
        self._clock = clock
        self._sender = sender
        self._console_url = console_url
        # They are there from the start, as 0: else the first one is no increase.
        for purpose, result in product(MailPurpose, ("sent", "failed", "refused", "given_up")):
            metrics.MAILS.labels(purpose.value, result)

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Looks for due mails every second while open."""
        async with in_background(self._keep_sending()):
            yield

    async def _keep_sending(self) -> None:
        while True:
            try:
                found = await self._send_due()
            except Unavailable as error:
                log.warning("mails not sent", reason=str(error))
                found = 0
            heed_cancellation()
            if found < _MOST_AT_A_TIME:
                await self._clock.sleep(_POLL_SECONDS)

    async def _send_due(self) -> int:
        """How many there were. Raises Unavailable."""
        now = self._now()
        async with self._database.transaction(role=MAILER_ROLE) as connection:
            mails = await self._mails.claim(connection, now, now + _CLAIM, _MOST_AT_A_TIME)
        outcomes = await asyncio.gather(*map(self._send, mails), return_exceptions=True)
        for outcome in outcomes:  # once all have ended: none is cancelled while it is handed over
            if isinstance(outcome, BaseException):
                raise outcome
        return len(mails)

    async def _send(self, mail: Mail) -> None:
        recipient = await self._recipient(mail)
        # The version before took addresses that no header can hold.
        if recipient is None or email_fault(recipient):
            await self._done(mail, "unwanted")
            return
        token = self._tokens.of(mail.id)
        message = composed(mail, recipient, token, sender=self._sender, console_url=self._console_url)
        try:
            await self._mailer.send(message, recipient)
        except MailRefused as refusal:
            log.warning("mail refused", purpose=mail.purpose, reason=str(refusal))
            await self._done(mail, "refused")
        except MailNotSent as failure:
            log.warning("mail not sent", purpose=mail.purpose, attempts=mail.attempts, reason=str(failure))
            await self._put_off(mail)
        else:
            await self._done(mail, "sent")

    async def _recipient(self, mail: Mail) -> str | None:
        """The address to send to; None where nobody waits for the mail any more.

        An invitation goes where it was sent. Any other token goes to the address of the account, never to the one that
        somebody typed: the two may be spelt differently and yet have one key.
        """
        if mail.purpose in (MailPurpose.NOTICE, MailPurpose.KEY_LEAKED):
            return mail.recipient
        token_hash = self._tokens.digest(self._tokens.of(mail.id))
        if mail.purpose is MailPurpose.INVITATION:
            return mail.recipient if await self._invites(token_hash) else None
        key = email_key(mail.recipient)
        async with self._database.transaction(email=key) as connection:
            user = await self._accounts.find_by_email(connection, key)
            alive = await self._mailed_tokens.exists(connection, token_hash, self._now())
        return user.email if user is not None and alive else None

    async def _invites(self, token_hash: bytes) -> bool:
        async with self._database.transaction(mailed_hash=token_hash.hex()) as connection:
            return await self._invitations.find(connection, token_hash, self._now()) is not None

    async def _put_off(self, mail: Mail) -> None:
        wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(mail.attempts - 1, 10))
        due = self._now() + wait * random.uniform(0.8, 1.2)  # noqa: S311 - spreads attempts
        if due > mail.created_at + _GIVEN_UP_AFTER:
            await self._done(mail, "given_up")
            return
        metrics.MAILS.labels(mail.purpose.value, "failed").inc()
        async with self._database.transaction(role=MAILER_ROLE) as connection:
            await self._mails.put_off(connection, mail.id, due)

    async def _done(self, mail: Mail, result: str) -> None:
        async with self._database.transaction(role=MAILER_ROLE) as connection:
            await self._mails.delete(connection, mail.id)
        metrics.MAILS.labels(mail.purpose.value, result).inc()

    def _now(self) -> datetime:
        return from_unix_ms(self._clock.now_ms())
