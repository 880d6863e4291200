-- A histogram's observations are put into exponential buckets, made as they are needed; `buckets` is empty then.

ALTER TABLE metrics ADD COLUMN native_histogram boolean NOT NULL DEFAULT false;
