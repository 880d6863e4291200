-- The delivery ledger: what became of metrics, by project, name and hour of the receiver's clock (Unix milliseconds of its
-- beginning). Accepted is committed + duplicate, received is accepted + rejected.

CREATE TABLE ledger (
    partition   smallint NOT NULL,
    tenant_id   uuid NOT NULL,
    project_id  uuid NOT NULL,
    metric      text NOT NULL,
    hour_ms     bigint NOT NULL,
    committed   bigint NOT NULL,
    duplicate   bigint NOT NULL,
    -- Of the committed ones those whose label set was over a budget.
    folded      bigint NOT NULL,
    PRIMARY KEY (partition, project_id, hour_ms, metric)
) WITH (fillfactor = 50);

CREATE TABLE rejections (
    partition   smallint NOT NULL,
    tenant_id   uuid NOT NULL,
    project_id  uuid NOT NULL,
    metric      text NOT NULL,
    hour_ms     bigint NOT NULL,
    code        text NOT NULL,
    rejected    bigint NOT NULL,
    -- What the last one was told, and when, Unix milliseconds.
    example     text NOT NULL,
    last_ms     bigint NOT NULL,
    PRIMARY KEY (partition, project_id, hour_ms, metric, code)
) WITH (fillfactor = 50);

ALTER TABLE ledger ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger FORCE ROW LEVEL SECURITY;
ALTER TABLE rejections ENABLE ROW LEVEL SECURITY;
ALTER TABLE rejections FORCE ROW LEVEL SECURITY;

CREATE POLICY own_tenant ON ledger FOR SELECT TO ingest
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY own_tenant ON rejections FOR SELECT TO ingest
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);

CREATE POLICY aggregator ON ledger TO ingest_aggregator USING (true) WITH CHECK (true);
CREATE POLICY aggregator ON rejections TO ingest_aggregator USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON ledger, rejections TO ingest_aggregator;
-- Up to when each sink has been delivered is no tenant's secret.
GRANT SELECT ON ledger, rejections, sink_watermarks TO ingest;
