-- A key that was rotated remembers when it would have expired: rotated again, its successor gets that end, not the grace's.
--
-- The version before neither reads nor writes this: keys that it rotates are remembered as keys with an end of their own.

ALTER TABLE keys ADD COLUMN in_grace boolean NOT NULL DEFAULT false;
ALTER TABLE keys ADD COLUMN expires_before_grace timestamptz;
