"""Entries of the audit log on their way to auth."""

from collections.abc import Sequence
from dataclasses import dataclass

from chassis import audit
from chassis.postgres import Connection

#: Role that sends the entries of all tenants, and deletes what was sent.
SENDER_ROLE = "config_audit_sender"


@dataclass(frozen=True, kw_only=True)
class WaitingEntry:
    """An entry that auth has not confirmed yet."""

    id: str
    tenant_id: str
    project_id: str
    #: Canonical JSON.
    document: str


class AuditOutboxStorage:
    """`insert` is for a transaction of the tenant, the others for one of the role."""

    async def insert(self, connection: Connection, entry: audit.Entry) -> None:
        await connection.execute(
            "INSERT INTO audit_outbox (id, tenant_id, project_id, document) VALUES (%s, %s, %s, %s)",
            (entry.id, entry.tenant_id, entry.project_id, audit.document(entry)),
        )

    async def oldest(self, connection: Connection, most: int) -> Sequence[WaitingEntry]:
        """In the order in which they were written."""
        cursor = await connection.execute(
            "SELECT id::text AS id, tenant_id::text AS tenant_id, project_id::text AS project_id, document"
            " FROM audit_outbox ORDER BY position LIMIT %s",
            (most,),
        )
        return [WaitingEntry(**row) for row in await cursor.fetchall()]

    async def delete(self, connection: Connection, ids: Sequence[str]) -> None:
        await connection.execute("DELETE FROM audit_outbox WHERE id = ANY(%s::uuid[])", (list(ids),))

    async def waiting(self, connection: Connection) -> int:
        """How many entries there are."""
        cursor = await connection.execute("SELECT count(*) AS n FROM audit_outbox")
        [row] = await cursor.fetchall()
        return int(row["n"])
