"""Mails that wait to be sent, and the tokens that were mailed."""

from collections.abc import Sequence
from datetime import datetime

from psycopg.types.json import Jsonb

from chassis.postgres import Connection
from services.auth.domain import MailId
from services.auth.mails import Mail, MailPurpose

#: Role that sends what is queued, whoever caused it.
MAILER_ROLE = "auth_mailer"


class MailStorage:
    """`insert` needs the setting `user_id`, `tenant_id` or `email`; the others the role."""

    async def insert(self, connection: Connection, mail: Mail) -> None:
        await connection.execute(
            "INSERT INTO mails (id, purpose, recipient, details, created_at, due_at) VALUES (%s, %s, %s, %s, %s, %s)",
            (mail.id, mail.purpose.value, mail.recipient, Jsonb(dict(mail.details)), mail.created_at, mail.created_at),
        )

    async def claim(self, connection: Connection, now: datetime, until: datetime, most: int) -> Sequence[Mail]:
        """The mails that are due, `most` at most, which nobody else claims before `until`."""
        cursor = await connection.execute(
            "UPDATE mails SET due_at = %s, attempts = attempts + 1 WHERE id IN"
            " (SELECT id FROM mails WHERE due_at <= %s ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED)"
            " RETURNING id::text AS id, purpose, recipient, details, created_at, attempts",
            (until, now, most),
        )
        return [Mail(**{**row, "purpose": MailPurpose(row["purpose"])}) for row in await cursor.fetchall()]

    async def put_off(self, connection: Connection, mail_id: MailId, until: datetime) -> None:
        await connection.execute("UPDATE mails SET due_at = %s WHERE id = %s", (until, mail_id))

    async def delete(self, connection: Connection, mail_id: MailId) -> None:
        await connection.execute("DELETE FROM mails WHERE id = %s", (mail_id,))


class MailedTokenStorage:
    """Doors: `email`; `mailed_hash` for `find`.

    The table `mailed_tokens` has one row for a purpose and address, which the version before reads and writes: what it
    has made counts here, and it finds the newest. It goes once no replica of that version is left.
    """

    async def lock(self, connection: Connection, email_key: str) -> None:
        """Makes what else is done with an address' tokens wait until this transaction ends."""
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", (f"tokens of {email_key}",))

    async def made_since(self, connection: Connection, purpose: MailPurpose, email_key: str, moment: datetime) -> int:
        """How many of the unused ones are that new."""
        cursor = await connection.execute(
            "SELECT count(*) AS made FROM live_tokens WHERE purpose = %s AND email_key = %s AND created_at > %s",
            (purpose.value, email_key, moment),
        )
        [row] = await cursor.fetchall()
        return int(row["made"])

    async def insert(
        self,
        connection: Connection,
        purpose: MailPurpose,
        email_key: str,
        token_hash: bytes,
        now: datetime,
        expires_at: datetime,
    ) -> None:
        await connection.execute(
            "INSERT INTO live_tokens (purpose, email_key, token_hash, created_at, expires_at)"
            " SELECT purpose, email_key, token_hash, %s, expires_at FROM mailed_tokens"
            " WHERE purpose = %s AND email_key = %s"
            " UNION ALL VALUES (%s, %s, %s, %s::timestamptz, %s::timestamptz) ON CONFLICT DO NOTHING",
            (now, purpose.value, email_key, purpose.value, email_key, token_hash, now, expires_at),
        )
        await connection.execute(
            "INSERT INTO mailed_tokens (purpose, email_key, token_hash, expires_at) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (purpose, email_key) DO UPDATE"
            " SET token_hash = excluded.token_hash, expires_at = excluded.expires_at",
            (purpose.value, email_key, token_hash, expires_at),
        )

    async def exists(self, connection: Connection, token_hash: bytes, now: datetime) -> bool:
        """Whether it is neither void nor used nor expired."""
        cursor = await connection.execute(
            "SELECT FROM live_tokens WHERE token_hash = %(hash)s AND expires_at > %(now)s"
            " UNION ALL SELECT FROM mailed_tokens WHERE token_hash = %(hash)s AND expires_at > %(now)s",
            {"hash": token_hash, "now": now},
        )
        return await cursor.fetchone() is not None

    async def find(self, connection: Connection, purpose: MailPurpose, token_hash: bytes, now: datetime) -> str | None:
        """The key of the address that a living token was mailed to."""
        cursor = await connection.execute(
            "SELECT email_key FROM live_tokens"
            " WHERE purpose = %(purpose)s AND token_hash = %(hash)s AND expires_at > %(now)s"
            " UNION ALL SELECT email_key FROM mailed_tokens"
            " WHERE purpose = %(purpose)s AND token_hash = %(hash)s AND expires_at > %(now)s",
            {"purpose": purpose.value, "hash": token_hash, "now": now},
        )
        row = await cursor.fetchone()
        return row["email_key"] if row else None

    async def void(self, connection: Connection, purpose: MailPurpose, email_key: str) -> None:
        """All of an address."""
        for statement in (
            "DELETE FROM live_tokens WHERE purpose = %s AND email_key = %s",
            "DELETE FROM mailed_tokens WHERE purpose = %s AND email_key = %s",
        ):
            await connection.execute(statement, (purpose.value, email_key))
