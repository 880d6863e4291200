"""What the gateway asks codegen for."""

from contracts.pulsegate.codegen.v1 import codegen_pb2 as codegen
from contracts.pulsegate.codegen.v1.codegen_pb2_grpc import CodegenServiceStub
from services.gateway.upstreams import Upstream


class Generator:
    """codegen's CodegenService, for the project of the principal."""

    def __init__(self, codegen_service: Upstream) -> None:
        self._codegen = codegen_service
        self._stub = CodegenServiceStub(codegen_service.channel.grpc_channel)

    async def client(self, request: codegen.GenerateClientRequest) -> codegen.GenerateClientResponse:
        return await self._codegen.ask_again(self._stub.GenerateClient, request)

    async def artifact(self, sha256: str) -> codegen.GetArtifactResponse:
        """What was generated before. Raises NotFound."""
        return await self._codegen.ask_again(self._stub.GetArtifact, codegen.GetArtifactRequest(sha256=sha256))
