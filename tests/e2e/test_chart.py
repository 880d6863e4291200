"""What the chart says is what is run: it counts exactly, and an upgrade under load fails no request.

The new version has migrations that the old one does not know: old pods go on with a schema that is ahead of them.
"""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from chassis.ids import uuid7
from deploy.local.bootstrap import SCHEMAS
from deploy.local.servers import Nats, Prometheus, Valkey
from deploy.local.services import CANARY
from tests import next_version
from tests.chart_rendering import Pod, Values, render
from tests.e2e import flying_canary
from tests.e2e.api import Api, Project, sign_up
from tests.e2e.balanced_load import BalancedLoad
from tests.kubelet import Cluster, RunningPod, Secrets
from tests.suite_database import Database
from tests.suite_servers import RunningServer
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(600)

#: The components, in the order in which the upgrade comes to them here.
_UPGRADED = ("auth", "config", "codegen", "aggregator", "receiver", "gateway")


@pytest.fixture
def secrets(
    unmigrated_database: Database, nats_server: RunningServer[Nats], valkey_server: RunningServer[Valkey]
) -> Secrets:
    """The Secret that docs/install-kubernetes.md has the installer make."""
    dsns = {f"{schema}-dsn": unmigrated_database.dsn(schema) for schema in SCHEMAS}
    owner_dsns = {f"{schema}-owner-dsn": unmigrated_database.owner_dsn(schema) for schema in SCHEMAS}
    return {
        "pulsegate": {
            "service-token": "a-token-that-all-services-share",
            "auth-master-key": "A" * 43 + "=",
            "gateway-sealing-key": "a-secret-that-gateways-share",
            "nats-url": nats_server.server.url,
            "valkey-url": valkey_server.server.url,
            **dsns,
            **owner_dsns,
        }
    }


@pytest.fixture
def values(prometheus_server: RunningServer[Prometheus]) -> Values:
    """One of each, and two of what a rolling upgrade cannot do without; an end takes no longer than a test may.

    Gateways say that they are not ready for longer than `BalancedLoad` takes to notice.
    """
    return {
        "prometheusUrl": prometheus_server.server.url,
        "sinks": {"remoteWriteUrl": f"{prometheus_server.server.url}/api/v1/write"},
        "log": {"stream": f"CHART_{uuid7()}"},
        "defaults": {"replicas": 1, "shutdown": {"preStopSeconds": 1, "unreadySeconds": 4, "drainSeconds": 5}},
        "gateway": {"replicas": 2, "settings": {"PULSEGATE_AUTH_REQUESTS_PER_MINUTE": 1000}},
        "receiver": {"replicas": 2},
        "canary": {"enabled": True, "settings": {"PULSEGATE_CANARY_INTERVAL_SECONDS": 0.1}},
    }


@pytest.fixture
def cluster(values: Values, secrets: Secrets, data_folder: Path) -> Iterator[Cluster]:
    with Cluster(render(values), secrets, data_folder / "chart") as cluster:
        cluster.run_jobs()
        yield cluster


def _run(pods: list[RunningPod]) -> None:
    """All at once, as a cluster starts them: each waits for what it needs."""
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.wait_ready()


def _address(gateway: RunningPod) -> str:
    return f"http://{gateway.address}:{gateway.port('public')}"


@pytest.fixture
def newer(tmp_path: Path) -> Callable[[Pod, str, Cluster], RunningPod]:
    """Pods of the next version's images."""
    return partial(RunningPod, tree=next_version.written(tmp_path))


async def test_what_the_chart_runs_counts_exactly_through_an_upgrade(
    cluster: Cluster, values: Values, newer: Callable[[Pod, str, Cluster], RunningPod]
) -> None:
    old = cluster.place(_without_canary(cluster.rendered.services()))
    upgraded = render({**values, "image": {"tag": "0.2.0"}})
    new = cluster.place_as(newer, _without_canary(upgraded.services()))
    again = cluster.place([pod.pod for pod in _of("aggregator", old)])
    _run(old)
    going_on = True
    async with aiohttp.ClientSession() as session:
        gateways = [Api(session, _address(pod)) for pod in _of("gateway", [*old, *new])]
        load = BalancedLoad(await sign_up(gateways[0]), undefined=False, gateways=gateways)
        await load.define()
        # So often that every statement is prepared, on each connection: that is kept while tables change.
        await _manage(load.project, "early", rounds=15)
        async with load.looking(), asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(producers=2, batches=25, going_on=lambda: going_on))
            migrations = cluster.place_as(newer, upgraded.jobs())
            await asyncio.gather(*(asyncio.to_thread(migration.run) for migration in migrations))
            # As after an eviction: what an old pod makes at its start, it makes of the newer schema now.
            await _upgrade(_of("aggregator", old), again, load)
            await _manage(await sign_up(gateways[0]), "late", rounds=5)
            for component in _UPGRADED:
                leaving = again if component == "aggregator" else _of(component, old)
                await _upgrade(leaving, _of(component, new), load)
            going_on = False
        assert not load.failed, Counter(load.failed)
        load.project = dataclasses.replace(load.project, api=gateways[-1])
        await load.adds_up()
    (*_, gateway) = _of("gateway", new)
    await flying_canary.finds_everything_once(cluster, gateway, secret="pulsegate-canary", key="canary-key")
    assert await asyncio.gather(*(asyncio.to_thread(pod.stop) for pod in new)) == [0] * len(new)


async def _manage(project: Project, name: str, *, rounds: int) -> None:
    """What somebody does in the console."""
    metrics = f"/api/v1/projects/{project.id}/metrics"
    for number in range(rounds):
        made = await project.define(f"{name}_{number}_total")
        for path in (metrics, f"{metrics}/{made['id']}"):
            await project.api.expect(200, "GET", path, credential=project.token)


def _without_canary(pods: list[Pod]) -> list[Pod]:
    """It comes with a second step, for which the rest must run."""
    return [pod for pod in pods if pod.component != CANARY.name]


def _of(component: str, pods: list[RunningPod]) -> list[RunningPod]:
    return [pod for pod in pods if pod.pod.component == component]


async def _upgrade(old: list[RunningPod], new: list[RunningPod], load: BalancedLoad) -> None:
    """As `maxSurge: 1, maxUnavailable: 0` has it: one more that is ready, then one less; and on it goes."""
    for leaving, coming in zip(old, new, strict=True):
        coming.start()
        await asyncio.to_thread(coming.wait_ready)
        assert await asyncio.to_thread(leaving.stop) == 0
        enough = load.acknowledged + 20

        async def goes_on(count: int = enough) -> bool:
            return load.acknowledged >= count

        await eventually(goes_on, within_seconds=60, what="batches are acknowledged")
