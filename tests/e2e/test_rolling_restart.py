"""Every service is restarted under load, one after the other: no request fails, and totals stay exact."""

import asyncio
import itertools
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest

from chassis.tasks import in_background
from deploy.local.layout import Ports
from deploy.local.servers import HOST
from deploy.local.services import SERVICES
from tests.e2e.api import Answer, Api, Json, Project
from tests.e2e.load import Load
from tests.e2e.replicas import Replica, running
from tests.suite_running import Suite
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

_LOOK_EVERY_SECONDS = 0.1


@dataclass
class BalancedLoad(Load):
    """A load through several gateways, as a load balancer spreads it: over those that say that they are ready.

    A refused connection goes to another one. Nothing else is tried again: whatever else is not a 202 has failed.
    """

    gateways: list[Api] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    #: Batches that each gateway has acknowledged.
    taken: Counter[Api] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._ready = dict.fromkeys(self.gateways, True)
        self._turns = itertools.count()

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Looks after the gateways' readiness while open."""
        async with in_background(*(self._look(gateway) for gateway in self.gateways)):
            yield

    async def _look(self, gateway: Api) -> None:
        while True:
            try:
                answer = await gateway.call("GET", "/health/ready", timeout_seconds=2.0)
                self._ready[gateway] = answer.status == 200
            except (aiohttp.ClientError, TimeoutError, OSError):
                self._ready[gateway] = False
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _ask(self, batch: Json) -> Answer:
        candidates = [gateway for gateway in self.gateways if self._ready[gateway]]
        first = next(self._turns) % max(len(candidates), 1)
        for gateway in [*candidates[first:], *candidates[:first]]:
            try:
                answer = await gateway.call("POST", "/api/v1/metrics", batch, credential=self.project.secret_key)
            except aiohttp.ClientConnectorError:
                self._ready[gateway] = False
                continue
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.failed.append(f"{gateway.base_url}: {error!r}")
                raise
            if answer.status != 202:
                self.failed.append(f"{gateway.base_url}: {answer.status} {answer.text}")
            else:
                self.taken[gateway] += 1
            return answer
        self.failed.append("no gateway is ready")
        raise ConnectionError


@dataclass
class Cluster:
    """The suite with a second receiver and aggregator, and two gateways of its own that know both receivers."""

    replicas: list[Replica]
    gateways: list[str]


@pytest.fixture
def cluster(suite: Suite, port_blocks: Callable[[], Ports]) -> Iterator[Cluster]:
    ports = [port_blocks(), port_blocks()]
    grpc_port = ports[0].grpc("receiver")
    receivers = f"ipv4:{HOST}:{suite.ports.grpc('receiver')},{HOST}:{grpc_port}"

    def replica(service: str, of: Ports, *module: str, **changes: str) -> Replica:
        return Replica(suite, service, of.operations(service), *module, **changes)

    replicas = [
        replica("receiver", ports[0], "services.ingest", "receiver", PULSEGATE_GRPC_PORT=str(grpc_port)),
        replica("aggregator", ports[0], "services.ingest", "aggregator"),
        *(
            replica(
                "gateway", of, "services.gateway", PULSEGATE_PORT=str(of.public), PULSEGATE_INGEST_ADDRESS=receivers
            )
            for of in ports
        ),
    ]
    with ExitStack() as stack:
        for each in replicas:
            stack.enter_context(running(each))
        yield Cluster(replicas, [f"http://{HOST}:{of.public}" for of in ports])


async def _restart_each(suite: Suite, cluster: Cluster, load: BalancedLoad) -> None:
    for service in SERVICES:
        pid = suite.kill(service.name, signal.SIGTERM)
        await asyncio.to_thread(suite.wait_restarted, service.name, pid)
        await _goes_on(load)
    for replica in cluster.replicas:
        await asyncio.to_thread(replica.stop)
        replica.start()
        await asyncio.to_thread(replica.wait_ready)
        await _goes_on(load)


async def _goes_on(load: BalancedLoad) -> None:
    """Through each gateway, which then knows the key: without auth only known ones go on."""
    enough = {gateway: load.taken[gateway] + 10 for gateway in load.gateways}

    async def reached() -> bool:
        return all(load.taken[gateway] >= count for gateway, count in enough.items())

    await eventually(reached, within_seconds=30, what="each gateway acknowledges more batches")


async def test_every_service_restarts_under_load_and_no_request_fails(
    suite: Suite, project: Project, cluster: Cluster
) -> None:
    going_on = True
    async with aiohttp.ClientSession() as session:
        gateways = [Api(session, address) for address in cluster.gateways]
        load = BalancedLoad(project, undefined=False, gateways=gateways)
        await load.define()
        async with load.looking(), asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(producers=4, batches=10, going_on=lambda: going_on))
            await _goes_on(load)
            await _restart_each(suite, cluster, load)
            going_on = False
        assert not load.failed, Counter(load.failed)
        await load.adds_up()
