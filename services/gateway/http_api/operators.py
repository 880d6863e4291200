"""What operators do above the tenants: plans and suspension."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from aiohttp import web

from contracts.pulsegate.auth.v1 import operators_pb2 as pb
from services.gateway.clients.messages import overrides_of
from services.gateway.clients.operators import Operators
from services.gateway.http_api.bodies import Asking, Page, Taking, answer, moment, optional_moment, path_id
from services.gateway.http_api.shapes import Asked, Id, Moment, Told
from services.gateway.routes import Audience, Operation, Route

PlanName = Literal["free", "basic", "professional", "enterprise"]


class TenantChange(Asked):
    #: What is left out stays.
    plan: PlanName | None = None
    suspended: bool | None = None


class OwnLimits(Told):
    """What an operator has set in place of the plan's limits, as `PUT …/limits` takes it; 0: the plan's."""

    writes_per_hour: int
    reads_per_hour: int
    expensive_per_hour: int
    ingestion_per_minute: int


class OperatedTenant(Told):
    id: Id
    name: str
    plan: str
    created_at: Moment
    suspended_at: Moment | None
    limits: OwnLimits


class OperatedTenants(Told):
    items: list[OperatedTenant]
    next_page_token: str


class OperatorRoutes:
    """`/api/v1/operator/tenants`"""

    title = "Operators"

    def __init__(self, operators: Operators) -> None:
        self._operators = operators

    def routes(self) -> Sequence[Route]:
        tenants = "/api/v1/operator/tenants"
        return [
            Route(
                "GET",
                tenants,
                Asking(Page, self.list),
                Audience.READ,
                Operation("List every tenant", {200: OperatedTenants}, "For operators."),
            ),
            Route(
                "PATCH",
                tenants + "/{tenantId}",
                Taking(TenantChange, self.change),
                Audience.WRITE,
                Operation("Set a tenant's plan or suspend it", {200: OperatedTenant}, "For operators."),
            ),
        ]

    async def list(self, _request: web.Request, page: Page) -> web.Response:
        found = await self._operators.tenants(page.page_size, page.page_token)
        return answer(OperatedTenants([_render(tenant) for tenant in found.tenants], found.next_page_token))

    async def change(self, request: web.Request, change: TenantChange) -> web.Response:
        tenant_id = path_id(request, "tenantId")
        return answer(_render(await self._operators.update_tenant(tenant_id, change.plan, change.suspended)))


def _render(tenant: pb.OperatedTenant) -> OperatedTenant:
    return OperatedTenant(
        id=tenant.id,
        name=tenant.name,
        plan=tenant.plan,
        created_at=moment(tenant.created_at),
        suspended_at=optional_moment(tenant, "suspended_at"),
        limits=OwnLimits(**asdict(overrides_of(tenant.limits))),
    )
