"""What stands behind a credential at this moment, each read with the feed's revision in one statement: one snapshot."""

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from chassis.postgres import Connection
from services.auth.domain import KeyId, Limits, ProjectId, Role, SessionId, TenantId, UserId
from services.auth.identity_providers import ProviderId

_Found = TypeVar("_Found")


@dataclass(frozen=True, kw_only=True)
class Seen(Generic[_Found]):
    """What was found, if anything, and the revision at which that was true."""

    revision: int
    found: _Found | None


@dataclass(frozen=True, kw_only=True)
class KeyVerdict:
    """A key that is neither revoked nor expired."""

    key_id: KeyId
    tenant_id: TenantId
    project_id: ProjectId
    kind: str
    scopes: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    expires_at: datetime | None
    plan: str
    limits: Limits
    suspended: bool


@dataclass(frozen=True, kw_only=True)
class ProjectVerdict:
    """A live session whose user is a member of the project's tenant, or not (`role` and `tenant_id` are None)."""

    tenant_id: TenantId | None
    role: Role | None
    plan: str | None
    limits: Limits
    #: Of the tenant.
    suspended: bool


@dataclass(frozen=True, kw_only=True)
class ProvisionerVerdict:
    """An identity provider that has shown its provisioning token."""

    provider_id: ProviderId
    tenant_id: TenantId
    plan: str
    limits: Limits
    suspended: bool


class VerdictStorage:
    """Doors: `key_hash`; `user_id` for sessions; `provisioning_hash`, and then `tenant_id`, for identity providers."""

    async def tenant_of_provisioner(self, connection: Connection, token_hash: bytes) -> TenantId | None:
        """Whose provider has this token."""
        cursor = await connection.execute(
            "SELECT tenant_id::text AS tenant_id FROM identity_providers WHERE provisioning_hash = %s", (token_hash,)
        )
        row = await cursor.fetchone()
        return TenantId(row["tenant_id"]) if row else None

    async def of_provisioner(self, connection: Connection, token_hash: bytes) -> Seen[ProvisionerVerdict]:
        cursor = await connection.execute(
            "SELECT feed.revision, provider.id::text AS provider_id, provider.tenant_id::text AS tenant_id,"
            " tenants.plan, tenants.limits, tenants.suspended_at IS NOT NULL AS suspended"
            " FROM feed LEFT JOIN (identity_providers AS provider JOIN tenants ON tenants.id = provider.tenant_id)"
            " ON provider.provisioning_hash = %s",
            (token_hash,),
        )
        [row] = await cursor.fetchall()
        revision = row.pop("revision")
        if row["provider_id"] is None:
            return Seen(revision=revision, found=None)
        return Seen(revision=revision, found=ProvisionerVerdict(**{**row, "limits": Limits(**row["limits"])}))

    async def of_key(self, connection: Connection, key_hash: bytes, now: datetime) -> Seen[KeyVerdict]:
        cursor = await connection.execute(
            "SELECT feed.revision, keys.id::text AS key_id, keys.tenant_id::text AS tenant_id,"
            " keys.project_id::text AS project_id, keys.kind, keys.scopes, keys.allowed_origins, keys.expires_at,"
            " tenants.plan, tenants.limits, tenants.suspended_at IS NOT NULL AS suspended"
            " FROM feed LEFT JOIN (keys JOIN tenants ON tenants.id = keys.tenant_id)"
            " ON keys.key_hash = %s AND keys.revoked_at IS NULL AND (keys.expires_at IS NULL OR keys.expires_at > %s)",
            (key_hash, now),
        )
        [row] = await cursor.fetchall()
        revision = row.pop("revision")
        if row["key_id"] is None:
            return Seen(revision=revision, found=None)
        read = {
            "scopes": tuple(row["scopes"]),
            "allowed_origins": tuple(row["allowed_origins"]),
            "limits": Limits(**row["limits"]),
        }
        return Seen(revision=revision, found=KeyVerdict(**{**row, **read}))

    async def of_session(
        self, connection: Connection, user_id: UserId, session_id: SessionId, project_id: ProjectId | None
    ) -> Seen[ProjectVerdict]:
        """`found` is None where the session is over."""
        cursor = await connection.execute(
            "SELECT feed.revision, sessions.id IS NOT NULL AS alive, tenants.id::text AS tenant_id, memberships.role,"
            " tenants.plan, tenants.limits, tenants.suspended_at IS NOT NULL AS suspended"
            " FROM feed"
            " LEFT JOIN sessions ON sessions.id = %s AND sessions.user_id = %s AND sessions.revoked_at IS NULL"
            " LEFT JOIN (projects JOIN memberships ON memberships.tenant_id = projects.tenant_id"
            " JOIN tenants ON tenants.id = projects.tenant_id)"
            " ON projects.id = %s AND memberships.user_id = sessions.user_id",
            (session_id, user_id, project_id),
        )
        [row] = await cursor.fetchall()
        if not row["alive"]:
            return Seen(revision=row["revision"], found=None)
        role = Role.of(row["role"]) if row["role"] else None
        verdict = ProjectVerdict(
            tenant_id=row["tenant_id"],
            role=role,
            plan=row["plan"],
            limits=Limits(**(row["limits"] or {})),
            suspended=row["suspended"],
        )
        return Seen(revision=row["revision"], found=verdict)
