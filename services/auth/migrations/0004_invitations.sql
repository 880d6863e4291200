-- Invitations to tenants.
--
-- Doors are those of 0001 and 0002: an invitation is seen by its tenant, and by whoever shows its token.

CREATE TABLE invitations (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    -- As it was written; the mail goes there.
    email text NOT NULL,
    email_key text NOT NULL,
    role text NOT NULL CHECK (role IN ('viewer', 'editor', 'admin', 'owner')),
    -- SHA-256 of the token's text.
    token_hash bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    -- A new invitation to an address makes the older void.
    UNIQUE (tenant_id, email_key)
);
CREATE INDEX invitations_by_expiry ON invitations (expires_at);

ALTER TABLE invitations ENABLE ROW LEVEL SECURITY;
ALTER TABLE invitations FORCE ROW LEVEL SECURITY;

CREATE POLICY of_tenant ON invitations TO auth USING (tenant_id = door('tenant_id')::uuid);
CREATE POLICY by_hash ON invitations FOR SELECT TO auth USING (token_hash = decode(door('mailed_hash'), 'hex'));
CREATE POLICY expired ON invitations TO auth_cleaner USING (expires_at < now() - interval '1 hour');

GRANT SELECT, INSERT, UPDATE, DELETE ON invitations TO auth;
GRANT SELECT, DELETE ON invitations TO auth_cleaner;
