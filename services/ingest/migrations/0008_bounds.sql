-- Projects that have as many producers, or series of cumulative sources, as they may have, as of the last count.
CREATE TABLE full_projects (
    partition   smallint NOT NULL,
    tenant_id   uuid NOT NULL,
    project_id  uuid NOT NULL,
    what        text NOT NULL CHECK (what IN ('producers', 'sources')),
    PRIMARY KEY (partition, project_id, what)
);

ALTER TABLE full_projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE full_projects FORCE ROW LEVEL SECURITY;

CREATE POLICY aggregator ON full_projects TO ingest_aggregator USING (true) WITH CHECK (true);
-- The door of receivers, who must know of all of them before a batch comes: this one table, and only where they say so.
CREATE POLICY receivers ON full_projects FOR SELECT TO ingest
    USING (current_setting('app.full_projects', true) = 'all');

GRANT SELECT, INSERT, DELETE ON full_projects TO ingest_aggregator;
GRANT SELECT ON full_projects TO ingest;

-- Series of deleted definitions go once their end is settled.
GRANT DELETE ON series TO ingest_aggregator;
