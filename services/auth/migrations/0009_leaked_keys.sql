-- Keys that were revoked because somebody found them: reported again they are still no false alarm.

ALTER TABLE keys ADD COLUMN leaked_at timestamptz;
