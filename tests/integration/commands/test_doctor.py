"""What `pulsegate doctor` says of servers that are not as they should be, asked themselves."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from contracts.pulsegate.ingest.v1.remote_write_pb2 import WriteRequest
from deploy.local.layout import Ports
from deploy.local.programs import Program
from deploy.local.secrets import write_private
from deploy.local.servers import Nats, Postgres, Prometheus, Valkey
from pulsegate.doctor import Finding, findings, unasked
from pulsegate.installation import SCHEMAS, Installation
from pulsegate.observation import fetched
from tests.remote_writing import add_series, write
from tests.suite_database import Database
from tests.suite_servers import RunningServer, running
from tests.waiting import wait_for


@pytest.fixture
def careless_nats(tmp_path: Path, port_blocks: Callable[[], Ports]) -> Iterator[str]:
    """The monitoring address of a server with JetStream as it is when nobody has said what Pulsegate needs."""
    ports = port_blocks()
    monitoring = ports.server("nats-monitoring")
    program = Path(sys.executable).parent / "nats-server"
    flags = ["--jetstream", "--store_dir", str(tmp_path), "--addr", "127.0.0.1"]
    command = [str(program), *flags, "--port", str(ports.server("nats")), "--http_port", str(monitoring)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        address = f"http://127.0.0.1:{monitoring}"
        wait_for(lambda: fetched(f"{address}/healthz")[0] == 200, what="NATS answers")
        yield address
        server.terminate()


NOWHERE = "http://127.0.0.1:9"


def _said(about: str, *, database: str = "postgresql://127.0.0.1:9/nowhere", **elsewhere: Any) -> list[str]:
    """What is found that has these words; the rest of the installation is nowhere."""
    told = {"processes": {}, "owners": {}, "nats": "", "prometheus": NOWHERE, **elsewhere}
    return [found.what for found in findings(Installation(database=database, **told)) if about in found.what]


def _said_of_the_log(*monitoring: str) -> list[str]:
    return _said("NATS", nats_monitoring=monitoring)


def test_a_server_that_does_not_sync_each_write_or_refuses_large_ones_is_named(
    nats_server: RunningServer[Nats], careless_nats: str
) -> None:
    right = f"http://127.0.0.1:{nats_server.server.monitoring_port}"
    assert _said_of_the_log(right, careless_nats) == [
        f"the NATS at {careless_nats} does not sync each write",
        f"the NATS at {careless_nats} takes messages of {1 << 20} bytes",
    ]


def test_a_server_that_does_not_answer_is_named() -> None:
    (said,) = _said_of_the_log(NOWHERE)
    assert said.startswith("NATS' monitoring does not answer at http://127.0.0.1:9 (")


@pytest.fixture
def careless_valkey(tmp_path: Path, port_blocks: Callable[[], Ports]) -> Iterator[Valkey]:
    port = port_blocks().server("valkey")
    with running(CarelessValkey(folder=tmp_path / "v", port=port, password="", log=tmp_path / "valkey.log")) as started:
        yield started.server


class CarelessValkey(Valkey):
    """As it is when nobody has said what Pulsegate needs, in little memory."""

    def prepare(self) -> None:
        super().prepare()
        write_private(self._configuration, f"port {self.port}\nbind 127.0.0.1\nsave ''\nmaxmemory 100mb\n")


def test_a_valkey_that_forgets_is_told(valkey_server: RunningServer[Valkey], careless_valkey: Valkey) -> None:
    assert _said("Valkey", valkey=valkey_server.server.url) == []
    assert _said("Valkey", valkey=careless_valkey.url) == [
        "Valkey runs with appendonly = no",
        f"Valkey may take {100 << 20} bytes of memory",
        "Valkey runs with maxmemory-policy = noeviction",
    ]


def test_a_valkey_that_does_not_answer_or_does_not_know_who_asks_is_told(
    valkey_server: RunningServer[Valkey],
) -> None:
    strange = f"redis://:hunter2@127.0.0.1:{valkey_server.server.port}"
    for address in (strange, "redis://:hunter2@127.0.0.1:9"):
        (said,) = _said("Valkey", valkey=address)
        assert said.startswith("Valkey does not say how it is set: ")
        assert "hunter2" not in said


@pytest.fixture
def careless_postgres(tmp_path: Path, port_blocks: Callable[[], Ports]) -> Iterator[Postgres]:
    settings = {"fsync": "off", "full_page_writes": "off", "max_connections": "69"}
    folder = tmp_path / "postgres"
    port = port_blocks().server("postgres")
    with running(
        Postgres(folder=folder, port=port, password="only-here", log=tmp_path / "postgres.log", settings=settings)
    ) as started:
        yield started.server


def test_a_postgres_that_may_lose_what_was_written_or_take_too_few_and_has_no_tables_is_told(
    careless_postgres: Postgres,
) -> None:
    assert _said("", database=careless_postgres.dsn()) == [
        "Postgres runs with fsync = off",
        "Postgres runs with full_page_writes = off",
        "Postgres takes 69 connections",
        *(f"the schema {schema} was never migrated" for schema in SCHEMAS),
        *_said("Prometheus"),
    ]


def _open_pools(prometheus: str, instance: str, **also: str) -> None:
    """One process a service, as they say of themselves; and what a tenant says."""
    now_ms, request = time.time_ns() // 1_000_000, WriteRequest()
    name = "pulsegate_postgres_pool_connections"
    for job, most in {"auth": 16, "config": 14, "codegen": 10, "receiver": 10, "aggregator": 13}.items():
        of_process = {"__name__": name, "job": job, "instance": instance, "pool": "main", **also}
        add_series(request, {**of_process, "state": "max"}, (now_ms, most))
        add_series(request, {**of_process, "state": "size"}, (now_ms, 1))
        add_series(request, {**of_process, "state": "max", "tenant_id": "t"}, (now_ms, 1000))
    write(prometheus, request)


@pytest.fixture
def scraping(prometheus_binary: Path, tmp_path: Path, port_blocks: Callable[[], Ports]) -> Iterator[Prometheus]:
    """One that nobody else writes to."""
    port = port_blocks().server("prometheus")
    folder, log = tmp_path / "prometheus", tmp_path / "prometheus.log"
    with running(Prometheus(binary=prometheus_binary, folder=folder, port=port, log=log)) as started:
        yield started.server


@pytest.fixture
def hundred(tmp_path: Path, port_blocks: Callable[[], Ports]) -> Iterator[Postgres]:
    """One that takes a hundred connections."""
    settings = {"max_connections": "100"}
    folder, log = tmp_path / "postgres", tmp_path / "postgres.log"
    port = port_blocks().server("postgres")
    with running(Postgres(folder=folder, port=port, password="only-here", log=log, settings=settings)) as started:
        yield started.server


def test_a_postgres_that_takes_fewer_connections_than_the_processes_that_are_up_may_open_is_told(
    scraping: Prometheus, hundred: Postgres
) -> None:
    installation = Installation(processes={}, database=hundred.dsn(), owners={}, nats="", prometheus=scraping.url)

    def said() -> list[Finding]:
        return [found for found in findings(installation) if "connections" in found.what]

    _open_pools(scraping.url, "first")
    assert said() == []
    _open_pools(scraping.url, "second")
    (found,) = said()
    assert found.what == "Postgres takes 100 connections"
    assert "Set max_connections to 129 or more" in found.remedy, "twice 63, and what superusers keep"


def test_of_several_installations_none_is_judged_by_another(scraping: Prometheus, hundred: Postgres) -> None:
    of_staging, request = {"namespace": "staging", "job": "auth"}, WriteRequest()
    for name in ("pulsegate_dependency_up", "pulsegate:objective_budget"):
        add_series(request, {"__name__": name, **of_staging}, (time.time_ns() // 1_000_000, 1))
    write(scraping.url, request)
    for instance in ("first", "second"):
        _open_pools(scraping.url, instance, namespace="staging")

    def said(namespace: str) -> list[str]:
        told = _said("", database=hundred.dsn(), prometheus=scraping.url, namespace=namespace)
        return [each for each in told if "migrated" not in each]

    assert said("staging") == ["Postgres takes 100 connections"]
    assert said("production") == [
        "Prometheus does not scrape Pulsegate in the namespace production",
        "Prometheus has no rules of Pulsegate in the namespace production: nobody is woken",
    ]

    of_files = WriteRequest()  # rules that are read as they are name no namespace
    add_series(of_files, {"__name__": "pulsegate:objective_budget"}, (time.time_ns() // 1_000_000, 1))
    write(scraping.url, of_files)
    assert said("production") == ["Prometheus does not scrape Pulsegate in the namespace production"]


def test_a_postgres_that_does_not_answer_is_told() -> None:
    (said,) = _said("Postgres")
    assert said.startswith("Postgres does not answer: ")


def test_a_schema_that_is_behind_is_told(database: Database) -> None:
    assert _said("schema", database=database.superuser_dsn) == []
    with psycopg.connect(database.superuser_dsn) as connection:
        [(newest,)] = connection.execute("SELECT max(number) FROM config.schema_migrations").fetchall()
        connection.execute("DELETE FROM config.schema_migrations WHERE number = %s", (newest,))
    assert _said("schema", database=database.superuser_dsn) == [
        f"the schema config is at migration {newest - 1}, this version needs {newest}"
    ]


def test_a_clock_that_is_off_is_told(database: Database) -> None:
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
            " AS $$ SELECT pg_catalog.clock_timestamp() + interval '1 hour' $$"
        )
        first = sql.SQL("ALTER DATABASE {} SET search_path = public, pg_catalog")
        connection.execute(first.format(sql.Identifier(database.name)))
    (said,) = _said("clock", database=database.superuser_dsn)
    assert re.fullmatch(r"this machine's clock and that of Postgres differ by 3[56]\d\d\.\d s", said)


class BarePrometheus(Prometheus):
    """As somebody starts it who has not read what Pulsegate needs."""

    def prepare(self) -> None:
        super().prepare()
        write_private(self._configuration, "{}")

    def program(self) -> Program:
        program = super().program()
        unread = re.compile("remote-write|retention")
        return replace(program, argv=tuple(word for word in program.argv if not unread.search(word)))


def test_a_prometheus_that_scrapes_and_evaluates_nothing_is_told_and_a_sink_that_takes_nothing(
    prometheus_binary: Path,
    prometheus_server: RunningServer[Prometheus],
    tmp_path: Path,
    port_blocks: Callable[[], Ports],
) -> None:
    port = port_blocks().server("prometheus")
    bare = BarePrometheus(binary=prometheus_binary, folder=tmp_path / "p", port=port, log=tmp_path / "prometheus.log")
    with running(bare):
        assert _said("Prometheus", prometheus=bare.url) == [
            "Prometheus does not scrape Pulsegate",
            "Prometheus has no rules of Pulsegate: nobody is woken",
            "Prometheus keeps 15d of history",
        ]
        assert _said("history", prometheus=prometheus_server.server.url) == []
        assert _said("the sink", prometheus=bare.url, sink=bare.url) == [
            "the sink takes no remote write",
            "the sink has no out_of_order_time_window",
        ]
        assert _said("the sink", prometheus=bare.url, sink=prometheus_server.server.url) == []
    assert [each.split(" (")[0] for each in _said("Prometheus", prometheus=bare.url, sink=bare.url)] == [
        "Prometheus does not answer",
        "the sink does not answer as a Prometheus",
    ]


def test_a_sink_that_refuses_native_histograms_is_told_where_some_are_defined(
    prometheus_server: RunningServer[Prometheus], classic_prometheus: RunningServer[Prometheus], database: Database
) -> None:
    def said(sink: RunningServer[Prometheus]) -> list[str]:
        return _said("native histograms", database=database.superuser_dsn, sink=sink.server.url)

    assert said(classic_prometheus) == []
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute(
            "INSERT INTO config.metrics (tenant_id, project_id, id, name, type, unit, help, labels, buckets,"
            " objectives, native_histogram, version, revision)"
            " VALUES (uuidv7(), uuidv7(), uuidv7(), 'wait_seconds', 'histogram', 'seconds', '', '[]', '{}',"
            " '{}', true, 1, 1)"
        )
    assert said(classic_prometheus) == ["the sink refuses native histograms, which are defined"]
    assert said(prometheus_server) == []


def test_what_is_not_asked_for_want_of_an_address_is_told() -> None:
    nowhere = Installation(processes={}, database="", owners={}, nats="", prometheus=NOWHERE)
    assert [each.split(":")[0] for each in unasked(nowhere)] == [
        "whether NATS syncs each write and takes large batches",
        "whether Valkey keeps answers through a restart",
        "whether the sink takes what an outage has delayed",
    ]
    assert list(unasked(replace(nowhere, nats_monitoring=(NOWHERE,), valkey="redis://nowhere", sink=NOWHERE))) == []
    (first, *_) = unasked(replace(nowhere, prometheus=""))
    assert first.startswith("whether Postgres takes all connections that processes may open: ")
