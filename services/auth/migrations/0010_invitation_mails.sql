-- Which invitations were mailed within the last day: nobody's mailbox is filled with them.
-- Doors are those of 0001: an address counts its mails over all tenants, a tenant its own.

CREATE TABLE invitation_mails (
    invitation_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    email_key text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX invitation_mails_to_address ON invitation_mails (email_key, created_at);
CREATE INDEX invitation_mails_of_tenant ON invitation_mails (tenant_id, created_at);
CREATE INDEX invitation_mails_by_age ON invitation_mails (created_at);

ALTER TABLE invitation_mails ENABLE ROW LEVEL SECURITY;
ALTER TABLE invitation_mails FORCE ROW LEVEL SECURITY;

CREATE POLICY of_tenant ON invitation_mails TO auth USING (tenant_id = door('tenant_id')::uuid);
CREATE POLICY by_email ON invitation_mails FOR SELECT TO auth USING (email_key = door('email'));
CREATE POLICY expired ON invitation_mails TO auth_cleaner USING (created_at < now() - interval '1 day');

GRANT SELECT, INSERT ON invitation_mails TO auth;
GRANT SELECT, DELETE ON invitation_mails TO auth_cleaner;
