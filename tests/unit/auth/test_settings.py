"""What auth reads from its environment."""

import base64
from pathlib import Path

import pytest

from chassis.settings import SettingsError, load
from services.auth.settings import Settings

KEY = bytes(range(200, 232))
ENVIRONMENT = {
    "PULSEGATE_OPS_PORT": "8082",
    "PULSEGATE_GRPC_PORT": "8083",
    "PULSEGATE_SERVICE_TOKEN": "shared",
    "PULSEGATE_POSTGRES_DSN": "postgresql://auth@localhost/pulsegate",
    "PULSEGATE_AUTH_MASTER_KEY": base64.urlsafe_b64encode(KEY).decode(),
}


def fault_of(variable: str, text: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load(Settings, {**ENVIRONMENT, variable: text})
    [fault] = refused.value.faults
    return fault


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = load(Settings, ENVIRONMENT)

    assert (settings.access_token_seconds, settings.refresh_token_days, settings.principal_seconds) == (900, 7, 120)
    assert (settings.default_plan, settings.bcrypt_cost, settings.signing_key_days) == ("enterprise", 12, 30)


@pytest.mark.parametrize(("connections", "of_verdicts", "of_tenants"), [("2", 4, 1), ("10", 4, 8), ("60", 20, 48)])
def test_more_connections_are_more_for_checking_credentials_and_for_tenants_too(
    connections: str, of_verdicts: int, of_tenants: int
) -> None:
    settings = load(Settings, {**ENVIRONMENT, "PULSEGATE_POSTGRES_CONNECTIONS": connections})

    assert (settings.verdict_connections, settings.tenant_connections) == (of_verdicts, of_tenants)


@pytest.mark.parametrize("padding", ["", "="])
def test_the_master_key_is_32_bytes_of_base64url_padded_or_not(padding: str) -> None:
    text = base64.urlsafe_b64encode(KEY).decode().rstrip("=") + padding

    assert load(Settings, {**ENVIRONMENT, "PULSEGATE_AUTH_MASTER_KEY": text}).master_key == KEY


def test_the_master_key_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(ENVIRONMENT["PULSEGATE_AUTH_MASTER_KEY"] + "\n")
    environment = {name: text for name, text in ENVIRONMENT.items() if name != "PULSEGATE_AUTH_MASTER_KEY"}

    assert load(Settings, {**environment, "PULSEGATE_AUTH_MASTER_KEY_FILE": str(file)}).master_key == KEY


@pytest.mark.parametrize("text", ["short", "!" * 43, "A" * 42, "A" * 44 + "==", "é" * 43])
def test_any_other_master_key_is_refused_without_being_shown(text: str) -> None:
    assert fault_of("PULSEGATE_AUTH_MASTER_KEY", text) == ("PULSEGATE_AUTH_MASTER_KEY: must be 32 bytes in base64url")


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PULSEGATE_BCRYPT_COST", "11"),
        ("PULSEGATE_DEFAULT_PLAN", "platinum"),
        ("PULSEGATE_ACCESS_TOKEN_SECONDS", "0"),
        ("PULSEGATE_PRINCIPAL_SECONDS", "3600"),
        ("PULSEGATE_POSTGRES_DSN", "mysql://localhost"),
        ("PULSEGATE_SMTP_URL", "http://localhost"),
        ("PULSEGATE_MAIL_SENDER", "nobody"),
        ("PULSEGATE_CONSOLE_URL", "console.example.com"),
        ("PULSEGATE_OPERATORS", "ada@example.com,"),
    ],
)
def test_a_setting_out_of_its_bounds_is_named(variable: str, text: str) -> None:
    assert fault_of(variable, text).startswith(f"{variable}: must")


def test_the_console_the_sender_of_mails_and_operators_are_taken_as_they_are_written() -> None:
    changed = {"PULSEGATE_CONSOLE_URL": "https://console.example.com/", "PULSEGATE_MAIL_SENDER": "P <p@example.com>"}
    operators = {"PULSEGATE_OPERATORS": "ada@example.com, eve@example.com"}
    read = load(Settings, {**ENVIRONMENT, **changed, **operators})

    assert read.operators == ("ada@example.com", "eve@example.com")
    assert (read.console_url, read.mail_sender) == ("https://console.example.com", "P <p@example.com>")


def test_secrets_are_not_shown_when_settings_are_printed() -> None:
    shown = repr(load(Settings, ENVIRONMENT))

    assert "shared" not in shown
    assert "localhost" not in shown
    assert "master_key" not in shown
