"""What the documents say about values is what the chart takes."""

import re
from typing import Any

import pytest
import yaml

from deploy.local.layout import CHECKOUT
from tests.chart_rendering import CHART, render

_DOCUMENTS = ("install-kubernetes.md", "zero-trust.md")
_VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
_TEXTS = {name: (CHECKOUT / "docs" / name).read_text() for name in _DOCUMENTS}
_BLOCKS = [block for text in _TEXTS.values() for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


@pytest.mark.parametrize("block", _BLOCKS, ids=lambda block: block.split(":")[0].splitlines()[-1])
def test_values_in_documents_render(block: str) -> None:
    assert render(yaml.safe_load(block)).services()


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
    made = set(re.findall(r"--from-literal=([a-z-]+)=", _TEXTS["install-kubernetes.md"]))
    made |= set(re.findall(r"--from-file=([a-z-]+)=", _TEXTS["install-kubernetes.md"]))
    items = _VALUES["secrets"]["items"]
    optional = {"remoteWriteUrl", "smtpUrl", "sinkHeaders"}
    assert made == {item["key"] for name, item in items.items() if name not in optional}
