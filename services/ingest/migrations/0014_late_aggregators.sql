-- Until when an aggregator lives whose clock is late: `lives_until`, by which versions before this count, is over then.
ALTER TABLE aggregators ADD COLUMN late_until timestamptz;
