"""Tenants, as operators see them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from psycopg.types.json import Jsonb

from chassis.postgres import Connection
from services.auth.domain import Limits, OperatedTenant, PageRequest, Tenant, TenantId

#: Role that sees every tenant's name and plan, and nothing that is in it.
OPERATOR_ROLE = "auth_operator"


class TenantStorage:
    """Needs the role."""

    async def page(self, connection: Connection, page: PageRequest) -> Sequence[OperatedTenant]:
        """From the oldest; one more than the page's size, where there are so many."""
        cursor = await connection.execute(
            "SELECT id::text AS id, name, plan, created_at, suspended_at, limits FROM tenants"
            " WHERE id > %s ORDER BY tenants.id LIMIT %s",
            (page.after, page.size + 1),
        )
        return [_tenant(row) for row in await cursor.fetchall()]

    async def lock(self, connection: Connection, tenant_id: TenantId) -> OperatedTenant | None:
        """As it stays until this transaction ends, but for what the transaction does."""
        cursor = await connection.execute(
            "SELECT id::text AS id, name, plan, created_at, suspended_at, limits FROM tenants WHERE id = %s FOR UPDATE",
            (tenant_id,),
        )
        row = await cursor.fetchone()
        return _tenant(row) if row else None

    async def update(self, connection: Connection, wanted: OperatedTenant) -> None:
        await connection.execute(
            "UPDATE tenants SET plan = %s, suspended_at = %s, limits = %s WHERE id = %s",
            (wanted.plan, wanted.suspended_at, Jsonb(asdict(wanted.limits)), wanted.tenant.id),
        )


def _tenant(row: dict[str, Any]) -> OperatedTenant:
    tenant = Tenant(id=row.pop("id"), name=row.pop("name"))
    return OperatedTenant(tenant=tenant, limits=Limits(**row.pop("limits")), **row)
