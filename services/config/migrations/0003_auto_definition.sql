-- Definitions that data has made, in projects that have opted in, until somebody confirms them.

ALTER TABLE metrics ADD COLUMN provisional boolean NOT NULL DEFAULT false;

CREATE TABLE project_settings (
    tenant_id       uuid NOT NULL,
    project_id      uuid PRIMARY KEY,
    auto_definition boolean NOT NULL,
    changed_by      text NOT NULL,
    changed_at      timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE project_settings ENABLE ROW LEVEL SECURITY;
ALTER TABLE project_settings FORCE ROW LEVEL SECURITY;

CREATE POLICY own_tenant ON project_settings TO config
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY feed_reads ON project_settings FOR SELECT TO config_feed USING (true);

GRANT SELECT, INSERT, UPDATE ON project_settings TO config;
GRANT SELECT ON project_settings TO config_feed;
