-- Whether a person has founded a tenant or accepted its invitation, or was added by somebody else. What people do about
-- their own accounts is told to no tenant of the other kind.

ALTER TABLE memberships ADD COLUMN consented boolean NOT NULL DEFAULT false;

-- Founders became members in the moment that made the tenant; of older invitations nothing is known any more.
ALTER TABLE memberships NO FORCE ROW LEVEL SECURITY;
ALTER TABLE tenants NO FORCE ROW LEVEL SECURITY;
UPDATE memberships SET consented = true FROM tenants
    WHERE tenants.id = memberships.tenant_id AND tenants.created_at = memberships.created_at;
ALTER TABLE memberships FORCE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
