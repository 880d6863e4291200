-- Mails that wait to be sent, the tokens that were mailed, verified addresses, and where sessions are used from.
--
-- Doors beside those of 0001:
--   app.mailed_hash   the one mailed token with this SHA-256 (hex)
-- A named role crosses accounts: `auth_mailer` sends what is queued, and deletes it.

ALTER TABLE users ADD COLUMN email_verified_at timestamptz;

ALTER TABLE sessions
    ADD COLUMN device text NOT NULL DEFAULT '',
    ADD COLUMN address text NOT NULL DEFAULT '',
    -- When it began or was last renewed; sessions of the version before have no such moment.
    ADD COLUMN last_used_at timestamptz;

-- At most one token for an address and a purpose: a new one makes the older void. There are rows for addresses without an
-- account too, so that asking costs the same for both.
CREATE TABLE mailed_tokens (
    purpose text NOT NULL CHECK (purpose IN ('password_reset', 'email_verification')),
    email_key text NOT NULL,
    -- SHA-256 of the token's text.
    token_hash bytea NOT NULL UNIQUE,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (purpose, email_key)
);
CREATE INDEX mailed_tokens_by_expiry ON mailed_tokens (expires_at);

-- Inserted in the transaction that causes them; deleted once they are sent or given up.
CREATE TABLE mails (
    -- From it and the master key comes the token that the mail carries.
    id uuid PRIMARY KEY,
    purpose text NOT NULL,
    recipient text NOT NULL,
    -- What the text needs besides, by name.
    details jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    -- The next attempt, not before; whoever sends it puts this off first.
    due_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0
);
CREATE INDEX mails_by_due ON mails (due_at);

ALTER TABLE mailed_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE mailed_tokens FORCE ROW LEVEL SECURITY;
ALTER TABLE mails ENABLE ROW LEVEL SECURITY;
ALTER TABLE mails FORCE ROW LEVEL SECURITY;

CREATE POLICY by_email ON mailed_tokens TO auth USING (email_key = door('email'));
CREATE POLICY by_hash ON mailed_tokens TO auth USING (token_hash = decode(door('mailed_hash'), 'hex'));
CREATE POLICY expired ON mailed_tokens TO auth_cleaner USING (expires_at < now() - interval '1 hour');
CREATE POLICY queueing ON mails FOR INSERT TO auth
    WITH CHECK (coalesce(door('user_id'), door('tenant_id'), door('email')) IS NOT NULL);
CREATE POLICY sending ON mails TO auth_mailer USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON mailed_tokens TO auth;
GRANT INSERT ON mails TO auth;
GRANT SELECT, UPDATE, DELETE ON mails TO auth_mailer;
GRANT SELECT, DELETE ON mailed_tokens TO auth_cleaner;
