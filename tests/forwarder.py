"""A connection's way through a forwarder on loopback, which may be cut, or lose what goes through it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from deploy.local.servers import HOST

_CHUNK_BYTES = 1 << 16


@dataclass
class Forwarder:
    """Leads from one port to another."""

    leads_to: int
    #: 0 until it forwards: any that is free.
    listens: int = 0
    #: Takes connections and ends them at once.
    is_cut: bool = False
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _losing: set[asyncio.StreamWriter] = field(default_factory=set)
    _frozen: set[asyncio.StreamWriter] = field(default_factory=set)
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def forwarding(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._take, HOST, self.listens)
        self.listens = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._under_way)

    def cut(self) -> None:
        """Ends what goes through it, and whatever comes."""
        self.is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self.is_cut = False

    def fall_silent(self) -> None:
        """Loses what goes through the connections of now, either way; they stay open until it is cut, and new ones are
        well."""
        self._losing |= self._writers

    def freeze(self) -> None:
        """Takes nothing more of what comes through the connections of now; new ones are well."""
        self._frozen |= self._writers

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._forward(reader, writer))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if not self.is_cut:
                await self._through(reader, writer)
        except OSError:
            pass  # the other end is away: so is this one
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, self.leads_to)
        self._writers.add(far_writer)
        try:
            await asyncio.wait(
                [
                    asyncio.create_task(self._pump(reader, far_writer)),
                    asyncio.create_task(self._pump(far_reader, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self._writers.discard(far_writer)
            far_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while (data := await reader.read(_CHUNK_BYTES)) and writer not in self._frozen:
                if writer not in self._losing:
                    writer.write(data)
                    await writer.drain()
            if writer in self._losing | self._frozen:  # neither does its end go through
                await writer.wait_closed()
