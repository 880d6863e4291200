-- A project may be full of series, too: those that are quiet stay in the state.
ALTER TABLE full_projects DROP CONSTRAINT full_projects_what_check;
ALTER TABLE full_projects ADD CONSTRAINT full_projects_what_check CHECK (what IN ('producers', 'sources', 'series'));
