"""Secrets that change while they are used: out of files, out of Vault; and what the log says of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chassis import secrets
from chassis.secrets import VaultSecret
from chassis.service_tokens import ServiceToken
from chassis.settings import SecretSettings, SettingsError, load, setting, url
from tests.captured_logs import logged_by
from tests.vault_server import ROLE_ID, SECRET_ID, VaultServer, vault_server
from tests.waiting import wait_for


@dataclass(frozen=True, kw_only=True)
class Settings(SecretSettings):
    dsn: str = setting("DSN", parse=url("postgresql"), secret=True)
    level: str = setting("LEVEL", default="info")


FIRST, SECOND = "postgresql://auth:hunter2@db/pulsegate", "postgresql://auth:hunter3@db/pulsegate"


@pytest.fixture
def vault() -> Iterator[VaultServer]:
    with vault_server() as vault:
        vault.keep("secret/pulsegate/auth", dsn=FIRST)
        yield vault


def in_vault(vault: VaultServer, reference: str = "vault:secret/pulsegate/auth#dsn", **others: str) -> Settings:
    environment = {
        "DSN": reference,
        "PULSEGATE_VAULT_ADDRESS": vault.address,
        "PULSEGATE_VAULT_ROLE_ID": ROLE_ID,
        "PULSEGATE_VAULT_SECRET_ID": SECRET_ID,
        **others,
    }
    return load(Settings, environment)


def refresh(settings: Settings) -> None:
    secret = settings.secrets["dsn"]
    assert isinstance(secret, VaultSecret)
    secret.refresh()


def test_a_changed_file_is_taken_and_a_faulty_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "dsn"
    path.write_text(f"{FIRST}\n")
    dsn = load(Settings, {"DSN_FILE": str(path)}).following("dsn")
    assert dsn() == FIRST
    path.write_text("not an address")
    with logged_by(secrets) as said:
        wait_for(lambda: dsn() == FIRST and said)
        path.unlink()
        wait_for(lambda: dsn() == FIRST and len(said) == 2)
    path.write_text(SECOND)
    wait_for(lambda: dsn() == SECOND)


def test_what_was_set_otherwise_stays_what_it_is() -> None:
    assert load(Settings, {"DSN": FIRST}).following("dsn")() == FIRST
    assert Settings(dsn=FIRST).following("dsn")() == FIRST
    assert load(Settings, {"DSN": FIRST}).following("level")() == "info"


async def test_each_reading_is_on_record_and_no_value_is(vault: VaultServer) -> None:
    with logged_by(secrets) as said:
        settings = in_vault(vault)
        async with secrets.followed(settings.secrets.values()):
            vault.keep("secret/pulsegate/auth", dsn=SECOND)
            refresh(settings)
            refresh(settings)
    source = "vault:secret/pulsegate/auth#dsn"
    reading = {"setting": "DSN", "source": source, "event": "secret read", "log_level": "info"}
    assert said == [reading, reading]
    assert "hunter" not in repr(settings)


def test_a_secret_in_vault_is_read_and_read_again(vault: VaultServer) -> None:
    settings = in_vault(vault)
    dsn = settings.following("dsn")
    assert (settings.dsn, dsn()) == (FIRST, FIRST)
    vault.keep("secret/pulsegate/auth", dsn=SECOND)
    refresh(settings)
    assert dsn() == SECOND


def test_a_token_is_renewed_and_one_that_was_revoked_or_cannot_be_renewed_is_replaced(vault: VaultServer) -> None:
    vault.lease_seconds = 2
    settings = in_vault(vault)

    def asked_for(path: str) -> bool:
        refresh(settings)
        return path in vault.asked

    vault.asked.clear()
    wait_for(lambda: asked_for("/v1/auth/token/renew-self"))
    vault.renewable = False
    vault.asked.clear()
    wait_for(lambda: asked_for("/v1/auth/approle/login"))
    vault.lease_seconds = 3600
    vault.tokens.clear()
    vault.keep("secret/pulsegate/auth", dsn=SECOND)
    refresh(settings)
    assert settings.following("dsn")() == SECOND


def test_while_vault_refuses_the_secret_stays(vault: VaultServer) -> None:
    settings = in_vault(vault)
    vault.kept.clear()
    with logged_by(secrets) as said:
        refresh(settings)
    assert settings.following("dsn")() == FIRST
    assert [each["event"] for each in said] == ["a secret could not be read again"]


@pytest.mark.parametrize(
    ("reference", "others", "fault"),
    [
        ("vault:secret/pulsegate/auth", {}, "must be vault:mount/path#field"),
        ("vault:secret/nothing#dsn", {}, "Vault has no vault:secret/nothing#dsn"),
        ("vault:secret/pulsegate/auth#user", {}, "Vault has no text at"),
        ("vault:secret/pulsegate/auth#dsn", {"PULSEGATE_VAULT_SECRET_ID": "guessed"}, "Vault does not give"),
        ("vault:secret/pulsegate/auth#dsn", {"PULSEGATE_VAULT_ADDRESS": "http://127.0.0.1:1"}, "Vault does not give"),
        ("vault:secret/pulsegate/auth#dsn", {"PULSEGATE_VAULT_ROLE_ID": ""}, "needs PULSEGATE_VAULT_ADDRESS"),
    ],
)
def test_what_vault_does_not_give_is_a_fault_of_the_setting(
    reference: str, others: dict[str, str], fault: str, vault: VaultServer
) -> None:
    with pytest.raises(SettingsError) as caught:
        in_vault(vault, reference, **others)
    [said] = caught.value.faults
    assert said.startswith(f"DSN: {fault}")
    assert "guessed" not in said


def test_the_first_service_token_is_sent_and_each_is_accepted() -> None:
    texts = ["old"]
    token = ServiceToken(lambda: texts[-1])
    for text, sent, accepted, refused in (
        ("old", "old", ["old"], ["new", ""]),
        ("old new", "old", ["old", "new"], ["old new", ""]),
        ("new old\n", "new", ["old", "new"], ["ne"]),
        ("new", "new", ["new"], ["old"]),
    ):
        texts.append(text)
        assert token.sent == sent
        assert all(map(token.accepts, accepted))
        assert not any(map(token.accepts, refused))
