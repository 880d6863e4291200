-- What passes with time: the levels that gauges with a merge rule are made of, and what summaries observed lately.

ALTER TABLE series
    -- 1 last, 2 min, 3 max, 4 sum
    ADD COLUMN gauge_merge smallint NOT NULL DEFAULT 1,
    -- A summary's quantiles.
    ADD COLUMN objectives double precision[] NOT NULL DEFAULT '{}';

CREATE TABLE gauge_levels (
    partition     smallint NOT NULL,
    series_id     bytea NOT NULL,
    tenant_id     uuid NOT NULL,
    -- The producer; zeros for all that have none. Where label sets over a budget share the series, the producer XOR the
    -- id of the label set.
    reporter      uuid NOT NULL,
    -- As the client said, Unix milliseconds: of a reporter's levels the newest is kept.
    timestamp_ms  bigint NOT NULL,
    -- The level counts for five minutes from then on: its timestamp, or its arrival where that is earlier.
    as_of_ms      bigint NOT NULL,
    level         double precision NOT NULL,
    PRIMARY KEY (partition, series_id, reporter)
) WITH (fillfactor = 50);

CREATE TABLE summary_sketches (
    partition  smallint NOT NULL,
    series_id  bytea NOT NULL,
    tenant_id  uuid NOT NULL,
    -- Of the receiver's clock, since 1970.
    minute     bigint NOT NULL,
    -- Of a DDSketch, little-endian: the first bin (int32), how many bytes a step and a count have (2 bytes), the steps
    -- from each bin to the next one, the counts.
    bins       bytea NOT NULL,
    PRIMARY KEY (partition, series_id, minute)
) WITH (fillfactor = 50);

ALTER TABLE gauge_levels ENABLE ROW LEVEL SECURITY;
ALTER TABLE gauge_levels FORCE ROW LEVEL SECURITY;
ALTER TABLE summary_sketches ENABLE ROW LEVEL SECURITY;
ALTER TABLE summary_sketches FORCE ROW LEVEL SECURITY;

CREATE POLICY own_tenant ON gauge_levels FOR SELECT TO ingest
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY own_tenant ON summary_sketches FOR SELECT TO ingest
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);

CREATE POLICY aggregator ON gauge_levels TO ingest_aggregator USING (true) WITH CHECK (true);
CREATE POLICY aggregator ON summary_sketches TO ingest_aggregator USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON gauge_levels, summary_sketches TO ingest_aggregator;
GRANT SELECT ON gauge_levels, summary_sketches TO ingest;
