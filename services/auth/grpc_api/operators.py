# ruff: noqa: N802 - the contract names the methods
"""OperatorService: what is done above the tenants."""

from typing import Any

import grpc

from chassis.principals import current
from contracts.pulsegate.auth.v1 import operators_pb2 as pb
from contracts.pulsegate.auth.v1 import operators_pb2_grpc
from services.auth.domain import PageRequest, TenantId
from services.auth.grpc_api import messages
from services.auth.operations.operators import Operators

Call = grpc.aio.ServicerContext[Any, Any]


class OperatorServicer(operators_pb2_grpc.OperatorServiceServicer):
    """One method a call; the principal comes with the call (`chassis.principals`)."""

    def __init__(self, operators: Operators) -> None:
        self._operators = operators

    async def ListTenants(self, request: pb.ListTenantsRequest, _call: Call) -> pb.ListTenantsResponse:
        page = await self._operators.page(current(), PageRequest.parse(request.page_size, request.page_token))
        return pb.ListTenantsResponse(
            tenants=map(messages.operated_tenant, page.items), next_page_token=page.next_token
        )

    async def UpdateTenant(self, request: pb.UpdateTenantRequest, _call: Call) -> pb.UpdateTenantResponse:
        plan = request.plan if request.HasField("plan") else None
        suspended = request.suspended if request.HasField("suspended") else None
        limits = messages.read_limits(request.limits) if request.HasField("limits") else None
        changed = await self._operators.update(current(), TenantId(request.tenant_id), plan, suspended, limits)
        return pb.UpdateTenantResponse(tenant=messages.operated_tenant(changed))
