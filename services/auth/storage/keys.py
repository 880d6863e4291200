"""API keys, as a project's administrators see them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from chassis.postgres import Connection
from services.auth.domain import MOST_PAGE_BYTES, KeyId, PageRequest, ProjectId, TenantId
from services.auth.keys import ApiKey, SealedText

#: Role that notes when keys were used.
KEY_USAGE_ROLE = "auth_key_usage"

#: Dead keys beyond those that are kept, deleted with each that is made: more than one, so that there are less and less.
_MOST_DELETED = 100

_COLUMNS = (
    "id::text AS id, tenant_id::text AS tenant_id, project_id::text AS project_id, name, kind, scopes, allowed_origins,"
    " prefix, created_at, expires_at, revoked_at, last_used_at, in_grace, expires_before_grace"
)


class KeyStorage:
    """Door: `tenant_id`."""

    async def insert(self, connection: Connection, key: ApiKey, key_hash: bytes, sealed_text: bytes | None) -> None:
        await connection.execute(
            "INSERT INTO keys (id, tenant_id, project_id, name, kind, scopes, allowed_origins, prefix, key_hash,"
            " sealed_text, created_at, expires_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                key.id, key.tenant_id, key.project_id, key.name, key.kind, list(key.scopes), list(key.allowed_origins),
                key.prefix, key_hash, sealed_text, key.created_at, key.expires_at,
            ),
        )  # fmt: skip

    async def page(self, connection: Connection, project_id: ProjectId, page: PageRequest) -> Sequence[ApiKey]:
        """Revoked and expired ones too; one more than the page's size, where there are so many, or than those at the
        beginning whose origins hold `MOST_PAGE_BYTES`."""
        cursor = await connection.execute(
            f"SELECT {_COLUMNS}"  # noqa: S608 - a constant # nosec B608
            " FROM (SELECT *, coalesce(sum(octet_length(array_to_string(allowed_origins, ''))) OVER"
            " (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING), 0) AS held"
            " FROM keys WHERE project_id = %s AND id > %s ORDER BY id LIMIT %s) AS keys"
            " WHERE held < %s ORDER BY keys.id",
            (project_id, page.after, page.size + 1, MOST_PAGE_BYTES),
        )
        return [_key(row) for row in await cursor.fetchall()]

    async def update(self, connection: Connection, key: ApiKey) -> None:
        """Name, origins and end."""
        await connection.execute(
            "UPDATE keys SET name = %s, allowed_origins = %s, expires_at = %s, in_grace = %s, expires_before_grace = %s"
            " WHERE project_id = %s AND id = %s",
            (
                key.name, list(key.allowed_origins), key.expires_at, key.in_grace, key.expires_before_grace,
                key.project_id, key.id,
            ),
        )  # fmt: skip

    async def lock(self, connection: Connection, project_id: ProjectId, key_id: KeyId) -> ApiKey | None:
        """The key, which nobody else changes until this transaction ends."""
        cursor = await connection.execute(
            f"SELECT {_COLUMNS} FROM keys WHERE project_id = %s AND id = %s FOR UPDATE",  # noqa: S608 - a constant # nosec B608
            (project_id, key_id),
        )
        row = await cursor.fetchone()
        return _key(row) if row else None

    async def revoke(self, connection: Connection, project_id: ProjectId, key_id: KeyId, now: datetime) -> bool:
        """False where it was revoked before."""
        cursor = await connection.execute(
            "UPDATE keys SET revoked_at = %s WHERE project_id = %s AND id = %s AND revoked_at IS NULL",
            (now, project_id, key_id),
        )
        return cursor.rowcount == 1

    async def revoke_all(self, connection: Connection, tenant_id: TenantId, now: datetime) -> Sequence[KeyId]:
        """All of a tenant's that are neither revoked nor expired, whose projects are held; which ones that were."""
        cursor = await connection.execute(
            "UPDATE keys SET revoked_at = %s WHERE tenant_id = %s AND revoked_at IS NULL"
            " AND (expires_at IS NULL OR expires_at > %s) RETURNING id::text AS id",
            (now, tenant_id, now),
        )
        return sorted(KeyId(row["id"]) for row in await cursor.fetchall())

    async def mark_leaked(self, connection: Connection, key_id: KeyId, now: datetime) -> None:
        await connection.execute("UPDATE keys SET leaked_at = %s WHERE id = %s", (now, key_id))

    async def is_leaked(self, connection: Connection, key_hash: bytes) -> bool:
        """Whether it was live when somebody reported it. Door: `key_hash`, too."""
        cursor = await connection.execute("SELECT FROM keys WHERE key_hash = %s AND leaked_at IS NOT NULL", (key_hash,))
        return await cursor.fetchone() is not None

    async def leaks_mailed(self, connection: Connection, tenant_id: TenantId, since: datetime) -> int:
        """Of how many leaked keys the tenant's admins were mailed."""
        cursor = await connection.execute(
            "SELECT count(*) AS mailed FROM leak_mails WHERE tenant_id = %s AND created_at > %s", (tenant_id, since)
        )
        [row] = await cursor.fetchall()
        return int(row["mailed"])

    async def note_leak_mail(self, connection: Connection, key: ApiKey, now: datetime) -> None:
        await connection.execute(
            "INSERT INTO leak_mails (key_id, tenant_id, created_at) VALUES (%s, %s, %s)", (key.id, key.tenant_id, now)
        )

    async def count_alive(self, connection: Connection, tenant_id: TenantId, now: datetime, most: int) -> int:
        """Of a tenant's that are neither revoked nor expired, up to `most`: they end last, or never. However many have
        ended, it reads no more."""
        cursor = await connection.execute(
            "SELECT count(*) FILTER (WHERE ends_at IS NULL OR ends_at > %s) AS n FROM (SELECT ends_at FROM keys"
            " WHERE tenant_id = %s ORDER BY ends_at DESC NULLS FIRST LIMIT %s) AS latest",
            (now, tenant_id, most),
        )
        [row] = await cursor.fetchall()
        return int(row["n"])

    async def count_alive_in(self, connection: Connection, project_id: ProjectId, now: datetime) -> int:
        """The same of one project, all of them."""
        cursor = await connection.execute(
            "SELECT count(*) AS n FROM keys WHERE project_id = %s AND (ends_at IS NULL OR ends_at > %s)",
            (project_id, now),
        )
        [row] = await cursor.fetchall()
        return int(row["n"])

    async def delete_oldest(self, connection: Connection, tenant_id: TenantId, now: datetime, kept: int) -> None:
        """A few of a tenant's dead ones, beyond so many of them; one that somebody is changing, or deleting, another
        time."""
        await connection.execute(
            "WITH oldest AS (SELECT id FROM keys WHERE tenant_id = %s AND ends_at <= %s ORDER BY ends_at DESC"
            " OFFSET %s LIMIT %s), free AS (SELECT keys.id FROM keys JOIN oldest ON oldest.id = keys.id"
            " FOR UPDATE OF keys SKIP LOCKED)"
            " DELETE FROM keys USING free WHERE keys.id = free.id",
            (tenant_id, now, kept, _MOST_DELETED),
        )

    async def sealed_text(
        self, connection: Connection, project_id: ProjectId, key_id: KeyId, now: datetime
    ) -> SealedText | None:
        """A publishable key's that is neither revoked nor expired."""
        cursor = await connection.execute(
            "SELECT id::text AS key_id, sealed_text AS sealed FROM keys"
            " WHERE project_id = %s AND id = %s AND kind = 'publishable' AND revoked_at IS NULL"
            " AND (expires_at IS NULL OR expires_at > %s)",
            (project_id, key_id, now),
        )
        row = await cursor.fetchone()
        return SealedText(**row) if row else None


class KeyUsageStorage:
    """For the role."""

    async def note(self, connection: Connection, used_at: Mapping[KeyId, datetime]) -> None:
        """Later moments alone count. A key that somebody is changing is left out: its next use is soon."""
        await connection.execute(
            "WITH used AS (SELECT keys.id, noted.at FROM keys"
            " JOIN unnest(%s::uuid[], %s::timestamptz[]) AS noted (id, at) ON noted.id = keys.id"
            " WHERE keys.last_used_at IS NULL OR keys.last_used_at < noted.at"
            " ORDER BY keys.id FOR UPDATE OF keys SKIP LOCKED)"
            " UPDATE keys SET last_used_at = used.at FROM used WHERE keys.id = used.id",
            (list(used_at), list(used_at.values())),
        )


def _key(row: dict[str, Any]) -> ApiKey:
    return ApiKey(**{**row, "scopes": tuple(row["scopes"]), "allowed_origins": tuple(row["allowed_origins"])})
