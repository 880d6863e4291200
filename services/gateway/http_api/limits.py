"""What a tenant's users and keys may do in how much time."""

from collections.abc import Iterator, Sequence
from typing import Literal

from aiohttp import web

from services.gateway import errors
from services.gateway.clients import Accounts, overrides_of
from services.gateway.domain import Overrides, Quota, Quotas
from services.gateway.http_api.bodies import answer, path_id
from services.gateway.http_api.shapes import Told
from services.gateway.limits import Limits
from services.gateway.routes import CALLER, Door, Operation, Route

CountedFor = Literal["user or key", "key and address", "key", "tenant"]


class Limit(Told):
    #: As in the `RateLimit` headers.
    name: str
    #: Calls, all of which may come at once; they come back evenly over the period.
    limit: int
    period_seconds: int
    counted_for: CountedFor


class TenantLimits(Told):
    plan: str
    limits: list[Limit]


class LimitRoutes:
    """`/api/v1/tenants/{tenantId}/limits`"""

    title = "Limits"

    def __init__(self, accounts: Accounts, limits: Limits) -> None:
        self._accounts = accounts
        self._limits = limits

    def routes(self) -> Sequence[Route]:
        operation = Operation(
            "Show a tenant's limits", {200: TenantLimits}, "Each answer's RateLimit header tells what is left of them."
        )
        return [Route("GET", "/api/v1/tenants/{tenantId}/limits", self.show, Door.READ, operation)]

    async def show(self, request: web.Request) -> web.Response:
        plan, overrides = await self._of_tenant(request, path_id(request, "tenantId"))
        return answer(TenantLimits(plan, list(_rendered(self._limits.of_tenant(plan, overrides)))))

    async def _of_tenant(self, request: web.Request, tenant_id: str) -> tuple[str, Overrides]:
        """Its plan, and what an operator has set. A key knows its own tenant's, a person those they belong to.

        Raises INSUFFICIENT_SCOPE for a key that may not read this, NotFound, TENANT_SUSPENDED.
        """
        caller = request[CALLER]
        if caller.principal.kind != "user":
            caller.principal.require("usage:read")
            if caller.principal.tenant_id != tenant_id:
                raise errors.not_found()
            return caller.plan, caller.overrides
        for membership in (await self._accounts.me()).memberships:
            if membership.tenant.id == tenant_id:
                if membership.suspended:
                    raise errors.tenant_suspended()
                return membership.plan, overrides_of(membership.limits)
        raise errors.not_found()


def _rendered(quotas: Quotas) -> Iterator[Limit]:
    counted: Sequence[tuple[Quota, CountedFor]] = (
        (quotas.writes, "user or key"),
        (quotas.reads, "user or key"),
        (quotas.expensive, "user or key"),
        (quotas.keyed, "tenant"),
        (quotas.ingestion, "key and address"),
        (quotas.ingestion_in_all, "key"),
    )
    for quota, counted_for in counted:
        yield Limit(quota.name, quota.limit, quota.period_seconds, counted_for)
