"""What the gateway asks auth for operators."""

from dataclasses import asdict

from contracts.pulsegate.auth.v1 import operators_pb2 as pb
from contracts.pulsegate.auth.v1.limits_pb2 import Limits
from contracts.pulsegate.auth.v1.operators_pb2_grpc import OperatorServiceStub
from services.gateway.domain import Overrides
from services.gateway.upstreams import Upstream


class Operators:
    """auth's OperatorService, for the person whose principal the call carries."""

    def __init__(self, auth: Upstream) -> None:
        self._auth = auth
        self._stub = OperatorServiceStub(auth.channel.grpc_channel)

    async def tenants(self, page_size: int, page_token: str) -> pb.ListTenantsResponse:
        request = pb.ListTenantsRequest(page_size=page_size, page_token=page_token)
        return await self._auth.ask_again(self._stub.ListTenants, request)

    async def update_tenant(self, tenant_id: str, plan: str | None, suspended: bool | None) -> pb.OperatedTenant:
        request = pb.UpdateTenantRequest(tenant_id=tenant_id, plan=plan, suspended=suspended)
        return (await self._auth.ask(self._stub.UpdateTenant, request)).tenant

    async def set_limits(self, tenant_id: str, limits: Overrides) -> pb.OperatedTenant:
        """All of a tenant's; 0: what its plan says."""
        request = pb.UpdateTenantRequest(tenant_id=tenant_id, limits=Limits(**asdict(limits)))
        return (await self._auth.ask(self._stub.UpdateTenant, request)).tenant
