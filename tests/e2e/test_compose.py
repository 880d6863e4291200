"""What the Compose file says is what is run: it counts exactly, and its canary agrees."""

import dataclasses
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from deploy.local.authority import Authority
from deploy.local.bootstrap import SCHEMAS
from deploy.local.servers import Nats, Prometheus, Valkey
from tests import compose_file
from tests.e2e import flying_canary
from tests.e2e.api import Api, sign_up
from tests.kubelet import Cluster, Secrets
from tests.suite_database import Database
from tests.suite_servers import RunningServer

pytestmark = pytest.mark.timeout(180)


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


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("an authority", datetime.now(UTC))


@pytest.fixture
def tls_files(authority: Authority) -> dict[str, str]:
    """What the operator puts into ./tls."""
    leaf = authority.issue("metrics.example.com", now=datetime.now(UTC), life=timedelta(hours=1))
    return {"tls.crt": leaf.certificate.decode(), "tls.key": leaf.key.decode()}


@pytest.fixture
def tls(authority: Authority) -> ssl.SSLContext:
    """Believes the authority, of a server at any address."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.check_hostname = False
    return context


@pytest.fixture
def cluster(
    secrets: dict[str, str],
    tls_files: dict[str, str],
    prometheus_server: RunningServer[Prometheus],
    data_folder: Path,
) -> Iterator[Cluster]:
    rendered = compose_file.rendered({"http://prometheus:9090": prometheus_server.server.url})
    held: Secrets = {compose_file.SECRET: secrets, compose_file.TLS_SECRET: tls_files}
    with Cluster(rendered, held, data_folder / "compose") as cluster:
        cluster.run_jobs()
        yield cluster


async def test_what_compose_runs_counts_exactly_with_and_without_tls(cluster: Cluster, tls: ssl.SSLContext) -> None:
    pods = cluster.place([pod for pod in cluster.rendered.services() if pod.component != "canary"])
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.wait_ready()
    gateway, gateway_tls = (
        next(pod for pod in pods if pod.pod.component == name) for name in ("gateway", "gateway-tls")
    )
    by_tls = aiohttp.TCPConnector(ssl=tls)
    async with aiohttp.ClientSession() as session, aiohttp.ClientSession(connector=by_tls) as encrypted:
        project = await sign_up(Api(session, f"http://{gateway.address}:{gateway.port('public')}"))
        await project.define("composed_total")
        other = Api(encrypted, f"https://{gateway_tls.address}:{gateway_tls.port('public')}")
        for door in (project, dataclasses.replace(project, api=other)):
            sent = await door.send({"name": "composed_total", "value": 3}, producer=project.id, sequence=1)
            assert sent.status == 202, sent.text
        await project.shows("composed_total", 3, within_seconds=60)
    await flying_canary.finds_everything_once(cluster, gateway, secret=compose_file.SECRET, key="canary_key")
    assert {pod.stop() for pod in pods} == {0}
