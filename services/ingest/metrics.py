"""Every metric of ingestion."""

from prometheus_client import Counter, Gauge, Histogram

BATCHES = Counter(
    "pulsegate_ingest_batches_total",
    "Batches answered by the receiver: `accepted`, `rejected` (every metric), `duplicate` (known to the receiver).",
    ["outcome"],
)
METRICS_ACCEPTED = Counter("pulsegate_ingest_metrics_accepted_total", "Metrics that were made durable.")
METRICS_REJECTED = Counter("pulsegate_ingest_metrics_rejected_total", "Metrics that were rejected, by code.", ["code"])
CONFIRMATIONS = Counter(
    "pulsegate_ingest_confirmations_total", "Questions to config before a rejection for want of a definition."
)
FULL_PROJECTS = Gauge(
    "pulsegate_ingest_full_projects",
    "Projects that may have no more `producers`, `sources` (series of cumulative ones) or `publishable_producers` and"
    " `publishable_sources` (those of publishable keys), which are refused, or `series`: new label sets are folded.",
    ["what"],
)
LOG_APPEND = Histogram(
    "pulsegate_log_append_duration_seconds",
    "Time from publishing a frame to the log's acknowledgement that it is on disk.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
LOG_FRAME_RECORDS = Histogram(
    "pulsegate_log_frame_records", "Batches that shared one frame.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
)
LOG_FAILURES = Counter("pulsegate_log_append_failures_total", "Frames that the log did not acknowledge.", ["reason"])
LOG_QUEUED_BYTES = Gauge("pulsegate_log_queued_bytes", "Bytes of records that wait for the log, of all lanes.")
LOG_LAG = Gauge(
    "pulsegate_log_lag_frames", "Frames in the log that are not committed yet, as the lane's owner knows.", ["lane"]
)
LOG_LAG_SECONDS = Gauge(
    "pulsegate_log_lag_seconds",
    "How long ago everything that has been received was committed; a commit interval where the aggregator keeps up.",
    ["lane"],
)
LOG_FILL = Gauge("pulsegate_log_fill_ratio", "Bytes in the log's stream, as a part of what it may hold.")
LANE_OWNED = Gauge("pulsegate_lane_owned", "1 while this process owns the lane.", ["lane"])
RECORDS_FOLDED = Counter("pulsegate_aggregator_records_total", "Batches taken from the log, by outcome.", ["outcome"])
SERIES_FOLDED_AWAY = Counter(
    "pulsegate_aggregator_folded_total", "Deltas of label sets over a budget that went to `__other__`."
)
LIVE_SERIES = Gauge("pulsegate_aggregator_live_series", "Label sets in memory.", ["lane"])
SERIES_FILL = Gauge(
    "pulsegate_aggregator_series_fill_ratio",
    "Memory of live series, as a part of what the lane's may take: from 1 on new label sets are folded.",
    ["lane"],
)
FULL_TENANTS = Gauge(
    "pulsegate_aggregator_full_tenants",
    "Tenants whose live series take as much memory of the lane as they may: their new label sets are folded.",
    ["lane"],
)
GAUGE_LEVELS = Gauge("pulsegate_aggregator_gauge_levels", "Levels in memory that merged gauges are made of.", ["lane"])
#: What a lane's owner alone can say; no longer exposed when it owns the lane no more.
OF_OWNED_LANE = (LOG_LAG, LIVE_SERIES, SERIES_FILL, FULL_TENANTS, GAUGE_LEVELS)
GAUGE_LEVELS_DROPPED = Counter(
    "pulsegate_aggregator_gauge_levels_dropped_total",
    "Levels that do not count because their series has 10 000 later ones.",
)
COMMITS = Histogram(
    "pulsegate_aggregator_commit_duration_seconds",
    "Time of one checkpoint's transaction.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
LANES_LOST = Counter("pulsegate_lanes_lost_total", "Times that a lane was lost or given up after an error.", ["lane"])
SINK_SAMPLES = Counter("pulsegate_sink_samples_total", "Samples by what became of them at a sink.", ["sink", "outcome"])
SINK_OUTCOMES = ("delivered", "quarantined", "too_old", "given_up")
SINK_REQUESTS = Counter("pulsegate_sink_requests_total", "Write requests by HTTP status or error.", ["sink", "status"])
SINK_PENDING = Gauge(
    "pulsegate_sink_pending_bytes", "Memory of committed samples that are not delivered yet.", ["sink", "lane"]
)
SINK_DELAY = Gauge(
    "pulsegate_sink_delay_seconds", "Age of the oldest committed sample that is not delivered yet.", ["sink", "lane"]
)
