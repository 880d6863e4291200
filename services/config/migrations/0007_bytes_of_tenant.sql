-- How many bytes the definitions of each tenant take, and all there are; tombstones are not counted.
--
-- Counted by a trigger: the version before, which knows nothing of it, may write beside this one. Whoever changes a
-- definition holds the feed's row already.

ALTER TABLE feed ADD COLUMN bytes bigint NOT NULL DEFAULT 0;

CREATE TABLE tenant_bytes (
    tenant_id uuid PRIMARY KEY,
    bytes     bigint NOT NULL
);

CREATE FUNCTION count_bytes() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    -- of the row as it was, and as it is; where there is none, it is null
    before bigint := CASE WHEN OLD.deleted_at IS NULL THEN coalesce(OLD.bytes, 0) ELSE 0 END;
    after  bigint := CASE WHEN NEW.deleted_at IS NULL THEN coalesce(NEW.bytes, 0) ELSE 0 END;
BEGIN
    IF before <> after THEN
        UPDATE feed SET bytes = feed.bytes - before + after;
        INSERT INTO tenant_bytes VALUES (coalesce(NEW.tenant_id, OLD.tenant_id), after - before)
            ON CONFLICT (tenant_id) DO UPDATE SET bytes = tenant_bytes.bytes + excluded.bytes;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER count_bytes AFTER INSERT OR UPDATE OR DELETE ON metrics FOR EACH ROW EXECUTE FUNCTION count_bytes();

ALTER TABLE metrics NO FORCE ROW LEVEL SECURITY;
INSERT INTO tenant_bytes SELECT tenant_id, sum(bytes) FROM metrics WHERE deleted_at IS NULL GROUP BY tenant_id;
ALTER TABLE metrics FORCE ROW LEVEL SECURITY;
UPDATE feed SET bytes = (SELECT coalesce(sum(bytes), 0) FROM tenant_bytes);

ALTER TABLE tenant_bytes ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_bytes FORCE ROW LEVEL SECURITY;

CREATE POLICY own_tenant ON tenant_bytes TO config
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);

GRANT SELECT, INSERT, UPDATE ON tenant_bytes TO config;
GRANT UPDATE (bytes) ON feed TO config;
