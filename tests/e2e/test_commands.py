"""`pulsegate`: what an operator types, against the running suite."""

import asyncio
import os
import re
import subprocess
import tarfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import nats
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from deploy.local.bootstrap import SCHEMAS
from deploy.local.layout import CHECKOUT, OPERATIONS_PORTS
from deploy.local.servers import postgres_programs
from pulsegate.observation import queried
from services.canary.clients import METRIC
from tests.e2e.api import PASSWORD, Project
from tests.suite_running import Suite
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def proxy_that_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of an installation goes past any proxy of the environment."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


async def _pulsegate(suite: Suite, *arguments: str | Path, file: Path | None = None) -> tuple[int, str]:
    """The status, and what was said; of the data folder, or of the installation that a file describes."""
    where = ("--data", suite.data) if file is None else ("--installation", file)
    process = await asyncio.create_subprocess_exec(
        *(CHECKOUT / "bin" / "pulsegate", *where, *arguments),
        cwd=CHECKOUT,
        env={**os.environ, "PATH": f"{postgres_programs()}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.fixture
def described(suite: Suite, tmp_path: Path) -> Path:
    """The suite as the file that somebody writes who has not started it with `make run`."""
    addresses = {"database": suite.dsn(), **{schema: suite.dsn(f"{schema}_owner") for schema in SCHEMAS}}
    for name, address in {**addresses, "nats": suite.secret("nats_url")}.items():
        (tmp_path / name).write_text(f"{address}\n")
    file = tmp_path / "installation.toml"
    lines = [f'{name} = "{suite.prometheus_url}"' for name in ("prometheus", "sink")]
    lines += [f'{name} = {{file = "{tmp_path / name}"}}' for name in ("database", "nats")]
    lines += ["[processes]"]
    lines += [f'{name} = "http://127.0.0.1:{suite.ports.operations(name)}"' for name in OPERATIONS_PORTS]
    lines += ["[owners]", *(f'{schema} = {{file = "{tmp_path / schema}"}}' for schema in SCHEMAS)]
    file.write_text("\n".join(lines))
    return file


async def test_status_and_doctor_find_a_whole_installation_well_and_say_what_a_broken_one_misses(suite: Suite) -> None:
    suite.wait_ready()

    async def scraped() -> bool:
        return await _pulsegate(suite, "doctor") == (0, "All is well.\n")

    await eventually(scraped, within_seconds=60, what="Prometheus has scraped and evaluated")
    status, said = await _pulsegate(suite, "status")
    assert status == 0, said
    assert all(name in said for name in OPERATIONS_PORTS)
    with suite.paused("valkey"):

        async def misses_redis() -> bool:
            status, said = await _pulsegate(suite, "doctor")
            return status == 1 and "gateway misses redis" in said and "docs/runbooks/" in said

        await eventually(misses_redis, within_seconds=40, what="doctor says that Redis is away")
    await asyncio.to_thread(suite.wait_ready)


async def test_one_process_a_service_may_open_as_many_connections_as_the_guide_counts(suite: Suite) -> None:
    counted = re.search(r"(\d+) for one of each", (CHECKOUT / "docs" / "install-kubernetes.md").read_text())
    assert counted

    async def told() -> bool:
        pools = queried(suite.prometheus_url, 'sum(pulsegate_postgres_pool_connections{tenant_id="",state="max"})')
        return pools == [({}, float(counted[1]))]

    await eventually(told, within_seconds=60, what="Prometheus has scraped all processes")


async def test_migrate_may_be_run_again_at_any_time(suite: Suite, described: Path) -> None:
    for file in (None, described):
        status, said = await _pulsegate(suite, "migrate", file=file)
        assert status == 0, said


async def test_a_key_for_the_canary_writes_and_queries_and_opens_nothing_else(suite: Suite, project: Project) -> None:
    account = ("--email", f"canary-{project.id}@example.com", "--password", PASSWORD)
    keys = []
    for _ in range(2):  # the account is made, and found
        status, said = await _pulsegate(suite, "canary-key", suite.base_url, *account)
        assert status == 0, said
        keys.append(said.strip())
    assert len(set(keys)) == 2
    of_canary = {"name": METRIC, "value": 1, "labels": {"run": "a"}}
    for sequence, key in enumerate(keys, 1):
        sent = await project.send(of_canary, key=key, producer=project.id, sequence=sequence)
        assert sent.status == 202, sent.text
        queried = await project.api.call("GET", "/prometheus/api/v1/query", params={"query": METRIC}, credential=key)
        assert queried.status == 200, queried.text
        refused = await project.api.call("GET", f"/api/v1/projects/{project.id}/metrics", credential=key)
        assert refused.status in {403, 404}, refused.text
    status, said = await _pulsegate(suite, "canary-key", suite.base_url, *account[:-1], "not the password")
    assert status == 1
    assert "answered 401" in said


async def _send_one(project: Project, name: str, *sequences: int) -> None:
    """One more of a counter, by each of these sequence numbers."""
    for sequence in sequences:
        sent = await project.send({"name": name, "value": 1}, producer=project.id, sequence=sequence)
        assert sent.status == 202, sent.text


async def _empty(suite: Suite) -> None:
    """As servers are that were never used."""
    with psycopg.connect(suite.dsn(), autocommit=True) as connection:
        for schema in SCHEMAS:
            connection.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(schema)))
    client = await nats.connect(suite.secret("nats_url"))
    await client.jetstream().delete_stream("PULSEGATE_INGEST")
    await client.close()


@pytest.mark.parametrize("servers", ["the same", "new ones"])
async def test_a_restored_backup_counts_what_it_holds_and_what_clients_send_again_exactly_once(
    suite: Suite, project: Project, tmp_path: Path, described: Path, servers: str
) -> None:
    await project.define("kept_total")
    backup = tmp_path / "pulsegate.backup"

    send = partial(_send_one, project, "kept_total")
    await send(*range(1, 6))
    await project.shows("kept_total", 5)
    with suite.gone("aggregator"):
        await send(6, 7, 8)  # in the log, and in no transaction
        status, said = await _pulsegate(suite, "backup", backup, file=described)
        assert status == 0, said
        assert backup.stat().st_mode & 0o777 == 0o600
    await send(9, 10)
    await project.shows("kept_total", 10)

    refused = await _pulsegate(suite, "restore", "--yes", backup, file=described)
    assert refused[0] == 1
    assert "still running" in refused[1]
    with ExitStack() as stopped:
        for name in OPERATIONS_PORTS:
            stopped.enter_context(suite.gone(name))
        if servers == "new ones":
            await _empty(suite)
        status, said = await _pulsegate(suite, "restore", "--yes", backup, file=described)
        assert status == 0, said
    await asyncio.to_thread(suite.wait_ready)
    await project.shows("kept_total", 8, within_seconds=60)
    await send(*range(1, 11))
    await project.shows("kept_total", 10, within_seconds=60)


async def test_a_backup_is_restored_while_the_servers_of_make_run_run_alone(
    suite: Suite, project: Project, tmp_path: Path
) -> None:
    await project.define("held_total")
    backup = tmp_path / "pulsegate.backup"

    send = partial(_send_one, project, "held_total")
    await send(1, 2, 3)
    await project.shows("held_total", 3)
    status, said = await _pulsegate(suite, "backup", backup)
    assert status == 0, said
    await send(4, 5)
    await project.shows("held_total", 5)
    with suite.servers_alone():
        status, said = await _pulsegate(suite, "status")
        assert (status, said.count(" away ")) == (1, len(OPERATIONS_PORTS)), said
        status, said = await _pulsegate(suite, "restore", "--yes", backup)
        assert status == 0, said
    await project.shows("held_total", 3, within_seconds=60)
    await send(*range(1, 6))
    await project.shows("held_total", 5, within_seconds=60)


async def test_a_support_bundle_holds_what_helps_and_no_secret(suite: Suite, project: Project, tmp_path: Path) -> None:
    canaries = [project.secret_key, project.token, project.refresh_token, project.email, "hunter2-in-a-log"]
    canaries += [path.read_text() for path in (suite.data / "secrets").iterdir() if path.is_file()]
    log = suite.data / "logs" / "gateway.log"
    with log.open("a") as file:
        file.write(f'{{"event": "key {project.secret_key}", "dsn": "postgresql://auth:hunter2-in-a-log@db/x"}}\n')
        file.write(" ".join(canaries[:4]) + "\n")
    bundle = tmp_path / "bundle.tar.gz"
    status, said = await _pulsegate(suite, "support-bundle", bundle)
    assert status == 0, said
    assert bundle.stat().st_mode & 0o777 == 0o600
    assert await _pulsegate(suite, "support-bundle", bundle) == (1, f"Error: {bundle} is there already\n")
    with tarfile.open(bundle) as archive:
        parts = {member.name: archive.extractfile(member) for member in archive}
        texts = {name: file.read().decode() for name, file in parts.items() if file is not None}
    assert {"status.txt", "doctor.txt", "gateway/metrics.txt", "prometheus/rules.json", "logs/receiver.log"} <= set(
        texts
    )
    assert "pulsegate_gateway_batches_under_way" in texts["gateway/metrics.txt"]
    whole = "\n".join(texts.values())
    assert [secret for secret in canaries if secret in whole] == []
