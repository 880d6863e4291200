"""The keys that sign tokens, encrypted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from chassis.postgres import Connection


@dataclass(frozen=True, kw_only=True)
class SealedKey:
    """A signing key whose private half is encrypted under the master key."""

    id: str
    sealed_private_key: bytes
    signs_from: datetime


class SigningKeyStorage:
    """Shown by `door` = `signing_keys`."""

    async def lock(self, connection: Connection) -> None:
        """Makes replicas read and rotate one after the other."""
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('pulsegate signing keys', 0))")

    async def all(self, connection: Connection) -> Sequence[SealedKey]:
        """From the first that signs to the last."""
        cursor = await connection.execute(
            "SELECT id, sealed_private_key, signs_from FROM signing_keys ORDER BY signs_from, id"
        )
        return [SealedKey(**row) for row in await cursor.fetchall()]

    async def insert(self, connection: Connection, key: SealedKey, now: datetime) -> None:
        await connection.execute(
            "INSERT INTO signing_keys (id, sealed_private_key, created_at, signs_from) VALUES (%s, %s, %s, %s)",
            (key.id, key.sealed_private_key, now, key.signs_from),
        )

    async def delete(self, connection: Connection, key_ids: Sequence[str]) -> None:
        await connection.execute("DELETE FROM signing_keys WHERE id = ANY(%s)", (list(key_ids),))
