"""TLS before a server of this machine that has none itself, as a load balancer of a database may have it.

async with tls_front(port, context) as front: …             TLS from the first byte: rediss://, https://
async with tls_front(port, context, negotiated=True): …     as Postgres has it: the client asks for TLS first
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_HOST = "127.0.0.1"
#: Of Postgres' SSLRequest: a length and a code.
_QUESTION_BYTES = 8


@asynccontextmanager
async def tls_front(port: int, context: ssl.SSLContext, *, negotiated: bool = False) -> AsyncIterator[int]:
    """The port of the front."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if negotiated:
                await reader.readexactly(_QUESTION_BYTES)
                writer.write(b"S")
                await writer.start_tls(context)
            behind, to_behind = await asyncio.open_connection(_HOST, port)
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, to_behind))
                both.create_task(_pump(behind, writer))
        except* (OSError, EOFError):  # an end that went away, or that does not believe the certificate
            writer.close()

    async with await asyncio.start_server(pass_on, _HOST, 0, ssl=None if negotiated else context) as server:
        yield server.sockets[0].getsockname()[1]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while read := await reader.read(1 << 16):
        writer.write(read)
        await writer.drain()
    writer.close()
