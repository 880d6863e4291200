"""What the servers for logs, traces and charts are told of each other; they have no validators to ask."""

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from deploy.local.layout import CHECKOUT

_FOLDER = CHECKOUT / "deploy" / "compose"
_ALLOY = (_FOLDER / "collected.alloy").read_text()


def _yaml(name: str) -> Any:
    return yaml.safe_load((_FOLDER / name).read_text())


@pytest.fixture(scope="module")
def sources() -> dict[str, dict[str, Any]]:
    """Grafana's data sources, by name."""
    return {source["name"]: source for source in _yaml("grafana-datasources.yaml")["datasources"]}


def _links(told: Any) -> list[str]:
    """The sources that anything in there leads to."""
    if isinstance(told, list):
        return [link for item in told for link in _links(item)]
    if not isinstance(told, dict):
        return []
    own = [told["datasourceUid"]] if "datasourceUid" in told else []
    return own + [link for item in told.values() for link in _links(item)]


def test_metrics_logs_and_traces_lead_to_each_other(sources: dict[str, dict[str, Any]]) -> None:
    names = {source["uid"]: name for name, source in sources.items() if "uid" in source}
    leads = {name: {names[link] for link in _links(source)} for name, source in sources.items() if "uid" in source}
    assert leads == {"Prometheus": {"Traces"}, "Traces": {"Logs", "Prometheus"}, "Logs": {"Traces"}}


def test_sources_are_where_their_servers_listen(sources: dict[str, dict[str, Any]]) -> None:
    services = _yaml("compose.yaml")["services"]
    ports = {urlsplit(source["url"]).hostname: urlsplit(source["url"]).port for source in sources.values()}
    assert set(ports) <= set(services)
    assert ports["tempo"] == _yaml("tempo.yaml")["server"]["http_listen_port"]
    assert ports["loki"] == _yaml("loki.yaml")["server"]["http_listen_port"]


def test_what_is_collected_goes_where_somebody_takes_it() -> None:
    assert _ALLOY.count("{") == _ALLOY.count("}")
    parts = {f"{kind}.{label}" for kind, label in re.findall(r'^([\w.]+) "(\w+)" \{$', _ALLOY, re.MULTILINE)}
    used = set(re.findall(r"= \[?([a-z]\w*(?:\.\w+)+)\.(?:receiver|input|output|targets)\b", _ALLOY))
    sources = {"discovery.docker.containers", "loki.source.docker.containers", "otelcol.receiver.otlp.services"}
    assert used <= parts
    assert parts - used <= sources
    receiver = _yaml("tempo.yaml")["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    assert f'"tempo:{receiver.rpartition(":")[2]}"' in _ALLOY
    assert f"http://loki:{_yaml('loki.yaml')['server']['http_listen_port']}/loki/api/v1/push" in _ALLOY


def test_services_are_told_to_send_traces_to_the_collector() -> None:
    (told,) = re.findall(r"observability: http://(\w+):(\d+)\nPULSEGATE_OTLP", (_FOLDER / ".env.example").read_text())
    assert told[0] in _yaml("compose.yaml")["services"]
    assert f'endpoint = "0.0.0.0:{told[1]}"' in _ALLOY
