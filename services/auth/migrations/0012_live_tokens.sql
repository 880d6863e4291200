-- Several living tokens for an address and a purpose: anybody may ask for one more, which must not void what its owner holds.
--
-- `mailed_tokens`, with its one row, stays for the version before: what that has made counts in this version too, and of what
-- this one makes it knows the newest. A token that a replica of that version takes while both run is good once more here.

CREATE TABLE live_tokens (
    -- SHA-256 of the token's text.
    token_hash bytea PRIMARY KEY,
    purpose text NOT NULL CHECK (purpose IN ('password_reset', 'email_verification')),
    email_key text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX live_tokens_by_address ON live_tokens (email_key, purpose, created_at);
CREATE INDEX live_tokens_by_expiry ON live_tokens (expires_at);

ALTER TABLE live_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE live_tokens FORCE ROW LEVEL SECURITY;

CREATE POLICY by_email ON live_tokens TO auth USING (email_key = door('email'));
CREATE POLICY by_hash ON live_tokens FOR SELECT TO auth USING (token_hash = decode(door('mailed_hash'), 'hex'));
CREATE POLICY expired ON live_tokens TO auth_cleaner USING (expires_at < now() - interval '1 hour');

GRANT SELECT, INSERT, DELETE ON live_tokens TO auth;
GRANT SELECT, DELETE ON live_tokens TO auth_cleaner;
