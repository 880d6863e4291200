"""What `pulsegate status` prints of the figures in a real Prometheus."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.pulsegate.ingest.v1.remote_write_pb2 import WriteRequest
from deploy.local.layout import Ports
from deploy.local.servers import Prometheus
from pulsegate.installation import Installation
from pulsegate.observation import Readiness
from pulsegate.status import lines
from tests.remote_writing import add_series, write
from tests.suite_servers import running

_SERIES = (
    ({"__name__": "pulsegate_log_lag_seconds", "lane": "0"}, 2),
    ({"__name__": "pulsegate_log_lag_seconds", "lane": "1"}, 12.5),
    ({"__name__": "pulsegate_sink_delay_seconds", "sink": "remote_write"}, 3),
    ({"__name__": "pulsegate_log_fill_ratio"}, 0.25),
    ({"__name__": "pulsegate_aggregator_live_series", "instance": "a"}, 1200),
    ({"__name__": "pulsegate_aggregator_live_series", "instance": "b"}, 34),
    ({"__name__": "pulsegate_canary_lost"}, 0),
    ({"__name__": "pulsegate:objective_budget_left:ratio30d", "objective": "availability"}, 0.9),
    ({"__name__": "ALERTS", "alertname": "PulsegateLogSlow", "alertstate": "firing", "severity": "warning"}, 1),
    ({"__name__": "ALERTS", "alertname": "PulsegateProcessGone", "alertstate": "pending", "severity": "critical"}, 1),
)


_SHOWN = [
    "metrics accepted a second    -",
    "behind, commits              12.5 s",
    "behind, the slowest sink     3.0 s",
    "log filled                   25.0 %",
    "live series                  1,234.0",
    "lost, by the canary          0.0",
    "double, by the canary        -",
    "budget left, availability    90.0 %",
    "alert                        PulsegateLogSlow (warning)",
]


@pytest.fixture
def prometheus(prometheus_binary: Path, tmp_path: Path, port_blocks: Callable[[], Ports]) -> Iterator[str]:
    server = Prometheus(
        binary=prometheus_binary,
        folder=tmp_path / "prometheus",
        port=port_blocks().server("prometheus"),
        log=tmp_path / "prometheus.log",
    )
    with running(server):
        yield server.url


def _write(prometheus: str, *series: tuple[Mapping[str, str], float]) -> None:
    request = WriteRequest()
    for labels, value in series:
        add_series(request, labels, (time.time_ns() // 1_000_000, value))
    write(prometheus, request)


def test_it_shows_how_far_behind_and_how_full_things_are_with_budgets_and_alerts(prometheus: str) -> None:
    of_tenant = [({**labels, "tenant_id": "t"}, 99) for labels, _ in _SERIES]
    _write(prometheus, *_SERIES, *of_tenant)
    found = [
        Readiness(name="gateway", status="degraded", missing={"redis": "no answer"}),
        Readiness(name="auth", status="ready", missing={}),
    ]
    assert list(lines(_installation(prometheus), found)) == [
        "gateway                      degraded  redis: no answer",
        "auth                         ready",
        "",
        *_SHOWN,
    ]


def test_of_several_installations_it_shows_the_one_that_is_named_and_every_disk_that_fills_up(prometheus: str) -> None:
    of_another = [({**labels, "namespace": "staging", "alertstate": "firing"}, 99) for labels, _ in _SERIES]
    full = {"__name__": "ALERTS", "alertname": "PulsegateDiskFillingUp", "alertstate": "firing", "severity": "critical"}
    of_disk = {**full, "namespace": "databases", "persistentvolumeclaim": "data-postgres-0"}
    named = [({**labels, "namespace": "production"}, value) for labels, value in _SERIES]
    _write(prometheus, *named, *of_another, (of_disk, 1))
    assert list(lines(replace(_installation(prometheus), namespace="production"), [])) == [
        "",
        *_SHOWN,
        "alert                        PulsegateDiskFillingUp (critical)",
    ]


def test_budgets_and_alerts_of_rules_that_name_no_namespace_are_shown_with_one(prometheus: str) -> None:
    made_by_rules = {"ALERTS", "pulsegate:objective_budget_left:ratio30d"}
    scraped = [
        ({**labels, "namespace": "production"}, value)
        for labels, value in _SERIES
        if labels["__name__"] not in made_by_rules
    ]
    of_rules = [(labels, value) for labels, value in _SERIES if labels["__name__"] in made_by_rules]
    of_others = ({"__name__": "ALERTS", "alertname": "Watchdog", "alertstate": "firing", "severity": "none"}, 1)
    _write(prometheus, *scraped, *of_rules, of_others)
    assert list(lines(replace(_installation(prometheus), namespace="production"), [])) == ["", *_SHOWN]


def test_it_says_so_where_prometheus_does_not_answer() -> None:
    *_, last = lines(_installation("http://127.0.0.1:9"), [])
    assert last == "double, by the canary        unknown: Prometheus does not answer"


def _installation(prometheus: str) -> Installation:
    return Installation(processes={}, database="", owners={}, nats="", prometheus=prometheus)
