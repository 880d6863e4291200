-- Cumulative sources: what each series of a sender that tells totals stood at last. A new total is compared with it, and
-- the difference counts.

CREATE TABLE sources (
    partition      smallint NOT NULL,
    tenant_id      uuid NOT NULL,
    project_id     uuid NOT NULL,
    -- Identifies the series at its sender, and the run of the sender where that is known.
    source         bytea NOT NULL,
    -- Whose series its totals went to.
    definition_id  uuid NOT NULL,
    -- When the sender took the last total, Unix nanoseconds.
    taken_ns       bigint NOT NULL,
    -- That total; of a distribution the sum, with the count and the buckets (not cumulative) in `counts`.
    value          double precision NOT NULL,
    counts         bigint[] NOT NULL,
    -- When a receiver got it, Unix milliseconds.
    used_ms        bigint NOT NULL,
    PRIMARY KEY (partition, project_id, source, definition_id)
) WITH (fillfactor = 50);

ALTER TABLE sources ENABLE ROW LEVEL SECURITY;
ALTER TABLE sources FORCE ROW LEVEL SECURITY;

CREATE POLICY own_tenant ON sources FOR SELECT TO ingest
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY aggregator ON sources TO ingest_aggregator USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON sources TO ingest_aggregator;
GRANT SELECT ON sources TO ingest;
