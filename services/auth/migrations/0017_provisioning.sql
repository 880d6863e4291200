-- Identity providers say themselves who has left them (SCIM 2.0, RFC 7644), each with a token of its own.
--
-- A door beside those of 0001: app.provisioning_hash, the one identity provider whose token has this SHA-256 (hex).

ALTER TABLE identity_providers
    -- SHA-256 of the token's text; null: there is none.
    ADD COLUMN provisioning_hash bytea UNIQUE,
    ADD COLUMN provisioning_since timestamptz,
    ADD CHECK ((provisioning_hash IS NULL) = (provisioning_since IS NULL));

-- By the provider, which may take it back; what an admin has done is `removed_at`.
ALTER TABLE identities ADD COLUMN deactivated_at timestamptz;

CREATE POLICY by_provisioning_hash ON identity_providers FOR SELECT TO auth
    USING (provisioning_hash = decode(door('provisioning_hash'), 'hex'));
