"""Recording rules and alerts: promtool takes them, each fires where it should, and they name what there is."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.layout import CHECKOUT, RULES
from deploy.local.servers import Prometheus
from tests import chart_rendering, compose_file
from tests.promql_selectors import keeps, metrics_in_code, selectors

_CASES = Path(__file__).parent
_RUNBOOKS = CHECKOUT / "docs" / "runbooks"
_SECTIONS = ["What it means", "How bad", "Check", "Mend", "Whom to wake"]
#: Of Prometheus itself and of the kubelet.
_FOREIGN = {"up", "kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"}


def _rules() -> list[dict[str, Any]]:
    files = [yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yaml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def _alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in _rules() if "alert" in rule}


def test_prometheus_takes_every_file(promtool: Path) -> None:
    subprocess.run([promtool, "check", "rules", "--lint-fatal", *RULES.glob("*.yaml")], check=True)


@pytest.mark.parametrize("case", sorted(path.name for path in _CASES.glob("*.yaml")))
def test_they_record_and_fire_as_the_cases_say(promtool: Path, case: str) -> None:
    tested = subprocess.run([promtool, "test", "rules", case], cwd=_CASES, check=False, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    fired = set()
    for path in _CASES.glob("*.yaml"):
        for case in yaml.safe_load(path.read_text())["tests"]:
            fired |= {tested["alertname"] for tested in case["alert_rule_test"] if tested["exp_alerts"]}
    assert fired == set(_alerts())


def test_they_read_what_is_exposed_or_recorded_and_nothing_of_a_tenant() -> None:
    known = {*metrics_in_code(), *_FOREIGN, *(rule["record"] for rule in _rules() if "record" in rule)}
    for rule in _rules():
        for selector in selectors(rule["expr"]):
            assert selector.name in known, f"{selector.name} is read and nowhere exposed"
            assert 'tenant_id=""' in selector.matchers, f"a tenant could send {selector.name}"


def test_every_prometheus_that_is_shipped_keeps_what_the_longest_rule_reads(tmp_path: Path) -> None:
    windows = [int(days) for rule in _rules() for days in re.findall(r"\[(\d+)d\]", rule["expr"])]
    servers = {pod.component: pod for pod in chart_rendering.case("evaluation").pods()}
    local = Prometheus(binary=tmp_path, folder=tmp_path, port=1, log=tmp_path)
    for flags in (
        compose_file.services()["prometheus"]["command"],
        servers["evaluation-prometheus"].container["args"],
        local.program().argv,
    ):
        (kept,) = (flag.partition("=")[2] for flag in flags if flag.startswith("--storage.tsdb.retention.time="))
        assert int(kept.removesuffix("d")) > max(windows)


def test_every_alert_says_whether_it_wakes_somebody_and_names_its_runbook() -> None:
    for name, alert in _alerts().items():
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        assert alert["annotations"].keys() == {"summary", "runbook_url"}, name
        assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    books = {path.stem: path.read_text() for path in _RUNBOOKS.glob("Pulsegate*.md")}
    assert books.keys() == _alerts().keys()
    for name, text in books.items():
        assert re.findall(r"^#+ (.*)$", text, re.MULTILINE) == [name, *_SECTIONS], name


def test_the_first_page_of_the_runbooks_has_each_with_its_severity() -> None:
    rows = re.findall(r"^\| ([a-z, ]+) \| \[(\w+)\]\((\w+)\.md\)", (_RUNBOOKS / "README.md").read_text(), re.MULTILINE)
    severities: dict[str, set[str]] = {}
    for rule in filter(lambda rule: "alert" in rule, _rules()):
        severities.setdefault(rule["alert"], set()).add(rule["labels"]["severity"])
    assert {name: set(words.split(", ")) for words, name, _ in rows} == severities
    assert all(name == target for _, name, target in rows)


def test_runbooks_read_what_is_exposed_or_recorded_and_nothing_of_a_tenant() -> None:
    foreign = {
        *_FOREIGN,
        "ALERTS",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "prometheus_tsdb_storage_blocks_bytes",
    }
    known = {*metrics_in_code(), *foreign, *(rule["record"] for rule in _rules() if "record" in rule)}
    for path in _RUNBOOKS.glob("*.md"):
        for selector in (each for query in _queries(path) for each in selectors(query)):
            assert selector.name in known, path.name
            assert 'tenant_id=""' in selector.matchers, f"{path.name}: a tenant could send {selector.name}"


def test_runbooks_that_ask_a_process_find_out_which() -> None:
    asking = [
        path for path in _RUNBOOKS.glob("Pulsegate*.md") if re.search(r"curl -s \$[A-Z]+/health", path.read_text())
    ]
    for path in asking:
        assert any(keeps(query, "pod") for query in _queries(path)), path.name
    assert not re.search(r"port-forward deploy", "".join(path.read_text() for path in _RUNBOOKS.glob("*.md")))


def _queries(runbook: Path) -> list[str]:
    found = re.findall(r"^\$ .*promtool query (.*)$", runbook.read_text(), re.MULTILINE)
    return [command.split("'")[1] for command in found]
