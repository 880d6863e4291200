"""Three NATS servers on loopback that form one cluster, any of which may be killed, paused or cut off from the others.

Each server reaches each other one through a forwarder of its own: cutting a server off leaves its clients alone.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from deploy.local.layout import Ports
from deploy.local.servers import HOST, Nats
from tests.forwarder import Forwarder
from tests.suite_servers import RunningServer

_SIZE = 3


@dataclass(frozen=True)
class LogCluster:
    """The servers by name, and the links between them."""

    servers: dict[str, RunningServer[Nats]]
    links: dict[tuple[str, str], Forwarder]

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
    links = {ends: Forwarder(cluster_ports[ends[1]], next(free)) for ends in permutations(names, 2)}
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
