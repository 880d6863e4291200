-- Accounts, tenants, credentials, and the feed that says when a credential changed.
--
-- Every table is bound by row-level security, forced on its owner too. A transaction of the role `auth` sees a row only
-- through one of these doors, each a setting that the transaction makes for itself; unset, it sees nothing:
--   app.user_id       a person's own account, sessions, memberships, and the tenants and projects of these memberships
--   app.email         the one account with this e-mail address
--   app.tenant_id     one tenant with its projects, keys and members
--   app.key_hash      the one key with this SHA-256 (hex), its project and its tenant
--   app.refresh_hash  the one refresh token with this SHA-256 (hex)
--   app.door          `signing_keys`: the keys that sign tokens, which belong to no tenant
-- Two named roles cross tenants: `auth_feed` reads the feed, `auth_cleaner` deletes what has expired.

CREATE FUNCTION door(name text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('app.' || name, true), '');

CREATE TABLE users (
    id uuid PRIMARY KEY,
    -- As its owner wrote it.
    email text NOT NULL,
    -- As it is looked up: normalised and case-folded.
    email_key text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL
);

CREATE TABLE passwords (
    user_id uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    bcrypt text NOT NULL
);

CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    plan text NOT NULL CHECK (plan IN ('free', 'basic', 'professional', 'enterprise')),
    created_at timestamptz NOT NULL
);

CREATE TABLE memberships (
    tenant_id uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    role text NOT NULL CHECK (role IN ('viewer', 'editor', 'admin', 'owner')),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id)
);
CREATE INDEX memberships_of_user ON memberships (user_id);

CREATE TABLE projects (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    -- Lets keys refer to a project and its tenant as a pair, so that the two cannot disagree.
    UNIQUE (tenant_id, id)
);

CREATE TABLE keys (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    project_id uuid NOT NULL,
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('publishable', 'secret')),
    scopes text[] NOT NULL,
    allowed_origins text[] NOT NULL,
    prefix text NOT NULL,
    -- SHA-256 of the key's text.
    key_hash bytea NOT NULL UNIQUE,
    -- A publishable key's text, encrypted under the master key; a secret key's is kept nowhere.
    sealed_text bytea CHECK ((sealed_text IS NOT NULL) = (kind = 'publishable')),
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX keys_of_project ON keys (project_id, id);

-- A session is a family of refresh tokens, each the successor of the one before.
CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    -- When its newest refresh token expires.
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX sessions_of_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    -- SHA-256 of the token's text.
    token_hash bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,
    -- When it was exchanged for its successor.
    spent_at timestamptz
);
CREATE INDEX refresh_tokens_of_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_of_user ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

CREATE TABLE signing_keys (
    id text PRIMARY KEY,
    -- The Ed25519 private key, encrypted under the master key.
    sealed_private_key bytea NOT NULL,
    created_at timestamptz NOT NULL,
    -- It signs from then until the next one does.
    signs_from timestamptz NOT NULL
);

-- One row. Every change to a credential steps the revision in its own transaction, which holds the row until it commits:
-- so revisions become visible in their order.
CREATE TABLE feed (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    revision bigint NOT NULL
);
INSERT INTO feed (revision) VALUES (1);

CREATE TABLE changes (
    revision bigint PRIMARY KEY,
    -- Ids of keys, sessions, users, projects and tenants whose verdicts are void.
    changed_ids text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['users', 'passwords', 'tenants', 'memberships', 'projects', 'keys', 'sessions',
                                'refresh_tokens', 'signing_keys', 'feed', 'changes'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    END LOOP;
END $$;

-- A person's own account.
CREATE POLICY own ON users TO auth USING (id = door('user_id')::uuid);
CREATE POLICY own ON passwords TO auth USING (user_id = door('user_id')::uuid);
CREATE POLICY own ON sessions TO auth USING (user_id = door('user_id')::uuid);
CREATE POLICY own ON refresh_tokens TO auth USING (user_id = door('user_id')::uuid);
CREATE POLICY own ON memberships FOR SELECT TO auth USING (user_id = door('user_id')::uuid);
CREATE POLICY of_own_memberships ON tenants FOR SELECT TO auth
    USING (id IN (SELECT tenant_id FROM memberships WHERE user_id = door('user_id')::uuid));
CREATE POLICY of_own_memberships ON projects FOR SELECT TO auth
    USING (tenant_id IN (SELECT tenant_id FROM memberships WHERE user_id = door('user_id')::uuid));

-- Found by something only its owner knows.
CREATE POLICY by_email ON users FOR SELECT TO auth USING (email_key = door('email'));
CREATE POLICY by_email ON passwords FOR SELECT TO auth
    USING (user_id IN (SELECT id FROM users WHERE email_key = door('email')));
CREATE POLICY by_hash ON refresh_tokens FOR SELECT TO auth
    USING (token_hash = decode(door('refresh_hash'), 'hex'));
CREATE POLICY by_hash ON keys FOR SELECT TO auth USING (key_hash = decode(door('key_hash'), 'hex'));
CREATE POLICY by_key ON projects FOR SELECT TO auth
    USING (id IN (SELECT project_id FROM keys WHERE key_hash = decode(door('key_hash'), 'hex')));
CREATE POLICY by_key ON tenants FOR SELECT TO auth
    USING (id IN (SELECT tenant_id FROM keys WHERE key_hash = decode(door('key_hash'), 'hex')));

-- One tenant.
CREATE POLICY of_tenant ON tenants TO auth USING (id = door('tenant_id')::uuid);
CREATE POLICY of_tenant ON memberships TO auth USING (tenant_id = door('tenant_id')::uuid);
CREATE POLICY of_tenant ON projects TO auth USING (tenant_id = door('tenant_id')::uuid);
CREATE POLICY of_tenant ON keys TO auth USING (tenant_id = door('tenant_id')::uuid);
CREATE POLICY of_tenant ON users FOR SELECT TO auth
    USING (id IN (SELECT user_id FROM memberships WHERE tenant_id = door('tenant_id')::uuid));

-- What belongs to no tenant.
CREATE POLICY for_signing ON signing_keys TO auth USING (door('door') = 'signing_keys');
CREATE POLICY while_acting ON feed TO auth
    USING (coalesce(door('user_id'), door('tenant_id'), door('key_hash')) IS NOT NULL);
CREATE POLICY announcing ON changes FOR INSERT TO auth
    WITH CHECK (coalesce(door('user_id'), door('tenant_id')) IS NOT NULL);
CREATE POLICY watching ON feed FOR SELECT TO auth_feed USING (true);
CREATE POLICY watching ON changes FOR SELECT TO auth_feed USING (true);

-- Only what has expired, an hour ago or more.
CREATE POLICY expired ON changes TO auth_cleaner USING (created_at < now() - interval '1 hour');
CREATE POLICY expired ON refresh_tokens TO auth_cleaner USING (expires_at < now() - interval '1 hour');
CREATE POLICY expired ON sessions TO auth_cleaner USING (expires_at < now() - interval '1 hour');

GRANT SELECT, INSERT, UPDATE, DELETE ON users, passwords, tenants, memberships, projects, keys, sessions,
    refresh_tokens, signing_keys TO auth;
GRANT SELECT, UPDATE ON feed TO auth;
GRANT INSERT ON changes TO auth;
GRANT SELECT ON feed, changes TO auth_feed;
GRANT SELECT, DELETE ON changes, refresh_tokens, sessions TO auth_cleaner;
