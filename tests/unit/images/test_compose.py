"""The Compose file: valid, and each service is told what it needs to start."""

import json
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from chassis import api_keys
from chassis.settings import MigrationSettings, load
from deploy.local.services import CANARY, SERVICES
from tests import compose_file
from tests.compose_file import FILE, FOLDER

_SCHEMAS = ("auth", "config", "codegen", "ingest")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return compose_file.services()


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What secrets.sh makes."""
    folder = tmp_path_factory.mktemp("compose")
    compose_file.secrets(folder)
    return folder / "secrets"


def test_it_is_what_compose_takes(services: dict[str, Any]) -> None:
    parsed = compose_spec.PyCompose.from_json(json.dumps(yaml.safe_load(compose_file.filled())))
    parsed.validate()
    assert set(parsed.service_names()) == set(services)


def test_what_compose_does_not_know_is_refused(services: dict[str, Any]) -> None:
    mistyped = {"services": {"auth": {**services["auth"], "enviroment": {}}}}
    with pytest.raises(ValueError, match="enviroment"):
        compose_spec.PyCompose.from_json(json.dumps(mistyped))


def test_secrets_are_made_once_and_only_those_that_are_mounted(secrets: Path) -> None:
    files = {each["file"].removeprefix("./secrets/") for each in yaml.safe_load(FILE.read_text())["secrets"].values()}
    made = {path.name for path in secrets.iterdir()}
    assert made - files == {"valkey_password", "nats_password"}  # they are inside other files
    assert files - made == {"canary_key"}  # made by a gateway that runs
    assert (secrets / "service_token").read_text() != (secrets / "postgres_password").read_text()
    assert secrets.stat().st_mode & 0o777 == 0o700


def test_every_service_starts_with_what_it_is_told(services: dict[str, Any], secrets: Path) -> None:
    (secrets / "canary_key").write_text(api_keys.with_checksum(f"sk_{'0' * api_keys.RANDOM_CHARACTERS}"))
    for service in (*SERVICES, CANARY):
        described = services[service.name]
        assert described["image"] == f"pulsegate-{service.module[0].removeprefix('services.')}"
        assert described.get("command", []) == list(service.module[1:])
        told = {name: _here(text, described, secrets) for name, text in described["environment"].items()}
        load(service.settings, told)


def _here(text: str, described: dict[str, Any], secrets: Path) -> str:
    """A mounted secret by its file on this machine; it must be mounted."""
    if not text.startswith("/run/secrets/"):
        return text
    name = text.removeprefix("/run/secrets/")
    assert name in described["secrets"]
    return str(secrets / name)


def test_every_schema_is_migrated_before_its_services_start(services: dict[str, Any], secrets: Path) -> None:
    for schema in _SCHEMAS:
        migration = services[f"migrate-{schema}"]
        assert migration["command"] == ["migrate"]
        load(
            MigrationSettings,
            {name: _here(text, migration, secrets) for name, text in migration["environment"].items()},
        )
    for service in SERVICES:
        if service.schema:
            awaited = services[service.name]["depends_on"][f"migrate-{service.schema}"]
            assert awaited["condition"] == "service_completed_successfully"


def test_addresses_are_those_of_services(services: dict[str, Any]) -> None:
    for service in SERVICES:
        for name, value in services[service.name]["environment"].items():
            if name.endswith("_ADDRESS"):
                host, port = value.split(":")
                assert services[host]["environment"]["PULSEGATE_GRPC_PORT"] == port


def test_nothing_but_the_gateway_and_grafana_can_be_reached_from_outside(services: dict[str, Any]) -> None:
    assert {name for name, each in services.items() if "ports" in each} == {"gateway", "gateway-tls", "grafana"}
    assert all(port.startswith("127.0.0.1:") for each in services.values() for port in each.get("ports", []))


def test_every_gateway_believes_the_proxies_that_are_named() -> None:
    told = compose_file.services(PULSEGATE_TRUSTED_PROXIES="172.20.0.0/16").values()
    gateways = [each["environment"] for each in told if each["image"] == "pulsegate-gateway"]
    assert [each.get("PULSEGATE_TRUSTED_PROXIES") for each in gateways] == ["172.20.0.0/16"] * 2


def test_profiles_add_to_the_core(services: dict[str, Any]) -> None:
    profiles = {name: each["profiles"] for name, each in services.items() if "profiles" in each}
    assert {service.name for service in SERVICES}.isdisjoint(profiles)
    assert {profile for each in profiles.values() for profile in each} == {"observability", "tls", "canary"}


def test_every_process_is_watched_and_gateways_share_the_limits(services: dict[str, Any]) -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]
    fixed = {target for job in jobs for each in job.get("static_configs", []) for target in each["targets"]}
    found = [each for job in jobs for each in job.get("dns_sd_configs", [])]
    scraped = fixed | {f"{name}:{each['port']}" for each in found for name in each["names"]}
    ours = {name: each for name, each in services.items() if each["image"].startswith("pulsegate-")}
    running = {name: each["environment"] for name, each in ours.items() if not name.startswith("migrate-")}
    assert scraped == {f"{name}:{told['PULSEGATE_OPS_PORT']}" for name, told in running.items()}
    gateways = [told for name, told in running.items() if services[name]["image"] == "pulsegate-gateway"]
    assert {told["PULSEGATE_GATEWAY_REPLICAS"] for told in gateways} == {str(len(gateways))}


def test_the_canary_keeps_its_file_in_a_volume_that_it_may_write_to(services: dict[str, Any]) -> None:
    canary = services["canary"]
    (volume,) = canary["volumes"]
    folder = volume.removeprefix("canary:")
    assert canary["environment"]["PULSEGATE_CANARY_STATE"] == f"{folder}/canary.json"
    assert not canary["tmpfs"]
    assert canary["networks"] == ["inside"]


def test_what_is_mounted_from_the_checkout_is_there(services: dict[str, Any]) -> None:
    sources = {volume.split(":")[0] for each in services.values() for volume in each.get("volumes", [])}
    for source in sources:
        if source.startswith(".") and source != "./tls":
            assert (FOLDER / source).exists(), source


def test_the_addresses_that_the_routing_of_alerts_names_are_secrets(services: dict[str, Any]) -> None:
    routing = yaml.safe_load((FOLDER / "alertmanager.yaml").read_text())
    files = {hook["url_file"] for receiver in routing["receivers"] for hook in receiver["webhook_configs"]}
    assert files == {f"/run/secrets/{name}" for name in services["alertmanager"]["secrets"]}
    assert "outside" in services["alertmanager"]["networks"]
