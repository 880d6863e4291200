"""Sign-ons under way, and completed ones that wait for their browser."""

from dataclasses import dataclass
from datetime import datetime

from chassis.postgres import Connection
from services.auth.domain import UserId
from services.auth.identity_providers import ProviderId


@dataclass(frozen=True, kw_only=True)
class SignOn:
    """One that a browser has begun."""

    #: SHA-256 of its state, and of what its browser keeps.
    state_hash: bytes
    browser_hash: bytes
    provider_id: ProviderId
    return_to: str
    #: SHA-256, in base64url, of what redeems the grant along with it.
    challenge: str
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A completed one, known by the SHA-256 of what redeems it."""

    grant_hash: bytes
    challenge: str
    user_id: UserId
    provider_id: ProviderId
    expires_at: datetime


class SignOnStorage:
    """Door: `sign_on_hash`."""

    async def insert(self, connection: Connection, sign_on: SignOn) -> None:
        await connection.execute(
            "INSERT INTO sign_ons (state_hash, provider_id, browser_hash, return_to, challenge, expires_at)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (
                sign_on.state_hash, sign_on.provider_id, sign_on.browser_hash, sign_on.return_to, sign_on.challenge,
                sign_on.expires_at,
            ),
        )  # fmt: skip

    async def spend(
        self, connection: Connection, state_hash: bytes, browser_hash: bytes, provider_id: ProviderId, now: datetime
    ) -> SignOn | None:
        """None where it is over, or another browser's or provider's. Of several at once one gets it."""
        cursor = await connection.execute(
            "DELETE FROM sign_ons"
            " WHERE state_hash = %s AND browser_hash = %s AND provider_id = %s AND expires_at > %s"
            " RETURNING state_hash, browser_hash, provider_id::text AS provider_id, return_to, challenge,"
            " expires_at",
            (state_hash, browser_hash, provider_id, now),
        )
        row = await cursor.fetchone()
        return SignOn(**row) if row else None

    async def insert_grant(self, connection: Connection, grant: Grant) -> None:
        await connection.execute(
            "INSERT INTO sign_on_grants (grant_hash, challenge, user_id, provider_id, expires_at)"
            " VALUES (%s, %s, %s, %s, %s)",
            (grant.grant_hash, grant.challenge, grant.user_id, grant.provider_id, grant.expires_at),
        )

    async def find_grant(self, connection: Connection, grant_hash: bytes) -> Grant | None:
        """Also one that is over: only `spend_grant` says whether it is good."""
        cursor = await connection.execute(
            "SELECT grant_hash, challenge, user_id::text AS user_id, provider_id::text AS provider_id, expires_at"
            " FROM sign_on_grants WHERE grant_hash = %s",
            (grant_hash,),
        )
        row = await cursor.fetchone()
        return Grant(**row) if row else None

    async def spend_grant(
        self, connection: Connection, grant_hash: bytes, challenge: str, now: datetime
    ) -> Grant | None:
        """None where it is over, or of another challenge. Of several at once one gets it."""
        cursor = await connection.execute(
            "DELETE FROM sign_on_grants WHERE grant_hash = %s AND challenge = %s AND expires_at > %s"
            " RETURNING grant_hash, challenge, user_id::text AS user_id, provider_id::text AS provider_id, expires_at",
            (grant_hash, challenge, now),
        )
        row = await cursor.fetchone()
        return Grant(**row) if row else None
