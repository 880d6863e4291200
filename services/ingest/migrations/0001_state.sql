-- The aggregator's state. Everything is keyed by the permanent partition of its project; lanes only group partitions.
-- Only the role ingest_aggregator crosses tenants; the runtime role itself sees the rows of app.tenant_id alone.

CREATE TABLE lanes (
    lane         integer PRIMARY KEY,
    -- Fences off earlier owners: each take-over adds one.
    epoch        bigint NOT NULL DEFAULT 0,
    owner        text NOT NULL DEFAULT '',
    lease_until  timestamptz NOT NULL DEFAULT '-infinity',
    -- The log's sequence up to which everything is in this state.
    position     bigint NOT NULL DEFAULT 0,
    -- Timestamp of the newest commit, Unix milliseconds; only ever grows.
    commit_ms    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE series (
    partition      smallint NOT NULL,
    series_id      bytea NOT NULL,
    tenant_id      uuid NOT NULL,
    project_id     uuid NOT NULL,
    definition_id  uuid NOT NULL,
    name           text NOT NULL,
    -- 1 counter, 2 gauge, 3 histogram, 4 summary
    type           smallint NOT NULL,
    labels         jsonb NOT NULL,
    bounds         double precision[] NOT NULL,
    -- A counter's total, a gauge's level, the sum of a histogram's or summary's observations.
    value          double precision NOT NULL,
    -- Observations, all and by bucket (not cumulative, the last one +Inf's).
    count          bigint NOT NULL,
    buckets        bigint[] NOT NULL,
    -- A gauge's newest timestamp, Unix milliseconds.
    timestamp_ms   bigint NOT NULL,
    -- The commits that made it and that changed it last.
    created_ms     bigint NOT NULL,
    changed_ms     bigint NOT NULL,
    -- Holds what label sets over a budget were folded into.
    folded         boolean NOT NULL,
    PRIMARY KEY (partition, series_id)
) WITH (fillfactor = 50);

CREATE TABLE producers (
    partition   smallint NOT NULL,
    tenant_id   uuid NOT NULL,
    project_id  uuid NOT NULL,
    producer    uuid NOT NULL,
    -- All sequence numbers below it were seen.
    floor       bigint NOT NULL,
    -- The ranges seen above it: first, last, first, last, …
    ranges      bigint[] NOT NULL,
    used_ms     bigint NOT NULL,
    PRIMARY KEY (partition, project_id, producer)
) WITH (fillfactor = 50);

CREATE TABLE ended_definitions (
    partition      smallint NOT NULL,
    tenant_id      uuid NOT NULL,
    definition_id  uuid NOT NULL,
    ended_ms       bigint NOT NULL,
    PRIMARY KEY (partition, definition_id)
);

CREATE TABLE sink_watermarks (
    lane          integer NOT NULL REFERENCES lanes,
    sink          text NOT NULL,
    -- Every commit up to this one is delivered, Unix milliseconds.
    delivered_ms  bigint NOT NULL,
    PRIMARY KEY (lane, sink)
) WITH (fillfactor = 50);

ALTER TABLE series ENABLE ROW LEVEL SECURITY;
ALTER TABLE series FORCE ROW LEVEL SECURITY;
ALTER TABLE producers ENABLE ROW LEVEL SECURITY;
ALTER TABLE producers FORCE ROW LEVEL SECURITY;
ALTER TABLE ended_definitions ENABLE ROW LEVEL SECURITY;
ALTER TABLE ended_definitions FORCE ROW LEVEL SECURITY;

CREATE POLICY own_tenant ON series FOR SELECT TO ingest
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY own_tenant ON producers FOR SELECT TO ingest
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY own_tenant ON ended_definitions FOR SELECT TO ingest
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);

CREATE POLICY aggregator ON series TO ingest_aggregator USING (true) WITH CHECK (true);
CREATE POLICY aggregator ON producers TO ingest_aggregator USING (true) WITH CHECK (true);
CREATE POLICY aggregator ON ended_definitions TO ingest_aggregator USING (true) WITH CHECK (true);

GRANT USAGE ON SCHEMA ingest TO ingest_aggregator;
GRANT SELECT, INSERT, UPDATE ON lanes, series, sink_watermarks TO ingest_aggregator;
GRANT SELECT, INSERT, UPDATE, DELETE ON producers, ended_definitions TO ingest_aggregator;
GRANT SELECT ON series, producers, ended_definitions TO ingest;
