"""Secrets that change while they are used: out of files, out of Vault; and what the log says of it."""

import asyncio
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chassis import secrets
from chassis.clock import SystemClock
from chassis.secrets import VaultSecret
from chassis.service_tokens import ServiceToken
from chassis.settings import SecretSettings, SettingsError, load, setting, url
from tests.captured_logs import logged_by
from tests.vault_server import ROLE_ID, SECRET_ID, Answer, VaultServer, vault_server
from tests.waiting import eventually, wait_for


@dataclass(frozen=True, kw_only=True)
class Settings(SecretSettings):
    dsn: str = setting("DSN", parse=url("postgresql"), secret=True)
    level: str = setting("LEVEL", default="info")


FIRST, SECOND, THIRD = (f"postgresql://auth:hunter{number}@db/pulsegate" for number in (2, 3, 4))


@pytest.fixture
def vault() -> Iterator[VaultServer]:
    with vault_server() as vault:
        vault.keep("secret/pulsegate/auth", dsn=FIRST)
        yield vault


def in_vault(vault: VaultServer, reference: str = "vault:secret/pulsegate/auth#dsn", **others: str | None) -> Settings:
    environment = {
        "DSN": reference,
        "PULSEGATE_VAULT_ADDRESS": vault.address,
        "PULSEGATE_VAULT_ROLE_ID": ROLE_ID,
        "PULSEGATE_VAULT_SECRET_ID": SECRET_ID,
        **others,
    }
    return load(Settings, {name: text for name, text in environment.items() if text is not None})


def refresh(settings: Settings) -> None:
    secret = settings.secrets["dsn"]
    assert isinstance(secret, VaultSecret)
    secret.refresh()


async def until(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await eventually(holds)


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


def test_a_file_that_could_not_be_read_is_taken_once_its_permissions_are_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(path: Path, **options: Any) -> str:
        if not path.stat().st_mode & stat.S_IRUSR:  # root may read it all the same
            raise PermissionError
        return path.read_bytes().decode(**options)

    monkeypatch.setattr(Path, "read_text", read_text)
    path, new = tmp_path / "dsn", tmp_path / "new"
    path.write_text(FIRST)
    new.write_text(SECOND)
    new.chmod(0)
    dsn = load(Settings, {"DSN_FILE": str(path)}).following("dsn")
    new.rename(path)
    with logged_by(secrets) as said:
        wait_for(lambda: dsn() == FIRST and said)
        path.chmod(0o400)
        wait_for(lambda: dsn() == SECOND)
    assert [each["event"] for each in said] == ["a secret's file cannot be read", "secret read"]


def test_what_was_set_otherwise_stays_what_it_is() -> None:
    assert load(Settings, {"DSN": FIRST}).following("dsn")() == FIRST
    assert Settings(dsn=FIRST).following("dsn")() == FIRST
    assert load(Settings, {"DSN": FIRST}).following("level")() == "info"


async def test_each_reading_is_on_record_and_no_value_is(vault: VaultServer) -> None:
    with logged_by(secrets) as said:
        settings = in_vault(vault)
        async with secrets.followed(settings.secrets.values(), SystemClock()):
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


class _Impatient(SystemClock):
    """Waits for a moment, however long it is asked to."""

    async def sleep(self, seconds: float) -> None:
        assert seconds == 60
        await asyncio.sleep(0.01)


async def test_a_running_process_takes_what_changes_in_vault_and_outlives_what_is_no_vault(vault: VaultServer) -> None:
    settings = in_vault(vault)
    dsn = settings.following("dsn")

    async def comes_and_is_kept(value: str) -> None:
        vault.instead = None
        vault.keep("secret/pulsegate/auth", dsn=value)
        await until(lambda: bool(dsn() == value))
        vault.instead = (200, "<h1>It works!</h1>")
        told = len(said)
        await until(lambda: len(said) >= told + 2)
        assert dsn() == value

    with logged_by(secrets) as said:
        async with secrets.followed(settings.secrets.values(), _Impatient()):
            await comes_and_is_kept(SECOND)
            await comes_and_is_kept(THIRD)


@pytest.mark.parametrize(
    "instead",
    [
        (200, "<h1>It works!</h1>"),
        (200, ""),
        (204, ""),
        (200, [{}]),
        (200, {"auth": None, "data": None}),
        (200, {"auth": {"client_token": "t"}, "data": {"dsn": "hunter2"}}),  # as version 1 of the engine has it
        (200, {"auth": {"client_token": 1, "lease_duration": "1h"}, "data": {"data": []}}),
        (502, ["hunter2"]),
    ],
)
def test_what_is_not_vaults_answer_is_told_and_changes_nothing(instead: Answer, vault: VaultServer) -> None:
    settings = in_vault(vault)
    dsn = settings.following("dsn")
    vault.instead = instead
    with logged_by(secrets) as said:
        refresh(settings)
    assert dsn() == FIRST
    assert [each["event"] for each in said] == ["a secret could not be read again"]
    with pytest.raises(SettingsError, match=r"^DSN: ") as caught:  # where a sign-in comes first
        in_vault(vault)
    assert "hunter" not in f"{said} {caught.value}"


def test_signing_in_again_takes_the_secret_id_that_its_file_has_now(vault: VaultServer, tmp_path: Path) -> None:
    path = tmp_path / "secret-id"
    path.write_text(SECRET_ID)
    settings = in_vault(vault, PULSEGATE_VAULT_SECRET_ID=None, PULSEGATE_VAULT_SECRET_ID_FILE=str(path))
    vault.secret_id = "rotated"
    vault.tokens.clear()  # as when a token was renewed for the last time
    vault.keep("secret/pulsegate/auth", dsn=SECOND)
    refresh(settings)
    assert settings.following("dsn")() == FIRST
    path.write_text("rotated\n")

    def taken() -> bool:
        refresh(settings)
        return bool(settings.following("dsn")() == SECOND)

    wait_for(taken)


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
