"""Looks an installation over and says what is wrong, and what to do."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pulsegate.installation import SCHEMAS, Installation
from pulsegate.observation import decoded, fetched, observed
from pulsegate.status import processes

_CHECKOUT = Path(__file__).resolve().parents[1]
#: Clocks that differ by more make gauges and totals of different processes come in the wrong order.
_MOST_SKEW_SECONDS = 1.0
#: All services together, with one process each: 63, and what Postgres keeps for superusers.
_LEAST_CONNECTIONS = 70
#: That the processes which are up may open.
_CONNECTIONS = 'sum(pulsegate_postgres_pool_connections{tenant_id="",state="max"})'
#: Of a message of NATS; a batch that expands to more than NATS takes is never taken.
_LEAST_PAYLOAD_BYTES = 8_000_000
#: What Valkey needs for limits and for what gateways keep in it.
_LEAST_VALKEY_BYTES = 256_000_000
#: What rules/objectives.yaml reads at once.
_LONGEST_WINDOW_DAYS = 30
_DURATION_PARTS = re.compile(r"(\d+)([ywdh])")
_VERSION = re.compile(r"(\d+)\.(\d+)\.")
_DAYS = {"y": 365, "w": 7, "d": 1, "h": 1 / 24}
_MIGRATE = "Run `pulsegate migrate`, or `helm upgrade` on Kubernetes"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    what: str
    remedy: str


class _Storage(msgspec.Struct):
    sync_always: bool = False


class _Jetstream(msgspec.Struct):
    config: _Storage = msgspec.field(default_factory=_Storage)


class _Server(msgspec.Struct):
    max_payload: int = 0


class _Flags(msgspec.Struct):
    data: dict[str, str]


class _Build(msgspec.Struct):
    version: str = ""


class _BuildInfo(msgspec.Struct):
    data: _Build


class _Runtime(msgspec.Struct, rename="camel"):
    #: such as `15d`, `31d or 1GiB` or `1GiB`
    storage_retention: str = ""


class _RuntimeInfo(msgspec.Struct):
    data: _Runtime


def findings(installation: Installation) -> Iterator[Finding]:
    """Everything that is wrong; nothing where all is well."""
    checks: tuple[Callable[[Installation], Iterator[Finding]], ...] = (
        _processes,
        _postgres,
        _log,
        _valkey,
        _prometheus,
        _sink,
    )
    for check in checks:
        yield from check(installation)


def unasked(installation: Installation) -> Iterator[str]:
    """What was not looked at, since nobody has said where it is."""
    if not installation.prometheus:
        yield "whether Postgres takes all connections that processes may open: name their Prometheus as `prometheus`"
    if not installation.nats_monitoring:
        yield "whether NATS syncs each write and takes large batches: name its monitoring as `nats_monitoring`"
    if not installation.valkey:
        yield "whether Valkey keeps answers through a restart: name its address as `valkey`"
    if not installation.sink:
        yield "whether the sink takes what an outage has delayed: name it as `sink` where it is a Prometheus"


def _processes(installation: Installation) -> Iterator[Finding]:
    for process in processes(installation):
        if process.status == "away":
            yield Finding(
                f"{process.name} does not answer ({process.missing['process']})",
                "Is it running? docs/runbooks/PulsegateProcessGone.md",
            )
            continue
        for name, reason in process.missing.items():
            book = "PulsegateHardDependencyAway" if name in process.hard else "PulsegateBreakerOpen"
            yield Finding(f"{process.name} misses {name}: {reason}", f"docs/runbooks/{book}.md")


def _postgres(installation: Installation) -> Iterator[Finding]:
    try:
        with psycopg.connect(installation.database, connect_timeout=5) as connection:
            yield from _postgres_settings(connection)
            yield from _connections(connection, installation)
            yield from _schemas(connection)
            yield from _clock(connection)
    except psycopg.Error as error:
        yield Finding(
            f"Postgres does not answer: {' '.join(str(error).split())}", "Is the address right, and the server up?"
        )


def _postgres_settings(connection: psycopg.Connection) -> Iterator[Finding]:
    shown: dict[str, str] = dict(
        connection.execute(
            "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes')"
        ).fetchall()
    )
    for name in ("fsync", "full_page_writes"):
        if shown[name] != "on":
            yield Finding(
                f"Postgres runs with {name} = {shown[name]}",
                f"Set {name} = on: without it a power cut may lose or double what was counted.",
            )


def _connections(connection: psycopg.Connection, installation: Installation) -> Iterator[Finding]:
    shown: dict[str, int] = dict(
        connection.execute(
            "SELECT name, setting::int FROM pg_settings"
            " WHERE name IN ('max_connections', 'reserved_connections', 'superuser_reserved_connections')"
        ).fetchall()
    )
    most = shown.pop("max_connections")
    pools = observed(installation, _CONNECTIONS)
    least = max(_LEAST_CONNECTIONS, int(pools[0][1]) + sum(shown.values()) if pools else 0)
    if most < least:
        yield Finding(
            f"Postgres takes {most} connections",
            f"Set max_connections to {least} or more, which the processes that are up may need,"
            " and to twice as many for upgrades, in which old and new ones are up.",
        )


def _schemas(connection: psycopg.Connection) -> Iterator[Finding]:
    for schema in SCHEMAS:
        newest = len(list((_CHECKOUT / "services" / schema / "migrations").glob("*.sql")))
        found = connection.execute("SELECT to_regclass(%s)", (f"{schema}.schema_migrations",)).fetchone()
        if found == (None,):
            yield Finding(f"the schema {schema} was never migrated", f"{_MIGRATE}.")
            continue
        query = psycopg.sql.SQL("SELECT coalesce(max(number), 0) FROM {}.schema_migrations")
        applied = connection.execute(query.format(psycopg.sql.Identifier(schema))).fetchone()
        if applied is not None and applied[0] < newest:
            yield Finding(
                f"the schema {schema} is at migration {applied[0]}, this version needs {newest}",
                f"{_MIGRATE}; older services go on with the new schema.",
            )


def _clock(connection: psycopg.Connection) -> Iterator[Finding]:
    before = time.time()
    answer = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    middle = (before + time.time()) / 2
    skew = abs(answer[0] - middle) if answer else 0.0
    if skew > _MOST_SKEW_SECONDS:
        yield Finding(
            f"this machine's clock and that of Postgres differ by {skew:.1f} s", "Synchronize clocks (NTP) everywhere."
        )


def _log(installation: Installation) -> Iterator[Finding]:
    for address in installation.nats_monitoring:
        status, body = fetched(f"{address}/jsz")
        stored = decoded(body, _Jetstream) if status == 200 else None
        server = decoded(fetched(f"{address}/varz")[1], _Server)
        if stored is None or server is None:
            yield Finding(f"NATS' monitoring does not answer at {address} ({body[:100]})", "Is the address right?")
            continue
        if not stored.config.sync_always:
            yield Finding(
                f"the NATS at {address} does not sync each write",
                "Set jetstream.sync_interval = always: without it a power cut may lose what was answered 202.",
            )
        if server.max_payload < _LEAST_PAYLOAD_BYTES:
            yield Finding(
                f"the NATS at {address} takes messages of {server.max_payload} bytes",
                "Set max_payload = 8MB: without it large batches are answered 503 however often they are sent.",
            )


def _valkey(installation: Installation) -> Iterator[Finding]:
    if not installation.valkey:
        return
    try:
        with redis.Redis.from_url(
            installation.valkey, decode_responses=True, socket_timeout=5, retry=Retry(NoBackoff(), 0)
        ) as client:
            shown = client.config_get("appendonly", "maxmemory", "maxmemory-policy")
    except redis.RedisError as error:
        yield Finding(
            f"Valkey does not say how it is set: {error}",
            "Is the address right, and the server up? Where it has no CONFIG GET, name no `valkey`.",
        )
        return
    yield from _valkey_settings(shown)


def _valkey_settings(shown: Mapping[str, str]) -> Iterator[Finding]:
    if shown["appendonly"] != "yes":
        yield Finding(
            f"Valkey runs with appendonly = {shown['appendonly']}",
            "Set appendonly = yes: without it a POST is carried out again that is sent again after a restart.",
        )
    most_bytes = int(shown["maxmemory"])  # 0: as much as there is
    if 0 < most_bytes < _LEAST_VALKEY_BYTES:
        yield Finding(
            f"Valkey may take {most_bytes} bytes of memory",
            "Set maxmemory to 256mb or more: when it is full, what is kept goes.",
        )
    if most_bytes and shown["maxmemory-policy"] != "volatile-ttl":
        yield Finding(
            f"Valkey runs with maxmemory-policy = {shown['maxmemory-policy']}",
            "Set maxmemory-policy = volatile-ttl: what ends next goes first where memory is full.",
        )


def _prometheus(installation: Installation) -> Iterator[Finding]:
    status, body = fetched(f"{installation.prometheus}/-/ready")
    if status != 200:
        yield Finding(f"Prometheus does not answer ({body[:100]})", "Is the address right, and the server up?")
        return
    where = f" in the namespace {installation.namespace}" if installation.namespace else ""
    if not observed(installation, 'pulsegate_dependency_up{tenant_id=""}'):
        yield Finding(
            f"Prometheus does not scrape Pulsegate{where}",
            "Scrape the operations port of each process, with its name as job.",
        )
    if not observed(installation, 'pulsegate:objective_budget{tenant_id=""}'):
        yield Finding(
            f"Prometheus has no rules of Pulsegate{where}: nobody is woken",
            "Load deploy/helm/pulsegate/files/rules/*.yaml.",
        )
    yield from _history(installation.prometheus)


def _history(prometheus: str) -> Iterator[Finding]:
    told = decoded(fetched(f"{prometheus}/api/v1/status/runtimeinfo")[1], _RuntimeInfo)
    kept = told.data.storage_retention if told else ""  # a server of another kind does not say
    parts = _DURATION_PARTS.findall(kept)
    if parts and sum(int(number) * _DAYS[unit] for number, unit in parts) <= _LONGEST_WINDOW_DAYS:
        yield Finding(
            f"Prometheus keeps {kept} of history",
            f"Set --storage.tsdb.retention.time=90d: objectives are of {_LONGEST_WINDOW_DAYS} days.",
        )


def _sink(installation: Installation) -> Iterator[Finding]:
    if not installation.sink:
        return
    status, body = fetched(f"{installation.sink}/api/v1/status/flags")
    flags = decoded(body, _Flags) if status == 200 else None
    if flags is None:
        yield Finding(
            f"the sink does not answer as a Prometheus ({body[:100]})",
            "Is the address right, and the server up? Where it is of another kind, name no `sink`.",
        )
        return
    if flags.data.get("web.enable-remote-write-receiver") != "true":
        yield Finding("the sink takes no remote write", "Start it with --web.enable-remote-write-receiver.")
    _, configuration = fetched(f"{installation.sink}/api/v1/status/config")
    if "out_of_order_time_window" not in configuration:
        yield Finding(
            "the sink has no out_of_order_time_window",
            "Set storage.tsdb.out_of_order_time_window to more than the longest outage, such as 8d.",
        )
    feature = flags.data.get("enable-feature", "")
    if "native-histograms" not in feature and _needs_feature(installation.sink) and _has_native(installation.database):
        yield Finding(
            "the sink refuses native histograms, which are defined",
            "Start it with --enable-feature=native-histograms: until then they are set aside.",
        )


def _needs_feature(sink: str) -> bool:
    """Whether it takes native histograms only where it is told to: Prometheus before 3.8."""
    told = decoded(fetched(f"{sink}/api/v1/status/buildinfo")[1], _BuildInfo)
    version = _VERSION.match(told.data.version) if told else None
    return version is not None and tuple(map(int, version.groups())) < (3, 8)


def _has_native(database: str) -> bool:
    query = "SELECT EXISTS (SELECT FROM config.metrics WHERE native_histogram AND deleted_at IS NULL)"
    try:
        with psycopg.connect(database, connect_timeout=5) as connection:
            return connection.execute(query).fetchone() == (True,)
    except psycopg.Error:  # which `_postgres` has told
        return False
