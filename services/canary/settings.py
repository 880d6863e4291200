"""What the canary is told."""

from dataclasses import dataclass
from pathlib import Path

from chassis import api_keys
from chassis.settings import ServiceSettings, number, setting, url


def secret_key(text: str) -> str:
    """Parses a secret API key."""
    if api_keys.kind_of(text) != "secret":
        raise ValueError("must be a secret key, sk_…, whole and without typing errors")
    return text


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings):
    """The canary's."""

    #: It stands outside: no service believes it anything.
    service_token: str = setting("PULSEGATE_SERVICE_TOKEN", default="", secret=True)
    #: The gateway, as clients reach it.
    gateway_url: str = setting("PULSEGATE_CANARY_URL", parse=url("http", "https"))
    #: A secret key with ingest:write and query:read.
    key: str = setting("PULSEGATE_CANARY_KEY", parse=secret_key, secret=True)
    #: The file in which it keeps what it has sent. A new file is a new series.
    state: Path = setting("PULSEGATE_CANARY_STATE", parse=Path)
    #: Between two batches.
    interval_seconds: float = setting("PULSEGATE_CANARY_INTERVAL_SECONDS", parse=number(0.05, 60), default=1.0)
    #: A run that has rested for so long is compared: what is not seen counts as lost. Series must live for longer.
    patience_seconds: float = setting("PULSEGATE_CANARY_PATIENCE_SECONDS", parse=number(1, 43_200), default=600.0)
