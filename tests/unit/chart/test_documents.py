"""What the documents say about values is what the chart takes."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from deploy.local.layout import CHECKOUT
from tests.chart_rendering import CASES, CHART, case, render
from tests.console_blocks import commands
from tests.promql_selectors import selectors

_DOCUMENTS = ("install-kubernetes.md", "zero-trust.md")
_VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
_TEXTS = {name: (CHECKOUT / "docs" / name).read_text() for name in _DOCUMENTS}
_YAML = [block for text in _TEXTS.values() for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
#: Of prometheus-adapter, not of the chart.
_ADAPTER = [block for block in _YAML if block.startswith("externalRules:")]
_BLOCKS = [block for block in _YAML if block not in _ADAPTER]


@pytest.mark.parametrize("block", _BLOCKS, ids=lambda block: block.split(":")[0].splitlines()[-1])
def test_values_in_documents_render(block: str) -> None:
    assert render(yaml.safe_load(block)).services()


def test_tracks_of_examples_are_of_different_versions_in_the_chart_of_the_new_one() -> None:
    comments = re.findall(r"^#   (tracks: .*)$", (CHART / "values.yaml").read_text(), re.MULTILINE)
    assert len(comments) == 2
    examples = [*map(yaml.safe_load, [*_BLOCKS, *comments]), *CASES.values()]
    for example in (each for each in examples if "tracks" in each):
        services = render({**example, "image": {"tag": "0.2.0"}}).services()
        tracks = Counter(pod.component for pod in services)
        images = {(pod.component, pod.container["image"]) for pod in services}
        assert tracks == Counter(component for component, _ in images), example["tracks"]


def test_the_rule_for_the_adapter_makes_the_metric_that_the_autoscaler_asks_for() -> None:
    scaler = case("production").named("HorizontalPodAutoscaler", "pulsegate-aggregator")
    asked = scaler["spec"]["metrics"][1]["external"]["metric"]
    (rule,) = (rule for block in _ADAPTER for rule in yaml.safe_load(block)["externalRules"])
    matchers = [f'{name}="{value}"' for name, value in asked["selector"]["matchLabels"].items()]
    assert rule["resources"]["overrides"] == {name: {"resource": name} for name in asked["selector"]["matchLabels"]}
    for expression in (rule["seriesQuery"], rule["metricsQuery"].replace("<<.LabelMatchers>>", ",".join(matchers))):
        (selector,) = selectors(expression)
        assert selector.name == asked["name"]
        assert 'tenant_id=""' in selector.matchers
    assert selector.matchers >= set(matchers)


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_keys_that_documents_name_are_values(document: str) -> None:
    named = re.findall(r"`([a-z][A-Za-z]*(?:\.[A-Za-z]+)+)`", _TEXTS[document])
    for name in named:
        first, *rest = name.split(".")
        if first not in _VALUES:
            continue
        found: Any = {**_VALUES["defaults"], **_VALUES[first]} if "image" in _VALUES[first] else _VALUES[first]
        for key in rest:
            assert key in found, f"{document} names {name}"
            found = found[key]


def test_variables_that_a_secret_is_made_with_are_the_keys_that_are_read() -> None:
    typed = commands(CHECKOUT / "docs" / "install-kubernetes.md")
    making = "\n".join(command for command in typed if "--namespace pulsegate create secret generic" in command)
    made = set(re.findall(r"--from-(?:literal|file)=([a-z-]+)=", making))
    items = _VALUES["secrets"]["items"]
    optional = {"prometheusUrl", "remoteWriteUrl", "smtpUrl", "sinkHeaders"}
    assert made == {item["key"] for name, item in items.items() if name not in optional}
    added = {key for command in typed for key in re.findall(r"patch secret pulsegate .*\{\"([a-z-]+)\":", command)}
    assert added == {items["smtpUrl"]["key"]}


def test_every_secret_that_an_example_names_is_made_by_a_command() -> None:
    typed = [command for path in (CHECKOUT / "docs").glob("*.md") for command in commands(path)]
    written = [found for command in typed for found in re.findall(r"<<'END'\n(.*)\nEND$", command, re.DOTALL)]
    objects = [each for block in [*_YAML, *written] for each in yaml.safe_load_all(block)]
    made = set(re.findall(r"create (?:secret \S+|configmap) (\S+)", "\n".join(typed)))
    made |= {each["spec"]["secretName"] for each in objects if each.get("kind") == "Certificate"}
    named = {name for each in [_VALUES, *objects] for name in _named(each)}
    assert "nats" in named
    assert named <= made


def test_the_password_that_nats_reads_as_configuration_is_no_number() -> None:
    text = _TEXTS["install-kubernetes.md"]
    assert "password: << $NATS_PASSWORD >>" in text, "not quoted"
    (made,) = re.findall(r'create secret generic nats --from-literal=password="(.*)"$', text, re.MULTILINE)
    assert made[0].isalpha()


def _named(described: Any) -> Iterator[str]:
    """Secrets and ConfigMaps."""
    if isinstance(described, list):
        described = dict(enumerate(described))
    if not isinstance(described, dict):
        return
    for key, value in described.items():
        if key in {"existingSecret", "secretName", "tlsSecret", "configMap"} and value:
            yield value
        elif key == "secretKeyRef":
            yield value["name"]
        elif key == "imagePullSecrets":
            yield from (each["name"] for each in value)
        else:
            yield from _named(value)
