-- Single sign-on: the identity providers of tenants, the accounts that they made, and sign-ons under way.
--
-- Doors beside those of 0001 and 0002:
--   app.provider_id   the one identity provider with this id
--   app.sign_on_hash  the one sign-on under way, or completed, whose state or grant has this SHA-256 (hex)

CREATE TABLE identity_providers (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('oidc', 'ldap', 'saml')),
    name text NOT NULL,
    enabled boolean NOT NULL,
    -- What is said of all kinds, and what is said of this one, by the names that the code has for them.
    admission jsonb NOT NULL,
    settings jsonb NOT NULL,
    -- The client's secret or the password that binds, encrypted under the master key.
    sealed_secret bytea,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- Lets identities refer to a provider and its tenant as a pair, so that the two cannot disagree.
    UNIQUE (tenant_id, id)
);

-- An account that a provider made. It is known by the provider's name for it, never by its address, and `email_key` of
-- its user is none that an address can have: nobody finds it by an address, and it takes nobody's.
CREATE TABLE identities (
    user_id uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    tenant_id uuid NOT NULL,
    provider_id uuid NOT NULL,
    subject text NOT NULL,
    created_at timestamptz NOT NULL,
    UNIQUE (provider_id, subject),
    FOREIGN KEY (tenant_id, provider_id) REFERENCES identity_providers (tenant_id, id) ON DELETE CASCADE
);

-- Deleted as they are used.
CREATE TABLE sign_ons (
    -- SHA-256 of the state.
    state_hash bytea PRIMARY KEY,
    provider_id uuid NOT NULL REFERENCES identity_providers ON DELETE CASCADE,
    -- SHA-256 of what the browser keeps in a cookie; what else must not be guessed is derived from that.
    browser_hash bytea NOT NULL,
    return_to text NOT NULL,
    -- SHA-256, in base64url, of what redeems the grant along with it.
    challenge text NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sign_ons_by_expiry ON sign_ons (expires_at);

CREATE TABLE sign_on_grants (
    -- SHA-256 of the grant.
    grant_hash bytea PRIMARY KEY,
    challenge text NOT NULL,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    provider_id uuid NOT NULL REFERENCES identity_providers ON DELETE CASCADE,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sign_on_grants_by_expiry ON sign_on_grants (expires_at);

-- Beyond which no refresh renews it: the provider is asked again then.
ALTER TABLE sessions ADD COLUMN not_after timestamptz;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['identity_providers', 'identities', 'sign_ons', 'sign_on_grants'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    END LOOP;
END $$;

CREATE POLICY of_tenant ON identity_providers TO auth USING (tenant_id = door('tenant_id')::uuid);
CREATE POLICY by_id ON identity_providers FOR SELECT TO auth USING (id = door('provider_id')::uuid);
CREATE POLICY of_tenant ON identities TO auth USING (tenant_id = door('tenant_id')::uuid);
CREATE POLICY by_state ON sign_ons TO auth USING (state_hash = decode(door('sign_on_hash'), 'hex'));
CREATE POLICY by_grant ON sign_on_grants TO auth USING (grant_hash = decode(door('sign_on_hash'), 'hex'));
CREATE POLICY made_for_tenant ON users FOR SELECT TO auth
    USING (id IN (SELECT user_id FROM identities WHERE tenant_id = door('tenant_id')::uuid));
CREATE POLICY made_for_tenant_end ON users FOR DELETE TO auth
    USING (id IN (SELECT user_id FROM identities WHERE tenant_id = door('tenant_id')::uuid));
CREATE POLICY expired ON sign_ons TO auth_cleaner USING (expires_at < now() - interval '1 hour');
CREATE POLICY expired ON sign_on_grants TO auth_cleaner USING (expires_at < now() - interval '1 hour');

GRANT SELECT, INSERT, UPDATE, DELETE ON identity_providers, identities TO auth;
GRANT SELECT, INSERT, DELETE ON sign_ons, sign_on_grants TO auth;
GRANT SELECT, DELETE ON sign_ons, sign_on_grants TO auth_cleaner;
