"""What is answered out of the cache of reads: definitions, and what is made of them.

Who asks is known; what they may is seen here, because the service that would see it need not be asked. Definitions are
kept as they are sent: a page of them may take megabytes, which are rendered once and not for whoever reads them again.
"""

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable

import msgspec

from chassis.principals import Principal
from contracts.pulsegate.codegen.v1 import codegen_pb2 as codegen
from contracts.pulsegate.config.v1 import definitions_pb2 as definitions
from services.gateway import errors
from services.gateway.clients.definitions import Definitions
from services.gateway.clients.generator import Generator
from services.gateway.read_cache import Life, ReadCache


class Rendered(msgspec.Struct, array_like=True, frozen=True):
    """What is sent, and what names it."""

    etag: str
    body: bytes


class Source(msgspec.Struct, array_like=True, frozen=True):
    """A generated client."""

    content: bytes
    content_type: str
    file_name: str
    #: As hexadecimal digits.
    sha256: str
    #: For a script tag.
    integrity: str


SCRIPT = "text/javascript"
#: Kept instead of a source that no page may load.
_NO_SCRIPT = b""


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

    async def client(self, reader: Principal, request: codegen.GenerateClientRequest) -> Source:
        """For who may see the definitions, or has the publishable key that stands in it."""

        async def load() -> bytes:
            made = await self._generator.client(request)
            return await _encoded(made, made.sha256)

        question = b"client\n" + request.SerializeToString(deterministic=True)
        kept = await self._cache.of(reader, question, Life.GENERATED, load)
        return msgspec.msgpack.decode(kept, type=Source)

    async def script(self, reader: Principal, sha256: str) -> Source:
        """What was generated before. Raises NotFound, also where it is in another language than pages run."""

        async def load() -> bytes:
            found = await self._generator.artifact(sha256)
            return await _encoded(found, sha256) if media_type(found.content_type) == SCRIPT else _NO_SCRIPT

        kept = await self._cache.of(reader, f"script\n{sha256}".encode(), Life.FIXED, load)
        if kept == _NO_SCRIPT:
            raise errors.not_found()
        return msgspec.msgpack.decode(kept, type=Source)

    async def note_use(self, reader: Principal, sha256: str) -> None:
        """Has codegen know, once in a while, that the script is in use: what nobody uses any more is deleted. Raises
        NotFound where it was, and keeps nothing of that: whoever made the hash up could have any number kept."""

        async def load() -> bytes:
            await self._generator.artifact(sha256)
            return b""

        await self._cache.of(reader, f"use\n{sha256}".encode(), Life.FIXED, load)


def media_type(content_type: str) -> str:
    """Without its parameters."""
    return content_type.partition(";")[0].strip()


async def _encoded(made: codegen.GenerateClientResponse | codegen.GetArtifactResponse, sha256: str) -> bytes:
    """With its hash for a script tag, which takes longer than others should wait: it may be megabytes."""
    content = made.content
    digest = (await asyncio.to_thread(hashlib.sha384, content)).digest()
    integrity = f"sha384-{base64.b64encode(digest).decode()}"
    return msgspec.msgpack.encode(Source(content, made.content_type, made.file_name, sha256, integrity))
