-- What was generated, by the hash of what decided its bytes. Asked for by the hash of its content too, for as long as
-- somebody asks: a pinned address goes on answering after the definitions have changed.
CREATE TABLE artifacts (
    tenant_id uuid NOT NULL,
    project_id uuid NOT NULL,
    input_hash bytea NOT NULL CHECK (octet_length(input_hash) = 32),
    content_hash bytea NOT NULL CHECK (octet_length(content_hash) = 32),
    content bytea NOT NULL,
    content_type text NOT NULL,
    file_name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, input_hash)
);

CREATE INDEX artifacts_by_content ON artifacts (project_id, content_hash);

ALTER TABLE artifacts ENABLE ROW LEVEL SECURITY;
ALTER TABLE artifacts FORCE ROW LEVEL SECURITY;

CREATE POLICY tenant ON artifacts
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);

GRANT SELECT, INSERT, UPDATE, DELETE ON artifacts TO codegen;
