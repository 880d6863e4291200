"""Every metric that the gateway adds to the chassis' own."""

from functools import cache

from prometheus_client import Counter, Gauge

LIMIT_DECISIONS = Counter(
    "pulsegate_gateway_limit_decisions_total",
    "Rate limit decisions, by the quota asked for first, by who decided (redis, share, local, remembered: a refusal "
    "whose wait is not over) and by outcome.",
    ["quota", "decided_by", "outcome"],
)


@cache
def _limit_decisions(quota: str, decided_by: str, outcome: str) -> Counter:
    return LIMIT_DECISIONS.labels(quota, decided_by, outcome)


def limit_decided(quota: str, decided_by: str, *, allowed: bool) -> None:
    """Counts a decision, at the price of one look-up."""
    _limit_decisions(quota, decided_by, "allowed" if allowed else "refused").inc()


VERDICTS = Counter(
    "pulsegate_gateway_verdicts_total",
    "Credentials checked, by how: cached, asked (auth was asked), refused, grace (auth was away).",
    ["how"],
)
VERDICTS_CACHED = Gauge("pulsegate_gateway_verdicts_cached", "Verdicts in the cache.")
FEED_REVISION = Gauge("pulsegate_gateway_credential_feed_revision", "Newest revision seen of auth's feed.")
FEED_FRESH = Gauge("pulsegate_gateway_credential_feed_fresh", "1 while auth's feed has a recent heartbeat, else 0.")
UPSTREAM_CALLS = Gauge("pulsegate_gateway_upstream_calls", "Calls under way to a service behind.", ["upstream"])
SHED = Counter(
    "pulsegate_gateway_shed_total",
    "Calls that were turned away because a service behind had as many as it may have at a time (for "
    "queries: all the time that they may wait), or memory (answers, bodies) as much as it may hold.",
    ["upstream"],
)
HELD_BYTES = Gauge(
    "pulsegate_gateway_held_bytes",
    "What is in memory of large answers to reads until clients have read them (answers), and of bodies that did not "
    "come with their headers until their requests are answered (bodies).",
    ["what"],
)
RETRIES = Counter(
    "pulsegate_gateway_retries_total",
    "Repeated calls to a service, and those that the retry budget did not allow, by outcome (tried, refused).",
    ["upstream", "outcome"],
)
KEYED_REQUESTS = Counter(
    "pulsegate_gateway_keyed_requests_total",
    "Requests with an Idempotency-Key, by what became of them: answered (for the first time), replayed, "
    "refused (under way, or another request had the key), full (turned away: no room for another key of its caller), "
    "failed (not carried out: may be sent again), unknown (a 5xx that leaves open whether it was carried out), lost "
    "(Redis did not keep what came of it).",
    ["outcome"],
)
ROOM_REFUSALS = Counter(
    "pulsegate_gateway_redis_room_refusals_total",
    "What found no room in Redis, by purpose: answers (of a keyed request; it is kept that there was one, or of a "
    "refusal nothing, or the request was turned away), reads (kept in this process' memory alone).",
    ["purpose"],
)
CACHED_READS = Counter(
    "pulsegate_gateway_cached_reads_total",
    "Reads that may be answered out of the cache, by outcome: memory, redis (found there), missed (read, and kept), "
    "passed (not kept: the project was changed a moment ago, or the feed or Redis says nothing).",
    ["outcome"],
)
CACHED_BYTES = Gauge("pulsegate_gateway_cached_bytes", "Size of the reads that this process keeps in its memory.")
RULE_HITS = Counter(
    "pulsegate_gateway_rule_hits_total",
    "Requests of a known attack's shape, by the rule that they are against and by outcome: detected (they went on) or "
    "refused.",
    ["rule", "outcome"],
)
SLOW_CLIENTS = Counter(
    "pulsegate_gateway_slow_clients_total",
    "Clients that were cut because they took too long to send (headers, body) or to read (answer), by what.",
    ["part"],
)
INGESTION_STREAMS = Gauge("pulsegate_gateway_ingestion_streams", "Streams to receivers that take batches.")
INGESTION_STREAM_ENDS = Counter(
    "pulsegate_gateway_ingestion_stream_ends_total",
    "Streams that take no more batches, by reason: drained (the receiver stops), aged, broken, silent (it hangs).",
    ["reason"],
)
BATCHES_UNDER_WAY = Gauge("pulsegate_gateway_batches_under_way", "Batches that wait for the receiver's answer.")
