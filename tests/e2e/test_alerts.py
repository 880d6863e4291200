"""Prometheus and Alertmanager as they are wake somebody when something breaks, and say so when it is whole again."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from chassis.http_server import serving
from chassis.tasks import in_background
from deploy.local.layout import OPERATIONS_PORTS, Ports
from deploy.local.secrets import write_private
from pulsegate.observation import fetched, queried
from tests.e2e.api import Project
from tests.fast_prometheus import FastPrometheus
from tests.suite_running import Suite
from tests.suite_servers import running
from tests.suite_sink_servers import DebianServer, debian_program
from tests.waiting import eventually, wait_for

_TEMPLATES = Path("/usr/share/prometheus/alertmanager")

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(180)]


class Pager:
    """What Alertmanager has told: by alert, `firing` or `resolved`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.told: dict[str, str] = {}
        self.summaries: dict[str, str] = {}

    async def take(self, request: web.Request) -> web.Response:
        group = await request.json()  # of one name, which fires while any of its alerts does
        for alert in group["alerts"]:
            name = alert["labels"]["alertname"]
            self.told[name] = group["status"]
            self.summaries[name] = alert["annotations"]["summary"]
        return web.Response()

    async def is_silent(self, *names: str) -> None:
        """Waits until none of the alerts fires: a test before this one may have caused it."""

        async def silent() -> bool:
            return not any(self.told.get(name) == "firing" for name in names)

        await eventually(silent, within_seconds=60, what=f"{names} silent")

    async def says(self, status: str, *names: str) -> None:
        """Waits until each of the alerts is told to be so."""

        async def told() -> bool:
            return all(self.told.get(name) == status for name in names)

        await eventually(told, within_seconds=60, what=f"{names} {status}")


@pytest.fixture
def ports(port_blocks: Callable[[], Ports]) -> Ports:
    return port_blocks()


@pytest.fixture
async def pager(suite: Suite, ports: Ports, prometheus_binary: Path, tmp_path: Path) -> AsyncIterator[Pager]:
    """Prometheus → Alertmanager → a webhook, all on the running suite."""
    pager = Pager(f"http://127.0.0.1:{ports.public}")
    app = web.Application()
    app.add_routes([web.post("/", pager.take)])
    async with serving(app, "127.0.0.1", ports.public):
        with _watching(suite, ports, prometheus_binary, tmp_path, pager.url):
            yield pager


@contextmanager
def _watching(suite: Suite, ports: Ports, prometheus: Path, folder: Path, webhook: str) -> Iterator[None]:
    alertmanager = _alertmanager(ports.operations("gateway"), folder, webhook)
    watcher = FastPrometheus(
        binary=prometheus,
        folder=folder / "prometheus",
        port=ports.server("prometheus"),
        log=folder / "prometheus.log",
        scraped={name: suite.ports.operations(name) for name in OPERATIONS_PORTS},
        alertmanager_port=alertmanager.port,
    )
    with running(alertmanager), running(watcher):
        # What fires before Prometheus has found Alertmanager is told late.
        wait_for(lambda: _sees_everything(watcher.url), within_seconds=30, what="Prometheus sees everything")
        yield


def _sees_everything(prometheus: str) -> bool:
    up = queried(prometheus, "sum(up)") or []
    _, alertmanagers = fetched(f"{prometheus}/api/v1/alertmanagers")
    found = json.loads(alertmanagers)["data"]["activeAlertmanagers"]
    return bool(found) and [value for _, value in up] == [len(OPERATIONS_PORTS)]


def _program() -> Path:
    """Debian's Alertmanager, whose templates have their place in its binary: only root can put them there."""
    program = debian_program("prometheus-alertmanager", "prometheus-alertmanager")
    if not _TEMPLATES.exists():
        if os.geteuid() != 0:
            pytest.skip("install prometheus-alertmanager to run this test")
        shutil.copytree(program.parents[2] / _TEMPLATES.relative_to("/"), _TEMPLATES)
    return program


def _alertmanager(port: int, folder: Path, webhook: str) -> DebianServer:
    configuration = {
        "route": {
            "receiver": "pager",
            "group_by": ["alertname"],
            "group_wait": "0s",
            "group_interval": "1s",
            "repeat_interval": "1h",
        },
        "receivers": [{"name": "pager", "webhook_configs": [{"url": webhook, "send_resolved": True}]}],
    }
    write_private(folder / "alertmanager.yml", json.dumps(configuration))
    return DebianServer(
        binary=_program(),
        arguments=(
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ),
        port=port,
        log=folder / "alertmanager.log",
        ready="/-/ready",
    )


async def _send_for_ever(project: Project) -> None:
    while True:
        with suppress(aiohttp.ClientError, TimeoutError):  # what is broken may not answer at all
            await project.send({"name": "woken_total", "value": 1})
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("breaks", "alerts"),
    [
        (lambda suite: suite.gone("aggregator"), ("PulsegateProcessGone", "PulsegateLaneWithoutOwner")),
        (
            lambda suite: suite.paused("nats"),
            ("PulsegateHardDependencyAway", "PulsegateErrorBudgetBurning"),
        ),
    ],
    ids=["no aggregator", "the log hangs"],
)
async def test_what_breaks_wakes_somebody_until_it_is_whole(
    suite: Suite,
    project: Project,
    pager: Pager,
    breaks: Callable[[Suite], AbstractContextManager[Any]],
    alerts: tuple[str, ...],
) -> None:
    await project.define("woken_total")
    async with in_background(_send_for_ever(project)):
        await pager.is_silent(*alerts)
        with breaks(suite):
            await pager.says("firing", *alerts)
        await asyncio.to_thread(suite.wait_ready)
        await pager.says("resolved", *alerts)
    assert all(pager.summaries[name] for name in alerts)
