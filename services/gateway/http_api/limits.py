"""What a tenant's users and keys may do in how much time."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from services.gateway import errors
from services.gateway.clients.accounts import Accounts
from services.gateway.clients.messages import overrides_of
from services.gateway.clients.operators import Operators
from services.gateway.domain import Overrides, Quota, Quotas
from services.gateway.http_api.bodies import Taking, answer, path_id
from services.gateway.http_api.shapes import Asked, Told
from services.gateway.limits import Limits
from services.gateway.routes import CALLER, Audience, Operation, Route

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


_Limit = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]


class NewLimits(Asked):
    """What is 0 or left out is the plan's."""

    #: Calls that change something, of each user and key.
    writes_per_hour: _Limit = 0
    #: Calls that read, and queries, of each user and key.
    reads_per_hour: _Limit = 0
    #: Generation and exports, of each user and key.
    expensive_per_hour: _Limit = 0
    #: Of each secret key, and of each publishable one from one address; from everywhere ten times as many.
    ingestion_per_minute: _Limit = 0


class LimitRoutes:
    """`/api/v1/tenants/{tenantId}/limits`"""

    title = "Limits"

    def __init__(self, accounts: Accounts, operators: Operators, limits: Limits) -> None:
        self._accounts = accounts
        self._operators = operators
        self._limits = limits

    def routes(self) -> Sequence[Route]:
        limits = "/api/v1/tenants/{tenantId}/limits"
        showing = Operation(
            "Show a tenant's limits", {200: TenantLimits}, "Each answer's RateLimit header tells what is left of them."
        )
        setting = Operation("Set a tenant's limits", {200: TenantLimits}, "For operators.")
        return [
            Route("GET", limits, self.show, Audience.READ, showing),
            Route("PUT", limits, Taking(NewLimits, self.set), Audience.WRITE, setting),
        ]

    async def show(self, request: web.Request) -> web.Response:
        plan, overrides = await self._of_tenant(request, path_id(request, "tenantId"))
        return self._answer(plan, overrides)

    async def set(self, request: web.Request, new: NewLimits) -> web.Response:
        wanted = Overrides(**msgspec.structs.asdict(new))
        tenant = await self._operators.set_limits(path_id(request, "tenantId"), wanted)
        return self._answer(tenant.plan, overrides_of(tenant.limits))

    def _answer(self, plan: str, overrides: Overrides) -> web.Response:
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
