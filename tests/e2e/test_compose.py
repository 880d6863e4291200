"""What the Compose file says is what is run: it counts exactly, and its canary agrees."""

from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from deploy.local.bootstrap import SCHEMAS
from deploy.local.servers import Nats, Prometheus, Valkey
from tests import compose_file
from tests.e2e import flying_canary
from tests.e2e.api import Api, sign_up
from tests.kubelet import Cluster
from tests.suite_database import Database
from tests.suite_servers import RunningServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture
def secrets(
    unmigrated_database: Database,
    nats_server: RunningServer[Nats],
    valkey_server: RunningServer[Valkey],
    tmp_path: Path,
) -> dict[str, str]:
    """Those of secrets.sh, with the addresses of this machine's servers."""
    made = compose_file.secrets(tmp_path)
    here = {"nats_url": nats_server.server.url, "redis_url": valkey_server.server.url}
    for schema in SCHEMAS:
        here[f"{schema}_dsn"] = unmigrated_database.dsn(schema)
        here[f"{schema}_owner_dsn"] = unmigrated_database.owner_dsn(schema)
    assert here.keys() <= made.keys()
    return made | here


@pytest.fixture
def cluster(
    secrets: dict[str, str], prometheus_server: RunningServer[Prometheus], data_folder: Path
) -> Iterator[Cluster]:
    rendered = compose_file.rendered({"http://prometheus:9090": prometheus_server.server.url})
    with Cluster(rendered, {compose_file.SECRET: secrets}, data_folder / "compose") as cluster:
        cluster.run_jobs()
        yield cluster


async def test_what_compose_runs_counts_exactly(cluster: Cluster) -> None:
    pods = cluster.place([pod for pod in cluster.rendered.services() if pod.component != "canary"])
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.wait_ready()
    (gateway,) = (pod for pod in pods if pod.pod.component == "gateway")
    async with aiohttp.ClientSession() as session:
        project = await sign_up(Api(session, f"http://{gateway.address}:{gateway.port('public')}"))
        await project.define("composed_total")
        for _ in range(2):
            sent = await project.send({"name": "composed_total", "value": 3}, producer=project.id, sequence=1)
            assert sent.status == 202, sent.text
        await project.shows("composed_total", 3)
    await flying_canary.finds_everything_once(cluster, gateway, secret=compose_file.SECRET, key="canary_key")
    assert {pod.stop() for pod in pods} == {0}
