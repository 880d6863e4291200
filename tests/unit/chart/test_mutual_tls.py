"""Mutual TLS between services as the chart sets it up, with certificates that cert-manager keeps."""

import helm_python
import pytest

from chassis.settings import PeerSettings
from deploy.local.services import SERVICES
from tests.chart_rendering import NAMESPACE, Rendered, case, render

MTLS = {"enabled": True, "issuerRef": {"name": "pulsegate-services"}}
PEERS = {service.name for service in SERVICES if issubclass(service.settings, PeerSettings)}
FILES = {
    "PULSEGATE_MTLS_CERTIFICATE_PATH": "tls.crt",
    "PULSEGATE_MTLS_KEY_PATH": "tls.key",
    "PULSEGATE_MTLS_CA_PATH": "ca.crt",
}


@pytest.fixture(scope="module")
def rendered() -> Rendered:
    return case("production")


def test_each_service_that_calls_or_is_called_has_a_certificate_in_its_own_name(rendered: Rendered) -> None:
    issued = {each["metadata"]["name"]: each["spec"] for each in rendered.objects("Certificate")}
    assert set(issued) == {f"pulsegate-{name}-mtls" for name in PEERS}
    for name in PEERS:
        spec = issued[f"pulsegate-{name}-mtls"]
        assert spec["dnsNames"] == [f"{name}.pulsegate.{NAMESPACE}.internal"]
        assert spec["usages"] == ["server auth", "client auth"]
        assert spec["issuerRef"] == {"name": "pulsegate-services", "kind": "Issuer"}
        assert spec["privateKey"]["rotationPolicy"] == "Always"


def test_a_pod_mounts_its_own_certificate_and_is_told_where(rendered: Rendered) -> None:
    for pod in rendered.services():
        told = {name: text for name, text in pod.environment.items() if name.startswith("PULSEGATE_MTLS_")}
        secrets = [volume["secret"]["secretName"] for volume in pod.spec["volumes"] if volume["name"] == "mtls"]
        if pod.component not in PEERS:
            assert (told, secrets) == ({}, [])
            continue
        assert secrets == [f"pulsegate-{pod.component}-mtls"]
        assert told.pop("PULSEGATE_MTLS_DOMAIN") == f"pulsegate.{NAMESPACE}.internal"
        assert told == {name: f"/run/mtls/pulsegate/{file}" for name, file in FILES.items()}


def test_several_authorities_are_believed_while_one_takes_anothers_place() -> None:
    rendered = render({"mtls": {**MTLS, "authorities": "both-authorities"}})
    for pod in rendered.services():
        if pod.component not in PEERS:
            continue
        [volume] = [each for each in pod.spec["volumes"] if each["name"] == "mtls-authorities"]
        assert volume["configMap"] == {"name": "both-authorities", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
        [mount] = [each for each in pod.container["volumeMounts"] if each["name"] == "mtls-authorities"]
        assert pod.environment["PULSEGATE_MTLS_CA_PATH"] == f"{mount['mountPath']}/ca.crt"
        assert pod.environment["PULSEGATE_MTLS_KEY_PATH"] == "/run/mtls/pulsegate/tls.key"


@pytest.mark.parametrize("nothing", ["", None])
def test_an_authority_of_the_certificates_own_is_believed_where_no_others_are_named(nothing: str | None) -> None:
    rendered = render({"mtls": {**MTLS, "authorities": nothing}})
    told = {pod.environment["PULSEGATE_MTLS_CA_PATH"] for pod in rendered.services() if pod.component in PEERS}
    assert told == {"/run/mtls/pulsegate/ca.crt"}


def test_all_of_an_installation_agree_on_the_domain_of_the_values() -> None:
    rendered = render({"mtls": {**MTLS, "domain": "metrics.example"}})
    assert {pod.environment.get("PULSEGATE_MTLS_DOMAIN", "metrics.example") for pod in rendered.services()} == {
        "metrics.example"
    }
    assert "gateway.metrics.example" in rendered.named("Certificate", "pulsegate-gateway-mtls")["spec"]["dnsNames"]


def test_it_is_not_enabled_without_an_issuer() -> None:
    with pytest.raises(helm_python.HelmError, match="issuerRef"):
        render({"mtls": {"enabled": True}})


def test_without_it_there_are_no_certificates() -> None:
    rendered = case("defaults")
    assert rendered.objects("Certificate") == []
    assert all("mtls" not in {volume["name"] for volume in pod.spec["volumes"]} for pod in rendered.services())
