-- The settings of a project go with it.
GRANT DELETE ON project_settings TO config;
