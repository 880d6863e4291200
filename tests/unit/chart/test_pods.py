"""What the chart says about each pod: what it is told, when it is ready, and what it may not do."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import helm_python
import pytest

from chassis import api_keys
from chassis.settings import MigrationSettings, load
from deploy.local.services import CANARY, SERVICES, Service
from tests.chart_rendering import CASES, CHART, Object, Pod, Rendered, Values, case, render
from tests.vault_server import ROLE_ID, SECRET_ID, VaultServer, vault_server

_SERVICES = {service.name: service for service in (*SERVICES, CANARY)}
_SECRETS = {
    "serviceToken": "a-secret-that-is-shared",
    "authMasterKey": "A" * 43 + "=",
    "gatewaySealingKey": "another-secret-of-gateways-alone",
    "natsUrl": "nats://pulsegate:secret@nats:4222",
    "valkeyUrl": "redis://:secret@valkey:6379/0",
    "prometheusUrl": "http://reader:secret@prometheus:9090",
    "remoteWriteUrl": "http://prometheus:9090/api/v1/write",
    "smtpUrl": "smtp://pulsegate:secret@smtp:587",
    "canaryKey": api_keys.with_checksum(f"sk_{'0' * api_keys.RANDOM_CHARACTERS}"),
    "sinkHeaders": '{"mimir": {"X-Scope-OrgID": "pulsegate"}}',
    **{f"{schema}Dsn": f"postgresql://{schema}@db/pulsegate" for schema in ("auth", "config", "codegen", "ingest")},
}
#: Settings that no value of the chart changes.
_NOT_OFFERED = {
    "PULSEGATE_TEST_INSTALLATION",
    "PULSEGATE_FAILPOINTS",
    "PULSEGATE_FAILPOINTS_SEED",
    "PULSEGATE_RESTARTS",
    "PULSEGATE_SDK_DIRECTORY",
    "PULSEGATE_MAIL_FOLDER",
}
#: Told only where values ask for it.
_OPTIONAL = {
    "PULSEGATE_CONSOLE_URL",
    "PULSEGATE_MAIL_SENDER",
    "PULSEGATE_SMTP_URL",
    "PULSEGATE_MTLS_CA_PATH",
    "PULSEGATE_MTLS_CERTIFICATE_PATH",
    "PULSEGATE_MTLS_DOMAIN",
    "PULSEGATE_MTLS_KEY_PATH",
    "PULSEGATE_OTLP_ENDPOINT",
    "PULSEGATE_PROFILES_URL",
    "PULSEGATE_SINKS",
    "PULSEGATE_SINK_HEADERS",
    "PULSEGATE_TLS_CERTIFICATE_PATH",
    "PULSEGATE_TLS_KEY_PATH",
    "PULSEGATE_TRACES_SAMPLER",
    "PULSEGATE_TRACES_SAMPLER_ARG",
    "PULSEGATE_VAULT_ADDRESS",
    "PULSEGATE_VAULT_CA_PATH",
    "PULSEGATE_VAULT_ROLE_ID",
    "PULSEGATE_VAULT_SECRET_ID",
}


@pytest.fixture(scope="module", params=CASES)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return case(request.param)


@pytest.fixture(scope="module")
def defaults() -> Rendered:
    return case("defaults")


@pytest.fixture(scope="module")
def vault() -> Iterator[VaultServer]:
    """Keeps what the values for Vault say that it keeps."""
    kept: dict[str, dict[str, str]] = {}
    for item, where in CASES["vault"]["secrets"]["items"].items():
        path, _, field = where["vault"].partition("#")
        kept.setdefault(path, {})[field] = _SECRETS.get(item, "postgresql://owner@db/pulsegate")
    with vault_server() as vault:
        for path, fields in kept.items():
            vault.keep(path, **fields)
        yield vault


def _with_secrets_in(folder: Path, pod: Pod, vault: VaultServer) -> dict[str, str]:
    """The pod's environment, its secrets in a folder of this machine or in the Vault; without certificates."""
    for item, text in {**_SECRETS, "role-id": ROLE_ID, "secret-id": SECRET_ID}.items():
        (folder / item).write_text(text)
    places = re.compile("/run/(secrets|vault)/pulsegate")
    told = {name: places.sub(str(folder), text) for name, text in pod.environment.items()}
    told |= {"PULSEGATE_VAULT_ADDRESS": vault.address} if "PULSEGATE_VAULT_ADDRESS" in told else {}
    told.pop("PULSEGATE_VAULT_CA_PATH", None)
    return {name: text for name, text in told.items() if not name.startswith(("PULSEGATE_TLS_", "PULSEGATE_MTLS_"))}


def test_every_service_starts_with_what_its_pod_is_told(rendered: Rendered, tmp_path: Path, vault: VaultServer) -> None:
    pods = rendered.services()
    assert {pod.component for pod in pods} - {CANARY.name} == {service.name for service in SERVICES}
    for pod in pods:
        service = _SERVICES[pod.component]
        load(service.settings, _with_secrets_in(tmp_path, pod, vault))
        command = [*pod.container["command"], *pod.container.get("args", [])]
        assert command == ["python", "-m", *service.module]


@pytest.mark.parametrize("service", _SERVICES.values(), ids=lambda service: service.name)
def test_every_setting_is_told_offered_or_left_out_on_purpose(service: Service) -> None:
    (pod,) = (pod for pod in case("evaluation").services() if pod.component == service.name)
    told = {name.removesuffix("_FILE") for name in pod.environment}
    offered = _offered(service)
    read = {field.metadata["variable"] for field in dataclasses.fields(service.settings) if field.metadata}
    assert offered <= read
    assert not offered & (told | _NOT_OFFERED | _OPTIONAL)
    not_for_it = {"PULSEGATE_SERVICE_TOKEN"} if service is CANARY else set()
    missing = read - offered - told - _NOT_OFFERED - _OPTIONAL - not_for_it
    assert not missing, f"offer them in values.schema.json, {service.name}.settings: {sorted(missing)}"


def _offered(service: Service) -> set[str]:
    """The settings that values may hold for a component."""
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"][service.name]
    if service is CANARY:
        return set(schema["properties"]["settings"]["allOf"][1]["propertyNames"]["enum"])
    return set(schema["allOf"][1]["properties"]["settings"]["propertyNames"]["enum"])


@pytest.mark.parametrize("name", CASES)
def test_one_canary_flies_where_it_is_asked_for(name: str) -> None:
    canaries = [pod for pod in case(name).services() if pod.component == CANARY.name]
    assert len(canaries) == int(CASES[name].get("canary", {}).get("enabled", False))
    for canary in canaries:
        assert canary.owner["spec"]["replicas"] == 1
        assert canary.owner["spec"]["strategy"] == {"type": "Recreate"}
        assert _mounted(canary) <= {"canaryKey"}


def test_what_a_canary_has_sent_may_outlive_its_pod() -> None:
    (canary,) = (pod for pod in case("production").services() if pod.component == CANARY.name)
    (state,) = (volume for volume in canary.spec["volumes"] if volume["name"] == "state")
    assert state["persistentVolumeClaim"] == {"claimName": "pulsegate-canary"}


def test_a_canary_is_of_the_newest_version() -> None:
    values = {"canary": {"enabled": True}, "migrations": {"track": "new"}, "tracks": {"new": {"tag": "0.2.0"}}}
    (canary,) = (pod for pod in render(values).services() if pod.component == CANARY.name)
    assert canary.container["image"] == "pulsegate-canary:0.2.0"


def test_probes_ask_what_each_is_for(rendered: Rendered) -> None:
    for pod in rendered.services():
        container = pod.container
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        http = {"periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": 3}
        startup = {"periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": 30}
        assert container["startupProbe"] == {"httpGet": {"path": "/health/startup", "port": "operations"}, **startup}
        assert container["livenessProbe"] == {"httpGet": {"path": "/health/live", "port": "operations"}, **http}
        plain_grpc = "grpc" in ports and "PULSEGATE_MTLS_KEY_PATH" not in pod.environment
        ready = {"grpc": {"port": ports["grpc"]}} if plain_grpc else _ready_by_http()
        assert container["readinessProbe"] == {**ready, **http}


def test_a_server_that_makes_its_data_ready_is_not_taken_for_dead() -> None:
    servers = [pod for pod in case("evaluation").pods() if pod.owner["kind"] == "StatefulSet"]
    assert {pod.component for pod in servers} == {
        f"evaluation-{name}" for name in ("postgres", "nats", "valkey", "prometheus")
    }
    for pod in servers:
        live, startup = pod.container["livenessProbe"], pod.container["startupProbe"]
        assert startup == {**live, "periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": 30}


def test_an_evaluations_prometheus_is_made_anew_with_its_rules() -> None:
    rendered = case("evaluation")
    files = rendered.named("ConfigMap", "pulsegate-evaluation-prometheus")["data"]
    assert {"prometheus.yml", "causes.yaml"} < set(files)
    (pod,) = (pod for pod in rendered.pods() if pod.component == "evaluation-prometheus")
    told = pod.owner["spec"]["template"]["metadata"]["annotations"]["checksum/configuration"]
    assert told == hashlib.sha256(_as_go_writes(files).encode()).hexdigest()


def _as_go_writes(files: Mapping[str, str]) -> str:
    text = json.dumps(files, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _ready_by_http() -> dict[str, dict[str, str]]:
    return {"httpGet": {"path": "/health/ready", "port": "operations"}}


def test_every_pod_keeps_to_the_restricted_standard(rendered: Rendered) -> None:
    for pod in rendered.pods():
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        assert pod.spec["securityContext"]["runAsUser"] >= (65532 if pod.track else 999)
        assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert not any("hostPath" in volume for volume in pod.spec["volumes"])
        assert "memory" in pod.container["resources"]["limits"]


def test_a_pod_mounts_the_secrets_that_its_service_reads_and_no_others(defaults: Rendered) -> None:
    mounted = {pod.component: _mounted(pod) for pod in defaults.services()}
    assert mounted == {
        "auth": {"serviceToken", "authMasterKey", "authDsn"},
        "config": {"serviceToken", "configDsn"},
        "codegen": {"serviceToken", "codegenDsn"},
        "receiver": {"serviceToken", "natsUrl", "ingestDsn"},
        "aggregator": {"serviceToken", "natsUrl", "ingestDsn"},
        "gateway": {"serviceToken", "valkeyUrl", "gatewaySealingKey"},
    }


def test_an_address_of_prometheus_may_be_in_a_secret_and_is_told_one_way_alone() -> None:
    elsewhere: dict[str, Values] = {
        "secret": {},
        "value": {"prometheusUrl": "http://prometheus:9090"},
        "evaluation": {"evaluation": {"enabled": True}},
    }
    gateways = {place: _gateway({"prometheusUrlFromSecret": True, **values}) for place, values in elsewhere.items()}
    item = "/run/secrets/pulsegate/prometheusUrl"
    assert gateways["secret"].environment["PULSEGATE_PROMETHEUS_URL_FILE"] == item
    assert {place for place, pod in gateways.items() if "prometheusUrl" in _mounted(pod)} == {"secret"}
    told = {place for place, pod in gateways.items() if "PULSEGATE_PROMETHEUS_URL" in pod.environment}
    assert told == {"value", "evaluation"}


def _gateway(values: Values) -> Pod:
    (gateway,) = (pod for pod in render(values).services() if pod.component == "gateway")
    return gateway


def _mounted(pod: Pod) -> set[str]:
    return {item["path"] for source in _sources(pod) for item in source["items"]}


def _sources(pod: Pod) -> list[Object]:
    """The Secrets of which items are mounted."""
    projected = [volume["projected"] for volume in pod.spec["volumes"] if "projected" in volume]
    return [source["secret"] for each in projected for source in each["sources"]]


def test_what_is_in_vault_is_read_there_by_an_approle_of_each_component(vault: VaultServer, tmp_path: Path) -> None:
    rendered = case("vault")
    roles = {
        pod.component: [v["secret"]["secretName"] for v in pod.spec["volumes"] if v["name"] == "vault"]
        for pod in rendered.pods()
    }
    own = {"auth": ["pulsegate-vault-auth"], "migration": ["pulsegate-vault-migrations"]}
    assert roles == {component: own.get(component, ["pulsegate-vault"]) for component in roles}
    assert {pod.component: _mounted(pod) for pod in rendered.pods() if _mounted(pod)} == {"auth": {"smtpUrl"}}
    for job in (pod for pod in rendered.pods() if pod.component == "migration"):
        settings = load(MigrationSettings, _with_secrets_in(tmp_path, job, vault))
        assert settings.owner_dsn == "postgresql://owner@db/pulsegate"


def test_vault_is_named_where_something_is_in_it() -> None:
    with pytest.raises(helm_python.HelmRenderError, match=r"vault\.address"):
        render({"secrets": {"items": {"natsUrl": {"vault": "secret/pulsegate/ingest#nats-url"}}}})


def test_owner_addresses_are_for_migrations_alone() -> None:
    rendered = case("production")
    jobs = [pod for pod in rendered.pods() if pod.owner["kind"] == "Job"]
    assert {pod.container["command"][-1] for pod in jobs} == {
        "services.auth",
        "services.config",
        "services.codegen",
        "services.ingest",
    }
    for job in jobs:
        assert job.owner["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert job.container["args"] == ["migrate"]
        assert {source["name"] for source in _sources(job)} == {"pulsegate-migrations"}
    assert not any("Owner" in item for pod in rendered.services() for item in _mounted(pod))


def test_aggregators_that_are_upgraded_first_find_their_schema() -> None:
    rendered = render({"aggregator": {"image": {"tag": "0.2.0"}}})
    images = {pod.owner["metadata"]["name"]: pod.container["image"] for pod in rendered.pods() if not pod.track}
    assert images["pulsegate-migrate-ingest"] == "pulsegate-ingest:0.2.0"
    assert images["pulsegate-migrate-auth"] == "pulsegate-auth:0.1.0"


def seconds_to_end(pod: Pod) -> int:
    """What its end may take."""
    before = pod.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    told = pod.environment
    return int(before) + int(told.get("PULSEGATE_UNREADY_SECONDS", 0)) + int(told["PULSEGATE_DRAIN_SECONDS"])


def test_the_time_to_end_covers_all_that_an_end_takes(rendered: Rendered) -> None:
    for pod in rendered.services():
        assert pod.spec["terminationGracePeriodSeconds"] > seconds_to_end(pod)


def test_values_reach_the_pods_exactly() -> None:
    rendered = case("production")
    pods = {pod.component: pod for pod in rendered.services()}
    assert pods["gateway"].environment["PULSEGATE_INGEST_REQUESTS_PER_MINUTE"] == "1000000"
    assert pods["receiver"].environment["PULSEGATE_LOG_MAX_BYTES"] == "107374182400"
    assert pods["gateway"].environment["PULSEGATE_GATEWAY_REPLICAS"] == "20"
    assert (
        pods["gateway"].container["image"].startswith("registry.example.com/pulsegate/pulsegate-gateway:0.1.0@sha256:")
    )
    assert pods["auth"].container["image"] == "registry.example.com/pulsegate/pulsegate-auth:0.1.0"


def test_an_autoscaler_and_a_fixed_number_do_not_quarrel() -> None:
    rendered = case("production")
    scaled = {
        each["spec"]["scaleTargetRef"]["name"]: each["spec"] for each in rendered.objects("HorizontalPodAutoscaler")
    }
    assert set(scaled) == {"pulsegate-gateway", "pulsegate-receiver", "pulsegate-aggregator"}
    for deployment in rendered.objects("Deployment"):
        assert ("replicas" in deployment["spec"]) != (deployment["metadata"]["name"] in scaled)
    lag = scaled["pulsegate-aggregator"]["metrics"][1]["external"]
    assert (lag["metric"]["name"], lag["target"]["averageValue"]) == ("pulsegate_log_lag_frames", "1000")
    assert (scaled["pulsegate-aggregator"]["minReplicas"], scaled["pulsegate-aggregator"]["maxReplicas"]) == (2, 4)


def test_a_track_with_a_number_of_its_own_is_not_scaled_and_limits_are_shared_by_all_tracks_that_serve() -> None:
    scaled = {"gateway": {"autoscaling": {"enabled": True, "maxReplicas": 20}}}
    canary = {"tracks": {"stable": {}, "canary": {"tag": "0.2.0", "components": ["gateway"], "replicas": 1}}}
    rendered = render({**scaled, **canary})
    (scaler,) = rendered.objects("HorizontalPodAutoscaler")
    assert scaler["metadata"]["name"] == "pulsegate-gateway"
    assert rendered.named("Deployment", "pulsegate-gateway-canary")["spec"]["replicas"] == 1
    assert _shares(rendered) == {"21"}
    assert _shares(case("gateway-api-canary")) == {"3"}
    assert _shares(case("blue-green")) == {"2"}


def _shares(rendered: Rendered) -> set[str]:
    gateways = [pod for pod in rendered.services() if pod.component == "gateway"]
    return {pod.environment["PULSEGATE_GATEWAY_REPLICAS"] for pod in gateways}
