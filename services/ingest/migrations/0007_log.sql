-- Which log a position is of: a stream that was made anew counts from 1 again. Null: not known yet; the lane's next owner
-- takes the log that is there.
ALTER TABLE lanes ADD COLUMN log_made_at timestamptz;
