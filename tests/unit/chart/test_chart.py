"""Every values file below `ci/` renders to objects that Kubernetes takes, and typing errors are refused."""

import json
import os
from typing import Any

import helm_python
import pytest
from kubernetes_validate.utils import validate

from tests.chart_rendering import CASES, NAMESPACE, Rendered, case, lint, render

#: Versions; `make chart` asks for several.
_KUBERNETES = os.environ.get("CHART_KUBERNETES", "1.37").split()
#: Their schemas come with operators, not with Kubernetes.
_CUSTOM = {
    "monitoring.coreos.com/v1": {"PodMonitor", "PrometheusRule"},
    "gateway.networking.k8s.io/v1": {"Gateway", "HTTPRoute"},
    "cert-manager.io/v1": {"Certificate"},
    "security.istio.io/v1": {"AuthorizationPolicy", "PeerAuthentication"},
    "chaos-mesh.org/v1alpha1": {"Schedule"},
}


@pytest.fixture(scope="module", params=CASES)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return case(request.param)


@pytest.mark.parametrize("name", CASES)
def test_helm_finds_nothing_to_complain_of(name: str) -> None:
    assert lint(CASES[name]) == []


@pytest.mark.parametrize("version", _KUBERNETES)
def test_kubernetes_takes_every_object(version: str) -> None:
    different = {json.dumps(each, sort_keys=True) for name in CASES for each in case(name).all}
    for each in map(json.loads, different):
        if each["kind"] not in _CUSTOM.get(each["apiVersion"], ()):
            validate(each, version, strict=True)


def test_objects_are_in_the_namespace_and_have_a_name_of_their_own(rendered: Rendered) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered.all]
    assert len(names) == len(set(names))
    for each in rendered.all:
        assert each["metadata"]["namespace"] == NAMESPACE
        assert len(each["metadata"]["name"]) <= 63


def test_the_same_values_render_to_the_same_objects() -> None:
    assert render(CASES["production"]) == render(CASES["production"])


def test_an_upgrade_of_the_chart_alone_restarts_nothing() -> None:
    for pod in case("production").services():
        assert "helm.sh/chart" not in pod.labels


@pytest.mark.parametrize(
    "mistyped",
    [
        {"gatway": {}},
        {"gateway": {"replica": 3}},
        {"gateway": {"autoscaling": {"enable": True}}},
        {"gateway": {"settings": {"PULSEGATE_TRUSTED_PROXY": "10.0.0.0/8"}}},
        {"gateway": {"settings": {"PULSEGATE_POSTGRES_DSN": "postgresql://nowhere"}}},
        {"defaults": {"settings": {"PULSEGATE_TRUSTED_PROXIES": "10.0.0.0/8"}}},
        {"secrets": {"items": {"authMasterkey": {"key": "k"}}}},
        {"tracks": {"canary": {"digests": {"gateway": "0.2.0"}}}},
        {"publicUrl": "metrics.example.com"},
        {"log": {"lanes": 257}},
        {"secrets": {"items": {"authDsn": {"vault": "pulsegate#dsn"}}}},
        {"canary": {"replicas": 2}},
        {"networkPolicy": {"dns": []}},
        {"istio": {"controlPlane": []}},
    ],
)
def test_what_does_not_exist_is_refused(mistyped: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmError):
        render(mistyped)


@pytest.mark.parametrize(
    ("values", "asked_for"),
    [
        ({"ingress": {"enabled": True}}, "ingress.hosts"),
        ({"gatewayApi": {"enabled": True, "hostnames": ["a.example.com"]}}, "gatewayApi.parentRefs"),
        ({"tls": {"certManager": {"enabled": True}}}, "tls.certManager.dnsNames"),
        ({"tracks": {"stable": {"serving": False}}}, "one of them must serve"),
        ({"tracks": {"a": {}, "b": {"serving": False}}}, "none may stand by"),
        ({"tracks": {"stable": {"serving": False}, "next": {"components": ["auth"]}}}, "must have all components"),
    ],
)
def test_what_is_missing_is_named(values: dict[str, Any], asked_for: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=asked_for):
        render(values)
