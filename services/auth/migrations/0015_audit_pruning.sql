-- The audit log may be shortened at its beginning, by a role of its own and no further than where a signed head is.
--
-- What was pruned last is said by an anchor: a statement, signed under the master key, of which entry was the last one that
-- is gone, and its hash. The chain goes on from there. The role `auth_audit_pruner` is entered by the schema's owner alone,
-- for `prune-audit`; the service's own role can neither enter it nor write an anchor.

CREATE TABLE audit_anchors (
    tenant_id uuid PRIMARY KEY,
    -- Of the last entry that was pruned.
    sequence bigint NOT NULL,
    -- A JWS.
    signed_anchor text NOT NULL
);

ALTER TABLE audit_anchors ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_anchors FORCE ROW LEVEL SECURITY;

CREATE POLICY auditing ON audit_anchors FOR SELECT TO auth_auditor USING (true);
CREATE POLICY pruning ON audit_anchors TO auth_audit_pruner USING (true)
    WITH CHECK (EXISTS (SELECT FROM audit_signed_heads AS signed
        WHERE signed.tenant_id = audit_anchors.tenant_id AND signed.sequence = audit_anchors.sequence));

CREATE POLICY reading_before_pruning ON audit_heads FOR SELECT TO auth_audit_pruner USING (true);
CREATE POLICY reading_before_pruning ON audit_entries FOR SELECT TO auth_audit_pruner USING (true);
CREATE POLICY reading_before_pruning ON audit_signed_heads FOR SELECT TO auth_audit_pruner USING (true);
CREATE POLICY pruning ON audit_entries FOR DELETE TO auth_audit_pruner
    USING (sequence <= (SELECT anchor.sequence FROM audit_anchors AS anchor
        WHERE anchor.tenant_id = audit_entries.tenant_id));
-- The signed head that the anchor stands on stays.
CREATE POLICY pruning ON audit_signed_heads FOR DELETE TO auth_audit_pruner
    USING (sequence < (SELECT anchor.sequence FROM audit_anchors AS anchor
        WHERE anchor.tenant_id = audit_signed_heads.tenant_id));

GRANT SELECT ON audit_anchors TO auth_auditor;
GRANT SELECT, INSERT, UPDATE ON audit_anchors TO auth_audit_pruner;
GRANT SELECT ON audit_heads TO auth_audit_pruner;
GRANT SELECT, DELETE ON audit_entries, audit_signed_heads TO auth_audit_pruner;
