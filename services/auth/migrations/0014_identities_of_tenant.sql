-- The policies of `users` ask for the identities of one tenant, or of none, at nearly every look at a user.

CREATE INDEX identities_of_tenant ON identities (tenant_id, user_id);

-- The sessions of accounts that a tenant's provider has made end with the provider's being disabled.

CREATE POLICY made_for_tenant ON sessions FOR SELECT TO auth
    USING (user_id IN (SELECT user_id FROM identities WHERE tenant_id = door('tenant_id')::uuid));
CREATE POLICY made_for_tenant_end ON sessions FOR UPDATE TO auth
    USING (user_id IN (SELECT user_id FROM identities WHERE tenant_id = door('tenant_id')::uuid))
    WITH CHECK (revoked_at IS NOT NULL);
