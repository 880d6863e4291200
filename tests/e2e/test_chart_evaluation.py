"""The evaluation profile: its servers run with the files that the chart makes, and the services count exactly on them.

Services speak mutual TLS here, with certificates of an issuer that reads the chart's Certificates.
"""

import base64
import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import nats
import nats.errors
import psycopg
import pytest
import redis

from deploy.local.authority import Authority
from deploy.local.bootstrap import SIGN_IN_ROLES
from deploy.local.services import CANARY
from pulsegate.observation import fetched
from tests import evaluation_servers
from tests.chart_rendering import Rendered, render
from tests.e2e.api import Api, sign_up
from tests.evaluation_servers import Server
from tests.kubelet import Cluster, Secrets

pytestmark = pytest.mark.timeout(240)

_SECRET = "pulsegate-evaluation"


@pytest.fixture(scope="module")
def rendered() -> Rendered:
    return render(
        {
            "evaluation": {"enabled": True},
            "defaults": {"replicas": 1},
            "mtls": {"enabled": True, "issuerRef": {"name": "an-issuer"}},
        }
    )


def _issued(rendered: Rendered) -> Secrets:
    """What cert-manager makes of the Certificates."""
    now = datetime.now(UTC)
    issuer = Authority.new("an issuer", now)
    secrets: Secrets = {}
    for certificate in (each["spec"] for each in rendered.objects("Certificate")):
        leaf = issuer.issue(*certificate["dnsNames"], now=now, life=timedelta(hours=1))
        files = {"tls.crt": leaf.certificate, "tls.key": leaf.key, "ca.crt": issuer.pem}
        secrets[certificate["secretName"]] = {name: text.decode() for name, text in files.items()}
    return secrets


@pytest.fixture(scope="module")
def cluster(rendered: Rendered, data_folder: Path) -> Iterator[Cluster]:
    made = rendered.named("Secret", _SECRET)["data"]
    secrets = {_SECRET: {key: base64.b64decode(text).decode() for key, text in made.items()}, **_issued(rendered)}
    with Cluster(rendered, secrets, data_folder / "evaluation") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def servers(cluster: Cluster, prometheus_binary: Path) -> dict[str, Server]:
    servers = evaluation_servers.place(cluster, prometheus_binary)
    for server in servers.values():
        server.start()
    for server in servers.values():
        server.wait_ready()
    return servers


def _door(server: Server) -> str:
    return f"{server.address}:{server.port(server.name)}"


def test_every_role_signs_in_with_its_password_and_with_no_other(cluster: Cluster, servers: dict[str, Server]) -> None:
    secret, server = cluster.secrets[_SECRET], servers["postgres"]
    host, port = server.address, server.port("postgres")
    passwords = {role: secret[f"role-{role}"] for role in SIGN_IN_ROLES} | {"postgres": secret["postgres-superuser"]}
    for role, password in passwords.items():
        with psycopg.connect(host=host, port=port, dbname="pulsegate", user=role, password=password) as connection:
            found = connection.execute("SELECT current_user, current_schema()").fetchone()
        assert found == (role, "public" if role == "postgres" else role.removesuffix("_owner"))
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(host=host, port=port, dbname="pulsegate", user=role, password=secret["service-token"])


async def test_the_log_and_the_limits_answer_those_who_know_a_password(servers: dict[str, Server]) -> None:
    with pytest.raises(nats.errors.Error, match=r"[Aa]uthorization"):
        await nats.connect(f"nats://{_door(servers['nats'])}", allow_reconnect=False, max_reconnect_attempts=0)
    with (
        redis.Redis.from_url(f"redis://{_door(servers['valkey'])}") as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_a_record_is_on_disk_before_the_log_acknowledges_it(servers: dict[str, Server]) -> None:
    server = servers["nats"]
    monitoring = server.pod.container["readinessProbe"]["httpGet"]["port"]
    _, told = fetched(f"http://{server.address}:{monitoring}/jsz")
    configuration = json.loads(told)["config"]
    assert configuration["sync_always"]
    assert configuration["store_dir"].startswith(str(server.folder("data")))


def test_prometheus_takes_its_configuration_with_every_rule(servers: dict[str, Server], promtool: Path) -> None:
    server = servers["prometheus"]
    file = server.folder("configuration") / "prometheus.yml"
    checked = subprocess.run([promtool, "check", "config", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    _, told = fetched(f"http://{_door(server)}/api/v1/rules")
    loaded = {Path(group["file"]).name for group in json.loads(told)["data"]["groups"]}
    assert loaded == {"canary.yaml", "causes.yaml", "objectives.yaml"}


async def test_the_services_count_exactly_on_them(cluster: Cluster, servers: dict[str, Server]) -> None:
    assert set(servers) == {"postgres", "valkey", "nats", "prometheus"}
    cluster.run_jobs()
    pods = cluster.place([pod for pod in cluster.rendered.services() if pod.component != CANARY.name])
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.wait_ready()
    (gateway,) = (pod for pod in pods if pod.pod.component == "gateway")
    async with aiohttp.ClientSession() as session:
        project = await sign_up(Api(session, f"http://{gateway.address}:{gateway.port('public')}"))
        await project.define("evaluated_total")
        for _ in range(2):
            sent = await project.send({"name": "evaluated_total", "value": 3}, producer=project.id, sequence=1)
            assert sent.status == 202, sent.text
        await project.shows("evaluated_total", 3, within_seconds=60)
