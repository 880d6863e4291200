"""What the caller chooses about the embedded stack."""

from dataclasses import dataclass
from pathlib import Path

from chassis.settings import integer, one_of, setting

#: The embedded stack listens on so many ports at most, from `PULSEGATE_PORT` on.
PORT_COUNT = 17


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Read from the environment; what is not named here is passed on to the services as it is."""

    #: the gateway's public port, the first of the block
    port: int = setting("PULSEGATE_PORT", parse=integer(1024, 65535 - PORT_COUNT), default=8080)
    #: everything that outlives a restart
    data: Path = setting("PULSEGATE_DATA", parse=Path, default=Path(".pulsegate"))
    #: whether services speak mutual TLS with each other
    mtls: str = setting("PULSEGATE_MTLS", parse=one_of("0", "1"), default="0")
    #: whether a canary flies
    canary: str = setting("PULSEGATE_CANARY", parse=one_of("0", "1"), default="0")
    #: a Prometheus binary, where it is not on PATH
    prometheus_binary: Path | None = setting("PROMETHEUS_BIN", parse=Path, default=None)
