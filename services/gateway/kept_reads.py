"""What is answered out of the cache of reads: definitions, and what is made of them.

Who asks is known; what they may is seen here, because the service that would see it need not be asked. Definitions are
kept as they are sent: a page of them may take megabytes, which are rendered once and not for whoever reads them again.
"""

from collections.abc import Awaitable, Callable

import msgspec

from chassis.principals import Principal
from contracts.pulsegate.codegen.v1 import codegen_pb2 as codegen
from contracts.pulsegate.config.v1 import definitions_pb2 as definitions
from services.gateway.clients.definitions import Definitions
from services.gateway.clients.generator import Generator
from services.gateway.read_cache import Life, ReadCache


class Rendered(msgspec.Struct, array_like=True, frozen=True):
    """What is sent, and what names it."""

    etag: str
    body: bytes


class KeptReads:
    """Reads of the reader's own project. Each raises what the service behind raises."""

    def __init__(self, cache: ReadCache, definition_service: Definitions, generator: Generator) -> None:
        self._cache = cache
        self._definitions = definition_service
        self._generator = generator

    async def metrics(
        self,
        reader: Principal,
        page_size: int,
        page_token: str,
        render: Callable[[definitions.ListMetricsResponse], Awaitable[Rendered]],
    ) -> Rendered:
        """Raises InsufficientScope without `config:read`."""

        async def load() -> Rendered:
            return await render(await self._definitions.list(page_size, page_token))

        return await self._rendered(reader, f"metrics\n{page_size}\n{page_token}", load)

    async def metric(
        self, reader: Principal, metric_id: str, render: Callable[[definitions.Metric], Rendered]
    ) -> Rendered:
        """Raises InsufficientScope without `config:read`."""

        async def load() -> Rendered:
            return render(await self._definitions.get(metric_id))

        return await self._rendered(reader, f"metric\n{metric_id}", load)

    async def _rendered(self, reader: Principal, question: str, load: Callable[[], Awaitable[Rendered]]) -> Rendered:
        reader.require("config:read")

        async def encoded() -> bytes:
            return msgspec.msgpack.encode(await load())

        kept = await self._cache.of(reader, question.encode(), Life.LIST, encoded)
        return msgspec.msgpack.decode(kept, type=Rendered)

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
