"""Alertmanager as Debian ships it, with the routing of deploy/compose, and what it tells.

async with taking_alerts(ports, folder) as pager:
    ...                                 Prometheus sends its alerts to port pager.alertmanager_port
    await pager.fires("PulsegateProcessGone")
    await pager.is_silent("PulsegateProcessGone")
    pager.firing("PulsegateProcessGone")    each with its receiver, labels and annotations
"""

import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from chassis.http_server import serving
from deploy.local.layout import CHECKOUT, Ports
from deploy.local.secrets import write_private
from deploy.local.servers import HOST
from tests.suite_servers import running
from tests.suite_sink_servers import DebianServer, debian_program
from tests.waiting import eventually

_ROUTING = CHECKOUT / "deploy" / "compose" / "alertmanager.yaml"
_TEMPLATES = Path("/usr/share/prometheus/alertmanager")
#: The routing as it is shipped waits for minutes so that few messages say much.
_HURRY = {"group_wait": "0s", "group_interval": "1s"}


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert as somebody was last told of it."""

    receiver: str
    fires: bool
    labels: dict[str, str]
    annotations: dict[str, str]


class Pager:
    """What Alertmanager has told."""

    def __init__(self, alertmanager_port: int) -> None:
        self.alertmanager_port = alertmanager_port
        self._alerts: dict[str, Alert] = {}

    async def take(self, request: web.Request) -> web.Response:
        told = await request.json()
        for alert in told["alerts"]:
            self._alerts[alert["fingerprint"]] = Alert(
                receiver=told["receiver"],
                fires=alert["status"] == "firing",
                labels=alert["labels"],
                annotations=alert["annotations"],
            )
        return web.Response()

    def firing(self, name: str) -> list[Alert]:
        return [alert for alert in self._alerts.values() if alert.fires and alert.labels["alertname"] == name]

    async def fires(self, *names: str) -> None:
        """Waits until each of the alerts fires."""

        async def all_fire() -> bool:
            return all(map(self.firing, names))

        await eventually(all_fire, within_seconds=60, what=f"{names} fire")

    async def is_silent(self, *names: str) -> None:
        """Waits until none of the alerts fires."""

        async def none_fires() -> bool:
            return not any(map(self.firing, names))

        await eventually(none_fires, within_seconds=60, what=f"{names} are silent")


@asynccontextmanager
async def taking_alerts(ports: Ports, folder: Path) -> AsyncIterator[Pager]:
    """Alertmanager, and a webhook behind each of its receivers."""
    pager = Pager(ports.operations("gateway"))
    app = web.Application()
    app.add_routes([web.post("/", pager.take)])
    async with serving(app, HOST, ports.public):
        with running(_alertmanager(pager.alertmanager_port, folder, f"http://{HOST}:{ports.public}")):
            yield pager


def _alertmanager(port: int, folder: Path, webhook: str) -> DebianServer:
    configuration = folder / "alertmanager.yml"
    write_private(configuration, json.dumps(_routing(webhook)))
    return DebianServer(
        binary=_program(),
        arguments=(
            f"--config.file={configuration}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address={HOST}:{port}",
            "--cluster.listen-address=",
        ),
        port=port,
        log=folder / "alertmanager.log",
        ready="/-/ready",
    )


def _routing(webhook: str) -> dict[str, Any]:
    """As it is shipped, in a hurry, with addresses instead of files with them, for which Debian's is too old."""
    shipped = yaml.safe_load(_ROUTING.read_text())
    hooks = {receiver["name"]: len(receiver["webhook_configs"]) for receiver in shipped["receivers"]}
    receivers = [{"name": name, "webhook_configs": [{"url": webhook}] * count} for name, count in hooks.items()]
    return {**shipped, "route": shipped["route"] | _HURRY, "receivers": receivers}


def _program() -> Path:
    """Its templates have their place in Debian's binary: only root can put them there."""
    program = debian_program("prometheus-alertmanager", "prometheus-alertmanager")
    if not _TEMPLATES.exists():
        if os.geteuid() != 0:
            pytest.skip("install prometheus-alertmanager to run this test")
        shutil.copytree(program.parents[2] / _TEMPLATES.relative_to("/"), _TEMPLATES)
    return program
