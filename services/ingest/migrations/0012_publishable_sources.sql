-- A project that has half of the sources that it may have takes no new ones of publishable keys: the rest is for secret ones.
ALTER TABLE full_projects DROP CONSTRAINT full_projects_what_check;
ALTER TABLE full_projects ADD CONSTRAINT full_projects_what_check
    CHECK (what IN ('producers', 'sources', 'publishable_sources', 'series'));
