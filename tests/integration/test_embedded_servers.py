"""The backing servers as the embedded stack configures them: closed to strangers, durable, restartable."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nats
import psycopg
import pytest
import redis
from nats.errors import Error as NatsError
from nats.js.api import StreamConfig
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.local.bootstrap import DATABASE, SCHEMAS, SIGN_IN_ROLES, bootstrap
from deploy.local.layout import CHECKOUT, Ports
from deploy.local.programs import port_is_free
from deploy.local.servers import HOST, Nats, Postgres, Prometheus, Valkey
from tests.suite_database import Database
from tests.suite_servers import RunningServer, running
from tests.waiting import wait_for


def test_postgres_refuses_a_wrong_password(postgres_server: RunningServer[Postgres]) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres_server.server.dsn(password="wrong"))


def test_the_callers_settings_of_libpq_do_not_matter(
    postgres_server: RunningServer[Postgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "require")
    with psycopg.connect(postgres_server.server.dsn()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_postgres_sorts_by_code_point_and_has_its_own_uuidv7(postgres_server: RunningServer[Postgres]) -> None:
    with psycopg.connect(postgres_server.server.dsn()) as connection:
        row = connection.execute("SELECT 'Z' < 'a', lower('Ä'), uuid_extract_version(uuidv7())").fetchone()
    assert row == (True, "ä", 7)


@pytest.mark.parametrize("process_id", [str(os.getpid()), ""], ids=["foreign", "lost"])
def test_postgres_starts_again_after_a_kill(postgres_server: RunningServer[Postgres], process_id: str) -> None:
    with postgres_server.away():
        pid_file = postgres_server.server.folder.resolve() / "cluster" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([process_id, *lines[1:]]) if process_id else "")
    with psycopg.connect(postgres_server.server.dsn()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_valkey_refuses_strangers_and_takes_no_snapshots(valkey_server: RunningServer[Valkey]) -> None:
    server = valkey_server.server
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(host=HOST, port=server.port, retry=Retry(NoBackoff(), 0)).ping()
    with redis.Redis.from_url(server.url) as client:
        client.set("a", "1")
        assert client.config_get("save", "appendonly") == {"save": "", "appendonly": "yes"}


def test_valkey_remembers_through_a_kill(valkey_server: RunningServer[Valkey]) -> None:
    with redis.Redis.from_url(valkey_server.server.url, retry=Retry(NoBackoff(), 0)) as client:
        client.set("a", "1")
        with valkey_server.away(), pytest.raises(redis.ConnectionError):
            client.get("a")
        assert client.get("a") == b"1"


async def test_nats_refuses_strangers(nats_server: RunningServer[Nats]) -> None:
    with pytest.raises(NatsError):
        await nats.connect(
            f"nats://{HOST}:{nats_server.server.port}",
            allow_reconnect=False,
            max_reconnect_attempts=0,
            connect_timeout=2,
        )


async def test_what_nats_has_acknowledged_survives_a_kill(nats_server: RunningServer[Nats]) -> None:
    client = await nats.connect(nats_server.server.url, reconnect_time_wait=0.1)
    stream = client.jetstream()
    await stream.add_stream(StreamConfig(name="KEPT", subjects=["kept"]))
    for number in range(20):
        await stream.publish("kept", b"%d" % number)
    with nats_server.away():
        pass
    wait_for_info = await nats.connect(nats_server.server.url)
    info = await wait_for_info.jetstream().stream_info("KEPT")
    assert info.state.messages == 20
    await wait_for_info.jetstream().delete_stream("KEPT")
    await wait_for_info.close()
    await client.close()


@pytest.mark.parametrize("name", ['jürgen "日本" 😀 \\ #1', "my[app] * \\?"])
def test_servers_start_in_a_folder_whose_name_needs_quoting(
    data_folder: Path, port_blocks: Callable[[], Ports], prometheus_binary: Path, name: str
) -> None:
    folder, ports = data_folder / name, port_blocks()
    folder.mkdir()
    valkey = Valkey(folder=folder / "valkey", port=ports.server("valkey"), password="p", log=folder / "valkey.log")
    with running(valkey), redis.Redis.from_url(valkey.url) as client:
        assert client.config_get("dir") == {"dir": str(valkey.folder.resolve())}
        assert client.config_get("bind") == {"bind": HOST}
    log = Nats(
        folder=folder / "nats",
        port=ports.server("nats"),
        monitoring_port=ports.server("nats-monitoring"),
        password="p",
        log=folder / "nats.log",
    )
    with running(log):
        assert (log.folder / "jetstream").is_dir()
    rules = folder / "rules"
    rules.mkdir()
    (rules / "one.yaml").write_text("groups: [{name: g, rules: [{record: a, expr: vector(1)}]}]")
    series = Prometheus(
        binary=prometheus_binary,
        folder=folder / "prometheus",
        port=ports.server("prometheus"),
        log=folder / "p.log",
        rules=rules,
    )
    with running(series):
        assert (series.folder / "series").is_dir()
        assert b'"name":"g"' in _answer(series, "/api/v1/rules")


def _answer(server: Prometheus, path: str) -> bytes:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse().read()
    connection.close()
    return answer


def test_prometheus_takes_remote_write_and_late_samples(prometheus_server: RunningServer[Prometheus]) -> None:
    flags = _answer(prometheus_server.server, "/api/v1/status/flags")
    assert b'"web.enable-remote-write-receiver":"true"' in flags
    configuration = _answer(prometheus_server.server, "/api/v1/status/config")
    assert b"out_of_order_time_window: 8d" in configuration.replace(b"1w1d", b"8d")


class TestBootstrap:
    @pytest.fixture
    def database_name(self, postgres_server: RunningServer[Postgres]) -> str:
        bootstrap(postgres_server.server, DATABASE, dict.fromkeys(SIGN_IN_ROLES, "p"))
        bootstrap(postgres_server.server, DATABASE, {role: f"{role}-only-for-tests" for role in SIGN_IN_ROLES})
        return DATABASE

    @pytest.mark.parametrize("service", SCHEMAS)
    def test_a_runtime_role_owns_nothing_and_bypasses_nothing(
        self, service: str, database_name: str, postgres_server: RunningServer[Postgres]
    ) -> None:
        dsn = postgres_server.server.dsn(database_name, user=service, password=f"{service}-only-for-tests")
        with psycopg.connect(dsn, autocommit=True) as connection:
            row = connection.execute(
                "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb, current_schema() FROM pg_roles"
                " WHERE rolname = current_user"
            ).fetchone()
            assert row == (False, service)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("CREATE TABLE t ()")
            for other in set(SCHEMAS) - {service}:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(f"CREATE TABLE {other}.t ()")

    def test_a_door_must_be_entered(self, database_name: str, postgres_server: RunningServer[Postgres]) -> None:
        server = postgres_server.server
        with psycopg.connect(
            server.dsn(database_name, user="auth_owner", password="auth_owner-only-for-tests")
        ) as owner:
            owner.execute("CREATE TABLE doors_only ()")
            owner.execute("GRANT SELECT ON doors_only TO auth_feed")
        with psycopg.connect(server.dsn(database_name, user="auth", password="auth-only-for-tests")) as runtime:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                runtime.execute("SELECT FROM doors_only")
            runtime.rollback()
            runtime.execute("SET LOCAL ROLE auth_feed")
            runtime.execute("SELECT FROM doors_only")
            runtime.rollback()
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                runtime.execute("SET LOCAL ROLE config_feed")


def test_a_server_ends_with_the_process_that_started_it(data_folder: Path, server_ports: Ports) -> None:
    folder = data_folder / "orphan"
    folder.mkdir()
    port = server_ports.public
    starting = f"""
import pathlib, time
from deploy.local.servers import Valkey
folder = pathlib.Path({str(folder)!r})
server = Valkey(folder=folder, port={port}, password="p", log=folder / "log")
server.prepare()
server.program().start()
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", starting], cwd=CHECKOUT)
    wait_for(lambda: not port_is_free(port), within_seconds=60, what="the server listens")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: port_is_free(port), within_seconds=60, what="the server is gone")


def test_a_fresh_database_is_cheap(database: Database) -> None:
    with psycopg.connect(database.superuser_dsn) as connection:
        schemas = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s)", (list(SCHEMAS),))
        assert {row[0] for row in schemas} == set(SCHEMAS)
