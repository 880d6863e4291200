"""Every metric of the codegen service."""

from prometheus_client import Counter, Gauge, Histogram

CLIENTS = Counter(
    "pulsegate_codegen_clients_total",
    "Clients answered, by language and by where they came from: `memory`, `postgres` or `rendered`.",
    ["language", "source"],
)
RENDERING = Histogram(
    "pulsegate_codegen_rendering_duration_seconds",
    "Time to render one client from its definitions, without fetching or storing.",
    ["language"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)
RECENT_BYTES = Gauge("pulsegate_codegen_recent_bytes", "Content of generated clients that is kept in memory.")
