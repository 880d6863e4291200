"""Every metric that the canary adds to the chassis' own."""

from prometheus_client import Counter, Gauge, Histogram

SENT = Counter("pulsegate_canary_sent_total", "Units that were accepted from the canary.")
SEEN = Gauge("pulsegate_canary_seen", "Units of both runs that the last query answered.")
LOST = Gauge("pulsegate_canary_lost", "Units that were accepted, and were not seen after its patience.")
DOUBLE = Gauge("pulsegate_canary_double", "Units that are seen and were never sent.")
VISIBILITY = Histogram(
    "pulsegate_canary_visibility_seconds",
    "Time from a 202 until a query answers what was accepted, or its patience ends; it is asked once an interval.",
    buckets=(0.5, 1, 2, 3, 5, 10, 30, 60, 300, 600),
)
CALLS = Counter(
    "pulsegate_canary_calls_total",
    "Calls to the gateway by what they do (`send`, `query`) and outcome (`ok`, `failed`).",
    ["what", "outcome"],
)
COMPARED = Gauge("pulsegate_canary_compared_timestamp_seconds", "When it last compared, as Unix time.")
