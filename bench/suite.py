"""The suite that is measured: a `make run` of its own, with some tenants, each with a project and a key."""

import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp

from bench.programs import free_ports, running
from bench.workload import definitions
from deploy.local.demo.api import Api
from deploy.local.layout import CHECKOUT, DataFolder, Ports
from deploy.local.programs import Program, probe_http
from deploy.local.prometheus import find_prometheus

#: What would stop a load on purpose, out of the way.
_UNLIMITED = {
    "PULSEGATE_AUTH_REQUESTS_PER_MINUTE": str(10**9),
    "PULSEGATE_INGEST_REQUESTS_PER_MINUTE": str(10**9),
    "PULSEGATE_SERIES_PER_PROJECT": str(10**7),
    "PULSEGATE_SERIES_PER_TENANT": str(10**7),
    "PULSEGATE_SERIES_PER_LANE": str(10**7),
    "PULSEGATE_LOG_MAX_BYTES": str(32 << 30),
}


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A running suite with projects that define the workload's metrics."""

    address: str
    prometheus: str
    ports: Ports
    data: DataFolder
    #: one for each project; each has a tenant of its own
    keys: Sequence[str] = field(repr=False)

    def pids(self) -> dict[str, int]:
        """The processes that run now, by name."""
        described = json.loads(self.data.run_json.read_text())
        running = {process["name"]: process["pid"] for process in described["processes"] if process["pid"] is not None}
        return {**running, "supervisor": described["pid"]}


@asynccontextmanager
async def running_suite(folder: Path, *, definitions: int, tenants: int = 1) -> AsyncIterator[Suite]:
    """Ready inside the block and stopped after it; `folder` takes its data. Raises StartFailed, ApiError.

    Each tenant gets so many `definitions`.
    """
    ports, data = free_ports(), DataFolder(folder / "suite")
    data.make()
    address = f"http://127.0.0.1:{ports.public}"
    async with running(_program(ports, data)):
        yield Suite(
            address=address,
            prometheus=f"http://127.0.0.1:{ports.server('prometheus')}",
            ports=ports,
            data=data,
            keys=[await _project(address, number, definitions) for number in range(tenants)],
        )


def _program(ports: Ports, data: DataFolder) -> Program:
    prometheus = find_prometheus(None, CHECKOUT / ".tools" / "prometheus")
    return Program(
        name="suite",
        argv=(sys.executable, "-m", "deploy.local", "run"),
        log=data.log("terminal"),
        ports={},
        probe=partial(probe_http, ports.operations("gateway"), "/health/ready"),
        environment={
            **os.environ,
            **_UNLIMITED,
            "PULSEGATE_PORT": str(ports.public),
            "PULSEGATE_DATA": str(data.root),
            "PROMETHEUS_BIN": str(prometheus),
        },
        stop_signal=signal.SIGINT,
        orphan_signal=signal.SIGTERM,
        ready_seconds=120.0,
    )


async def _project(address: str, number: int, count: int) -> str:
    """Signs a tenant up, defines its metrics; returns a key that sends."""
    email, name = f"bench-{number}@pulsegate.example", f"Bench {number}"
    account = {"email": email, "password": secrets.token_urlsafe(24), "tenantName": name}
    async with aiohttp.ClientSession() as session:
        visitor = Api(session, address)
        signed = await visitor.post("/api/v1/auth/signup", account)
        person, project = visitor.with_token(signed["accessToken"]), f"/api/v1/projects/{signed['project']['id']}"
        for definition in definitions(count):
            await person.post(f"{project}/metrics", definition)
        key = await person.post(f"{project}/keys", {"name": "Bench", "kind": "secret", "scopes": ["ingest:write"]})
        return str(key["key"])
