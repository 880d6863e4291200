"""Users, their passwords and their memberships, seen by themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chassis.postgres import Connection
from services.auth.domain import Limits, Membership, ProjectId, Role, SessionId, Tenant, TenantId, User, UserId


@dataclass(frozen=True, kw_only=True)
class StoredPassword:
    """A user and what their password is compared with."""

    user: User
    bcrypt: str


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What somebody is in a tenant."""

    tenant_id: TenantId
    role: Role
    #: Whether the session goes on in which they ask.
    in_session: bool


class AccountStorage:
    """Doors: `user_id` or `email`; `tenant_id` for what is made in a tenant."""

    async def find_by_email(self, connection: Connection, email_key: str) -> User | None:
        cursor = await connection.execute(
            "SELECT id::text AS id, email FROM users WHERE email_key = %s",
            (email_key,),
        )
        row = await cursor.fetchone()
        return User(**row) if row else None

    async def find_password(self, connection: Connection, email_key: str) -> StoredPassword | None:
        """By e-mail address, in one query whether or not there is such a user."""
        cursor = await connection.execute(
            "SELECT users.id::text AS id, users.email, passwords.bcrypt"
            " FROM users JOIN passwords ON passwords.user_id = users.id"
            " WHERE users.email_key = %s",
            (email_key,),
        )
        row = await cursor.fetchone()
        return StoredPassword(user=User(id=row["id"], email=row["email"]), bcrypt=row["bcrypt"]) if row else None

    async def get(self, connection: Connection, user_id: UserId) -> User | None:
        cursor = await connection.execute("SELECT id::text AS id, email FROM users WHERE id = %s", (user_id,))
        row = await cursor.fetchone()
        return User(**row) if row else None

    async def insert_user(self, connection: Connection, user: User, email_key: str, now: datetime) -> bool:
        """False where the e-mail address is taken."""
        cursor = await connection.execute(
            "INSERT INTO users (id, email, email_key, created_at) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (user.id, user.email, email_key, now),
        )
        return cursor.rowcount == 1

    async def insert_password(self, connection: Connection, user_id: UserId, bcrypt: str) -> None:
        await connection.execute("INSERT INTO passwords (user_id, bcrypt) VALUES (%s, %s)", (user_id, bcrypt))

    async def password(self, connection: Connection, user_id: UserId) -> str | None:
        """The bcrypt text at this moment."""
        cursor = await connection.execute("SELECT bcrypt FROM passwords WHERE user_id = %s", (user_id,))
        row = await cursor.fetchone()
        return row["bcrypt"] if row else None

    async def lock_password(self, connection: Connection, user_id: UserId) -> str | None:
        """The bcrypt text, which nobody changes until this transaction ends."""
        cursor = await connection.execute("SELECT bcrypt FROM passwords WHERE user_id = %s FOR UPDATE", (user_id,))
        row = await cursor.fetchone()
        return row["bcrypt"] if row else None

    async def update_password(self, connection: Connection, user_id: UserId, bcrypt: str) -> None:
        await connection.execute("UPDATE passwords SET bcrypt = %s WHERE user_id = %s", (bcrypt, user_id))

    async def email_verified(self, connection: Connection, user_id: UserId) -> bool:
        cursor = await connection.execute(
            "SELECT FROM users WHERE id = %s AND email_verified_at IS NOT NULL", (user_id,)
        )
        return await cursor.fetchone() is not None

    async def is_known_by(self, connection: Connection, user_id: UserId, email_key: str) -> bool:
        """Whether an account is found by this address: one that an identity provider has made is found by none."""
        cursor = await connection.execute("SELECT FROM users WHERE id = %s AND email_key = %s", (user_id, email_key))
        return await cursor.fetchone() is not None

    async def verify_email(self, connection: Connection, user_id: UserId, now: datetime) -> None:
        """An address that was verified before keeps its moment."""
        await connection.execute(
            "UPDATE users SET email_verified_at = %s WHERE id = %s AND email_verified_at IS NULL", (now, user_id)
        )

    async def insert_tenant(self, connection: Connection, tenant: Tenant, plan: str, now: datetime) -> None:
        await connection.execute(
            "INSERT INTO tenants (id, name, plan, created_at) VALUES (%s, %s, %s, %s)",
            (tenant.id, tenant.name, plan, now),
        )

    async def lock_plan(self, connection: Connection, tenant_id: TenantId) -> str:
        """The tenant's plan, which nobody changes until this transaction ends; nor does anybody else lock it."""
        cursor = await connection.execute("SELECT plan FROM tenants WHERE id = %s FOR NO KEY UPDATE", (tenant_id,))
        [row] = await cursor.fetchall()
        return str(row["plan"])

    async def memberships(self, connection: Connection, user_id: UserId) -> Sequence[Membership]:
        """All of a user's, by tenant id."""
        cursor = await connection.execute(
            "SELECT tenants.id::text AS id, tenants.name, tenants.plan, memberships.role, memberships.consented,"
            " tenants.limits, tenants.suspended_at IS NOT NULL AS suspended"
            " FROM memberships JOIN tenants ON tenants.id = memberships.tenant_id"
            " WHERE memberships.user_id = %s ORDER BY tenants.id",
            (user_id,),
        )
        return [
            Membership(
                tenant=Tenant(id=row["id"], name=row["name"]),
                role=Role.of(row["role"]),
                plan=row["plan"],
                limits=Limits(**row["limits"]),
                suspended=row["suspended"],
                consented=row["consented"],
            )
            for row in await cursor.fetchall()
        ]

    async def is_suspended(self, connection: Connection, tenant_id: TenantId) -> bool:
        cursor = await connection.execute(
            "SELECT FROM tenants WHERE id = %s AND suspended_at IS NOT NULL", (tenant_id,)
        )
        return await cursor.fetchone() is not None

    async def standing(
        self, connection: Connection, user_id: UserId, session_id: SessionId, tenant_id: TenantId
    ) -> Standing | None:
        """None for no member."""
        cursor = await connection.execute(
            "SELECT memberships.tenant_id::text AS tenant_id, memberships.role, sessions.id IS NOT NULL AS in_session"
            " FROM memberships LEFT JOIN sessions"
            " ON sessions.id = %s AND sessions.user_id = memberships.user_id AND sessions.revoked_at IS NULL"
            " WHERE memberships.user_id = %s AND memberships.tenant_id = %s",
            (session_id, user_id, tenant_id),
        )
        return _standing(await cursor.fetchone())

    async def standing_in_project(
        self, connection: Connection, user_id: UserId, session_id: SessionId, project_id: ProjectId
    ) -> Standing | None:
        """In the project's tenant; None where there is no such project or membership."""
        cursor = await connection.execute(
            "SELECT memberships.tenant_id::text AS tenant_id, memberships.role, sessions.id IS NOT NULL AS in_session"
            " FROM projects JOIN memberships ON memberships.tenant_id = projects.tenant_id LEFT JOIN sessions"
            " ON sessions.id = %s AND sessions.user_id = memberships.user_id AND sessions.revoked_at IS NULL"
            " WHERE projects.id = %s AND memberships.user_id = %s",
            (session_id, project_id, user_id),
        )
        return _standing(await cursor.fetchone())


def _standing(row: Mapping[str, Any] | None) -> Standing | None:
    return Standing(**{**row, "role": Role.of(row["role"])}) if row else None
