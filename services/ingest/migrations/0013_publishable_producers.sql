-- A project that has half of the producers that it may have takes no new ones of publishable keys, as it is with sources.
ALTER TABLE full_projects DROP CONSTRAINT full_projects_what_check;
ALTER TABLE full_projects ADD CONSTRAINT full_projects_what_check
    CHECK (what IN ('producers', 'publishable_producers', 'sources', 'publishable_sources', 'series'));
