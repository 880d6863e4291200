-- A project's living keys are counted without reading its dead ones: with a million of these that took a second, while
-- the project was held.
CREATE INDEX keys_of_project_by_end ON keys (project_id, ends_at);
