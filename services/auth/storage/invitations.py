"""Invitations to tenants."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from chassis.postgres import Connection
from services.auth.domain import Invitation, InvitationId, PageRequest, Role, TenantId

_SELECT: Final = (
    "SELECT id::text AS id, tenant_id::text AS tenant_id, email, role, created_at, expires_at FROM invitations"
)


class InvitationStorage:
    """Doors: `tenant_id`; `mailed_hash` for `find`."""

    async def replace(self, connection: Connection, invitation: Invitation, email_key: str, token_hash: bytes) -> None:
        """The one before to the same address is void."""
        await self.delete_to_address(connection, invitation.tenant_id, email_key)
        await connection.execute(
            "INSERT INTO invitations (id, tenant_id, email, email_key, role, token_hash, created_at, expires_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (
                invitation.id, invitation.tenant_id, invitation.email, email_key, invitation.role.word, token_hash,
                invitation.created_at, invitation.expires_at,
            ),
        )  # fmt: skip

    async def open(self, connection: Connection, tenant_id: TenantId, now: datetime) -> int:
        """How many have not expired."""
        cursor = await connection.execute(
            "SELECT count(*) AS open FROM invitations WHERE tenant_id = %s AND expires_at > %s", (tenant_id, now)
        )
        [row] = await cursor.fetchall()
        return int(row["open"])

    async def page(
        self, connection: Connection, tenant_id: TenantId, page: PageRequest, now: datetime
    ) -> Sequence[Invitation]:
        """Those that have not expired; one more than the page's size, where there are so many."""
        cursor = await connection.execute(
            _SELECT + " WHERE tenant_id = %s AND id > %s AND expires_at > %s ORDER BY invitations.id LIMIT %s",
            (tenant_id, page.after, now, page.size + 1),
        )
        return [_invitation(row) for row in await cursor.fetchall()]

    async def get(
        self, connection: Connection, tenant_id: TenantId, invitation_id: InvitationId, now: datetime
    ) -> Invitation | None:
        cursor = await connection.execute(
            _SELECT + " WHERE tenant_id = %s AND id = %s AND expires_at > %s",
            (tenant_id, invitation_id, now),
        )
        row = await cursor.fetchone()
        return _invitation(row) if row else None

    async def to_address(
        self, connection: Connection, tenant_id: TenantId, email_key: str, now: datetime
    ) -> Invitation | None:
        cursor = await connection.execute(
            _SELECT + " WHERE tenant_id = %s AND email_key = %s AND expires_at > %s",
            (tenant_id, email_key, now),
        )
        row = await cursor.fetchone()
        return _invitation(row) if row else None

    async def find(self, connection: Connection, token_hash: bytes, now: datetime) -> Invitation | None:
        """The one whose token this is, neither void nor used nor expired."""
        cursor = await connection.execute(
            _SELECT + " WHERE token_hash = %s AND expires_at > %s",
            (token_hash, now),
        )
        row = await cursor.fetchone()
        return _invitation(row) if row else None

    async def lock_address(self, connection: Connection, email_key: str) -> None:
        """Makes those who invite this address wait for each other until this transaction ends."""
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"mails to {email_key}",))

    async def mailed_to_address(self, connection: Connection, email_key: str, since: datetime) -> int:
        """How many mails, of all tenants. Door: `email`."""
        cursor = await connection.execute(
            "SELECT count(*) AS mailed FROM invitation_mails WHERE email_key = %s AND created_at > %s",
            (email_key, since),
        )
        [row] = await cursor.fetchall()
        return int(row["mailed"])

    async def mailed_by_tenant(self, connection: Connection, tenant_id: TenantId, since: datetime) -> int:
        """How many mails, to all addresses."""
        cursor = await connection.execute(
            "SELECT count(*) AS mailed FROM invitation_mails WHERE tenant_id = %s AND created_at > %s",
            (tenant_id, since),
        )
        [row] = await cursor.fetchall()
        return int(row["mailed"])

    async def note_mail(self, connection: Connection, invitation: Invitation, email_key: str) -> None:
        await connection.execute(
            "INSERT INTO invitation_mails (invitation_id, tenant_id, email_key, created_at) VALUES (%s, %s, %s, %s)",
            (invitation.id, invitation.tenant_id, email_key, invitation.created_at),
        )

    async def delete(self, connection: Connection, invitation_id: InvitationId) -> bool:
        """False where it is gone. Of several at once one succeeds."""
        cursor = await connection.execute("DELETE FROM invitations WHERE id = %s", (invitation_id,))
        return cursor.rowcount == 1

    async def delete_to_address(
        self, connection: Connection, tenant_id: TenantId, email_key: str
    ) -> Sequence[Invitation]:
        """Which one that was, if any."""
        cursor = await connection.execute(
            "DELETE FROM invitations WHERE tenant_id = %s AND email_key = %s"
            " RETURNING id::text AS id, tenant_id::text AS tenant_id, email, role, created_at, expires_at",
            (tenant_id, email_key),
        )
        return [_invitation(row) for row in await cursor.fetchall()]

    async def delete_all(self, connection: Connection, tenant_id: TenantId) -> Sequence[InvitationId]:
        """Of a tenant; which ones that were."""
        cursor = await connection.execute(
            "DELETE FROM invitations WHERE tenant_id = %s RETURNING id::text AS id", (tenant_id,)
        )
        return sorted(InvitationId(row["id"]) for row in await cursor.fetchall())


def _invitation(row: dict[str, Any]) -> Invitation:
    return Invitation(**{**row, "role": Role.of(row["role"])})
