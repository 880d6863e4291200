"""Where the parts of an installation are: told by a file, or found in the data folder of `make run`."""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from redis.connection import parse_url

from chassis.settings import postgres_url, url, urls

#: The services that own a schema.
SCHEMAS = ("auth", "config", "codegen", "ingest")
_HOST = "127.0.0.1"


class NoInstallationError(Exception):
    """It is not known where the installation is; the message says what to give."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Addresses, with their credentials."""

    #: base address of the operations port, by process
    processes: Mapping[str, str]
    #: libpq address of a superuser, who alone sees and restores everything
    database: str = field(repr=False)
    #: libpq address of the owner of each schema
    owners: Mapping[str, str] = field(repr=False)
    #: addresses of the log's servers, with commas between them
    nats: str = field(repr=False)
    #: addresses of the monitoring of the log's servers; without them nobody asks whether they sync
    nats_monitoring: tuple[str, ...] = ()
    stream: str = "PULSEGATE_INGEST"
    #: address of the gateways' Valkey or Redis; empty: nobody asks what it keeps
    valkey: str = field(default="", repr=False)
    #: the Prometheus that scrapes it
    prometheus: str
    #: what its series have as `namespace` there, which tells them from another's; empty: there is no other's
    namespace: str = ""
    #: the Prometheus that takes its series, often the same; empty: it is not looked at, and need be no Prometheus
    sink: str = ""
    #: folder of pg_dump and pg_restore; None: they are on PATH
    postgres_programs: Path | None = None
    #: folder of the processes' logs; None: they are somewhere else
    logs: Path | None = None
    #: what must stand in no bundle
    secrets: tuple[str, ...] = field(default=(), repr=False)


class _Described(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a file says, with the names of `Installation`."""

    processes: dict[str, str]
    database: str
    nats: str
    prometheus: str
    namespace: Annotated[str, msgspec.Meta(pattern="^[a-z0-9-]*$")] = ""
    sink: str = ""
    nats_monitoring: tuple[str, ...] = ()
    valkey: str = ""
    owners: dict[str, str] = {}
    stream: str = "PULSEGATE_INGEST"
    logs: str = ""


def from_file(path: Path) -> Installation:
    """One that is described by a TOML file (docs/operations.md). Raises NoInstallationError."""
    try:
        told = msgspec.convert(_resolved(tomllib.loads(path.read_text(encoding="utf-8")), path.parent), _Described)
    except (OSError, ValueError) as error:
        raise NoInstallationError(f"{path} cannot be used: {error}") from error
    # Here, and not by who connects: that would quote an address that it cannot read, with its password.
    for name, address in {"database": told.database, **told.owners}.items():
        _require(postgres_url, name, address)
    _require(urls("nats", "tls"), "nats", told.nats)
    if told.valkey:
        _require(url("redis", "rediss", "unix", read=parse_url), "valkey", told.valkey)
    described = msgspec.structs.asdict(told)
    secrets = (told.database, told.nats, told.valkey, *told.owners.values())
    return Installation(**{**described, "logs": Path(told.logs) if told.logs else None}, secrets=secrets)


def _require(parse: Callable[[str], object], name: str, address: str) -> None:
    try:
        parse(address)
    except ValueError as error:
        raise NoInstallationError(f"`{name}` {error}") from error


def _resolved(value: Any, folder: Path) -> Any:
    """With the contents of files in place of `{file = "…"}`, whose paths begin in the folder."""
    if isinstance(value, dict):
        if value.keys() == {"file"}:
            return (folder / value["file"]).read_text(encoding="utf-8").strip()
        return {key: _resolved(item, folder) for key, item in value.items()}
    return value


def from_data(folder: Path) -> Installation:
    """The one of `make run` that runs on a data folder. Raises NoInstallationError."""
    try:
        described = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise NoInstallationError(
            f"nothing runs on {folder}: start it with `make run`, to restore a backup with `make servers`, "
            "or name an installation with --installation"
        ) from error
    from deploy.local.servers import postgres_programs  # the servers of `make run` are installed for developers alone

    ports = {process["name"]: process["ports"] for process in described["processes"]}
    secrets = {path.name: path.read_text() for path in (folder / "secrets").iterdir() if not path.name.startswith(".")}

    def dsn(role: str) -> str:
        return f"postgresql://{role}:{secrets[f'{role}_password']}@{_HOST}:{ports['postgres']['postgres']}/pulsegate"

    prometheus = f"http://{_HOST}:{ports['prometheus']['prometheus']}" if "prometheus" in ports else ""
    return Installation(
        processes={name: f"http://{_HOST}:{port}" for name, port in described["operations"].items()},
        database=dsn("postgres"),
        owners={schema: dsn(f"{schema}_owner") for schema in SCHEMAS},
        nats=secrets["nats_url"],
        nats_monitoring=(f"http://{_HOST}:{ports['nats']['monitoring']}",),
        valkey=secrets["redis_url"],
        prometheus=prometheus,
        sink=prometheus,
        postgres_programs=postgres_programs(),
        logs=folder / "logs",
        secrets=tuple(secrets.values()),
    )
