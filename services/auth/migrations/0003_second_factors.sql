-- Second factors: one-time passwords of people (RFC 6238), and what stands in for a lost device.
-- Doors are those of 0001.

CREATE TABLE second_factors (
    user_id uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    -- The shared secret, encrypted under the master key.
    sealed_secret bytea NOT NULL,
    created_at timestamptz NOT NULL,
    -- When a code of it was shown first; until then nobody is asked for one.
    confirmed_at timestamptz,
    -- The time step of the newest code that was taken: neither it nor an older one is taken again.
    last_step bigint NOT NULL DEFAULT 0,
    -- Wrong codes since the last good one.
    failures integer NOT NULL DEFAULT 0,
    -- No code is looked at before.
    closed_until timestamptz
);

-- Deleted as they are used.
CREATE TABLE recovery_codes (
    user_id uuid NOT NULL REFERENCES second_factors ON DELETE CASCADE,
    -- HMAC-SHA-256 of the code under a key derived from the master key.
    code_hash bytea NOT NULL,
    PRIMARY KEY (user_id, code_hash)
);

ALTER TABLE second_factors ENABLE ROW LEVEL SECURITY;
ALTER TABLE second_factors FORCE ROW LEVEL SECURITY;
ALTER TABLE recovery_codes ENABLE ROW LEVEL SECURITY;
ALTER TABLE recovery_codes FORCE ROW LEVEL SECURITY;

CREATE POLICY own ON second_factors TO auth USING (user_id = door('user_id')::uuid);
CREATE POLICY own ON recovery_codes TO auth USING (user_id = door('user_id')::uuid);

GRANT SELECT, INSERT, UPDATE, DELETE ON second_factors, recovery_codes TO auth;
