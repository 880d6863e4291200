"""What the config service reads from its environment."""

from dataclasses import dataclass

from chassis.settings import PeerSettings, host_and_port, integer, postgres_url, setting


@dataclass(frozen=True, kw_only=True)
class Settings(PeerSettings):
    """Settings of one config process."""

    grpc_port: int = setting("PULSEGATE_GRPC_PORT", parse=integer(1, 65535))
    #: The runtime role's address, which row-level security binds.
    dsn: str = setting("PULSEGATE_POSTGRES_DSN", parse=postgres_url, secret=True)
    auth_address: str = setting("PULSEGATE_AUTH_ADDRESS", parse=host_and_port)
    #: Definitions that one project may have at a time.
    most_metrics_per_project: int = setting(
        "PULSEGATE_CONFIG_METRICS_PER_PROJECT", parse=integer(1, 100_000), default=2_000
    )
    #: Of all definitions of all tenants together, which every receiver keeps in memory.
    most_definition_bytes: int = setting(
        "PULSEGATE_DEFINITIONS_BYTES", parse=integer(1 << 20, 1 << 40), default=64 << 20
    )
