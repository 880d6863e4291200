"""One embedded stack from its settings: checks that nothing is in the way, then starts everything in order."""

import asyncio
import fcntl
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from chassis.tasks import in_background
from deploy.local.backing import Backing, backing_servers
from deploy.local.bootstrap import DATABASE, SCHEMAS, bootstrap, migrate
from deploy.local.certificates import Certificates
from deploy.local.layout import DataFolder, Ports
from deploy.local.programs import Program, port_is_free
from deploy.local.progress import say, step
from deploy.local.prometheus import PrometheusMissing, find_prometheus
from deploy.local.services import canary_program, require_valid_settings, service_programs
from deploy.local.settings import Settings
from deploy.local.supervisor import Supervisor
from pulsegate import canary

#: What a killed supervisor has left running (it has not removed its run.json) ends within this time.
_LEFT_BEHIND_SECONDS = 10.0
_CANARY_EMAIL = "canary@pulsegate.example"


class StackError(Exception):
    """The stack cannot start; the message says what to change."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running stack."""

    address: str
    data: DataFolder
    backing: Backing


@asynccontextmanager
async def running_stack(
    settings: Settings, environment: Mapping[str, str], *, need_prometheus: bool = False, servers_alone: bool = False
) -> AsyncIterator[Stack]:
    """Everything, or the backing servers alone, is ready inside the block and stopped after it.

    Raises SettingsError, StackError, NotAProgram, StartFailed, MigrationFailed or, where they are needed,
    PrometheusMissing and CanaryError.
    """
    data, ports = DataFolder(settings.data.absolute()), Ports(settings.port, settings.canary == "1")
    _make(data)
    with _held(data):
        certificates = Certificates(data.certificates) if settings.mtls == "1" else None
        require_valid_settings(backing_servers(data, ports, None, certificates), ports, data, environment)
        await _await_free_ports(ports, _LEFT_BEHIND_SECONDS if data.run_json.exists() else 0.0)
        prometheus = await _find_prometheus(settings, data, needed=need_prometheus)
        backing = backing_servers(data, ports, prometheus, certificates)
        stack = Stack(address=f"http://127.0.0.1:{ports.public}", data=data, backing=backing)
        described = {"address": stack.address, "data": str(data.root), "operations": ports.scraped()}
        supervisor = Supervisor(data.run_json, described)
        try:
            await _start_servers(supervisor, stack.backing)
            if not servers_alone:
                await _start_services(supervisor, stack, ports, environment)
            async with in_background(*([certificates.renewing()] if certificates else [])):
                yield stack
        finally:
            with step("Stopping"):
                await supervisor.stop()


async def _start_servers(supervisor: Supervisor, backing: Backing) -> None:
    with step("Preparing the backing servers"):
        for server in backing.servers():
            await asyncio.to_thread(server.prepare)
    servers = [server.program() for server in backing.servers()]
    with step(f"Starting {_names(servers)}"):
        await supervisor.start(servers)
        await asyncio.to_thread(bootstrap, backing.postgres, DATABASE, backing.role_passwords())


async def _start_services(supervisor: Supervisor, stack: Stack, ports: Ports, environment: Mapping[str, str]) -> None:
    with step("Bringing the database up to date"):
        owners = {schema: stack.backing.dsn_file(f"{schema}_owner") for schema in SCHEMAS}
        await asyncio.to_thread(migrate, owners, environment)
    *services, gateway = service_programs(stack.backing, ports, stack.data, environment)
    with step(f"Starting {_names([*services, gateway])}"):
        await supervisor.start(services)
        await supervisor.start([gateway])
    if ports.canary:
        with step("Starting canary"):
            await asyncio.to_thread(_keep_canary_key, stack)
            await supervisor.start([canary_program(stack.backing, ports, stack.data, environment)])


def _keep_canary_key(stack: Stack) -> None:
    """Made once, in an account of the canary's own."""
    secrets = stack.backing.secrets
    password = secrets.password("canary_password")
    secrets.kept("canary_key", lambda: canary.new_key(stack.address, _CANARY_EMAIL, password))


def _names(programs: Sequence[Program]) -> str:
    return ", ".join(program.name for program in programs)


def _make(data: DataFolder) -> None:
    """Makes the data folder, which becomes its owner's alone: so it must not be anybody else's."""
    try:
        if data.is_foreign:
            raise StackError(
                f"PULSEGATE_DATA: {data.root} holds something else than Pulsegate's data; name a new or an empty folder"
            )
        data.make()
    except OSError as error:
        raise StackError(
            f"PULSEGATE_DATA: {data.root} cannot be used ({error.strerror}: {error.filename}); "
            "name a folder that you may write to"
        ) from error


@contextmanager
def _held(data: DataFolder) -> Iterator[None]:
    """Holds the data folder for this process, whose end frees it, however it comes."""
    with data.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError(
                f"another Pulsegate runs on the data folder {data.root}; "
                "stop it, or choose another folder with PULSEGATE_DATA"
            ) from error
        yield


async def _await_free_ports(ports: Ports, patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    while taken := [f"{port} ({who})" for port, who in ports.listeners().items() if not port_is_free(port)]:
        if time.monotonic() >= deadline:
            raise StackError(
                f"in use already: port {', '.join(taken)}. Pulsegate takes {len(ports.listeners())} consecutive ports, "
                f"now from PULSEGATE_PORT={ports.public} on: choose another one, "
                "and for a second copy another PULSEGATE_DATA too"
            )
        await asyncio.sleep(0.1)


async def _find_prometheus(settings: Settings, data: DataFolder, *, needed: bool) -> Path | None:
    """The binary; None, said in one line, where there is none and none is needed."""
    try:
        with step("Looking for Prometheus"):
            return await asyncio.to_thread(
                find_prometheus, settings.prometheus_binary, data.server("prometheus-binary")
            )
    except PrometheusMissing as missing:
        if needed:
            raise
        say(f"{missing}; going on without queries")
        return None
