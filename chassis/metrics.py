"""Every metric that the chassis itself exposes. A service adds its own in its `metrics.py`."""

from prometheus_client import Counter, Gauge, Histogram

_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

HTTP_REQUESTS = Histogram(
    "pulsegate_http_request_duration_seconds",
    "Time from a request's headers to the end of its response, without what its body took to arrive; `route` is the"
    " route's pattern, never a path.",
    ["method", "route", "status"],
    buckets=_LATENCY_BUCKETS,
)
GRPC_SERVED = Histogram(
    "pulsegate_grpc_server_duration_seconds",
    "Time a call took in this server, by method and gRPC status.",
    ["method", "status"],
    buckets=_LATENCY_BUCKETS,
)
GRPC_CALLED = Histogram(
    "pulsegate_grpc_client_duration_seconds",
    "Time a call to another service took, by method and gRPC status.",
    ["method", "status"],
    buckets=_LATENCY_BUCKETS,
)
POSTGRES_QUERIES = Histogram(
    "pulsegate_postgres_query_duration_seconds",
    "Time from sending a statement to its result.",
    buckets=_LATENCY_BUCKETS,
)
POSTGRES_POOL = Gauge(
    "pulsegate_postgres_pool_connections",
    "Connections of a pool (`main`, or one kept apart): `max` that it may open, `size` open, `available` idle,"
    " `waiting` requests for one.",
    ["pool", "state"],
)
BREAKER_OPEN = Gauge(
    "pulsegate_breaker_open",
    "1 while the circuit breaker towards this upstream is open, 0.5 while it tries again, else 0.",
    ["upstream"],
)
DEPENDENCY_UP = Gauge(
    "pulsegate_dependency_up",
    "1 while the dependency answers its health check, else 0.",
    ["dependency", "hard"],
)
CERTIFICATE_EXPIRY = Gauge(
    "pulsegate_certificate_expiry_timestamp_seconds",
    "Until when the certificate is good that this process shows, as Unix time; `certificate` says at which door.",
    ["certificate"],
)
SCHEMA_VERSION = Gauge("pulsegate_schema_version", "Number of the newest migration applied to this service's schema.")
TURNS_REFUSED = Counter(
    "pulsegate_turns_refused_total",
    "Calls answered 503 because no turn of theirs came in time; `what` there was too much of.",
    ["what"],
)
CALLERS_REFUSED = Counter(
    "pulsegate_callers_refused_total",
    "Calls that the list of a method's callers refused; `caller` is the service of the caller's certificate.",
    ["method", "caller"],
)
ERRORS = Counter(
    "pulsegate_errors_total",
    "Errors answered to callers, by stable code.",
    ["code"],
)
