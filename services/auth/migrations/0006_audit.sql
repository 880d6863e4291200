-- The audit log: one chain of entries a tenant, which nobody can change or shorten unnoticed.
--
-- The role `auth` may read a chain, and append to it through `append_audit_entry` alone, behind the tenant's door; nobody
-- but the owner, who only migrates, may change or delete anything. What belongs to no tenant (a failed sign-in to an
-- unknown address) has the tenant 00000000-0000-0000-0000-000000000000. Entries outlive their tenant.
-- A named role crosses tenants: `auth_auditor` reads all chains, to sign their heads and to verify them.

-- Where each chain ends. Whoever appends holds its row until the transaction ends, so that a chain has an order.
CREATE TABLE audit_heads (
    tenant_id uuid PRIMARY KEY,
    sequence bigint NOT NULL,
    hash bytea NOT NULL
);

CREATE TABLE audit_entries (
    tenant_id uuid NOT NULL,
    -- 1, 2, 3, … without a gap.
    sequence bigint NOT NULL,
    -- Given by the service that made the change, so that an entry that is sent twice is kept once.
    id uuid NOT NULL,
    project_id uuid,
    -- Canonical JSON, as `chassis/audit.py` writes it.
    document text NOT NULL,
    -- Of the entry before; 32 zeros for the first.
    previous_hash bytea NOT NULL,
    -- SHA-256 of previous_hash, tenant_id (16 bytes), sequence (8 bytes, big-endian) and document (UTF-8).
    hash bytea NOT NULL,
    PRIMARY KEY (tenant_id, sequence),
    UNIQUE (tenant_id, id)
);
CREATE INDEX audit_entries_of_project ON audit_entries (project_id, sequence);

-- Heads as they were signed with a key that is not in the database: who rewrites a chain cannot sign it anew.
CREATE TABLE audit_signed_heads (
    tenant_id uuid NOT NULL,
    sequence bigint NOT NULL,
    -- A JWS.
    signed_head text NOT NULL,
    PRIMARY KEY (tenant_id, sequence)
);

CREATE FUNCTION append_audit_entry(of_tenant uuid, entry_id uuid, of_project uuid, entry text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = auth, pg_temp AS $$
DECLARE
    head audit_heads;
    entry_hash bytea;
BEGIN
    INSERT INTO audit_heads (tenant_id, sequence, hash) VALUES (of_tenant, 0, decode(repeat('00', 32), 'hex'))
        ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT head FROM audit_heads WHERE tenant_id = of_tenant FOR UPDATE;
    IF EXISTS (SELECT FROM audit_entries WHERE tenant_id = of_tenant AND id = entry_id) THEN
        RETURN;
    END IF;
    entry_hash := sha256(head.hash || uuid_send(of_tenant) || int8send(head.sequence + 1) || convert_to(entry, 'UTF8'));
    INSERT INTO audit_entries (tenant_id, sequence, id, project_id, document, previous_hash, hash)
        VALUES (of_tenant, head.sequence + 1, entry_id, of_project, entry, head.hash, entry_hash);
    UPDATE audit_heads SET sequence = head.sequence + 1, hash = entry_hash WHERE tenant_id = of_tenant;
END $$;

ALTER TABLE audit_heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_heads FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_entries ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_entries FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_signed_heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_signed_heads FORCE ROW LEVEL SECURITY;

-- The owner's are for the function, which runs as the owner.
CREATE POLICY of_tenant ON audit_heads TO auth, CURRENT_USER USING (tenant_id = door('tenant_id')::uuid);
CREATE POLICY of_tenant ON audit_entries TO auth, CURRENT_USER USING (tenant_id = door('tenant_id')::uuid);
CREATE POLICY auditing ON audit_heads FOR SELECT TO auth_auditor USING (true);
CREATE POLICY auditing ON audit_entries FOR SELECT TO auth_auditor USING (true);
CREATE POLICY auditing ON audit_signed_heads TO auth_auditor USING (true);

REVOKE ALL ON FUNCTION append_audit_entry FROM PUBLIC;
GRANT EXECUTE ON FUNCTION append_audit_entry TO auth, auth_operator;
GRANT SELECT ON audit_heads, audit_entries TO auth, auth_auditor;
GRANT SELECT, INSERT ON audit_signed_heads TO auth_auditor;
