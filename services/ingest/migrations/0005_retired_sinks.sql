-- A sink that is taken off the list is forgotten.
GRANT DELETE ON sink_watermarks TO ingest_aggregator;
