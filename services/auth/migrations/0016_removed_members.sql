-- Whom an admin has removed, their identity provider does not bring back.
--
-- The version before neither reads nor writes this: while both run, it admits them as it did.

ALTER TABLE identities ADD COLUMN removed_at timestamptz;
