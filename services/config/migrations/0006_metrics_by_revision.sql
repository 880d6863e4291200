-- Finds what changed in one project after a revision, tombstones too: asked before any batch is rejected for want of a
-- definition, and mostly answered that nothing has.
CREATE INDEX metrics_by_revision ON metrics (project_id, revision);
