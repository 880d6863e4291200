-- How many lanes there were when this one was worked on. Null: not known yet; the lane's next owner says it.
ALTER TABLE lanes ADD COLUMN lanes_in_all smallint;
-- Regrouping leaves no lanes behind that there are no more.
GRANT DELETE ON lanes TO ingest_aggregator;
