"""Sessions and their refresh tokens."""

from datetime import datetime

from chassis.postgres import Connection
from services.auth.domain import RefreshToken, Session, SessionId, UserId


class SessionStorage:
    """Doors: `user_id`; `refresh_hash` for `find_token`."""

    async def insert(
        self, connection: Connection, session_id: SessionId, user_id: UserId, now: datetime, expires_at: datetime
    ) -> None:
        await connection.execute(
            "INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES (%s, %s, %s, %s)",
            (session_id, user_id, now, expires_at),
        )

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
            "SELECT id::text AS id, user_id::text AS user_id, revoked_at FROM sessions WHERE id = %s FOR UPDATE",
            (session_id,),
        )
        row = await cursor.fetchone()
        return Session(**row) if row else None

    async def spend_token(self, connection: Connection, token_hash: bytes, now: datetime) -> None:
        await connection.execute("UPDATE refresh_tokens SET spent_at = %s WHERE token_hash = %s", (now, token_hash))

    async def extend(self, connection: Connection, session_id: SessionId, expires_at: datetime) -> None:
        await connection.execute("UPDATE sessions SET expires_at = %s WHERE id = %s", (expires_at, session_id))

    async def revoke(self, connection: Connection, session_id: SessionId, now: datetime) -> bool:
        """False where it was revoked before."""
        cursor = await connection.execute(
            "UPDATE sessions SET revoked_at = %s WHERE id = %s AND revoked_at IS NULL", (now, session_id)
        )
        return cursor.rowcount == 1
