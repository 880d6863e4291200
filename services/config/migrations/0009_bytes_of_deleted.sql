-- How many bytes the deleted definitions of each tenant take, and all there are, until they are forgotten.
--
-- Counted by the trigger that counts the others. Those that are deleted already get no larger than those to come.

ALTER TABLE feed ADD COLUMN deleted_bytes bigint NOT NULL DEFAULT 0;
ALTER TABLE tenant_bytes ADD COLUMN deleted_bytes bigint NOT NULL DEFAULT 0;

ALTER TABLE metrics NO FORCE ROW LEVEL SECURITY;
ALTER TABLE tenant_bytes NO FORCE ROW LEVEL SECURITY;
UPDATE metrics SET help = '', labels = '[]', buckets = '{}', objectives = '{}' WHERE deleted_at IS NOT NULL;
INSERT INTO tenant_bytes (tenant_id, bytes, deleted_bytes)
    SELECT tenant_id, 0, sum(bytes) FROM metrics WHERE deleted_at IS NOT NULL GROUP BY tenant_id
    ON CONFLICT (tenant_id) DO UPDATE SET deleted_bytes = excluded.deleted_bytes;
UPDATE feed SET deleted_bytes = (SELECT coalesce(sum(deleted_bytes), 0) FROM tenant_bytes);
ALTER TABLE metrics FORCE ROW LEVEL SECURITY;
ALTER TABLE tenant_bytes FORCE ROW LEVEL SECURITY;

CREATE OR REPLACE FUNCTION count_bytes() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    -- how many more they are; of the row as it was, and as it is, everything is null where there is none
    living  bigint := CASE WHEN NEW.deleted_at IS NULL THEN coalesce(NEW.bytes, 0) ELSE 0 END
                    - CASE WHEN OLD.deleted_at IS NULL THEN coalesce(OLD.bytes, 0) ELSE 0 END;
    deleted bigint := coalesce(NEW.bytes, 0) - coalesce(OLD.bytes, 0) - living;
    whose   uuid   := coalesce(NEW.tenant_id, OLD.tenant_id);
BEGIN
    IF living <> 0 OR deleted <> 0 THEN
        -- first: whoever holds the feed's row has the tenant's to itself
        UPDATE feed SET bytes = bytes + living, deleted_bytes = deleted_bytes + deleted;
        UPDATE tenant_bytes SET bytes = bytes + living, deleted_bytes = deleted_bytes + deleted WHERE tenant_id = whose;
        IF NOT FOUND THEN
            INSERT INTO tenant_bytes (tenant_id, bytes, deleted_bytes) VALUES (whose, living, deleted);
        END IF;
    END IF;
    RETURN NULL;
END $$;

-- The door for the feed counts down what it forgets.
CREATE POLICY feed_forgets ON tenant_bytes TO config_feed USING (true);

GRANT UPDATE (deleted_bytes) ON feed TO config;
GRANT UPDATE (bytes, deleted_bytes) ON feed TO config_feed;
GRANT SELECT, UPDATE ON tenant_bytes TO config_feed;
