"""Every metric that the config service adds to the chassis' own."""

from prometheus_client import Counter, Gauge

DEFINITIONS_CHANGED = Counter(
    "pulsegate_config_definitions_changed_total",
    "Definitions created, updated and deleted, by action.",
    ["action"],
)
FEED_REVISION = Gauge("pulsegate_config_feed_revision", "The feed's revision as this process last saw it.")
FEED_WATCHERS = Gauge("pulsegate_config_feed_watchers", "Streams of WatchDefinitions that are open now.")
FEED_METRICS_SENT = Counter("pulsegate_config_feed_metrics_sent_total", "Definitions sent to watchers.")
FEED_POLL_FAILURES = Counter(
    "pulsegate_config_feed_poll_failures_total",
    "Polls of the database that failed; watchers hear nothing meanwhile.",
)
DEFINITION_BYTES = Gauge("pulsegate_config_definition_bytes", "Bytes of all definitions, as this process last saw it.")
DEFINITION_BYTES_LIMIT = Gauge(
    "pulsegate_config_definition_bytes_limit",
    "Bytes that all definitions may take, by the settings; beyond that new ones are refused.",
)
TOMBSTONES_PURGED = Counter("pulsegate_config_tombstones_purged_total", "Deleted definitions forgotten for good.")
AUDIT_WAITING = Gauge(
    "pulsegate_config_audit_entries_waiting",
    "Entries of the audit log that auth has not confirmed yet.",
)
