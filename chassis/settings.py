"""Settings from the environment, with every fault reported at once.

A service declares one frozen dataclass whose fields are made by `setting`; `load` fills it. A variable `NAME` may
instead be given as `NAME_FILE`, the path of a file that holds the value (secrets, as Kubernetes and Docker mount them).
"""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping, Set
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from chassis import failpoints, secrets, trace_sampling
from chassis.failpoints import Failpoint
from chassis.mutual_tls import MutualTls
from chassis.secrets import Followed, SecretFile, VaultSecret
from chassis.vault import Reference, Vault

T = TypeVar("T")

# In ASCII: int() and float() take the digits of every alphabet, `1_000` and blanks around them.
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_PORT = re.compile(r"[0-9]{1,5}")
#: Of several hosts, for each one or none.
_PORTS = re.compile(r"[0-9,]*")
_DOMAIN = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*")

#: Names of fields, and a function that says what is wrong with these together.
Check = tuple[Set[str], Callable[[], list[str]]]

#: The `default` in the metadata of a setting that has none.
REQUIRED = object()


class SettingsError(Exception):
    """The configuration is wrong; `faults` names each setting and what is wrong with it, never its value."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def setting(
    name: str,
    *,
    parse: Callable[[str], Any] = str,
    default: Any = REQUIRED,
    secret: bool = False,
) -> Any:
    """A dataclass field that is read from the variable `name` (or the file in `name_FILE`).

    `parse` turns the text into the value and raises ValueError with a sentence that says what is expected.
    Secret settings are left out of the dataclass's repr.
    """
    metadata = {"variable": name, "parse": parse, "default": default, "secret": secret}
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata, repr=not secret)
    return dataclasses.field(metadata=metadata, repr=not secret, default=default)


def load(settings_class: type[T], environment: Mapping[str, str] = os.environ) -> T:
    """Reads every setting of the class. Raises SettingsError with all faults."""
    reader = _Reader(environment)
    values: dict[str, Any] = {}
    faults: list[str] = []
    for field in dataclasses.fields(settings_class):  # type: ignore[arg-type]
        if "variable" in field.metadata:
            try:
                values[field.name] = reader.read(field)
            except ValueError as fault:
                faults.append(f"{field.metadata['variable']}: {fault}")
    if faults:
        raise SettingsError(faults + _faults_together(settings_class, values))
    if issubclass(settings_class, SecretSettings):
        values["secrets"] = reader.secrets
    return settings_class(**values)


def _faults_together(settings_class: type[Any], values: dict[str, Any]) -> list[str]:
    """Those of settings that could be read, where others could not."""
    if not issubclass(settings_class, ServiceSettings):
        return []
    settings = object.__new__(settings_class)
    vars(settings).update(values)
    return [fault for names, check in settings.checks() if values.keys() >= names for fault in check()]


class _Reader:
    """Reads settings out of an environment, and out of the files and of the Vault that it names."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._vault: Vault | None = None
        #: Those that may change, by the name of their field.
        self.secrets: dict[str, Followed] = {}

    def read(self, field: "dataclasses.Field[Any]") -> Any:
        """Raises ValueError."""
        variable, parse, default = (field.metadata[key] for key in ("variable", "parse", "default"))
        direct, path = self._environment.get(variable), self._environment.get(f"{variable}_FILE")
        if direct is not None and path is not None:
            raise ValueError(f"is set together with {variable}_FILE; set one of them")
        if path is not None and secrets.read(variable, Path(path)):
            return self._followed(field, SecretFile(variable, Path(path), parse))
        if direct and field.metadata["secret"] and direct.startswith("vault:"):
            return self._followed(field, VaultSecret(variable, Reference.parse(direct), parse, self._signed_in()))
        if direct:
            return parse(direct)
        if default is REQUIRED:
            raise ValueError("is required and not set")
        return default

    def _followed(self, field: "dataclasses.Field[Any]", secret: Followed) -> Any:
        self.secrets[field.name] = secret
        return secret.current()

    def _signed_in(self) -> Vault:
        if self._vault is None:
            plain = {name: text for name, text in self._environment.items() if not text.startswith("vault:")}
            try:
                self._vault = load(VaultSettings, plain).vault()
            except SettingsError as error:
                raise ValueError(f"Vault cannot be asked: {error}") from error
        return self._vault


def integer(low: int, high: int) -> Callable[[str], int]:
    """Parses a whole number in ASCII digits within bounds, both inclusive."""

    def parse(text: str) -> int:
        value = int(text) if _WHOLE_NUMBER.fullmatch(text) else low - 1
        if not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """Parses a finite number in ASCII digits within bounds, both inclusive."""

    def parse(text: str) -> float:
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not low <= value <= high:
            raise ValueError(f"must be a number from {low} to {high}")
        return value

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """Parses one of the given words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return parse


def _split(text: str) -> None:
    _ = urlsplit(text).port  # which is read when it is asked for


def url(*schemes: str, read: Callable[[str], object] = _split) -> Callable[[str], str]:
    """Parses an absolute address with one of the given schemes that `read`, which raises ValueError, can read."""

    def parse(text: str) -> str:
        if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"must be an address that starts with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        try:
            read(text)
        except ValueError:  # it may quote a password
            raise ValueError(
                "must be a well-formed address; percent-encode what in names and passwords is none of A-Za-z0-9-._~"
            ) from None
        return text

    return parse


def urls(*schemes: str) -> Callable[[str], tuple[str, ...]]:
    """Parses one or more absolute addresses, separated by commas."""
    parse_one = url(*schemes)

    def parse(text: str) -> tuple[str, ...]:
        found = tuple(part.strip() for part in text.split(",") if part.strip())
        if not found:
            raise ValueError("must name an address")
        return tuple(map(parse_one, found))

    return parse


def credentials(address: str) -> tuple[str, str]:
    """The user and the password within an address, decoded; empty where it has none."""
    parts = urlsplit(address)
    return unquote(parts.username or ""), unquote(parts.password or "")


def _read_by_libpq(text: str) -> None:
    try:
        parts = conninfo_to_dict(text)
    except psycopg.ProgrammingError as error:
        raise ValueError from error
    # Of which libpq would hear only when it connects, and then quote it: what it takes for them is of a password.
    if not _PORTS.fullmatch(str(parts.get("port", ""))) or "@" in str(parts.get("host", "")):
        raise ValueError


#: Parses an address of Postgres.
postgres_url = url("postgresql", "postgres", read=_read_by_libpq)


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Parses addresses and CIDR blocks, separated by commas."""
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ValueError("must be addresses or CIDR blocks such as 10.0.0.0/8, separated by commas") from error


def folder(text: str) -> Path:
    """Parses the path of a folder that is there."""
    path = Path(text)
    if not path.is_dir():
        raise ValueError("must be a folder that exists")
    return path


def host_and_port(text: str) -> str:
    """Parses `host:port`; a gRPC target such as `dns:///name:port` too."""
    host, _, port = text.rpartition(":")
    if not host or not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise ValueError("must be host:port")
    return text


def words(text: str) -> str:
    """Parses a text that is not blank."""
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def domain(text: str) -> str:
    """Parses a DNS name, such as `pulsegate.internal`."""
    if not _DOMAIN.fullmatch(text):
        raise ValueError("must be a DNS name in small letters")
    return text


@dataclasses.dataclass(frozen=True, kw_only=True)
class SecretSettings:
    """Settings with secrets that may change while they are used."""

    #: Those that came out of files or out of Vault, by the names of their fields.
    secrets: Mapping[str, Followed] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def following(self, name: str) -> Callable[[], Any]:
        """A function that returns what the setting of that name is at present."""
        if secret := self.secrets.get(name):
            return secret.current
        return lambda: getattr(self, name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaultSettings(SecretSettings):
    """Where secrets are that are given as `vault:mount/path#field`."""

    vault_address: str | None = setting("PULSEGATE_VAULT_ADDRESS", parse=url("https", "http"), default=None)
    #: The AppRole by which this process signs in.
    vault_role_id: str | None = setting("PULSEGATE_VAULT_ROLE_ID", default=None)
    vault_secret_id: str | None = setting("PULSEGATE_VAULT_SECRET_ID", default=None, secret=True)
    #: PEM file of the authorities that Vault's certificate may be of; None: the system's.
    vault_authorities: Path | None = setting("PULSEGATE_VAULT_CA_PATH", parse=Path, default=None)

    def vault(self) -> Vault:
        """Raises ValueError where something is not set."""
        if not (self.vault_address and self.vault_role_id and self.vault_secret_id):
            raise ValueError("needs PULSEGATE_VAULT_ADDRESS, PULSEGATE_VAULT_ROLE_ID and PULSEGATE_VAULT_SECRET_ID")
        return Vault(self.vault_address, self.vault_role_id, self.following("vault_secret_id"), self.vault_authorities)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceSettings(VaultSettings):
    """What every service reads."""

    host: str = setting("PULSEGATE_HOST", default="127.0.0.1")
    operations_port: int = setting("PULSEGATE_OPS_PORT", parse=integer(1, 65535))
    #: The secret that all services of one installation share (`chassis.service_tokens`).
    service_token: str = setting("PULSEGATE_SERVICE_TOKEN", parse=words, secret=True)
    log_level: str = setting("PULSEGATE_LOG_LEVEL", parse=one_of("debug", "info", "warning", "error"), default="info")
    #: Where traces go (OTLP over gRPC); None: nowhere.
    otlp_endpoint: str | None = setting("PULSEGATE_OTLP_ENDPOINT", parse=url("http", "https"), default=None)
    #: Which requests are traced, and for samplers with a ratio how many of them (`chassis.trace_sampling`).
    traces_sampler: str = setting(
        "PULSEGATE_TRACES_SAMPLER", parse=one_of(*trace_sampling.NAMES), default="parentbased_traceidratio"
    )
    traces_sampler_ratio: float = setting("PULSEGATE_TRACES_SAMPLER_ARG", parse=number(0, 1), default=1.0)
    #: Where profiles go (Pyroscope); None: nowhere.
    profiles_url: str | None = setting("PULSEGATE_PROFILES_URL", parse=url("http", "https"), default=None)
    #: Where errors are reported (Sentry); None: in the log alone. It opens nothing: who has it may send errors.
    sentry_dsn: str | None = setting("PULSEGATE_SENTRY_DSN", parse=url("http", "https"), default=None)
    #: How long work under way may go on after the signal to stop.
    drain_seconds: float = setting("PULSEGATE_DRAIN_SECONDS", parse=number(0, 300), default=10.0)
    #: Whether this installation holds nothing that anybody would miss.
    test_installation: str = setting("PULSEGATE_TEST_INSTALLATION", parse=one_of("yes", "no"), default="no")
    #: Where the process crashes, waits or fails on purpose; in a test installation alone.
    failpoints: tuple[Failpoint, ...] = setting("PULSEGATE_FAILPOINTS", parse=failpoints.parse, default=())
    #: What their probabilities are drawn from; empty: from chance.
    failpoints_seed: str = setting("PULSEGATE_FAILPOINTS_SEED", default="")
    #: How often what keeps the process running has started it again.
    restarts: int = setting("PULSEGATE_RESTARTS", parse=integer(0, 2**31), default=0)

    def __post_init__(self) -> None:
        if faults := [fault for _, check in self.checks() for fault in check()]:
            raise SettingsError(faults)

    def checks(self) -> list[Check]:
        """Of settings that may not go together, or not with what they name."""
        return [({"failpoints", "test_installation"}, self._faults_of_failpoints)]

    def _faults_of_failpoints(self) -> list[str]:
        if self.failpoints and self.test_installation != "yes":
            return ["PULSEGATE_FAILPOINTS: is refused unless PULSEGATE_TEST_INSTALLATION is yes"]
        return []


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeerSettings(ServiceSettings):
    """What every service reads that calls others or is called by them."""

    #: PEM files of mutual TLS between services: this one's certificate with its chain, its key, and the certificates
    #: of the authorities that are believed. All of them or none.
    mtls_certificate: Path | None = setting("PULSEGATE_MTLS_CERTIFICATE_PATH", parse=Path, default=None)
    mtls_key: Path | None = setting("PULSEGATE_MTLS_KEY_PATH", parse=Path, default=None)
    mtls_authorities: Path | None = setting("PULSEGATE_MTLS_CA_PATH", parse=Path, default=None)
    #: Certificates name services as `<service>.<domain>`.
    mtls_domain: str = setting("PULSEGATE_MTLS_DOMAIN", parse=domain, default="pulsegate.internal")

    def checks(self) -> list[Check]:
        names = {"mtls_certificate", "mtls_key", "mtls_authorities", "mtls_domain"}
        return [*super().checks(), (names, self._faults_of_mutual_tls)]

    def _faults_of_mutual_tls(self) -> list[str]:
        try:
            self.mutual_tls()
        except ValueError as fault:
            return [f"PULSEGATE_MTLS_CERTIFICATE_PATH, PULSEGATE_MTLS_KEY_PATH, PULSEGATE_MTLS_CA_PATH: {fault}"]
        return []

    def mutual_tls(self) -> MutualTls | None:
        """What this service shows others and believes of them; None where they speak plain gRPC. Raises ValueError."""
        files = (self.mtls_certificate, self.mtls_key, self.mtls_authorities)
        certificate, key, authorities = files
        if certificate and key and authorities:
            return MutualTls(certificate, key, authorities, self.mtls_domain)
        if any(files):
            raise ValueError("set all of them or none")
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MigrationSettings(VaultSettings):
    """What `python -m services.<name> migrate` reads."""

    owner_dsn: str = setting("PULSEGATE_POSTGRES_OWNER_DSN", parse=postgres_url, secret=True)
