-- The aggregators that share the lanes. Who is in here until later than now is alive.

CREATE TABLE aggregators (
    owner        text PRIMARY KEY,
    lives_until  timestamptz NOT NULL
);

GRANT SELECT, INSERT, UPDATE, DELETE ON aggregators TO ingest_aggregator;
