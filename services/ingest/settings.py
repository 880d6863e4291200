"""The settings of both roles."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from chassis.settings import (
    Check,
    PeerSettings,
    ServiceSettings,
    host_and_port,
    integer,
    number,
    postgres_url,
    setting,
    url,
    urls,
)
from services.ingest.sinks import addresses
from services.ingest.sinks.addresses import REMOTE_WRITE, SinkAddress, SinkHeader


@dataclass(frozen=True, kw_only=True)
class LogSettings(ServiceSettings):
    """What both roles must agree on: the log."""

    #: One address, or those of a cluster's servers, which share the credentials of the first.
    nats_urls: tuple[str, ...] = setting("PULSEGATE_NATS_URL", parse=urls("nats", "tls"), secret=True)
    #: The JetStream stream and the first token of its subjects.
    stream: str = setting("PULSEGATE_LOG_STREAM", default="PULSEGATE_INGEST")
    lanes: int = setting("PULSEGATE_LOG_LANES", parse=integer(1, 256), default=1)
    log_replicas: int = setting("PULSEGATE_LOG_REPLICAS", parse=integer(1, 5), default=1)
    #: The log refuses to grow beyond this.
    log_most_bytes: int = setting("PULSEGATE_LOG_MAX_BYTES", parse=integer(1 << 20, 1 << 50), default=2 << 30)


@dataclass(frozen=True, kw_only=True)
class ReceiverSettings(LogSettings, PeerSettings):
    """The receiver's."""

    grpc_port: int = setting("PULSEGATE_GRPC_PORT", parse=integer(1, 65535))
    auth_address: str = setting("PULSEGATE_AUTH_ADDRESS", parse=host_and_port)
    config_address: str = setting("PULSEGATE_CONFIG_ADDRESS", parse=host_and_port)
    #: Where the delivery ledger is read; None: questions about it answer 503. No batch waits for it.
    dsn: str | None = setting("PULSEGATE_POSTGRES_DSN", parse=postgres_url, default=None, secret=True)
    #: How long a batch waits for the log's acknowledgement.
    append_timeout_seconds: float = setting("PULSEGATE_LOG_APPEND_TIMEOUT_SECONDS", parse=number(0.1, 60), default=5.0)
    #: Bytes of batches, of all lanes, that may wait for the log before more are refused.
    most_queued_bytes: int = setting("PULSEGATE_LOG_QUEUE_BYTES", parse=integer(1 << 20, 1 << 34), default=64 << 20)


@dataclass(frozen=True, kw_only=True)
class AggregatorSettings(LogSettings):
    """The aggregator's."""

    dsn: str = setting("PULSEGATE_POSTGRES_DSN", parse=postgres_url, secret=True)
    #: The sink `remote_write`; None: there are others.
    remote_write_url: str | None = setting(
        "PULSEGATE_REMOTE_WRITE_URL", parse=url("http", "https"), default=None, secret=True
    )
    #: Further sinks.
    further_sinks: tuple[SinkAddress, ...] = setting("PULSEGATE_SINKS", parse=addresses.sinks, default=())
    sink_headers: tuple[SinkHeader, ...] = setting(
        "PULSEGATE_SINK_HEADERS", parse=addresses.headers, default=(), secret=True
    )
    commit_interval_seconds: float = setting("PULSEGATE_COMMIT_INTERVAL_SECONDS", parse=number(0.05, 60), default=1.0)
    #: Without a sign of life from its owner for so long a lane is free.
    lease_seconds: float = setting("PULSEGATE_LANE_LEASE_SECONDS", parse=number(1, 300), default=5.0)
    #: A series without data for so long gets a stale marker.
    stale_after_seconds: int = setting("PULSEGATE_STALE_AFTER_SECONDS", parse=integer(60, 10**8), default=86_400)
    most_series_per_project: int = setting("PULSEGATE_SERIES_PER_PROJECT", parse=integer(1, 10**9), default=100_000)
    most_series_per_metric: int = setting("PULSEGATE_SERIES_PER_METRIC", parse=integer(1, 10**9), default=10_000)
    #: In each lane, of one tenant and of all: one that takes more than a KB of memory counts as so many.
    most_series_per_tenant: int = setting("PULSEGATE_SERIES_PER_TENANT", parse=integer(1, 10**9), default=600_000)
    most_series_per_lane: int = setting("PULSEGATE_SERIES_PER_LANE", parse=integer(1, 10**9), default=1_200_000)
    #: With those that are quiet, which the state keeps.
    most_stored_series_per_project: int = setting(
        "PULSEGATE_STORED_SERIES_PER_PROJECT", parse=integer(1, 10**9), default=10_000_000
    )
    #: Exactly-once windows that the state keeps for one project, and series of cumulative sources.
    most_producers_per_project: int = setting(
        "PULSEGATE_PRODUCERS_PER_PROJECT", parse=integer(1, 10**9), default=10_000_000
    )
    most_sources_per_project: int = setting("PULSEGATE_SOURCES_PER_PROJECT", parse=integer(1, 10**9), default=5_000_000)
    #: What is committed stays in the log for so long.
    log_keep_seconds: float = setting("PULSEGATE_LOG_KEEP_SECONDS", parse=number(0, 10**7), default=600.0)
    #: Samples older than this are not sent any more: the receiver of remote write would refuse them.
    sink_oldest_seconds: int = setting("PULSEGATE_SINK_OLDEST_SECONDS", parse=integer(60, 10**8), default=7 * 86_400)
    #: The same for native histograms: Prometheus before version 3 takes none that is an hour older than its newest.
    sink_native_oldest_seconds: int = setting(
        "PULSEGATE_SINK_NATIVE_OLDEST_SECONDS", parse=integer(60, 10**8), default=3_000
    )
    #: Of memory, for samples of all lanes that wait for sinks.
    sink_most_pending_bytes: int = setting(
        "PULSEGATE_SINK_PENDING_BYTES", parse=integer(1 << 20, 1 << 40), default=512 << 20
    )

    def checks(self) -> list[Check]:
        sinks = {"remote_write_url", "further_sinks"}
        headers = {*sinks, "sink_headers"}
        return [*super().checks(), (sinks, self._faults_of_sinks), (headers, self._faults_of_headers)]

    def _faults_of_sinks(self) -> list[str]:
        names = [sink.name for sink in self.sinks]
        if not names:
            return ["PULSEGATE_REMOTE_WRITE_URL: is required where PULSEGATE_SINKS names no sink"]
        if names.count(REMOTE_WRITE) > 1:
            return [f"PULSEGATE_SINKS: {REMOTE_WRITE!r} is the sink of PULSEGATE_REMOTE_WRITE_URL, which is set too"]
        return []

    def _faults_of_headers(self) -> list[str]:
        unknown = {header.sink for header in self.sink_headers} - {sink.name for sink in self.sinks}
        return [f"PULSEGATE_SINK_HEADERS: {name!r} is no sink" for name in sorted(unknown)]

    @property
    def sinks(self) -> tuple[SinkAddress, ...]:
        """All of them."""
        if self.remote_write_url is None:
            return self.further_sinks
        return (SinkAddress(name=REMOTE_WRITE, url=self.remote_write_url), *self.further_sinks)

    def url_of(self, sink: SinkAddress) -> Callable[[], str]:
        """Where the next request to the sink goes: its address may hold a password, which may change."""
        if sink.name == REMOTE_WRITE and self.remote_write_url is not None:
            return self.following("remote_write_url")
        return lambda: sink.url

    def headers_of(self, sink: SinkAddress) -> Callable[[], Mapping[str, str]]:
        """What the next request to the sink carries besides."""
        headers = self.following("sink_headers")
        return lambda: {header.name: header.value for header in headers() if header.sink == sink.name}
