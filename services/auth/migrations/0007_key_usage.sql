-- When keys were used last, as far as that is known, in batches: a named role crosses tenants, `auth_key_usage`.

ALTER TABLE keys ADD COLUMN last_used_at timestamptz;

CREATE POLICY noting_use ON keys TO auth_key_usage USING (true);

GRANT SELECT (id, last_used_at), UPDATE (last_used_at) ON keys TO auth_key_usage;
