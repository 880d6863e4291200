-- Artifacts end with their project, and when nobody has asked for them in a long time, whether or not it generates more.
--
-- A named role crosses tenants: `codegen_cleaner` sees of which projects there are artifacts, and when they were used. It
-- deletes nothing: that is done in the name of each tenant.
CREATE POLICY cleaning ON artifacts FOR SELECT TO codegen_cleaner USING (true);
GRANT SELECT (tenant_id, project_id, used_at) ON artifacts TO codegen_cleaner;

-- What a tenant's artifacts take up is bounded.
CREATE INDEX artifacts_by_tenant ON artifacts (tenant_id);
