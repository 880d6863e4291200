"""Memberships, as a tenant's administrators see them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from chassis.postgres import Connection
from services.auth.domain import Member, PageRequest, Role, TenantId, User, UserId


class MemberStorage:
    """Door: `tenant_id`."""

    async def lock_roles(self, connection: Connection, tenant_id: TenantId) -> None:
        """Makes changes to a tenant's roles wait for each other until this transaction ends."""
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"roles of {tenant_id}",))

    async def page(self, connection: Connection, tenant_id: TenantId, page: PageRequest) -> Sequence[Member]:
        """By user id; one more than the page's size, where there are so many."""
        cursor = await connection.execute(
            "SELECT users.id::text AS id, users.email, users.email_verified_at, memberships.role,"
            " memberships.created_at, memberships.consented"
            " FROM memberships JOIN users ON users.id = memberships.user_id"
            " WHERE memberships.tenant_id = %s AND memberships.user_id > %s ORDER BY memberships.user_id LIMIT %s",
            (tenant_id, page.after, page.size + 1),
        )
        return [_member(row) for row in await cursor.fetchall()]

    async def get(self, connection: Connection, tenant_id: TenantId, user_id: UserId) -> Member | None:
        cursor = await connection.execute(
            "SELECT users.id::text AS id, users.email, users.email_verified_at, memberships.role,"
            " memberships.created_at, memberships.consented"
            " FROM memberships JOIN users ON users.id = memberships.user_id"
            " WHERE memberships.tenant_id = %s AND memberships.user_id = %s",
            (tenant_id, user_id),
        )
        row = await cursor.fetchone()
        return _member(row) if row else None

    async def has_address(self, connection: Connection, tenant_id: TenantId, email_key: str) -> bool:
        cursor = await connection.execute(
            "SELECT FROM memberships JOIN users ON users.id = memberships.user_id"
            " WHERE memberships.tenant_id = %s AND users.email_key = %s",
            (tenant_id, email_key),
        )
        return await cursor.fetchone() is not None

    async def insert(
        self,
        connection: Connection,
        tenant_id: TenantId,
        user_id: UserId,
        role: Role,
        now: datetime,
        *,
        consented: bool,
    ) -> bool:
        """False where the user is a member already. `consented`: as in `Membership`."""
        cursor = await connection.execute(
            "INSERT INTO memberships (tenant_id, user_id, role, created_at, consented) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING",
            (tenant_id, user_id, role.word, now, consented),
        )
        return cursor.rowcount == 1

    async def count_unasked(self, connection: Connection, user_id: UserId) -> int:
        """Tenants to which others have added the user; nobody else counts them until this transaction ends.
        Door: `user_id`."""
        await connection.execute("SELECT FROM users WHERE id = %s FOR NO KEY UPDATE", (user_id,))
        cursor = await connection.execute(
            "SELECT count(*) AS n FROM memberships WHERE user_id = %s AND NOT consented", (user_id,)
        )
        [row] = await cursor.fetchall()
        return int(row["n"])

    async def update(self, connection: Connection, tenant_id: TenantId, user_id: UserId, role: Role) -> None:
        await connection.execute(
            "UPDATE memberships SET role = %s WHERE tenant_id = %s AND user_id = %s",
            (role.word, tenant_id, user_id),
        )

    async def delete(self, connection: Connection, tenant_id: TenantId, user_id: UserId) -> None:
        await connection.execute("DELETE FROM memberships WHERE tenant_id = %s AND user_id = %s", (tenant_id, user_id))

    async def delete_others(self, connection: Connection, tenant_id: TenantId, user_id: UserId) -> Sequence[UserId]:
        """All members but this one; who they were."""
        cursor = await connection.execute(
            "DELETE FROM memberships WHERE tenant_id = %s AND user_id <> %s RETURNING user_id::text AS user_id",
            (tenant_id, user_id),
        )
        return sorted(UserId(row["user_id"]) for row in await cursor.fetchall())

    async def is_sole_founder(self, connection: Connection, tenant_id: TenantId, user_id: UserId) -> bool:
        """Whether this owner has made the tenant, and no other has consented but whom its identity providers have
        made. Founders became members in the moment that made it."""
        cursor = await connection.execute(
            "SELECT FROM memberships JOIN tenants ON tenants.id = memberships.tenant_id"
            " WHERE tenants.id = %(tenant)s AND memberships.user_id = %(user)s"
            " AND memberships.role = 'owner' AND memberships.consented AND memberships.created_at = tenants.created_at"
            " AND NOT EXISTS (SELECT FROM memberships AS other WHERE other.tenant_id = %(tenant)s"
            " AND other.user_id <> %(user)s AND other.role = 'owner' AND other.consented"
            " AND other.user_id NOT IN (SELECT user_id FROM identities WHERE tenant_id = %(tenant)s))",
            {"tenant": tenant_id, "user": user_id},
        )
        return await cursor.fetchone() is not None

    async def is_answered_for(self, connection: Connection, tenant_id: TenantId, user_id: UserId) -> bool:
        """Whether a member has verified their address, or is vouched for: an identity provider of the tenant has made
        this account, and an owner who has consented, and so answers for what it says, has verified their own."""
        cursor = await connection.execute(
            "SELECT FROM memberships JOIN users ON users.id = memberships.user_id"
            " WHERE memberships.tenant_id = %(tenant)s AND users.email_verified_at IS NOT NULL"
            " AND (users.id = %(user)s OR (memberships.role = 'owner' AND memberships.consented"
            " AND EXISTS (SELECT FROM identities WHERE tenant_id = %(tenant)s AND user_id = %(user)s)))",
            {"tenant": tenant_id, "user": user_id},
        )
        return await cursor.fetchone() is not None

    async def emails_of_admins(
        self, connection: Connection, tenant_id: TenantId, *, only_verified: bool
    ) -> Sequence[str]:
        """Of owners too, who have consented; each once, and none that an identity provider has said: a tenant's own
        may say anybody's."""
        cursor = await connection.execute(
            "SELECT DISTINCT users.email FROM memberships JOIN users ON users.id = memberships.user_id"
            " WHERE memberships.tenant_id = %s AND memberships.role IN ('admin', 'owner') AND memberships.consented"
            " AND (users.email_verified_at IS NOT NULL OR NOT %s)"
            " AND users.id NOT IN (SELECT user_id FROM identities WHERE tenant_id = %s) ORDER BY users.email",
            (tenant_id, only_verified, tenant_id),
        )
        return [row["email"] for row in await cursor.fetchall()]


def _member(row: Mapping[str, Any]) -> Member:
    return Member(
        user=User(id=row["id"], email=row["email"]),
        role=Role.of(row["role"]),
        created_at=row["created_at"],
        email_verified=row["email_verified_at"] is not None,
        consented=row["consented"],
    )
