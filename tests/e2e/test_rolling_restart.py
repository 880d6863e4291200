"""Every service is restarted under load, one after the other: no request fails, and totals stay exact."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import aiohttp
import pytest

from deploy.local.layout import Ports
from deploy.local.servers import HOST
from deploy.local.services import SERVICES
from tests.e2e.api import Api, Project
from tests.e2e.balanced_load import BalancedLoad
from tests.e2e.replicas import Replica, running
from tests.suite_running import Suite

pytestmark = pytest.mark.timeout(600)


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

    def gateway(of: Ports) -> Replica:
        told = {"PULSEGATE_PORT": str(of.public), "PULSEGATE_INGEST_ADDRESS": receivers}
        # Longer than the load takes to notice.
        return replica("gateway", of, "services.gateway", PULSEGATE_UNREADY_SECONDS="4", **told)

    replicas = [
        replica("receiver", ports[0], "services.ingest", "receiver", PULSEGATE_GRPC_PORT=str(grpc_port)),
        replica("aggregator", ports[0], "services.ingest", "aggregator"),
        *map(gateway, ports),
    ]
    with ExitStack() as stack:
        for each in replicas:
            stack.enter_context(running(each))
        yield Cluster(replicas, [f"http://{HOST}:{of.public}" for of in ports])


async def _restart_each(suite: Suite, cluster: Cluster, load: BalancedLoad) -> None:
    for service in SERVICES:
        pid = suite.kill(service.name, signal.SIGTERM)
        await asyncio.to_thread(suite.wait_restarted, service.name, pid)
        await load.goes_on()
    for replica in cluster.replicas:
        await asyncio.to_thread(replica.stop)
        replica.start()
        await asyncio.to_thread(replica.wait_ready)
        await load.goes_on()


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
            await load.goes_on()
            await _restart_each(suite, cluster, load)
            going_on = False
        assert not load.failed, Counter(load.failed)
        await load.adds_up()
