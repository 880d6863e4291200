"""Settings from the environment, with every fault reported at once.

A service declares one frozen dataclass whose fields are made by `setting`; `load` fills it. A variable `NAME` may
instead be given as `NAME_FILE`, the path of a file that holds the value (secrets, as Kubernetes and Docker mount them).
"""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from chassis import failpoints
from chassis.failpoints import Failpoint
from chassis.mutual_tls import MutualTls

T = TypeVar("T")

_DOMAIN = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*")

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
    metadata = {"variable": name, "parse": parse, "default": default}
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata, repr=not secret)
    return dataclasses.field(metadata=metadata, repr=not secret, default=default)


def load(settings_class: type[T], environment: Mapping[str, str] = os.environ) -> T:
    """Reads every setting of the class. Raises SettingsError with all faults."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    for field in dataclasses.fields(settings_class):  # type: ignore[arg-type]
        try:
            values[field.name] = _read(field, environment)
        except ValueError as fault:
            faults.append(f"{field.metadata['variable']}: {fault}")
    if faults:
        raise SettingsError(faults)
    return settings_class(**values)


def _read(field: "dataclasses.Field[Any]", environment: Mapping[str, str]) -> Any:
    text = _text(field.metadata["variable"], environment)
    if text is None:
        if field.metadata["default"] is REQUIRED:
            raise ValueError("is required and not set")
        return field.metadata["default"]
    return field.metadata["parse"](text)


def _text(variable: str, environment: Mapping[str, str]) -> str | None:
    direct, path = environment.get(variable), environment.get(f"{variable}_FILE")
    if direct is not None and path is not None:
        raise ValueError(f"is set together with {variable}_FILE; set one of them")
    if path is None:
        return direct or None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the file named by {variable}_FILE cannot be read ({type(error).__name__})") from error


def integer(low: int, high: int) -> Callable[[str], int]:
    """Parses a whole number within bounds, both inclusive."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """Parses a finite number within bounds, both inclusive."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
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


def url(*schemes: str) -> Callable[[str], str]:
    """Parses an absolute address with one of the given schemes."""

    def parse(text: str) -> str:
        if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"must be an address that starts with {' or '.join(f'{scheme}://' for scheme in schemes)}")
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


def folder(text: str) -> Path:
    """Parses the path of a folder that is there."""
    path = Path(text)
    if not path.is_dir():
        raise ValueError("must be a folder that exists")
    return path


def host_and_port(text: str) -> str:
    """Parses `host:port`; a gRPC target such as `dns:///name:port` too."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("must be host:port")
    return text


def domain(text: str) -> str:
    """Parses a DNS name, such as `pulsegate.internal`."""
    if not _DOMAIN.fullmatch(text):
        raise ValueError("must be a DNS name in small letters")
    return text


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """What every service reads."""

    host: str = setting("PULSEGATE_HOST", default="127.0.0.1")
    operations_port: int = setting("PULSEGATE_OPS_PORT", parse=integer(1, 65535))
    #: The secret that all services of one installation share (`chassis.grpc_metadata.SERVICE_TOKEN_KEY`).
    service_token: str = setting("PULSEGATE_SERVICE_TOKEN", secret=True)
    log_level: str = setting("PULSEGATE_LOG_LEVEL", parse=one_of("debug", "info", "warning", "error"), default="info")
    #: Where traces go (OTLP over gRPC); None: nowhere.
    otlp_endpoint: str | None = setting("PULSEGATE_OTLP_ENDPOINT", parse=url("http", "https"), default=None)
    #: How long work under way may go on after the signal to stop.
    drain_seconds: float = setting("PULSEGATE_DRAIN_SECONDS", parse=number(0, 300), default=10.0)
    #: Whether this installation holds nothing that anybody would miss.
    test_installation: str = setting("PULSEGATE_TEST_INSTALLATION", parse=one_of("yes", "no"), default="no")
    #: Where the process crashes, waits or fails on purpose; in a test installation alone.
    failpoints: tuple[Failpoint, ...] = setting("PULSEGATE_FAILPOINTS", parse=failpoints.parse, default=())

    def __post_init__(self) -> None:
        if faults := self.faults():
            raise SettingsError(faults)

    def faults(self) -> list[str]:
        """What is wrong with settings that do not go together, or with what they name."""
        faults = []
        if self.failpoints and self.test_installation != "yes":
            faults.append("PULSEGATE_FAILPOINTS: is refused unless PULSEGATE_TEST_INSTALLATION is yes")
        return faults


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

    def faults(self) -> list[str]:
        faults = super().faults()
        try:
            self.mutual_tls()
        except ValueError as fault:
            faults.append(f"PULSEGATE_MTLS_CERTIFICATE_PATH, PULSEGATE_MTLS_KEY_PATH, PULSEGATE_MTLS_CA_PATH: {fault}")
        return faults

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
class MigrationSettings:
    """What `python -m services.<name> migrate` reads."""

    owner_dsn: str = setting("PULSEGATE_POSTGRES_OWNER_DSN", parse=url("postgresql", "postgres"), secret=True)
