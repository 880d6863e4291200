"""Every alert that is shipped is fired by a real Prometheus, and told by a real Alertmanager to whom it is for.

Its series are those of its case for promtool, which says when it fires and when it does not.
"""

import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from deploy.local.layout import CHECKOUT, RULES, Ports
from deploy.local.programs import Program
from deploy.local.secrets import write_private
from deploy.local.servers import HOST, Prometheus
from tests.alert_cases import Case, first_case
from tests.paging import Alert, Pager, taking_alerts
from tests.remote_writing import write
from tests.suite_servers import RunningServer, running
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

_HURRY = "500ms"
_DURATION = re.compile(r"^(\s+(?:for|interval): )\w+$", re.MULTILINE)
_RECEIVERS = {"critical": "pager", "warning": "morning"}


def _alerts() -> list[tuple[str, str]]:
    """Name and severity of each, from the files that are shipped."""
    files = [yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yaml"))]
    rules = [rule for file in files for group in file["groups"] for rule in group["rules"]]
    return [(rule["alert"], rule["labels"]["severity"]) for rule in rules if "alert" in rule]


@dataclass(frozen=True, kw_only=True)
class CasePrometheus(Prometheus):
    """Knows the series of one case. Its rules look twice a second and believe what they see at once."""

    case: Case
    alertmanager_port: int

    def prepare(self) -> None:
        super().prepare()
        alertmanager: dict[str, Any] = {"static_configs": [{"targets": [f"{HOST}:{self.alertmanager_port}"]}]}
        configuration = {
            "global": {"evaluation_interval": _HURRY, "external_labels": {"case": self.case.name}},
            "rule_files": [str(self._rules)],
            "alerting": {"alertmanagers": [alertmanager]},
        }
        self._rules.write_text("")
        write_private(self._configuration, json.dumps(configuration))

    @property
    def _rules(self) -> Path:
        return self.folder.resolve() / "rules.yaml"

    def program(self) -> Program:
        program = super().program()
        # What fires before Alertmanager was found is told again.
        return replace(program, argv=(*program.argv, "--rules.alert.resend-delay=1s"))

    def write_rules(self) -> None:
        """They are obeyed from the next SIGHUP on."""
        self._rules.write_text(_DURATION.sub(rf"\g<1>{_HURRY}", self.case.rules.read_text()))


def _meet(prometheus: RunningServer[CasePrometheus]) -> None:
    """The case's series are there before the rules look: most of what is not there yet is an alert of its own."""
    server = prometheus.server
    write(server.url, server.case.samples(time.time_ns() // 1_000_000))
    server.write_rules()
    os.kill(prometheus.pid, signal.SIGHUP)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pager(
    prometheus_binary: Path,
    tmp_path_factory: pytest.TempPathFactory,
    lasting_port_blocks: Callable[[], Ports],
) -> AsyncIterator[Pager]:
    """Is told of what fires in all cases, each of which has a Prometheus of its own."""
    folder = tmp_path_factory.mktemp("alerts")
    async with taking_alerts(lasting_port_blocks(), folder) as pager:
        with ExitStack() as stack:
            cases = {case.name: case for case in (first_case(*alert) for alert in _alerts())}
            for number, case in enumerate(cases.values()):
                server = CasePrometheus(
                    binary=prometheus_binary,
                    folder=folder / f"prometheus-{number}",
                    port=lasting_port_blocks().server("prometheus"),
                    log=folder / f"prometheus-{number}.log",
                    case=case,
                    alertmanager_port=pager.alertmanager_port,
                )
                _meet(stack.enter_context(running(server)))
            yield pager


@pytest.mark.parametrize(("name", "severity"), _alerts())
async def test_each_alert_reaches_whom_it_is_for(pager: Pager, name: str, severity: str) -> None:
    case = first_case(name, severity)
    expected = [{"alertname": name, "case": case.name, **labels} for labels in case.expected[name]]

    def told() -> list[Alert]:
        return [alert for alert in pager.firing(name) if alert.labels["case"] == case.name]

    async def as_expected() -> bool:
        return _sorted([alert.labels for alert in told()]) == _sorted(expected)

    await eventually(as_expected, within_seconds=60, what=f"{expected} fire")
    for alert in told():
        assert alert.receiver == _RECEIVERS[alert.labels["severity"]]
        assert alert.annotations["summary"]
        runbook = alert.annotations["runbook_url"]
        assert runbook == f"docs/runbooks/{name}.md"
        assert (CHECKOUT / runbook).exists()


def _sorted(alerts: list[dict[str, str]]) -> list[list[tuple[str, str]]]:
    return sorted(sorted(labels.items()) for labels in alerts)
