-- Which projects somebody has deleted: config forgets the definitions of these, and of no others. A project that is
-- merely not there, as after an older database was restored, keeps its definitions.
--
-- The version before does not write this: the definitions of what it deletes while both run stay.

CREATE TABLE deleted_projects (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    deleted_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE deleted_projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE deleted_projects FORCE ROW LEVEL SECURITY;

CREATE POLICY of_tenant ON deleted_projects FOR INSERT TO auth WITH CHECK (tenant_id = door('tenant_id')::uuid);
CREATE POLICY watching ON deleted_projects FOR SELECT TO auth_feed USING (true);

GRANT INSERT ON deleted_projects TO auth;
GRANT SELECT ON deleted_projects TO auth_feed;
