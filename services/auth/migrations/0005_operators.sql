-- What operators do: they see every tenant's name and plan, set plans, suspend tenants and resume them.
--
-- A named role crosses tenants for that: `auth_operator`. It sees no member, project or key.

ALTER TABLE tenants ADD COLUMN suspended_at timestamptz;

CREATE POLICY operating ON tenants FOR SELECT TO auth_operator USING (true);
CREATE POLICY changing ON tenants FOR UPDATE TO auth_operator USING (true);
CREATE POLICY operating ON feed TO auth_operator USING (true);
CREATE POLICY operating ON changes FOR INSERT TO auth_operator WITH CHECK (true);

GRANT SELECT, UPDATE (plan, suspended_at) ON tenants TO auth_operator;
GRANT SELECT, UPDATE ON feed TO auth_operator;
GRANT INSERT ON changes TO auth_operator;
