-- Who of several accounts with one address a provider means: whoever has signed in last.
--
-- The version before does not write this: while both run, an account may seem to have signed in longer ago.

ALTER TABLE identities ADD COLUMN signed_on_at timestamptz;
