"""Three NATS servers on loopback that form one cluster, any of which may be killed, paused or cut off from the others.

Each server reaches each other one through a forwarder of its own: cutting a server off leaves its clients alone.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

from deploy.local.layout import Ports
from deploy.local.servers import HOST, Nats
from tests.suite_servers import RunningServer

_SIZE = 3
_CHUNK_BYTES = 1 << 16


@dataclass
class Link:
    """A forwarder from one server to another."""

    listens: int
    leads_to: int
    #: Takes connections and ends them at once.
    is_cut: bool = False
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @asynccontextmanager
    async def forwarding(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._forward, HOST, self.listens)
        try:
            yield
        finally:
            server.close()
            self.cut()

    def cut(self) -> None:
        """Ends what goes through it, and whatever comes."""
        self.is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self.is_cut = False

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
                    asyncio.create_task(_pump(reader, far_writer)),
                    asyncio.create_task(_pump(far_reader, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self._writers.discard(far_writer)
            far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


@dataclass(frozen=True)
class LogCluster:
    """The servers by name, and the links between them."""

    servers: dict[str, RunningServer[Nats]]
    links: dict[tuple[str, str], Link]

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(server.server.url for server in self.servers.values())

    @contextmanager
    def cut_off(self, name: str) -> Iterator[None]:
        """Its clients reach it, the other servers do not."""
        touching = [link for ends, link in self.links.items() if name in ends]
        for link in touching:
            link.cut()
        try:
            yield
        finally:
            for link in touching:
                link.mend()

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        with self.servers[name].paused():
            yield

    @contextmanager
    def killed(self, name: str) -> Iterator[None]:
        """With -9; runs again after the block."""
        with self.servers[name].away():
            yield


@asynccontextmanager
async def running(folder: Path, ports: Ports) -> AsyncIterator[LogCluster]:
    """A fresh cluster. Its servers end with the thread that calls this: let it be the main one."""
    names = [f"log-{number}" for number in range(1, _SIZE + 1)]
    free = iter(range(ports.public, ports.public + 16))
    cluster_ports = {name: next(free) for name in names}
    nowhere = next(free)
    links = {ends: Link(next(free), cluster_ports[ends[1]]) for ends in permutations(names, 2)}
    servers = {}
    for name in names:
        routes = [f"nats://{HOST}:{link.listens}" for (start, _), link in links.items() if start == name]
        further = f"""\
cluster {{
  name: pulsegate
  listen: "{HOST}:{cluster_ports[name]}"
  advertise: "{HOST}:{nowhere}"  # where nobody listens: no way around the links
  routes: {routes}
}}"""
        servers[name] = RunningServer(
            Nats(
                folder=folder / name,
                port=next(free),
                monitoring_port=next(free),
                password="only-for-tests",
                log=folder / f"{name}.log",
                server_name=name,
                further=further,
                health_path="/healthz?js-enabled-only=true",
            )
        )
    async with AsyncExitStack() as stack:
        for link in links.values():
            await stack.enter_async_context(link.forwarding())
        for server in servers.values():
            server.server.folder.mkdir(parents=True)
            stack.callback(server.stop)
            server.start()
        yield LogCluster(servers, links)
