"""The gateway's settings: every fault is named, nothing is guessed."""

import pytest

from chassis.settings import SettingsError, load
from services.gateway.settings import Settings

REQUIRED = {
    "PULSEGATE_OPS_PORT": "8081",
    "PULSEGATE_SERVICE_TOKEN": "st_secret",
    "PULSEGATE_AUTH_ADDRESS": "auth:1",
    "PULSEGATE_CONFIG_ADDRESS": "config:1",
    "PULSEGATE_CODEGEN_ADDRESS": "codegen:1",
    "PULSEGATE_INGEST_ADDRESS": "ingest:1",
    "PULSEGATE_REDIS_URL": "redis://:secret@cache:6379/0",
}


def test_defaults_are_those_of_the_contract() -> None:
    settings = load(Settings, REQUIRED)
    assert settings.port == 8080
    assert settings.auth_requests_per_minute == 5
    assert settings.address_requests_per_15_minutes == 100
    assert settings.ingest_requests_per_minute is None
    assert settings.auth_outage_grace_seconds == 30
    assert settings.default_plan == "enterprise"
    assert settings.cors_origins == frozenset()
    assert settings.trusted_proxies == ()


def test_lists_are_parsed() -> None:
    settings = load(
        Settings,
        {
            **REQUIRED,
            "PULSEGATE_CORS_ORIGINS": "https://Console.example.com:443, http://localhost:5173",
            "PULSEGATE_TRUSTED_PROXIES": "10.0.0.0/8, 203.0.113.9",
        },
    )
    assert settings.cors_origins == {"https://console.example.com", "http://localhost:5173"}
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "203.0.113.9/32"]


def test_all_faults_are_named_at_once() -> None:
    wrong = {
        "PULSEGATE_PORT": "0",
        "PULSEGATE_PUBLIC_URL": "https://metrics.example.com/path",
        "PULSEGATE_CORS_ORIGINS": "console.example.com",
        "PULSEGATE_TRUSTED_PROXIES": "10.0.0.1/8",
        "PULSEGATE_DEFAULT_PLAN": "gold",
        "PULSEGATE_REDIS_URL": "http://secret@cache",
        "PULSEGATE_AUTH_OUTAGE_GRACE_SECONDS": "600",
        "PULSEGATE_TLS_CERTIFICATE_PATH": "/nowhere",
    }
    with pytest.raises(SettingsError) as refused:
        load(Settings, {**REQUIRED, **wrong})
    assert {fault.partition(":")[0].partition(" ")[0] for fault in refused.value.faults} == set(wrong)
    assert "secret" not in str(refused.value)


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(load(Settings, REQUIRED))


@pytest.mark.parametrize(
    ("told", "endpoint"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"PULSEGATE_HOST": "0.0.0.0"}, "http://localhost:8080"),  # noqa: S104 - nothing binds here
        ({"PULSEGATE_HOST": "::1"}, "http://[::1]:8080"),
        ({"PULSEGATE_PUBLIC_URL": "https://metrics.example.com/"}, "https://metrics.example.com"),
    ],
)
def test_generated_clients_send_to_the_public_address(told: dict[str, str], endpoint: str) -> None:
    assert load(Settings, {**REQUIRED, **told}).endpoint == endpoint
