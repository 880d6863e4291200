"""What is answered out of the cache of reads: definitions, and what is made of them.

Who asks is known; what they may is seen here, because the service that would see it need not be asked.
"""

from chassis.principals import Principal
from contracts.pulsegate.codegen.v1 import codegen_pb2 as codegen
from contracts.pulsegate.config.v1 import definitions_pb2 as definitions
from services.gateway.clients.definitions import Definitions
from services.gateway.clients.generator import Generator
from services.gateway.read_cache import Life, ReadCache


class KeptReads:
    """Reads of the reader's own project. Each raises what the service behind raises."""

    def __init__(self, cache: ReadCache, definition_service: Definitions, generator: Generator) -> None:
        self._cache = cache
        self._definitions = definition_service
        self._generator = generator

    async def metrics(self, reader: Principal, page_size: int, page_token: str) -> definitions.ListMetricsResponse:
        """Raises InsufficientScope without `config:read`."""
        reader.require("config:read")

        async def load() -> bytes:
            return (await self._definitions.list(page_size, page_token)).SerializeToString()

        question = f"metrics\n{page_size}\n{page_token}".encode()
        return definitions.ListMetricsResponse.FromString(await self._cache.of(reader, question, Life.LIST, load))

    async def metric(self, reader: Principal, metric_id: str) -> definitions.Metric:
        """Raises InsufficientScope without `config:read`."""
        reader.require("config:read")

        async def load() -> bytes:
            return (await self._definitions.get(metric_id)).SerializeToString()

        question = f"metric\n{metric_id}".encode()
        return definitions.Metric.FromString(await self._cache.of(reader, question, Life.LIST, load))

    async def client(self, reader: Principal, request: codegen.GenerateClientRequest) -> codegen.GenerateClientResponse:
        """For who may see the definitions, or has the publishable key that stands in it."""

        async def load() -> bytes:
            return (await self._generator.client(request)).SerializeToString()

        question = b"client\n" + request.SerializeToString(deterministic=True)
        return codegen.GenerateClientResponse.FromString(await self._cache.of(reader, question, Life.GENERATED, load))

    async def artifact(self, reader: Principal, sha256: str) -> codegen.GetArtifactResponse:
        """What was generated before. Raises NotFound."""

        async def load() -> bytes:
            return (await self._generator.artifact(sha256)).SerializeToString()

        question = f"artifact\n{sha256}".encode()
        return codegen.GetArtifactResponse.FromString(await self._cache.of(reader, question, Life.FIXED, load))
