"""Sessions and their refresh tokens."""

from collections.abc import Sequence
from datetime import datetime

from chassis.postgres import Connection
from services.auth.domain import Device, LiveSession, PageRequest, RefreshToken, Session, SessionId, UserId


class SessionStorage:
    """Doors: `user_id`; `refresh_hash` for `find_token`."""

    async def insert(
        self, connection: Connection, user_id: UserId, session: LiveSession, not_after: datetime | None
    ) -> None:
        """`not_after`: as in `Session`."""
        await connection.execute(
            "INSERT INTO sessions (id, user_id, created_at, expires_at, device, address, last_used_at, not_after)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (
                session.id, user_id, session.created_at, session.expires_at, session.device.name,
                session.device.address, session.last_used_at, not_after,
            ),
        )  # fmt: skip

    async def insert_token(self, connection: Connection, token: RefreshToken) -> None:
        await connection.execute(
            "INSERT INTO refresh_tokens (token_hash, session_id, user_id, expires_at) VALUES (%s, %s, %s, %s)",
            (token.token_hash, token.session_id, token.user_id, token.expires_at),
        )

    async def find_token(self, connection: Connection, token_hash: bytes) -> RefreshToken | None:
        cursor = await connection.execute(
            "SELECT token_hash, session_id::text AS session_id, user_id::text AS user_id, expires_at, spent_at"
            " FROM refresh_tokens WHERE token_hash = %s",
            (token_hash,),
        )
        row = await cursor.fetchone()
        return RefreshToken(**row) if row else None

    async def lock(self, connection: Connection, session_id: SessionId) -> Session | None:
        """The session, which nobody else changes until this transaction ends."""
        cursor = await connection.execute(
            "SELECT id::text AS id, user_id::text AS user_id, revoked_at, not_after FROM sessions WHERE id = %s"
            " FOR UPDATE",
            (session_id,),
        )
        row = await cursor.fetchone()
        return Session(**row) if row else None

    async def spend_token(self, connection: Connection, token_hash: bytes, now: datetime) -> None:
        await connection.execute("UPDATE refresh_tokens SET spent_at = %s WHERE token_hash = %s", (now, token_hash))

    async def renew(
        self, connection: Connection, session_id: SessionId, device: Device, now: datetime, expires_at: datetime
    ) -> None:
        await connection.execute(
            "UPDATE sessions SET expires_at = %s, last_used_at = %s, device = %s, address = %s WHERE id = %s",
            (expires_at, now, device.name, device.address, session_id),
        )

    async def is_alive(self, connection: Connection, user_id: UserId, session_id: SessionId) -> bool:
        """Whether it is the user's, and was not revoked."""
        cursor = await connection.execute(
            "SELECT FROM sessions WHERE id = %s AND user_id = %s AND revoked_at IS NULL", (session_id, user_id)
        )
        return await cursor.fetchone() is not None

    async def page(
        self, connection: Connection, user_id: UserId, page: PageRequest, now: datetime
    ) -> Sequence[LiveSession]:
        """Neither revoked nor expired; one more than the page's size, where there are so many."""
        cursor = await connection.execute(
            "SELECT id::text AS id, device, address, created_at, coalesce(last_used_at, created_at) AS last_used_at,"
            " expires_at"
            " FROM sessions WHERE user_id = %s AND sessions.id > %s AND revoked_at IS NULL AND expires_at > %s"
            " ORDER BY sessions.id LIMIT %s",
            (user_id, page.after, now, page.size + 1),
        )
        return [
            LiveSession(device=Device(name=row.pop("device"), address=row.pop("address")), **row)
            for row in await cursor.fetchall()
        ]

    async def revoke(self, connection: Connection, session_id: SessionId, now: datetime) -> bool:
        """False where it was revoked before, or is nobody's whose rows are shown."""
        cursor = await connection.execute(
            "UPDATE sessions SET revoked_at = %s WHERE id = %s AND revoked_at IS NULL", (now, session_id)
        )
        return cursor.rowcount == 1

    async def revoke_all(
        self, connection: Connection, user_id: UserId, now: datetime, *, but: SessionId | None = None
    ) -> Sequence[SessionId]:
        """Those of a user, but one where it is named; which ones that were.

        Also those that nothing renews any more: an access token may outlive its session.
        """
        cursor = await connection.execute(
            "UPDATE sessions SET revoked_at = %s"
            " WHERE user_id = %s AND revoked_at IS NULL AND id IS DISTINCT FROM %s"
            " RETURNING id::text AS id",
            (now, user_id, but),
        )
        return [row["id"] for row in await cursor.fetchall()]
