"""Every service is scraped, and alerts look at their own release, whatever else the same Prometheus scrapes."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.layout import CHECKOUT, RULES
from deploy.local.services import CANARY, SERVICES
from tests.chart_rendering import NAMESPACE, Object, Rendered, case, render
from tests.promql_selectors import selectors

_RULE_TESTS = CHECKOUT / "tests" / "unit" / "rules"


def test_metrics_are_read_from_every_service() -> None:
    rendered = case("production")
    (monitor,) = rendered.objects("PodMonitor")
    selected = [pod for pod in rendered.pods() if pod.is_selected_by(monitor["spec"]["selector"]["matchLabels"])]
    assert {pod.component for pod in selected if pod.track} == {service.name for service in (*SERVICES, CANARY)}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert all(endpoint["port"] in {port["name"] for port in pod.container["ports"]} for pod in selected if pod.track)


def _rules(rendered: Rendered) -> list[Object]:
    (rules,) = rendered.objects("PrometheusRule")
    return [rule for group in rules["spec"]["groups"] for rule in group["rules"]]


def _alerts(rendered: Rendered) -> dict[str, Object]:
    return {rule["alert"]: rule for rule in _rules(rendered) if "alert" in rule}


def test_alerts_look_at_this_release_and_lead_to_runbooks() -> None:
    for rule in _rules(case("production")):
        for selector in selectors(rule["expr"]):
            of_volume = selector.name.startswith("kubelet_")
            expected = f'namespace="{"databases|monitoring|" if of_volume else ""}{NAMESPACE}"'
            assert expected in selector.matchers, f"{selector.name} of every release"
    for name, alert in _alerts(case("production")).items():
        address = f"https://git.example.com/pulsegate/docs/runbooks/{name}.md"
        assert alert["annotations"]["runbook_url"] == address
    plain = _alerts(render({"monitoring": {"prometheusRule": {"enabled": True}}}))
    assert plain["PulsegateProcessGone"]["annotations"]["runbook_url"] == "docs/runbooks/PulsegateProcessGone.md"
    assert f'namespace=~"{NAMESPACE}"' in plain["PulsegateDiskFillingUp"]["expr"]


@pytest.mark.parametrize("name", ["causes.yaml", "canary.yaml", "objectives.yaml"])
def test_what_another_namespace_has_hides_nothing_of_this_release(promtool: Path, tmp_path: Path, name: str) -> None:
    """The cases of the files as they are, each beside a release in which everything stays as it was at first."""
    cases = yaml.safe_load((_RULE_TESTS / name).read_text())
    cases["rule_files"] = [str(_rules_file(tmp_path, name))]
    for each in cases["tests"]:
        each["input_series"] = list(_beside_another(each["input_series"]))
        for tested in each["alert_rule_test"]:
            for alert in tested["exp_alerts"]:
                alert["exp_labels"].setdefault("namespace", NAMESPACE)
        for tested in each.get("promql_expr_test", ()):
            for sample in tested["exp_samples"]:
                sample["labels"] = sample["labels"].replace("{", f'{{namespace="{NAMESPACE}",')
    _hold(promtool, tmp_path, cases)


@pytest.mark.parametrize(
    ("values", "watched"),
    [({}, ["main-1", "pgdata-acid-main-0"]), ({"volumeClaims": "main-[0-9]+|nats-js-.*"}, ["main-1"])],
)
def test_disks_are_watched_whatever_their_claims_are_called(
    promtool: Path, tmp_path: Path, values: Object, watched: list[str]
) -> None:
    claims = [("pulsegate", "main-1"), ("pulsegate", "pgdata-acid-main-0"), ("another", "main-2")]
    labels = [f'namespace="{namespace}",persistentvolumeclaim="{claim}"' for namespace, claim in claims]
    figures = {"available": "10x20", "capacity": "100x20"}
    alerts = [
        {
            "exp_labels": {"severity": "critical", "namespace": "pulsegate", "persistentvolumeclaim": claim},
            "exp_annotations": {
                "summary": f"10% of the disk {claim} are left.",
                "runbook_url": "docs/runbooks/PulsegateDiskFillingUp.md",
            },
        }
        for claim in watched
    ]
    disks = {
        "interval": "1m",
        "input_series": [
            {"series": f"kubelet_volume_stats_{figure}_bytes{{{each}}}", "values": value}
            for each in labels
            for figure, value in figures.items()
        ],
        "alert_rule_test": [{"alertname": "PulsegateDiskFillingUp", "eval_time": "20m", "exp_alerts": alerts}],
    }
    _hold(promtool, tmp_path, {"rule_files": [str(_rules_file(tmp_path, "causes.yaml", **values))], "tests": [disks]})


def _hold(promtool: Path, folder: Path, cases: Object) -> None:
    file = folder / "cases.yaml"
    file.write_text(yaml.safe_dump(cases))
    tested = subprocess.run([promtool, "test", "rules", file], check=False, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def _rules_file(folder: Path, name: str, **values: str) -> Path:
    """One of the files of rules, as a release has it."""
    groups = {group["name"] for group in yaml.safe_load((RULES / name).read_text())["groups"]}
    watched = {"enabled": True, "volumeNamespaces": ["pulsegate"], **values}
    (rules,) = render({"monitoring": {"prometheusRule": watched}}).objects("PrometheusRule")
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [group for group in rules["spec"]["groups"] if group["name"] in groups]}))
    return file


def _beside_another(series: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for each in series:
        if "namespace=" in each["series"]:
            yield each
            continue
        first = re.match(r"(?:_x\d+ )?([\d.]+)", each["values"])
        assert first is not None, each
        yield _in_namespace(NAMESPACE, each["series"], each["values"])
        yield _in_namespace("another", each["series"], f"{first[1]}x1000")


def _in_namespace(namespace: str, series: str, values: str) -> dict[str, Any]:
    name, _, labels = series.partition("{")
    return {"series": f'{name}{{namespace="{namespace}",{labels or "}"}', "values": values}
