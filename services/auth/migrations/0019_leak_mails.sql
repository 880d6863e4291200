-- Of which leaked keys a tenant's admins were mailed within the last day: nobody's mailbox is filled with them.
--
-- The version before does not write this: while both run, what it mails counts for nothing.

CREATE TABLE leak_mails (
    key_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX leak_mails_of_tenant ON leak_mails (tenant_id, created_at);
CREATE INDEX leak_mails_by_age ON leak_mails (created_at);

ALTER TABLE leak_mails ENABLE ROW LEVEL SECURITY;
ALTER TABLE leak_mails FORCE ROW LEVEL SECURITY;

CREATE POLICY of_tenant ON leak_mails TO auth USING (tenant_id = door('tenant_id')::uuid);
CREATE POLICY expired ON leak_mails TO auth_cleaner USING (created_at < now() - interval '1 day');

GRANT SELECT, INSERT ON leak_mails TO auth;
GRANT SELECT, DELETE ON leak_mails TO auth_cleaner;
