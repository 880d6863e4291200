"""What the dashboards show, and why one looks at it."""

from deploy.grafana.queries import INGESTION, Page, Panel, graph, number, quantile, rate, zero_or


def _process(job: str) -> tuple[Panel, ...]:
    """What is the same for every process."""
    of_job = f'tenant_id="",job="{job}"'
    return (
        graph("Processes", "short", "How many answer.", up=f"sum(up{{{of_job}}})", scraped=f"count(up{{{of_job}}})"),
        graph(
            "What it misses",
            "short",
            "1 while a dependency answers its health check. Only hard ones make it unready.",
            by_dependency=f"min by (dependency) (pulsegate_dependency_up{{{of_job}}})",
        ),
        graph(
            "CPU",
            "percentunit",
            "Of one core.",
            by_instance=f"rate(process_cpu_seconds_total{{{of_job}}}[$__rate_interval])",
        ),
        graph("Memory", "bytes", "Resident.", by_instance=f"process_resident_memory_bytes{{{of_job}}}"),
    )


def _served(job: str) -> tuple[Panel, ...]:
    """Of a gRPC server with a database."""
    of_job = f'job="{job}"'
    return (
        graph(
            "Calls",
            "reqps",
            "Calls served, by method and status.",
            by_method=rate("pulsegate_grpc_server_duration_seconds_count", of_job, "method"),
        ),
        graph(
            "Calls that failed",
            "reqps",
            "By status; NOT_FOUND and the like are answers, UNAVAILABLE and INTERNAL are faults.",
            by_status=rate("pulsegate_grpc_server_duration_seconds_count", of_job, "status"),
        ),
        graph(
            "Time of a call",
            "s",
            "Streams last as long as they are open, and are left out.",
            p50=quantile(0.5, "pulsegate_grpc_server_duration_seconds", of_job),
            p99=quantile(0.99, "pulsegate_grpc_server_duration_seconds", of_job),
        ),
        *_database(job),
    )


def _database(job: str) -> tuple[Panel, ...]:
    of_job = f'job="{job}"'
    return (
        graph(
            "Time of a statement",
            "s",
            "Statements of more than 100 ms stand in the log.",
            p50=quantile(0.5, "pulsegate_postgres_query_duration_seconds", of_job),
            p99=quantile(0.99, "pulsegate_postgres_query_duration_seconds", of_job),
        ),
        graph(
            "Connections to Postgres in use",
            "short",
            "By pool.",
            by_pool=f"{_connections('size', of_job)} - {_connections('available', of_job)}",
        ),
        graph(
            "Requests that wait for a connection to Postgres",
            "short",
            "By pool.",
            by_pool=_connections("waiting", of_job),
        ),
    )


def _connections(state: str, of_job: str) -> str:
    return f'sum by (pool) (pulsegate_postgres_pool_connections{{tenant_id="",state="{state}",{of_job}}})'


BUSINESS = Page(
    name="pulsegate",
    title="Pulsegate",
    panels=(
        number(
            "Availability's budget left",
            "percentunit",
            "Of 30 days; below 0 the objective is missed.",
            'pulsegate:objective_budget_left:ratio30d{tenant_id="",objective="availability"}',
        ),
        number(
            "Latency's budget left",
            "percentunit",
            "99 % of ingestion answered in 100 ms.",
            'pulsegate:objective_budget_left:ratio30d{tenant_id="",objective="latency"}',
        ),
        number(
            "Visibility's budget left",
            "percentunit",
            "99.9 % of accepted metrics visible within 5 s.",
            'pulsegate:objective_budget_left:ratio30d{tenant_id="",objective="visibility"}',
        ),
        number(
            "Lost and double",
            "short",
            "By the canary; where none flies there is no number, and nobody looks.",
            'max(pulsegate_canary_lost{tenant_id=""}) + max(pulsegate_canary_double{tenant_id=""})',
        ),
        graph(
            "Metrics accepted",
            "cps",
            "Durable before they were answered.",
            accepted=rate("pulsegate_ingest_metrics_accepted_total"),
            rejected=zero_or(rate("pulsegate_ingest_metrics_rejected_total")),
        ),
        graph("Live series", "short", "Of all tenants.", series='sum(pulsegate_aggregator_live_series{tenant_id=""})'),
        graph(
            "Requests",
            "reqps",
            "To the public door, by what they are for.",
            ingestion=rate("pulsegate_http_request_duration_seconds_count", INGESTION),
            queries=zero_or(rate("pulsegate_http_request_duration_seconds_count", 'route=~"/prometheus/.*"')),
            sign_in=zero_or(rate("pulsegate_http_request_duration_seconds_count", 'route=~"/api/v1/auth/.*"')),
        ),
        graph(
            "Until a metric is visible",
            "s",
            "Commit and the slowest sink together.",
            delay='pulsegate:visibility_delay_seconds{tenant_id=""}',
        ),
        graph(
            "Errors against objectives",
            "percentunit",
            "The part of events that was bad, over an hour.",
            by_objective='pulsegate:objective_errors:ratio1h{tenant_id=""}',
        ),
        graph(
            "People",
            "short",
            "Within an hour.",
            signed_up='sum(increase(pulsegate_auth_sign_ups_total{tenant_id=""}[1h]))',
            signed_in=zero_or('sum(increase(pulsegate_auth_sign_ins_total{tenant_id="",result="ok"}[1h]))'),
        ),
        graph(
            "Definitions and clients",
            "short",
            "Within an hour.",
            definitions='sum(increase(pulsegate_config_definitions_changed_total{tenant_id=""}[1h]))',
            clients='sum(increase(pulsegate_codegen_clients_total{tenant_id=""}[1h]))',
        ),
        graph(
            "Alerts",
            "short",
            "That fire now.",
            by_alertname='count by (alertname) (ALERTS{tenant_id="",alertstate="firing"}) or vector(0)',
        ),
    ),
)

GATEWAY = Page(
    name="pulsegate-gateway",
    title="Pulsegate: gateway",
    panels=(
        graph(
            "Requests",
            "reqps",
            "By status.",
            by_status=rate("pulsegate_http_request_duration_seconds_count", "", "status"),
        ),
        graph(
            "Time of ingestion",
            "s",
            "From the request's headers to the end of the answer; the log's disk is in it.",
            p50=quantile(0.5, "pulsegate_http_request_duration_seconds", INGESTION),
            p99=quantile(0.99, "pulsegate_http_request_duration_seconds", INGESTION),
        ),
        graph(
            "Time of a request",
            "s",
            "The 99th percentile of each route.",
            by_route=quantile(0.99, "pulsegate_http_request_duration_seconds", "", "route"),
        ),
        graph(
            "Errors answered",
            "cps",
            "By code, docs/errors.md.",
            by_code=zero_or(rate("pulsegate_errors_total", 'job="gateway"', "code")),
        ),
        graph(
            "Rate limits",
            "cps",
            "Refused calls, by quota; `local` means that Redis is away.",
            by_quota=zero_or(rate("pulsegate_gateway_limit_decisions_total", 'outcome="refused"', "quota")),
            decided_locally=zero_or(rate("pulsegate_gateway_limit_decisions_total", 'decided_by="local"')),
        ),
        graph(
            "Credentials checked",
            "cps",
            "`grace`: auth was away.",
            by_how=rate("pulsegate_gateway_verdicts_total", "", "how"),
        ),
        graph(
            "Breakers",
            "short",
            "1: open; 0.5: one call tries.",
            by_upstream='max by (upstream) (pulsegate_breaker_open{tenant_id="",job="gateway"})',
        ),
        graph(
            "Batches under way",
            "short",
            "Grows while receivers are slow.",
            batches='sum(pulsegate_gateway_batches_under_way{tenant_id=""})',
            streams='sum(pulsegate_gateway_ingestion_streams{tenant_id=""})',
        ),
        graph(
            "Calls turned away",
            "cps",
            "A service behind had as many as it may have.",
            by_upstream=zero_or(rate("pulsegate_gateway_shed_total", "", "upstream")),
        ),
        *_process("gateway"),
    ),
)

RECEIVER = Page(
    name="pulsegate-receiver",
    title="Pulsegate: receiver",
    panels=(
        graph(
            "Batches",
            "cps",
            "`duplicate`: sent again, known.",
            by_outcome=rate("pulsegate_ingest_batches_total", "", "outcome"),
        ),
        graph(
            "Metrics",
            "cps",
            "What is accepted is on disk.",
            accepted=rate("pulsegate_ingest_metrics_accepted_total"),
            by_code=zero_or(rate("pulsegate_ingest_metrics_rejected_total", "", "code")),
        ),
        graph(
            "Time until a frame is on disk",
            "s",
            "Every batch waits for it.",
            p50=quantile(0.5, "pulsegate_log_append_duration_seconds"),
            p99=quantile(0.99, "pulsegate_log_append_duration_seconds"),
        ),
        graph(
            "Batches in a frame",
            "short",
            "Many of them share a sync.",
            p50=quantile(0.5, "pulsegate_log_frame_records"),
            p99=quantile(0.99, "pulsegate_log_frame_records"),
        ),
        graph(
            "How full the log is",
            "percentunit",
            "At 1 ingestion answers 503.",
            fill='max(pulsegate_log_fill_ratio{tenant_id=""})',
        ),
        graph(
            "Bytes that wait for the log",
            "bytes",
            "",
            queued='sum(pulsegate_log_queued_bytes{tenant_id=""})',
        ),
        graph(
            "Frames that the log did not take",
            "cps",
            "",
            by_reason=zero_or(rate("pulsegate_log_append_failures_total", "", "reason")),
        ),
        graph(
            "Full projects",
            "short",
            "Their new producers, sources or series are refused or folded.",
            by_what='max by (what) (pulsegate_ingest_full_projects{tenant_id=""}) or vector(0)',
        ),
        *_process("receiver"),
    ),
)

AGGREGATOR = Page(
    name="pulsegate-aggregator",
    title="Pulsegate: aggregator",
    panels=(
        graph(
            "How far behind",
            "s",
            "A commit interval where it keeps up.",
            by_lane='max by (lane) (pulsegate_log_lag_seconds{tenant_id=""})',
        ),
        graph(
            "Frames not committed",
            "short",
            "",
            by_lane='max by (lane) (pulsegate_log_lag_frames{tenant_id=""})',
        ),
        graph(
            "Batches folded",
            "cps",
            "",
            by_outcome=rate("pulsegate_aggregator_records_total", "", "outcome"),
        ),
        graph(
            "Time of a commit",
            "s",
            "One transaction.",
            p50=quantile(0.5, "pulsegate_aggregator_commit_duration_seconds"),
            p99=quantile(0.99, "pulsegate_aggregator_commit_duration_seconds"),
        ),
        graph(
            "Lanes",
            "short",
            "`lost` counts those given up within an hour.",
            owned='sum(pulsegate_lane_owned{tenant_id=""})',
            lost=zero_or('sum(increase(pulsegate_lanes_lost_total{tenant_id=""}[1h]))'),
        ),
        graph("Live series", "short", "", by_lane='sum by (lane) (pulsegate_aggregator_live_series{tenant_id=""})'),
        graph(
            "How full lanes are",
            "percentunit",
            "At 1 new label sets of all tenants are folded.",
            by_lane='max by (lane) (pulsegate_aggregator_series_fill_ratio{tenant_id=""})',
        ),
        graph(
            "Full tenants",
            "short",
            "Their new label sets are folded.",
            by_lane='max by (lane) (pulsegate_aggregator_full_tenants{tenant_id=""})',
        ),
        graph(
            "Delay of sinks",
            "s",
            "Age of the oldest sample that is not delivered.",
            by_sink='max by (sink) (pulsegate_sink_delay_seconds{tenant_id=""})',
        ),
        graph(
            "Samples that wait",
            "bytes",
            "Memory that they take.",
            by_sink='sum by (sink) (pulsegate_sink_pending_bytes{tenant_id=""})',
        ),
        graph(
            "Samples",
            "cps",
            "Everything but `delivered` will never be there.",
            by_outcome=rate("pulsegate_sink_samples_total", "", "outcome"),
        ),
        graph(
            "Answers of sinks",
            "reqps",
            "",
            by_status=rate("pulsegate_sink_requests_total", "", "status"),
        ),
        *_database("aggregator"),
        *_process("aggregator"),
    ),
)

AUTH = Page(
    name="pulsegate-auth",
    title="Pulsegate: auth",
    panels=(
        graph(
            "Sign-ins",
            "cps",
            "By result; many that fail from many addresses are somebody guessing.",
            by_result=zero_or(rate("pulsegate_auth_sign_ins_total", "", "result")),
        ),
        graph(
            "Refresh tokens",
            "cps",
            "`reused`: one was stolen, or a client is wrong.",
            by_result=zero_or(rate("pulsegate_auth_refreshes_total", "", "result")),
        ),
        graph(
            "Credentials judged",
            "cps",
            "",
            by_result=rate("pulsegate_auth_verdicts_total", "", "result"),
        ),
        graph(
            "Time of a password",
            "s",
            "With the time that it waits for a thread.",
            p50=quantile(0.5, "pulsegate_auth_password_duration_seconds"),
            p99=quantile(0.99, "pulsegate_auth_password_duration_seconds"),
        ),
        graph(
            "Passwords waiting",
            "short",
            "",
            pending='sum(pulsegate_auth_passwords_pending{tenant_id=""})',
            turned_away='sum(increase(pulsegate_auth_passwords_turned_away_total{tenant_id=""}[1h]))',
        ),
        graph(
            "Mails",
            "cps",
            "",
            by_result=zero_or(rate("pulsegate_auth_mails_total", "", "result")),
        ),
        graph(
            "Audit log",
            "short",
            "`refused` heads, or `faults`: a chain was changed.",
            signed='sum(increase(pulsegate_auth_audit_heads_signed_total{tenant_id=""}[1h]))',
            refused='sum(increase(pulsegate_auth_audit_heads_refused_total{tenant_id=""}[1h]))',
            faults='max(pulsegate_auth_audit_faults{tenant_id=""})',
        ),
        *_served("auth"),
        *_process("auth"),
    ),
)

CONFIG = Page(
    name="pulsegate-config",
    title="Pulsegate: config",
    panels=(
        graph(
            "Definitions changed",
            "cps",
            "",
            by_action=rate("pulsegate_config_definitions_changed_total", "", "action"),
        ),
        graph(
            "Feed",
            "short",
            "Streams of receivers, which learn of definitions by them.",
            watchers='sum(pulsegate_config_feed_watchers{tenant_id=""})',
        ),
        graph(
            "Bytes of all definitions",
            "bytes",
            "Beyond the limit new ones are refused.",
            taken='max(pulsegate_config_definition_bytes{tenant_id=""})',
            limit='min(pulsegate_config_definition_bytes_limit{tenant_id=""})',
        ),
        graph(
            "Audit entries that wait for auth",
            "short",
            "",
            waiting='max(pulsegate_config_audit_entries_waiting{tenant_id=""})',
        ),
        *_served("config"),
        *_process("config"),
    ),
)

CODEGEN = Page(
    name="pulsegate-codegen",
    title="Pulsegate: codegen",
    panels=(
        graph(
            "Clients",
            "cps",
            "By where they came from.",
            by_source=rate("pulsegate_codegen_clients_total", "", "source"),
        ),
        graph(
            "Time to render one",
            "s",
            "",
            by_language=quantile(0.99, "pulsegate_codegen_rendering_duration_seconds", "", "language"),
        ),
        graph(
            "Kept in memory",
            "bytes",
            "",
            kept='sum(pulsegate_codegen_recent_bytes{tenant_id=""})',
        ),
        *_served("codegen"),
        *_process("codegen"),
    ),
)

CANARY = Page(
    name="pulsegate-canary",
    title="Pulsegate: canary",
    panels=(
        graph(
            "Lost and double",
            "short",
            "Units. Neither may ever be more than 0.",
            lost='max(pulsegate_canary_lost{tenant_id=""})',
            double='max(pulsegate_canary_double{tenant_id=""})',
        ),
        graph(
            "Units",
            "cps",
            "Accepted from it, and seen by its queries.",
            accepted=rate("pulsegate_canary_sent_total"),
            seen='sum(deriv(pulsegate_canary_seen{tenant_id=""}[$__rate_interval]))',
        ),
        graph(
            "Until a unit is seen",
            "s",
            "From the 202 until a query answers it; it asks once a second.",
            p50=quantile(0.5, "pulsegate_canary_visibility_seconds"),
            p99=quantile(0.99, "pulsegate_canary_visibility_seconds"),
        ),
        graph(
            "Calls",
            "reqps",
            "The availability that somebody outside has.",
            by_outcome=rate("pulsegate_canary_calls_total", "", "outcome"),
        ),
        graph(
            "Since it compared",
            "s",
            "",
            compared='time() - max(pulsegate_canary_compared_timestamp_seconds{tenant_id=""})',
        ),
        *_process("canary"),
    ),
)

PAGES = (BUSINESS, GATEWAY, RECEIVER, AGGREGATOR, AUTH, CONFIG, CODEGEN, CANARY)
