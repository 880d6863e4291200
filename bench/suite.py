"""The suite that is measured: a `make run` of its own, with one tenant, its project and its key."""

import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
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
    "PULSEGATE_INGEST_REQUESTS_PER_MINUTE": str(10**9),
    "PULSEGATE_SERIES_PER_PROJECT": str(10**7),
    "PULSEGATE_LOG_MAX_BYTES": str(32 << 30),
}


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A running suite with a project that defines the workload's metrics."""

    address: str
    prometheus: str
    ports: Ports
    data: DataFolder
    key: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Of a request that sends metrics."""
        return {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}

    def pids(self) -> dict[str, int]:
        """The processes that run now, by name."""
        described = json.loads(self.data.run_json.read_text())
        running = {process["name"]: int(process["pid"]) for process in described["processes"]}
        return {**running, "supervisor": int(described["pid"])}


@asynccontextmanager
async def running_suite(folder: Path, series: int) -> AsyncIterator[Suite]:
    """Ready inside the block and stopped after it; `folder` takes its data. Raises StartFailed, ApiError."""
    ports, data = free_ports(), DataFolder(folder / "suite")
    data.make()
    address = f"http://127.0.0.1:{ports.public}"
    async with running(_program(ports, data)):
        yield Suite(
            address=address,
            prometheus=f"http://127.0.0.1:{ports.server('prometheus')}",
            ports=ports,
            data=data,
            key=await _project(address, series),
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


async def _project(address: str, series: int) -> str:
    """Signs up, defines the metrics; returns a key that sends."""
    account = {"email": "bench@pulsegate.example", "password": secrets.token_urlsafe(24), "tenantName": "Bench"}
    async with aiohttp.ClientSession() as session:
        visitor = Api(session, address)
        signed = await visitor.post("/api/v1/auth/signup", account)
        person, project = visitor.with_token(signed["accessToken"]), f"/api/v1/projects/{signed['project']['id']}"
        for definition in definitions(series):
            await person.post(f"{project}/metrics", definition)
        key = await person.post(f"{project}/keys", {"name": "Bench", "kind": "secret", "scopes": ["ingest:write"]})
        return str(key["key"])
