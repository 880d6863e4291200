-- What is defined now, what it was before, and the revision that orders all changes.

CREATE TABLE metrics (
    tenant_id   uuid NOT NULL,
    project_id  uuid NOT NULL,
    id          uuid PRIMARY KEY,
    name        text NOT NULL,
    type        text NOT NULL CHECK (type IN ('counter', 'gauge', 'histogram', 'summary')),
    unit        text NOT NULL,
    help        text NOT NULL,
    -- [{name, required, values, pattern, maxDistinct}]
    labels      jsonb NOT NULL,
    buckets     float8[] NOT NULL,
    objectives  float8[] NOT NULL,
    gauge_merge text CHECK (gauge_merge IN ('last', 'min', 'max', 'sum')),
    version     bigint NOT NULL,
    -- the feed's revision at the last change
    revision    bigint NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    -- set: a tombstone, kept for those who resume the feed
    deleted_at  timestamptz
);

CREATE UNIQUE INDEX metrics_by_name ON metrics (project_id, name) WHERE deleted_at IS NULL;
CREATE INDEX metrics_by_id ON metrics (project_id, id) WHERE deleted_at IS NULL;
CREATE INDEX metrics_deleted ON metrics (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE metric_versions (
    tenant_id       uuid NOT NULL,
    project_id      uuid NOT NULL,
    metric_id       uuid NOT NULL,
    version         bigint NOT NULL,
    action          text NOT NULL CHECK (action IN ('created', 'updated', 'deleted')),
    -- the whole definition as it was from then on
    spec            jsonb NOT NULL,
    changed_by      text NOT NULL,
    changed_by_kind text NOT NULL,
    changed_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (metric_id, version)
);

-- One row, nobody's data. Each change takes the next revision by updating it, and so waits for the change before it:
-- revisions become visible in their order. The newest purged revision says from where the feed can still be resumed.
CREATE TABLE feed (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision        bigint NOT NULL,
    purged_revision bigint NOT NULL
);
INSERT INTO feed (revision, purged_revision) VALUES (0, 0);

ALTER TABLE metrics ENABLE ROW LEVEL SECURITY;
ALTER TABLE metrics FORCE ROW LEVEL SECURITY;
ALTER TABLE metric_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE metric_versions FORCE ROW LEVEL SECURITY;

CREATE POLICY own_tenant ON metrics TO config
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY own_tenant ON metric_versions TO config
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);

-- The door for the feed: it reads definitions of all tenants, and forgets old tombstones.
CREATE POLICY feed_reads ON metrics FOR SELECT TO config_feed USING (true);
CREATE POLICY feed_forgets ON metrics FOR DELETE TO config_feed USING (deleted_at < now() - interval '8 days');

GRANT SELECT, INSERT, UPDATE ON metrics TO config;
GRANT SELECT, INSERT ON metric_versions TO config;
GRANT SELECT ON feed TO config;
GRANT UPDATE (revision) ON feed TO config;
GRANT SELECT, DELETE ON metrics TO config_feed;
GRANT SELECT ON feed TO config_feed;
GRANT UPDATE (purged_revision) ON feed TO config_feed;
