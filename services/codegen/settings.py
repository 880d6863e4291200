"""Settings of the codegen service."""

from dataclasses import dataclass
from pathlib import Path

from chassis.settings import PeerSettings, folder, host_and_port, integer, postgres_url, setting


@dataclass(frozen=True, kw_only=True)
class Settings(PeerSettings):
    """What the codegen service reads."""

    grpc_port: int = setting("PULSEGATE_GRPC_PORT", parse=integer(1, 65535))
    dsn: str = setting("PULSEGATE_POSTGRES_DSN", parse=postgres_url, secret=True)
    auth_address: str = setting("PULSEGATE_AUTH_ADDRESS", parse=host_and_port)
    config_address: str = setting("PULSEGATE_CONFIG_ADDRESS", parse=host_and_port)
    #: Where the runtimes are: the checkout's `sdk/`.
    sdk_directory: Path = setting(
        "PULSEGATE_SDK_DIRECTORY", parse=folder, default=Path(__file__).resolve().parents[2] / "sdk"
    )
    #: How long a generated client that nobody asks for is kept. A year is what browsers keep an immutable one.
    artifact_retention_days: int = setting("PULSEGATE_ARTIFACT_RETENTION_DAYS", parse=integer(1, 36_500), default=400)
    #: Past that a project's least recently used one goes.
    artifacts_per_project: int = setting("PULSEGATE_ARTIFACTS_PER_PROJECT", parse=integer(1, 100_000), default=1000)
    #: All together, of all of a tenant's projects; past that its least recently used one goes. A quarter a project.
    artifact_bytes_per_tenant: int = setting(
        "PULSEGATE_ARTIFACT_BYTES_PER_TENANT", parse=integer(64 << 20, 1 << 40), default=256 << 20
    )
