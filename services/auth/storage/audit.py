"""The audit log's chains."""

from collections.abc import Mapping, Sequence

from psycopg import sql

from chassis.postgres import Connection
from services.auth.audit_chain import Head, SealedEntry
from services.auth.domain import MOST_PAGE_BYTES, ProjectId, TenantId

#: Role that reads the chains of all tenants, and keeps signed heads.
AUDITOR_ROLE = "auth_auditor"

#: Role that takes away the beginning of chains; for the schema's owner alone.
PRUNER_ROLE = "auth_audit_pruner"

#: The lock between who prunes and who reads a chain in several statements.
_PRUNING = "hashtextextended('pulsegate audit pruning', 0)"


class AuditStorage:
    """Door: `tenant_id`; `page` also with the role."""

    async def append(
        self, connection: Connection, tenant_id: TenantId, entry_id: str, project_id: str, document: str
    ) -> None:
        """Seals an entry at the end of its chain, once; others who append to it wait for this transaction's end."""
        await connection.execute(
            "SELECT append_audit_entry(%s, %s, %s, %s)", (tenant_id, entry_id, project_id or None, document)
        )

    async def head(self, connection: Connection, tenant_id: TenantId) -> Head | None:
        """None where nothing was ever appended."""
        cursor = await connection.execute(
            "SELECT tenant_id::text AS tenant_id, sequence, hash FROM audit_heads WHERE tenant_id = %s", (tenant_id,)
        )
        row = await cursor.fetchone()
        return Head(**row) if row else None

    async def page(
        self, connection: Connection, tenant_id: TenantId, after: int, most: int, project_id: ProjectId | None = None
    ) -> Sequence[SealedEntry]:
        """Entries after a sequence number, in their order; of one project where it is named.

        `most` at most; where those at the beginning hold `MOST_PAGE_BYTES`, one more follows them.
        """
        cursor = await connection.execute(
            "SELECT sequence, id::text AS id, coalesce(project_id::text, '') AS project_id, document, previous_hash,"
            " hash FROM (SELECT *, coalesce(sum(octet_length(document)) OVER"
            " (ORDER BY sequence ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING), 0) AS held FROM audit_entries"
            " WHERE tenant_id = %s AND sequence > %s AND (%s::uuid IS NULL OR project_id = %s::uuid)"
            " ORDER BY sequence LIMIT %s) AS entries WHERE held < %s ORDER BY sequence",
            (tenant_id, after, project_id, project_id, most, MOST_PAGE_BYTES),
        )
        return [SealedEntry(**row) for row in await cursor.fetchall()]


#: From one tenant to the next one.
_TENANTS = sql.SQL(
    "WITH RECURSIVE found AS ((SELECT tenant_id FROM {0} ORDER BY tenant_id LIMIT 1) UNION ALL"
    " SELECT (SELECT tenant_id FROM {0} WHERE tenant_id > found.tenant_id ORDER BY tenant_id LIMIT 1)"
    " FROM found WHERE found.tenant_id IS NOT NULL)"
    " SELECT tenant_id::text AS id FROM found WHERE tenant_id IS NOT NULL"
)


class SignedHeadStorage:
    """For the role."""

    async def tenants(self, connection: Connection) -> Sequence[TenantId]:
        """Everybody of whom there is anything, found by a look into an index for each: entries may be very many."""
        found: set[TenantId] = set()
        for table in ("audit_heads", "audit_entries", "audit_signed_heads", "audit_anchors"):
            cursor = await connection.execute(_TENANTS.format(sql.Identifier(table)))
            found.update(row["id"] for row in await cursor.fetchall())
        return sorted(found)

    async def unsigned(self, connection: Connection, most: int) -> Sequence[Head]:
        """Heads further than any that was signed."""
        cursor = await connection.execute(
            "SELECT tenant_id::text AS tenant_id, sequence, hash FROM audit_heads WHERE NOT EXISTS"
            " (SELECT FROM audit_signed_heads AS signed"
            " WHERE signed.tenant_id = audit_heads.tenant_id AND signed.sequence >= audit_heads.sequence)"
            " ORDER BY tenant_id LIMIT %s",
            (most,),
        )
        return [Head(**row) for row in await cursor.fetchall()]

    async def insert(self, connection: Connection, head: Head, signed_head: str) -> None:
        """Nothing where another replica was first."""
        await connection.execute(
            "INSERT INTO audit_signed_heads (tenant_id, sequence, signed_head) VALUES (%s, %s, %s)"
            " ON CONFLICT DO NOTHING",
            (head.tenant_id, head.sequence, signed_head),
        )

    async def newest(self, connection: Connection, tenant_id: TenantId) -> str | None:
        """The signed head of a chain that goes furthest."""
        cursor = await connection.execute(
            "SELECT signed_head FROM audit_signed_heads WHERE tenant_id = %s ORDER BY sequence DESC LIMIT 1",
            (tenant_id,),
        )
        row = await cursor.fetchone()
        return row["signed_head"] if row else None

    async def page(self, connection: Connection, tenant_id: TenantId, after: int, most: int) -> Mapping[int, str]:
        """Signed heads of a chain after a sequence number, by theirs, in its order."""
        cursor = await connection.execute(
            "SELECT sequence, signed_head FROM audit_signed_heads WHERE tenant_id = %s AND sequence > %s"
            " ORDER BY sequence LIMIT %s",
            (tenant_id, after, most),
        )
        return {row["sequence"]: row["signed_head"] for row in await cursor.fetchall()}


class AnchorStorage:
    """For the role that audits, which reads, and the one that prunes."""

    async def hold(self, connection: Connection) -> None:
        """Nothing is pruned until this transaction ends."""
        await connection.execute(f"SELECT pg_advisory_xact_lock_shared({_PRUNING})")

    async def find(self, connection: Connection, tenant_id: TenantId) -> str | None:
        """The signed anchor of a chain of which something was pruned."""
        cursor = await connection.execute("SELECT signed_anchor FROM audit_anchors WHERE tenant_id = %s", (tenant_id,))
        row = await cursor.fetchone()
        return row["signed_anchor"] if row else None

    async def prune(self, connection: Connection, anchor: Head, signed_anchor: str) -> None:
        """Takes away what comes up to the anchor, where there has to be a signed head, which stays; waits for those who
        hold."""
        await connection.execute(f"SELECT pg_advisory_xact_lock({_PRUNING})")
        await connection.execute(
            "INSERT INTO audit_anchors (tenant_id, sequence, signed_anchor) VALUES (%s, %s, %s) ON CONFLICT (tenant_id)"
            " DO UPDATE SET sequence = excluded.sequence, signed_anchor = excluded.signed_anchor",
            (anchor.tenant_id, anchor.sequence, signed_anchor),
        )
        for statement in (
            "DELETE FROM audit_entries WHERE tenant_id = %s AND sequence <= %s",
            "DELETE FROM audit_signed_heads WHERE tenant_id = %s AND sequence < %s",
        ):
            await connection.execute(statement, (anchor.tenant_id, anchor.sequence))
