"""Settings from an environment."""

import traceback
from dataclasses import dataclass
from pathlib import Path

import pytest

from chassis import settings
from chassis.settings import (
    PeerSettings,
    SettingsError,
    credentials,
    host_and_port,
    integer,
    load,
    number,
    one_of,
    postgres_url,
    setting,
    url,
)
from tests.mutual_tls_files import ServiceFiles, authority


@dataclass(frozen=True, kw_only=True)
class Example:
    port: int = setting("PORT", parse=integer(1, 65535))
    dsn: str = setting("DSN", parse=url("postgresql"), secret=True)
    ratio: float = setting("RATIO", parse=number(0, 1), default=0.5)
    level: str = setting("LEVEL", parse=one_of("debug", "info"), default="info")
    address: str = setting("ADDRESS", parse=host_and_port, default="auth:1")


GOOD = {"PORT": "80", "DSN": "postgresql://user:hunter2@host/db"}


def faults(environment: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(Example, environment)
    return caught.value.faults


def test_values_are_parsed_and_defaults_filled_in() -> None:
    loaded = load(Example, {**GOOD, "RATIO": "0.25"})
    assert (loaded.port, loaded.ratio, loaded.level, loaded.address) == (80, 0.25, "info", "auth:1")


def test_every_fault_is_reported_at_once_by_the_variables_name() -> None:
    wrong = {"PORT": "eighty", "RATIO": "nan", "LEVEL": "loud", "ADDRESS": "auth"}
    found = faults(wrong)
    assert [fault.partition(":")[0] for fault in found] == ["PORT", "DSN", "RATIO", "LEVEL", "ADDRESS"]


def test_a_fault_never_shows_the_value() -> None:
    assert "hunter2" not in str(faults({**GOOD, "DSN": "user:hunter2@host"}))
    assert "hunter2" not in str(faults({**GOOD, "PORT": "hunter2"}))


@pytest.mark.parametrize(
    "address", ["http://user:hun/ter2@host", "http://user:hun#ter2@host:1", "http://user:[hunter2@host"]
)
def test_an_address_that_cannot_be_read_is_a_fault_that_does_not_quote_it(address: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a well-formed address") as caught:
        url("http")(address)
    assert "hun" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "rest",
    ["user:hun%zz@host/db", "user:hun/ter2@host/db", "user:hun ter2@host/db", "user:a@hunter2@host/db", "host/?hun=2"],
)
def test_an_address_of_postgres_is_one_that_libpq_reads(rest: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a well-formed address") as caught:
        postgres_url(f"postgresql://{rest}")
    assert "hun" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "rest", ["/db?host=/run/postgresql", "u:p%2Fw@h1:5432,h2/db?target_session_attrs=any", "[::1]:1/"]
)
def test_every_address_that_libpq_reads_is_taken(rest: str) -> None:
    assert postgres_url(f"postgres://{rest}") == f"postgres://{rest}"


@pytest.mark.parametrize(
    ("authority", "found"),
    [
        ("", ("", "")),
        ("tok%2Fen@", ("tok/en", "")),
        ("us%40er:a%2Bb%2Fc%40d%25@", ("us@er", "a+b/c@d%")),
        (":@", ("", "")),
    ],
)
def test_user_and_password_of_an_address_are_decoded(authority: str, found: tuple[str, str]) -> None:
    assert credentials(f"nats://{authority}host:4222") == found


@pytest.mark.parametrize("port", ["0", "65536", "-1", "1.5", "", "1e3"])
def test_whole_numbers_are_bounded(port: str) -> None:
    assert len(faults({**GOOD, "PORT": port})) == 1


@pytest.mark.parametrize("variable", ["PORT", "RATIO", "ADDRESS"])
@pytest.mark.parametrize("one", ["\uff11", "\u0661", "\u00b9", " 1", "1 ", "0_1", "1" * 5_000])
def test_numbers_are_in_ascii_digits_alone(variable: str, one: str) -> None:
    (fault,) = faults({**GOOD, variable: f"auth:{one}" if variable == "ADDRESS" else one})
    assert fault.startswith(f"{variable}: must be ")


@pytest.mark.parametrize(("text", "ratio"), [("1", 1), (".5", 0.5), ("1.", 1), ("+0.25", 0.25), ("2.5E-1", 0.25)])
def test_a_number_may_be_written_in_every_usual_way(text: str, ratio: float) -> None:
    assert load(Example, {**GOOD, "RATIO": text}).ratio == ratio


@pytest.mark.parametrize("address", ["host", "host:", ":1", "host:0", "host:65536", "host:http"])
def test_an_address_needs_a_host_and_a_port(address: str) -> None:
    assert len(faults({**GOOD, "ADDRESS": address})) == 1


def test_an_address_may_be_a_grpc_target() -> None:
    assert load(Example, {**GOOD, "ADDRESS": "dns:///config.svc:50051"}).address == "dns:///config.svc:50051"


def test_a_value_may_come_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    secret = tmp_path / "dsn"
    secret.write_text("postgresql://from-file/db\n")
    assert load(Example, {"PORT": "80", "DSN_FILE": str(secret)}).dsn == "postgresql://from-file/db"


def test_a_value_and_a_file_together_are_a_fault(tmp_path: Path) -> None:
    assert "DSN_FILE" in faults({**GOOD, "DSN_FILE": str(tmp_path / "dsn")})[0]


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"", b" \n"])
def test_a_file_that_holds_no_text_is_a_fault(tmp_path: Path, content: bytes | None) -> None:
    secret = tmp_path / "dsn"
    if content is not None:
        secret.write_bytes(content)
    (fault,) = faults({"PORT": "80", "DSN_FILE": str(secret)})
    assert fault.startswith("DSN: ")


def test_an_empty_variable_counts_as_not_set() -> None:
    assert faults({**GOOD, "DSN": ""}) == ["DSN: is required and not set"]
    assert load(Example, {**GOOD, "LEVEL": ""}).level == "info"


def test_secrets_stay_out_of_the_repr() -> None:
    assert "hunter2" not in repr(load(Example, GOOD))


def test_a_service_needs_its_token() -> None:
    with pytest.raises(SettingsError) as caught:
        load(settings.ServiceSettings, {"PULSEGATE_OPS_PORT": "1", "PULSEGATE_SERVICE_TOKEN": ""})
    assert caught.value.faults == ["PULSEGATE_SERVICE_TOKEN: is required and not set"]


CERTIFICATE_FILES = ("PULSEGATE_MTLS_CERTIFICATE_PATH", "PULSEGATE_MTLS_KEY_PATH", "PULSEGATE_MTLS_CA_PATH")
SERVICE = {"PULSEGATE_OPS_PORT": "8081", "PULSEGATE_SERVICE_TOKEN": "shared"}


def paths(files: ServiceFiles) -> dict[str, str]:
    return dict(zip(CERTIFICATE_FILES, map(str, (files.certificate, files.key, files.authorities)), strict=True))


def test_mutual_tls_is_spoken_with_all_files_and_not_without_any(tmp_path: Path) -> None:
    files = ServiceFiles(tmp_path, "config", authority())
    assert load(PeerSettings, {**SERVICE, **paths(files)}).mutual_tls() is not None
    assert load(PeerSettings, SERVICE).mutual_tls() is None


@pytest.mark.parametrize("missing", CERTIFICATE_FILES)
def test_one_certificate_file_missing_is_a_fault_beside_the_others(missing: str, tmp_path: Path) -> None:
    environment = {**SERVICE, **paths(ServiceFiles(tmp_path, "config", authority()))}
    environment["PULSEGATE_FAILPOINTS"] = "committed:crash@1"
    del environment[missing]
    with pytest.raises(SettingsError) as caught:
        load(PeerSettings, environment)
    assert len(caught.value.faults) == 2
    assert "set all of them or none" in caught.value.faults[1]


def variables_at_fault(settings_class: type[PeerSettings], environment: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(settings_class, environment)
    return [fault.partition(":")[0] for fault in caught.value.faults]


def test_settings_that_do_not_go_together_are_named_beside_one_that_cannot_be_read() -> None:
    environment = {**SERVICE, "PULSEGATE_OPS_PORT": "http", "PULSEGATE_MTLS_KEY_PATH": "/nowhere"}
    assert variables_at_fault(PeerSettings, environment) == ["PULSEGATE_OPS_PORT", ", ".join(CERTIFICATE_FILES)]


def test_a_setting_that_cannot_be_read_is_not_held_against_those_that_go_with_it() -> None:
    environment = {**SERVICE, "PULSEGATE_MTLS_DOMAIN": "?", "PULSEGATE_MTLS_KEY_PATH": "/nowhere"}
    assert variables_at_fault(PeerSettings, environment) == ["PULSEGATE_MTLS_DOMAIN"]


@dataclass(frozen=True, kw_only=True)
class Service(PeerSettings):
    grpc_port: int = setting("PULSEGATE_GRPC_PORT", parse=integer(1, 65535))
    dsn: str = setting("PULSEGATE_POSTGRES_DSN", parse=postgres_url, secret=True)


def test_a_vault_that_cannot_be_asked_hides_no_other_fault() -> None:
    wrong = {
        "PULSEGATE_VAULT_ADDRESS": "ftp://x",
        "PULSEGATE_OPS_PORT": "http",
        "PULSEGATE_GRPC_PORT": "abc",
        "PULSEGATE_POSTGRES_DSN": "vault:m/p#f",
    }
    assert variables_at_fault(Service, {**SERVICE, **wrong}) == list(wrong)


def test_a_certificate_of_another_domain_is_a_fault(tmp_path: Path) -> None:
    environment = {**SERVICE, **paths(ServiceFiles(tmp_path, "config", authority()))}
    with pytest.raises(SettingsError, match=r"exactly one DNS name <service>\.pulsegate\.example"):
        load(PeerSettings, {**environment, "PULSEGATE_MTLS_DOMAIN": "pulsegate.example"})
