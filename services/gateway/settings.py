"""What the gateway reads from its environment."""

from dataclasses import dataclass
from pathlib import Path

from redis.asyncio.connection import parse_url
from yarl import URL

from chassis.settings import Check, PeerSettings, host_and_port, integer, networks, number, one_of, setting, url, words
from services.gateway.domain import PLANS, Network, bare_origin
from services.gateway.tls import Certificate


def origins(text: str) -> frozenset[str]:
    """Parses origins, separated by commas, into what browsers send: small letters, no default port."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not all(bare_origin(origin) for origin in found):
        raise ValueError("must be origins such as https://console.example.com, separated by commas")
    return frozenset(str(URL(origin.lower())) for origin in found)


def public_address(text: str) -> str:
    """Parses an absolute HTTP address without a path."""
    if not bare_origin(text.rstrip("/")):
        raise ValueError("must be an address such as https://metrics.example.com, without a path")
    return text.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class Settings(PeerSettings):
    """The gateway's settings."""

    port: int = setting("PULSEGATE_PORT", parse=integer(1, 65535), default=8080)
    #: PEM files, the certificate with its chain; None: clients, or the proxy before this gateway, speak plain HTTP.
    tls_certificate: Path | None = setting("PULSEGATE_TLS_CERTIFICATE_PATH", parse=Path, default=None)
    tls_key: Path | None = setting("PULSEGATE_TLS_KEY_PATH", parse=Path, default=None)
    #: Under which address clients reach this gateway; generated clients send there. None: where it listens.
    public_url: str | None = setting("PULSEGATE_PUBLIC_URL", parse=public_address, default=None)

    auth_address: str = setting("PULSEGATE_AUTH_ADDRESS", parse=host_and_port)
    config_address: str = setting("PULSEGATE_CONFIG_ADDRESS", parse=host_and_port)
    codegen_address: str = setting("PULSEGATE_CODEGEN_ADDRESS", parse=host_and_port)
    ingest_address: str = setting("PULSEGATE_INGEST_ADDRESS", parse=host_and_port)
    #: Streams of batches to the receivers, together.
    ingest_streams: int = setting("PULSEGATE_INGEST_STREAMS", parse=integer(1, 64), default=2)
    redis_url: str = setting("PULSEGATE_REDIS_URL", parse=url("redis", "rediss", "unix", read=parse_url), secret=True)
    #: What gateways keep in Redis is named and sealed under this, the same for all of them; None: the service token.
    sealing_key: str | None = setting("PULSEGATE_GATEWAY_SEALING_KEY", parse=words, default=None, secret=True)
    #: None: queries answer 503.
    prometheus_url: str | None = setting(
        "PULSEGATE_PROMETHEUS_URL", parse=url("http", "https"), default=None, secret=True
    )

    #: The plan of calls that belong to no tenant, such as a person's own account.
    default_plan: str = setting("PULSEGATE_DEFAULT_PLAN", parse=one_of(*PLANS), default="enterprise")
    auth_requests_per_minute: int = setting("PULSEGATE_AUTH_REQUESTS_PER_MINUTE", parse=integer(1, 10**9), default=5)
    #: None: what the plan says.
    ingest_requests_per_minute: int | None = setting(
        "PULSEGATE_INGEST_REQUESTS_PER_MINUTE", parse=integer(1, 10**9), default=None
    )
    address_requests_per_15_minutes: int = setting(
        "PULSEGATE_ADDRESS_REQUESTS_PER_15_MINUTES", parse=integer(1, 10**9), default=100
    )
    #: Gateways that share the traffic: each one's share of a limit while Redis is away.
    replicas: int = setting("PULSEGATE_GATEWAY_REPLICAS", parse=integer(1, 10_000), default=1)

    #: How long known keys go on writing while auth cannot be reached.
    auth_outage_grace_seconds: float = setting("PULSEGATE_AUTH_OUTAGE_GRACE_SECONDS", parse=number(0, 90), default=30.0)
    #: Origins whose pages may call the management API.
    cors_origins: frozenset[str] = setting("PULSEGATE_CORS_ORIGINS", parse=origins, default=frozenset())
    #: Proxies whose X-Forwarded-For is believed.
    trusted_proxies: tuple[Network, ...] = setting("PULSEGATE_TRUSTED_PROXIES", parse=networks, default=())

    #: What is done about requests of a known attack's shape (`request_rules`): nothing, told of, or refused.
    request_rules: str = setting("PULSEGATE_REQUEST_RULES", parse=one_of("off", "detect", "enforce"), default="detect")

    #: All the time that one request may take, its calls to other services included.
    request_timeout_seconds: float = setting("PULSEGATE_REQUEST_TIMEOUT_SECONDS", parse=number(0.1, 300), default=10.0)
    #: The same for a query to Prometheus.
    query_timeout_seconds: float = setting("PULSEGATE_QUERY_TIMEOUT_SECONDS", parse=number(0.1, 300), default=30.0)
    #: How long a client may take to send its headers, and again to send its body.
    slow_client_seconds: float = setting("PULSEGATE_SLOW_CLIENT_SECONDS", parse=number(0.1, 300), default=10.0)
    #: How long a gateway that was asked to stop says so in its readiness while it goes on serving.
    unready_seconds: float = setting("PULSEGATE_UNREADY_SECONDS", parse=number(0, 300), default=0.0)
    #: Calls to one service behind, or to Prometheus (waiting ones included), at a time; more are turned away.
    upstream_calls: int = setting("PULSEGATE_UPSTREAM_CALLS", parse=integer(1, 100_000), default=256)
    #: Queries that Prometheus is asked at a time; more wait, as long as a query may take.
    prometheus_queries: int = setting("PULSEGATE_PROMETHEUS_QUERIES", parse=integer(1, 100_000), default=16)
    #: How long a breaker stays open.
    breaker_reset_seconds: float = setting("PULSEGATE_BREAKER_RESET_SECONDS", parse=number(0.1, 3600), default=30.0)

    def checks(self) -> list[Check]:
        return [*super().checks(), ({"tls_certificate", "tls_key"}, self._faults_of_certificate)]

    def _faults_of_certificate(self) -> list[str]:
        try:
            self.certificate()
        except ValueError as fault:
            return [f"PULSEGATE_TLS_CERTIFICATE_PATH and PULSEGATE_TLS_KEY_PATH: {fault}"]
        return []

    @property
    def sealed_under(self) -> str:
        """Of it come the names and seals of what is kept in Redis."""
        return self.sealing_key or self.service_token

    def certificate(self) -> Certificate | None:
        """What this gateway shows its clients; None where it speaks plain HTTP. Raises ValueError."""
        if self.tls_certificate is None and self.tls_key is None:
            return None
        if self.tls_certificate is None or self.tls_key is None:
            raise ValueError("one is set without the other")
        return Certificate(self.tls_certificate, self.tls_key)

    @property
    def endpoint(self) -> str:
        """Where generated clients send to."""
        if self.public_url:
            return self.public_url
        host = "localhost" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared, not bound # nosec B104
        scheme = "https" if self.tls_certificate else "http"
        return f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"
