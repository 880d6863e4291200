-- Entries of the audit log, kept in the transaction of the change until auth has sealed them into the tenant's chain.
--
-- A named role crosses tenants: `config_audit_sender` reads them in their order, and deletes what auth has.

CREATE TABLE audit_outbox (
    position   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         uuid NOT NULL UNIQUE,
    tenant_id  uuid NOT NULL,
    project_id uuid NOT NULL,
    -- canonical JSON, as chassis/audit.py writes it
    document   text NOT NULL
);

ALTER TABLE audit_outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_outbox FORCE ROW LEVEL SECURITY;

CREATE POLICY own_tenant ON audit_outbox FOR INSERT TO config
    WITH CHECK (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY sending ON audit_outbox TO config_audit_sender USING (true);

GRANT INSERT ON audit_outbox TO config;
GRANT SELECT, DELETE ON audit_outbox TO config_audit_sender;
