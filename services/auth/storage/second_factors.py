"""Second factors and recovery codes."""

from collections.abc import Iterable
from datetime import datetime

from chassis.postgres import Connection
from services.auth.domain import UserId
from services.auth.one_time_codes import SecondFactor


class SecondFactorStorage:
    """Door: `user_id`."""

    async def begin(self, connection: Connection, user_id: UserId, sealed_secret: bytes, now: datetime) -> bool:
        """Replaces a secret that was not confirmed. False where one was."""
        cursor = await connection.execute(
            "INSERT INTO second_factors (user_id, sealed_secret, created_at) VALUES (%s, %s, %s)"
            " ON CONFLICT (user_id) DO UPDATE SET sealed_secret = excluded.sealed_secret,"
            " created_at = excluded.created_at WHERE second_factors.confirmed_at IS NULL",
            (user_id, sealed_secret, now),
        )
        return cursor.rowcount == 1

    async def lock(self, connection: Connection, user_id: UserId) -> SecondFactor | None:
        """As it stays until this transaction ends, but for what the transaction does."""
        cursor = await connection.execute(
            "SELECT sealed_secret, confirmed_at IS NOT NULL AS confirmed, last_step, failures, closed_until"
            " FROM second_factors WHERE user_id = %s FOR UPDATE",
            (user_id,),
        )
        row = await cursor.fetchone()
        return SecondFactor(**row) if row else None

    async def confirm(self, connection: Connection, user_id: UserId, now: datetime) -> None:
        await connection.execute("UPDATE second_factors SET confirmed_at = %s WHERE user_id = %s", (now, user_id))

    async def take(self, connection: Connection, user_id: UserId, step: int) -> None:
        """A good code of this time step."""
        await connection.execute(
            "UPDATE second_factors SET last_step = %s, failures = 0 WHERE user_id = %s", (step, user_id)
        )

    async def note_failures(
        self, connection: Connection, user_id: UserId, failures: int, closed_until: datetime | None
    ) -> None:
        await connection.execute(
            "UPDATE second_factors SET failures = %s, closed_until = %s WHERE user_id = %s",
            (failures, closed_until, user_id),
        )

    async def delete(self, connection: Connection, user_id: UserId) -> bool:
        """With its recovery codes. False where there is none."""
        cursor = await connection.execute("DELETE FROM second_factors WHERE user_id = %s", (user_id,))
        return cursor.rowcount == 1

    async def replace_codes(self, connection: Connection, user_id: UserId, hashes: Iterable[bytes]) -> None:
        await connection.execute("DELETE FROM recovery_codes WHERE user_id = %s", (user_id,))
        await connection.execute(
            "INSERT INTO recovery_codes (user_id, code_hash) SELECT %s, unnest(%s::bytea[])", (user_id, list(hashes))
        )

    async def spend_code(self, connection: Connection, user_id: UserId, code_hash: bytes) -> bool:
        """Whether it was one; it is gone then."""
        cursor = await connection.execute(
            "DELETE FROM recovery_codes WHERE user_id = %s AND code_hash = %s", (user_id, code_hash)
        )
        return cursor.rowcount == 1

    async def codes_left(self, connection: Connection, user_id: UserId) -> int:
        cursor = await connection.execute("SELECT count(*) AS left FROM recovery_codes WHERE user_id = %s", (user_id,))
        [row] = await cursor.fetchall()
        return int(row["left"])
