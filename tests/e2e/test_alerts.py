"""Prometheus and Alertmanager as they are wake somebody when something breaks, and say so when it is whole again."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest

from chassis.tasks import in_background
from deploy.local.layout import OPERATIONS_PORTS, Ports
from pulsegate.observation import fetched, queried
from services.canary.app import running as canary_running
from services.canary.clients import METRIC
from tests.e2e.api import Project
from tests.e2e.flying_canary import lying, settings_for
from tests.fast_prometheus import FastPrometheus
from tests.paging import Pager, taking_alerts
from tests.suite_running import Suite
from tests.suite_servers import running
from tests.waiting import wait_for

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]


@pytest.fixture
def ports(port_blocks: Callable[[], Ports]) -> Ports:
    return replace(port_blocks(), canary=True)


@pytest.fixture
async def pager(suite: Suite, ports: Ports, prometheus_binary: Path, tmp_path: Path) -> AsyncIterator[Pager]:
    """Prometheus → Alertmanager → a webhook, all on the running suite, and on a canary that a test may let fly."""
    processes = {name: suite.ports.operations(name) for name in OPERATIONS_PORTS}
    async with taking_alerts(ports, tmp_path) as pager:
        watcher = FastPrometheus(
            binary=prometheus_binary,
            folder=tmp_path / "prometheus",
            port=ports.server("prometheus"),
            log=tmp_path / "prometheus.log",
            scraped={**processes, "canary": ports.operations("canary")},
            alertmanager_port=pager.alertmanager_port,
        )
        with running(watcher):
            # What fires before Prometheus has found Alertmanager is told late.
            wait_for(lambda: _sees_everything(watcher.url), within_seconds=30, what="Prometheus sees everything")
            yield pager


def _sees_everything(prometheus: str) -> bool:
    up = queried(prometheus, "sum(up)") or []
    _, alertmanagers = fetched(f"{prometheus}/api/v1/alertmanagers")
    found = json.loads(alertmanagers)["data"]["activeAlertmanagers"]
    return bool(found) and [value for _, value in up] == [len(OPERATIONS_PORTS)]


@contextmanager
def _gone(suite: Suite, *names: str) -> Iterator[None]:
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(suite.gone(name))
        yield


async def _send_for_ever(project: Project) -> None:
    while True:
        with suppress(aiohttp.ClientError, TimeoutError):  # what is broken may not answer at all
            await project.send({"name": "woken_total", "value": 1})
        await asyncio.sleep(0.02)


async def _ask_config_for_ever(project: Project) -> None:
    """What it refuses where it is there: the definition has no type."""
    path = f"/api/v1/projects/{project.id}/metrics"
    while True:
        with suppress(aiohttp.ClientError, TimeoutError):
            await project.api.call("POST", path, {"name": "untold_total"}, credential=project.token)
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("breaks", "alerts"),
    [
        (lambda suite: suite.gone("aggregator"), ("PulsegateProcessGone", "PulsegateLaneWithoutOwner")),
        (
            lambda suite: _gone(suite, "receiver", "config"),
            ("PulsegateIngestionUnavailable", "PulsegateBreakerOpen"),
        ),
        (
            lambda suite: suite.paused("nats"),
            ("PulsegateHardDependencyAway", "PulsegateErrorBudgetBurning"),
        ),
    ],
    ids=["no aggregator", "no receiver and no config", "the log hangs"],
)
async def test_what_breaks_wakes_somebody_until_it_is_whole(
    suite: Suite,
    project: Project,
    pager: Pager,
    breaks: Callable[[Suite], AbstractContextManager[Any]],
    alerts: tuple[str, ...],
) -> None:
    await project.define("woken_total")
    async with in_background(_send_for_ever(project), _ask_config_for_ever(project)):
        await pager.is_silent(*alerts)
        with breaks(suite):
            await pager.fires(*alerts)
        await asyncio.to_thread(suite.wait_ready)
        await pager.is_silent(*alerts)


@contextmanager
def _newest_entry_changed(suite: Suite, tenant_id: str) -> Iterator[None]:
    """By somebody who may do anything in the database."""
    change = "UPDATE auth.audit_entries SET hash = %s WHERE tenant_id = %s AND sequence = %s"
    with psycopg.connect(suite.dsn(), autocommit=True) as connection:
        newest = "SELECT hash, sequence FROM auth.audit_entries WHERE tenant_id = %s ORDER BY sequence DESC LIMIT 1"
        [(right, sequence)] = connection.execute(newest, (tenant_id,)).fetchall()
        connection.execute(change, (bytes(32), tenant_id, sequence))
        try:
            yield
        finally:
            connection.execute(change, (right, tenant_id, sequence))


async def test_an_audit_log_that_somebody_has_changed_wakes_somebody(
    suite: Suite, project: Project, pager: Pager
) -> None:
    async def read() -> None:
        path = f"/api/v1/tenants/{project.tenant_id}/audit"
        await project.api.expect(200, "GET", path, credential=project.token)

    await read()  # whoever reads is told where the log ends, signed
    await pager.is_silent("PulsegateAuditChainBroken")
    with _newest_entry_changed(suite, project.tenant_id):
        await read()
    await pager.fires("PulsegateAuditChainBroken")


async def test_the_canary_wakes_somebody_when_counts_are_wrong_and_its_silence_is_told(
    suite: Suite, project: Project, pager: Pager, ports: Ports, tmp_path: Path
) -> None:
    await project.define(METRIC, labels=[{"name": "run", "required": True}])
    async with (
        lying(project, ports.grpc("auth"), repeat=False) as url,
        canary_running(settings_for(project, tmp_path / "canary.json", ports.operations("canary"), url)) as canary,
    ):
        await pager.fires("PulsegateCanaryLost")
        more = await project.send({"name": METRIC, "value": 1_000_000, "labels": {"run": str(canary.book.flying.id)}})
        assert more.status == 202, more.text
        await pager.fires("PulsegateCanaryDouble")
        await pager.is_silent("PulsegateCanarySilent")
    await pager.fires("PulsegateCanarySilent")
