"""The services as processes: which module runs, on which ports, and what it is told about the rest."""

import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from chassis.settings import PeerSettings, ServiceSettings, SettingsError, load
from deploy.local.backing import Backing
from deploy.local.layout import DataFolder, Ports
from deploy.local.programs import Program, probe_http
from deploy.local.servers import HOST
from services.auth import settings as auth
from services.canary import settings as canary
from services.codegen import settings as codegen
from services.config import settings as config
from services.gateway import settings as gateway
from services.ingest import settings as ingest


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process of a service."""

    name: str
    #: the arguments of `python -m`
    module: tuple[str, ...]
    #: what it reads
    settings: type[ServiceSettings]
    #: what it is told about the rest, names of `_known_settings`
    needs: tuple[str, ...]
    #: the schema that it works on
    schema: str | None = None
    serves_grpc: bool = True


#: In the order of their start; the gateway, which the public talks to, is last up and first down.
SERVICES = (
    Service(
        name="auth",
        module=("services.auth",),
        settings=auth.Settings,
        schema="auth",
        needs=("AUTH_MASTER_KEY_FILE", "MAIL_FOLDER"),
    ),
    Service(
        name="config",
        module=("services.config",),
        settings=config.Settings,
        schema="config",
        needs=("AUTH_ADDRESS",),
    ),
    Service(
        name="codegen",
        module=("services.codegen",),
        settings=codegen.Settings,
        schema="codegen",
        needs=("AUTH_ADDRESS", "CONFIG_ADDRESS"),
    ),
    Service(
        name="receiver",
        module=("services.ingest", "receiver"),
        settings=ingest.ReceiverSettings,
        schema="ingest",
        needs=("AUTH_ADDRESS", "CONFIG_ADDRESS", "NATS_URL_FILE"),
    ),
    Service(
        name="aggregator",
        module=("services.ingest", "aggregator"),
        settings=ingest.AggregatorSettings,
        schema="ingest",
        needs=("NATS_URL_FILE", "REMOTE_WRITE_URL"),
        serves_grpc=False,
    ),
    Service(
        name="gateway",
        module=("services.gateway",),
        settings=gateway.Settings,
        needs=(
            "AUTH_ADDRESS",
            "CONFIG_ADDRESS",
            "CODEGEN_ADDRESS",
            "INGEST_ADDRESS",
            "GATEWAY_SEALING_KEY_FILE",
            "REDIS_URL_FILE",
            "PROMETHEUS_URL",
        ),
        serves_grpc=False,
    ),
)
GATEWAY = SERVICES[-1]

#: A client of the gateway that flies where it is asked for.
CANARY = Service(
    name="canary",
    module=("services.canary",),
    settings=canary.Settings,
    needs=("CANARY_URL", "CANARY_KEY_FILE", "CANARY_STATE"),
    serves_grpc=False,
)


def service_programs(
    backing: Backing, ports: Ports, data: DataFolder, environment: Mapping[str, str]
) -> tuple[Program, ...]:
    """Every service, in the order of `SERVICES`. The caller's environment is passed on to each."""
    return tuple(_program(service, backing, ports, data, environment) for service in SERVICES)


def canary_program(backing: Backing, ports: Ports, data: DataFolder, environment: Mapping[str, str]) -> Program:
    """The canary, whose key must be among the secrets when it is started."""
    return _program(CANARY, backing, ports, data, environment)


def _program(
    service: Service, backing: Backing, ports: Ports, data: DataFolder, environment: Mapping[str, str]
) -> Program:
    told = _told(service, _known_settings(backing, ports, data), backing)
    listening = _ports(service, ports)
    return Program(
        name=service.name,
        argv=(sys.executable, "-m", *service.module),
        log=data.log(service.name),
        ports=listening,
        probe=partial(probe_http, ports.operations(service.name), "/health/ready"),
        environment=_environment(environment, told, listening),
        ready_seconds=120.0,
    )


def require_valid_settings(backing: Backing, ports: Ports, data: DataFolder, environment: Mapping[str, str]) -> None:
    """Raises SettingsError with every fault that any service would find when it is started, and who would."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for service, program in zip(SERVICES, service_programs(backing, ports, data, environment), strict=True):
        try:
            load(service.settings, program.environment)
        except SettingsError as error:
            for fault in error.faults:
                found[fault].append(service.name)
    for fault in _faults_made(CANARY, environment) if ports.canary else ():
        found[fault].append(CANARY.name)
    if found:
        raise SettingsError([f"{fault} (read by {', '.join(names)})" for fault, names in found.items()])


def faults_in(environment: Mapping[str, str]) -> list[str]:
    """What any service would find wrong with a setting that the caller has made, before anything else is known."""
    return list(dict.fromkeys(fault for service in SERVICES for fault in _faults_made(service, environment)))


def _faults_made(service: Service, environment: Mapping[str, str]) -> list[str]:
    """Those faults that the service would find in what the caller has set."""
    made = tuple(f"{name.removesuffix('_FILE')}:" for name in environment)
    try:
        load(service.settings, environment)
    except SettingsError as error:
        return [fault for fault in error.faults if fault.startswith(made)]
    return []


def _known_settings(backing: Backing, ports: Ports, data: DataFolder) -> dict[str, str]:
    """What a service may be told, without the names' `PULSEGATE_`; secrets are files."""
    addresses = {"AUTH": "auth", "CONFIG": "config", "CODEGEN": "codegen", "INGEST": "receiver"}
    return {
        **{f"{name}_ADDRESS": f"{HOST}:{ports.grpc(service)}" for name, service in addresses.items()},
        "SERVICE_TOKEN_FILE": str(backing.secrets.key("service_token")),
        "AUTH_MASTER_KEY_FILE": str(backing.secrets.key("auth_master_key")),
        "GATEWAY_SEALING_KEY_FILE": str(backing.secrets.key("gateway_sealing_key")),
        "MAIL_FOLDER": str(data.mails),
        "REDIS_URL_FILE": str(backing.secrets.write("redis_url", backing.valkey.url)),
        "NATS_URL_FILE": str(backing.secrets.write("nats_url", backing.nats.url)),
        "REMOTE_WRITE_URL": f"{backing.prometheus_url}/api/v1/write",
        "PROMETHEUS_URL": backing.prometheus_url,
        "CANARY_URL": f"http://{HOST}:{ports.public}",
        "CANARY_KEY_FILE": str(backing.secrets.path("canary_key")),
        "CANARY_STATE": str(data.canary),
    }


def _ports(service: Service, ports: Ports) -> dict[str, int]:
    listening = {"operations": ports.operations(service.name)}
    if service.serves_grpc:
        listening["grpc"] = ports.grpc(service.name)
    if service is GATEWAY:
        listening["public"] = ports.public
    return listening


def _told(service: Service, known: Mapping[str, str], backing: Backing) -> dict[str, str]:
    needs = service.needs if service is CANARY else ("SERVICE_TOKEN_FILE", *service.needs)
    told = {f"PULSEGATE_{need}": known[need] for need in needs}
    if service.schema is not None:
        told["PULSEGATE_POSTGRES_DSN_FILE"] = str(backing.dsn_file(service.schema))
    if backing.certificates is not None and issubclass(service.settings, PeerSettings):
        told.update(backing.certificates.settings(service.name))
    return told


_PORT_VARIABLES = {"operations": "PULSEGATE_OPS_PORT", "grpc": "PULSEGATE_GRPC_PORT", "public": "PULSEGATE_PORT"}


def _environment(inherited: Mapping[str, str], told: Mapping[str, str], listening: Mapping[str, int]) -> dict[str, str]:
    """The inherited environment, with the service's own settings instead of any that the caller has set."""
    defaults = {"PULSEGATE_DRAIN_SECONDS": "5"}  # the supervisor kills what takes longer
    own = {"PULSEGATE_HOST": HOST, **told}
    own.update({_PORT_VARIABLES[purpose]: str(port) for purpose, port in listening.items()})
    replaced = {name.removesuffix("_FILE") for name in own}
    passed_on = {name: value for name, value in inherited.items() if name.removesuffix("_FILE") not in replaced}
    return {**defaults, **passed_on, **own}
