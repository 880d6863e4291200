"""Who may reach whom, and what the Services lead to."""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import helm_python
import pytest
import yaml

from deploy.local.layout import CHECKOUT
from deploy.local.services import CANARY, SERVICES
from tests.chart_rendering import CASES, CHART, NAMESPACE, Object, Rendered, case, render

_COMPONENT = "app.kubernetes.io/component"
_CALLEES = {
    "AUTH_ADDRESS": "auth",
    "CONFIG_ADDRESS": "config",
    "CODEGEN_ADDRESS": "codegen",
    "INGEST_ADDRESS": "receiver",
}
_SERVERS: Object = yaml.safe_load((CHART / "values.yaml").read_text())["networkPolicy"]["servers"]


@pytest.fixture(scope="module", params=CASES)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return case(request.param)


def _policy(rendered: Rendered, component: str) -> Object:
    spec: Object = rendered.named("NetworkPolicy", f"pulsegate-{component}")["spec"]
    assert spec["podSelector"]["matchLabels"][_COMPONENT] == component
    return spec


def _peers(rules: list[Object], side: str, port: object) -> set[str]:
    """The components on the other side of what is allowed on a port."""
    return {
        peer["podSelector"]["matchLabels"][_COMPONENT]
        for rule in rules
        if any(each["port"] == port for each in rule["ports"])
        for peer in rule.get(side, [])
        if "podSelector" in peer
    }


def calls() -> dict[str, set[str]]:
    """The services that each service calls."""
    return {service.name: {_CALLEES[need] for need in service.needs if need in _CALLEES} for service in SERVICES}


def test_services_may_call_whom_they_are_told_of_and_nobody_else() -> None:
    rendered = case("defaults")
    for caller, callees in calls().items():
        assert _peers(_policy(rendered, caller)["egress"], "to", 9000) == callees
    for callee in calls():
        allowed = _peers(_policy(rendered, callee)["ingress"], "from", "grpc")
        assert allowed == {caller for caller, callees in calls().items() if callee in callees}


def test_everything_else_is_denied() -> None:
    rendered = case("defaults")
    denied = rendered.named("NetworkPolicy", "pulsegate-default-deny")["spec"]
    assert denied["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in denied
    assert "egress" not in denied
    assert all(pod.is_selected_by(denied["podSelector"]["matchLabels"]) for pod in rendered.pods())


@pytest.mark.parametrize("changed", [{}, {"enabled": True, "metricsFrom": []}], ids=["as it is", "nobody scrapes"])
@pytest.mark.parametrize("name", CASES)
def test_no_rule_has_an_empty_list_of_peers_which_lets_everybody_through(name: str, changed: Object) -> None:
    values = {**CASES[name], "networkPolicy": {**CASES[name].get("networkPolicy", {}), **changed}}
    for policy in render(values).objects("NetworkPolicy"):
        for rule in [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]:
            assert [] not in (rule.get("from"), rule.get("to")), policy["metadata"]["name"]


@pytest.mark.parametrize(("name", "scrapers"), [("defaults", []), ("evaluation", [{"evaluation-prometheus"}])])
def test_metrics_that_nobody_may_read_are_for_an_evaluations_prometheus_alone(
    name: str, scrapers: list[set[str]]
) -> None:
    rendered = render({**CASES[name], "networkPolicy": {"metricsFrom": []}})
    for service in SERVICES:
        rules = _policy(rendered, service.name).get("ingress", [])
        found = [rule for rule in rules if any(port["port"] == "operations" for port in rule["ports"])]
        assert [_peers([rule], "from", "operations") for rule in found] == scrapers
        assert all(len(rule["from"]) == 1 for rule in found)


def test_a_canary_reaches_the_public_port_and_nothing_else() -> None:
    rendered = case("evaluation")
    to_gateway, *others = _policy(rendered, "canary")["egress"][::-1]
    assert [each["port"] for each in to_gateway["ports"]] == [8080]
    assert _peers([to_gateway], "to", 8080) == {"gateway"}
    assert [[each["port"] for each in rule["ports"]] for rule in others] == [[53, 53]]
    assert "canary" in _peers(_policy(case("production"), "gateway")["ingress"], "from", "public")


def test_a_canary_goes_where_it_is_told_and_must_be_told_where_the_gateway_speaks_tls() -> None:
    rendered = case("blue-green")
    (canary,) = (pod for pod in rendered.services() if pod.component == "canary")
    assert canary.environment["PULSEGATE_CANARY_URL"] == "https://metrics.example.com"
    assert _policy(rendered, "canary")["egress"][-1] == {"ports": [{"protocol": "TCP", "port": 443}]}
    with pytest.raises(helm_python.HelmRenderError, match=r"canary\.url"):
        render({"tls": {"existingSecret": "tls"}, "canary": {"enabled": True}})


def _who_may_leave_on(port: int, name: str) -> set[str]:
    specs = {each["metadata"]["name"]: each["spec"] for each in case(name).objects("NetworkPolicy")}
    return {
        policy.removeprefix("pulsegate-")
        for policy, spec in specs.items()
        if any(each["port"] == port for rule in spec.get("egress", []) for each in rule["ports"])
    }


def test_vault_is_reached_by_those_who_read_secrets_there() -> None:
    assert _who_may_leave_on(8200, "vault") == {*(service.name for service in (*SERVICES, CANARY)), "migrate"}
    assert not _who_may_leave_on(8200, "defaults")


def _weight(of: Object) -> int:
    return int(of["metadata"]["annotations"].get("helm.sh/hook-weight", "0"))


def _when(of: Object) -> str | None:
    hook: str | None = of["metadata"].get("annotations", {}).get("helm.sh/hook")
    return hook


def test_migrations_before_an_upgrade_have_its_network_policy_and_not_that_of_the_release_before(
    rendered: Rendered,
) -> None:
    policies = rendered.objects("NetworkPolicy")
    for job in (job for job in rendered.jobs() if policies and _when(job.owner)):
        (policy,) = (
            policy
            for policy in policies
            if _when(policy) == _when(job.owner)
            and _weight(policy) < _weight(job.owner)
            and job.is_selected_by(policy["spec"]["podSelector"]["matchLabels"])
        )
        allowed = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
        assert allowed == {53, 5432} | ({8200} if "PULSEGATE_VAULT_ADDRESS" in job.environment else set())


def test_an_upgrade_that_switches_policies_off_migrates_beside_those_of_the_release_before() -> None:
    rendered = render({"networkPolicy": {"enabled": False}})
    (policy,) = rendered.objects("NetworkPolicy")
    assert policy["spec"]["egress"] == [{}]
    for job in rendered.jobs():
        assert (_when(policy), _weight(policy) < _weight(job.owner)) == (_when(job.owner), True)
        assert job.is_selected_by(policy["spec"]["podSelector"]["matchLabels"])


def test_identity_providers_are_reached_by_auth_where_their_ports_are_named() -> None:
    assert _who_may_leave_on(443, "production") == {"auth"}
    assert not _who_may_leave_on(443, "defaults")


@pytest.mark.parametrize("name", CASES)
def test_there_is_no_way_to_servers_without_ports(name: str) -> None:
    without: Object = {"servers": {server: {"ports": [], "to": []} for server in _SERVERS}}
    for policy in render({**CASES[name], "networkPolicy": without}).objects("NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            assert rule["ports"], policy["metadata"]["name"]
            assert rule["to"], policy["metadata"]["name"]


def test_prometheus_is_reached_by_gateways_that_are_told_where_it_is() -> None:
    assert "gateway" in _who_may_leave_on(9090, "defaults")
    policy = _policy(render({}), "gateway")
    assert "gateway" in _who_may_leave_on(9090, "vault")
    assert not [rule for rule in policy["egress"] if {"protocol": "TCP", "port": 9090} in rule["ports"]]


#: Addresses that clients and people use, not the pods.
_FOR_OTHERS = {"PULSEGATE_PUBLIC_URL", "PULSEGATE_CONSOLE_URL"}


def test_every_server_that_a_pod_is_told_may_be_reached_on_its_port(rendered: Rendered) -> None:
    if not rendered.objects("NetworkPolicy"):
        return
    for pod in rendered.services():
        allowed = {port["port"] for rule in _policy(rendered, pod.component)["egress"] for port in rule["ports"]}
        told = [value for name, value in pod.environment.items() if name not in _FOR_OTHERS]
        for address in map(urlsplit, re.findall(r"https?://[^\s,]+", " ".join(told))):
            port = address.port or {"http": 80, "https": 443}[address.scheme]
            assert port in allowed, f"{pod.component} may not reach {address.geturl()}"


def test_evaluation_servers_are_reached_by_those_who_need_them_alone() -> None:
    rendered = case("evaluation")
    reached = {
        server: _peers(_policy(rendered, f"evaluation-{server}")["ingress"], "from", server)
        for server in ("postgres", "valkey", "nats", "prometheus")
    }
    assert reached == {
        "postgres": {"auth", "config", "codegen", "receiver", "aggregator", "migration"},
        "valkey": {"gateway"},
        "nats": {"receiver", "aggregator"},
        "prometheus": {"gateway", "aggregator"},
    }


def test_every_service_leads_to_ports_that_its_pods_have(rendered: Rendered) -> None:
    for service in rendered.objects("Service"):
        chosen = [pod for pod in rendered.pods() if pod.is_selected_by(service["spec"]["selector"])]
        assert chosen, service["metadata"]["name"]
        for pod in chosen:
            names = {port["name"] for port in pod.container["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= names


def test_every_address_that_a_pod_is_told_is_a_service_of_the_release(rendered: Rendered) -> None:
    ports = {
        f"{service['metadata']['name']}.{NAMESPACE}.svc.cluster.local": {
            port["port"] for port in service["spec"]["ports"]
        }
        for service in rendered.objects("Service")
    }
    for pod in rendered.services():
        for variable in ("AUTH", "CONFIG", "CODEGEN", "INGEST"):
            if address := pod.environment.get(f"PULSEGATE_{variable}_ADDRESS"):
                host, port = address.rsplit(":", 1)
                assert int(port) in ports[host]


def _chosen(rendered: Rendered, service: str) -> set[str | None]:
    selector = rendered.named("Service", service)["spec"]["selector"]
    return {pod.track for pod in rendered.pods() if pod.is_selected_by(selector)}


def test_a_canary_shares_the_traffic() -> None:
    rendered = case("gateway-api-canary")
    assert _chosen(rendered, "pulsegate-gateway") == {"stable", "canary"}
    assert _chosen(rendered, "pulsegate-auth") == {"stable"}
    (rule,) = rendered.named("HTTPRoute", "pulsegate")["spec"]["rules"]
    weights = {backend["name"]: backend["weight"] for backend in rule["backendRefs"]}
    assert weights == {"pulsegate-gateway-track-stable": 95, "pulsegate-gateway-track-canary": 5}
    assert _chosen(rendered, "pulsegate-gateway-track-canary") == {"canary"}
    images = {pod.track: pod.container["image"] for pod in rendered.services() if pod.component == "gateway"}
    assert images["stable"] == "pulsegate-gateway:0.1.0"
    assert images["canary"].startswith("pulsegate-gateway:0.2.0@sha256:")


def test_blue_and_green_change_places_in_the_services_alone() -> None:
    before = CASES["blue-green"]
    after = {
        **before,
        "tracks": {"stable": None, "blue": {"tag": "0.1.0", "serving": False}, "green": {"tag": "0.2.0"}},
    }
    first, second = render(before), render(after)
    for component in (service.name for service in SERVICES):
        assert _chosen(first, f"pulsegate-{component}") == {"blue"}
        assert _chosen(second, f"pulsegate-{component}") == {"green"}
    assert first.objects("Deployment") == second.objects("Deployment")
    assert _chosen(first, "pulsegate-gateway-track-green") == {"green"}


def test_the_service_that_clients_reach_is_the_only_one_that_is_made_public() -> None:
    rendered = case("blue-green")
    public = rendered.named("Service", "pulsegate-gateway")
    assert public["spec"]["type"] == "LoadBalancer"
    assert public["metadata"]["annotations"] == CASES["blue-green"]["service"]["annotations"]
    assert public["spec"]["externalTrafficPolicy"] == "Local"
    for track in ("blue", "green"):
        service = rendered.named("Service", f"pulsegate-gateway-track-{track}")
        assert service["spec"]["type"] == "ClusterIP"
        assert "annotations" not in service["metadata"]


def _ports(service: Object) -> set[int]:
    return {each["port"] for each in service["spec"]["ports"]}


def test_a_service_that_clients_reach_directly_has_the_port_of_their_address() -> None:
    ports = _ports(case("blue-green").named("Service", "pulsegate-gateway"))
    for address in (CASES["blue-green"]["publicUrl"], CASES["blue-green"]["canary"]["url"]):
        assert ports == {urlsplit(address).port or 443}
    load_balancer = {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster", "port": 8443}
    told = render({"service": load_balancer, "canary": {"enabled": True}})
    (service,) = (each for each in told.objects("Service") if each["spec"].get("type") == "LoadBalancer")
    assert service["spec"]["externalTrafficPolicy"] == "Cluster"
    (canary,) = (pod for pod in told.services() if pod.component == "canary")
    assert {urlsplit(canary.environment["PULSEGATE_CANARY_URL"]).port} == _ports(service) == {8443}


@pytest.mark.parametrize("tracks", [{"stable": {}}, CASES["gateway-api-canary"]["tracks"]])
@pytest.mark.parametrize("service", [{}, {"type": "NodePort"}, {"port": 80}])
def test_routes_lead_to_ports_of_services(service: Object, tracks: Object) -> None:
    behind_tls = {"tls": {"existingSecret": "tls"}, "service": service, "tracks": tracks}
    rendered = render({**CASES["gateway-api-canary"], **behind_tls})
    (rule,) = rendered.named("HTTPRoute", "pulsegate")["spec"]["rules"]
    for backend in rule["backendRefs"]:
        assert {backend["port"]} == _ports(rendered.named("Service", backend["name"]))


def _steps_of_the_guide() -> list[Rendered]:
    """An ordinary installation, and then what the guide has one do for a blue-green upgrade, step by step."""
    text = (CHECKOUT / "docs" / "install-kubernetes.md").read_text().partition("**Blue-green.**")[2]
    return [render({}), *(render(yaml.safe_load(block)) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))]


def test_a_blue_green_upgrade_as_the_guide_has_it_always_serves_from_pods_that_were_there() -> None:
    steps = _steps_of_the_guide()
    assert len(steps) == 4
    for before, after in pairwise(steps):
        for component in (service.name for service in SERVICES):
            were = {pod.track for pod in before.services() if pod.component == component}
            are = {pod.track for pod in after.services() if pod.component == component}
            (serving,) = _chosen(after, f"pulsegate-{component}")
            assert serving in were
            assert _chosen(before, f"pulsegate-{component}") <= are, "what serves must not end in the same step"
    (last,) = {pod.track for pod in steps[-1].services()}
    assert last == "green"


def test_the_way_in_ends_at_the_gateway() -> None:
    (rule,) = case("production").named("Ingress", "pulsegate")["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": "pulsegate-gateway", "port": {"name": "public"}}
    (reference,) = case("gateway-api-canary").named("HTTPRoute", "pulsegate")["spec"]["parentRefs"]
    listeners = case("gateway-api-canary").named("Gateway", reference["name"])["spec"]["listeners"]
    assert [listener["protocol"] for listener in listeners] == ["HTTPS"]


def test_the_gateways_certificate_is_the_one_that_is_kept() -> None:
    rendered = case("blue-green")
    secret = rendered.named("Certificate", "pulsegate-gateway")["spec"]["secretName"]
    for pod in (pod for pod in rendered.services() if pod.component == "gateway"):
        assert secret in {volume["secret"]["secretName"] for volume in pod.spec["volumes"] if "secret" in volume}
        assert pod.environment["PULSEGATE_TLS_KEY_PATH"] == "/run/tls/pulsegate/tls.key"


def test_the_evaluation_profile_makes_the_database_as_the_services_expect_it() -> None:
    rendered = case("evaluation")
    scripts = rendered.named("ConfigMap", "pulsegate-evaluation-postgres")["data"]
    assert scripts["10-bootstrap.sql"] == (CHECKOUT / "deploy/postgres/bootstrap.sql").read_text()
    scraped = yaml.safe_load(rendered.named("ConfigMap", "pulsegate-evaluation-prometheus")["data"]["prometheus.yml"])
    services = {f"{each['metadata']['name']}.{NAMESPACE}.svc.cluster.local" for each in rendered.objects("Service")}
    names = {job["job_name"]: job["dns_sd_configs"][0]["names"][0] for job in scraped["scrape_configs"]}
    assert set(names) == {service.name for service in (*SERVICES, CANARY)}
    assert set(names.values()) <= services


def _objects_of(schema: Any, at: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
            yield at, schema
        for name, each in schema.items():
            yield from _objects_of(each, f"{at}/{name}")


def test_the_schema_knows_every_key() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    for at, each in _objects_of(schema):
        assert at.endswith("/global") or each["additionalProperties"] is False, at
