-- How many bytes there are: in a page of the feed, in a project, and in a definition's history.

-- No fewer than in a message: its texts, its numbers, and 200 for ids and times.
ALTER TABLE metrics ADD COLUMN bytes integer NOT NULL GENERATED ALWAYS AS (
    200 + octet_length(name) + octet_length(unit) + octet_length(help) + octet_length(labels::text)
        + 9 * (cardinality(buckets) + cardinality(objectives))
) STORED;

-- The history of a definition goes when its tombstone does, and has its latest versions alone: who adds one deletes
-- what is too old. Referential integrity is not bound by row-level security.
ALTER TABLE metrics NO FORCE ROW LEVEL SECURITY;
ALTER TABLE metric_versions NO FORCE ROW LEVEL SECURITY;
DELETE FROM metric_versions WHERE NOT EXISTS (SELECT FROM metrics WHERE metrics.id = metric_versions.metric_id);
ALTER TABLE metric_versions ADD FOREIGN KEY (metric_id) REFERENCES metrics (id) ON DELETE CASCADE;
ALTER TABLE metrics FORCE ROW LEVEL SECURITY;
ALTER TABLE metric_versions FORCE ROW LEVEL SECURITY;
GRANT DELETE ON metric_versions TO config;
