"""Under load every panel of every dashboard shows something."""

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from chassis.tasks import in_background
from deploy.grafana.panels import PAGES
from deploy.grafana.queries import Panel
from deploy.local.layout import OPERATIONS_PORTS, Ports
from services.canary.clients import METRIC
from tests.e2e.api import PASSWORD, Project
from tests.e2e.flying_canary import in_process_of_its_own
from tests.fast_prometheus import FastPrometheus
from tests.suite_running import Suite
from tests.suite_servers import RunningServer, running
from tests.waiting import eventually

pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]


@pytest.fixture
def ports(port_blocks: Callable[[], Ports]) -> Ports:
    return replace(port_blocks(), canary=True)


@pytest.fixture
def prometheus(
    suite: Suite, prometheus_binary: Path, tmp_path: Path, ports: Ports
) -> Iterator[RunningServer[FastPrometheus]]:
    server = FastPrometheus(
        binary=prometheus_binary,
        folder=tmp_path / "prometheus",
        port=ports.public,
        log=tmp_path / "prometheus.log",
        scraped={
            **{name: suite.ports.operations(name) for name in OPERATIONS_PORTS},
            "canary": ports.operations("canary"),
        },
    )
    with running(server) as started:
        yield started


async def _use_everything(project: Project) -> None:
    """What a tenant does, again and again."""
    for number in range(1_000_000):
        await project.send({"name": "panels_total", "value": 1}, producer=project.id, sequence=number + 1)
        await project.send({"name": "unheard_of_total", "value": 1})
        await project.query("panels_total")
        credentials = {"email": project.email, "password": PASSWORD}
        await project.api.call("POST", "/api/v1/auth/signin", credentials)
        await project.define(f"panels_{number}_total")
        await project.api.call(
            "GET", f"/api/v1/projects/{project.id}/client", credential=project.token, params={"language": "python"}
        )


async def test_no_panel_is_empty_under_load(
    suite: Suite, project: Project, prometheus: RunningServer[FastPrometheus], ports: Ports, tmp_path: Path
) -> None:
    await project.define("panels_total")
    await project.define(METRIC, labels=[{"name": "run", "required": True}])
    panels = [(page.name, panel) for page in PAGES for panel in page.panels]
    async with aiohttp.ClientSession() as session, in_background(_use_everything(project)):

        async def empty() -> list[str]:
            shown = await asyncio.gather(*(_shows(session, prometheus.server.url, panel) for _, panel in panels))
            return [f"{page}: {panel.title}" for (page, panel), full in zip(panels, shown, strict=True) if not full]

        async def none_is_empty() -> bool:
            last[:] = await empty()
            return not last

        last: list[str] = []
        try:
            with in_process_of_its_own(project, tmp_path, ports.operations("canary")):
                await eventually(none_is_empty, within_seconds=75)
        except AssertionError:
            pytest.fail(f"empty: {last}")


async def _shows(session: aiohttp.ClientSession, url: str, panel: Panel) -> bool:
    """Whether each query of the panel answers a number."""
    for query in panel.queries:
        expression = query.expression.replace("$__rate_interval", "5s")
        async with session.get(f"{url}/api/v1/query", params={"query": expression}) as response:
            answer = await response.json()
        assert answer["status"] == "success", f"{panel.title}: {answer}"
        values = [float(series["value"][1]) for series in answer["data"]["result"]]
        if not any(not math.isnan(value) for value in values):
            return False
    return True
