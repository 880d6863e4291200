"""The dashboards that are shipped are those of the code, and ask for what there is."""

import json
import re

import pytest
import yaml

from deploy.grafana.panels import PAGES
from deploy.grafana.queries import Page
from deploy.grafana.rendering import rendered
from deploy.local.layout import DASHBOARDS, RULES
from tests.promql_selectors import metrics_in_code, selectors

_FOREIGN = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes", "ALERTS"}


def _recorded() -> set[str]:
    files = [yaml.safe_load(path.read_text()) for path in RULES.glob("*.yaml")]
    return {rule["record"] for file in files for group in file["groups"] for rule in group["rules"] if "record" in rule}


def test_those_that_are_shipped_are_those_of_the_code() -> None:
    shipped = {path.stem: path.read_text() for path in DASHBOARDS.iterdir()}
    assert shipped == {page.name: rendered(page) for page in PAGES}, "run python -m deploy.grafana"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_charts_of_durations_lead_to_traces(page: Page) -> None:
    for panel in json.loads(rendered(page))["panels"]:
        asked = [set(re.findall(r"(\w+)_bucket\{", target["expr"])) for target in panel["targets"]]
        with_exemplars = [of for of, target in zip(asked, panel["targets"], strict=True) if target.get("exemplar")]
        assert set().union(*with_exemplars) == set().union(*asked), panel["title"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_they_show_the_chosen_namespace_alone(page: Page) -> None:
    shown = json.loads(rendered(page))
    assert "namespace" in {variable["name"] for variable in shown["templating"]["list"]}
    for target in (target for panel in shown["panels"] for target in panel["targets"]):
        for selector in selectors(target["expr"].replace("$__rate_interval", "1m")):
            assert 'namespace="$namespace"' in selector.matchers, selector.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_they_ask_for_what_is_exposed_or_recorded_and_nothing_of_a_tenant(page: Page) -> None:
    known = {*metrics_in_code(), *_FOREIGN, *_recorded()}
    for panel in page.panels:
        for query in panel.queries:
            for selector in selectors(query.expression.replace("$__rate_interval", "1m")):
                assert selector.name in known, f"{panel.title}: {selector.name} is nowhere exposed"
                assert 'tenant_id=""' in selector.matchers, f"{panel.title}: a tenant could send {selector.name}"
