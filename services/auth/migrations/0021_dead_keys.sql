-- Keys that were revoked, or have expired, are deleted ninety days later. The audit log keeps who made and ended them.

-- Code that deletes by this column says of a schema without it that it is older, and waits.
ALTER TABLE keys ADD COLUMN ends_at timestamptz GENERATED ALWAYS AS (least(revoked_at, expires_at)) STORED;
CREATE INDEX keys_by_end ON keys (ends_at) WHERE ends_at IS NOT NULL;

CREATE POLICY expired ON keys TO auth_cleaner USING (ends_at < now() - interval '90 days');

GRANT SELECT (ends_at), DELETE ON keys TO auth_cleaner;
