"""Generates the project's clients and runs each in a process of its own, with real traffic."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

from deploy.local.demo.project import DemoProject
from deploy.local.demo.totals import Sample

_HERE = Path(__file__).parent
_TRAFFIC_SECONDS = 60.0


class TrafficFailed(Exception):
    """A generated client could not be run, or lost something."""


@dataclass(frozen=True, kw_only=True)
class GeneratedClients:
    """The sources as they were downloaded."""

    python: Path
    browser: Path


async def generate(project: DemoProject, folder: Path) -> GeneratedClients:
    """Downloads both clients. Raises ApiError."""
    path = f"/api/v1/projects/{project.id}/client"
    clients = GeneratedClients(python=folder / "pulsegate_metrics.py", browser=folder / "pulsegate-metrics.mjs")
    clients.python.write_text(await project.person.get_text(path, language="python"), encoding="utf-8")
    browser = await project.person.get_text(
        path, language="javascript", keyId=project.keys.publishable_id, minify="false"
    )
    clients.browser.write_text(browser, encoding="utf-8")
    return clients


async def run_python(client: Path, key: str, orders: int) -> list[Sample]:
    """What a server sends, counted by itself. Raises TrafficFailed."""
    told = {"PYTHONPATH": str(client.parent), "PULSEGATE_KEY": key}
    return await _run([sys.executable, str(_HERE / "server_traffic.py"), str(orders)], told)


async def run_browser(client: Path, orders: int) -> list[Sample]:
    """What a page sends, counted by itself. Raises TrafficFailed."""
    beside_python = str(Path(sys.executable).parent)
    node = shutil.which("node", path=f"{beside_python}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if node is None:
        raise TrafficFailed("Node.js was not found; make build installs it")
    return await _run([node, str(_HERE / "browser_traffic.mjs"), client.as_uri(), str(orders)], {})


async def _run(argv: list[str], told: Mapping[str, str]) -> list[Sample]:
    process = await asyncio.create_subprocess_exec(*argv, env={**os.environ, **told}, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(_TRAFFIC_SECONDS):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise TrafficFailed(f"{argv[1]} ended with status {process.returncode}: {errors.decode(errors='replace')}")
    outcome = json.loads(output)
    if outcome["lost"]:
        raise TrafficFailed(f"{argv[1]}: {outcome['lost']} of its calls were not accepted")
    return [Sample(name=name, labels=labels, value=value) for name, labels, value in outcome["sent"]]
