"""Ingestion: takes batches of metrics durably, counts each exactly once, delivers the series to Prometheus.

Two roles, one process each. The **receiver** serves `IngestService` to the gateway; the **aggregator** serves nobody:
it reads the log and writes to Postgres (schema `ingest`) and to the sinks.

The path of one batch, file by file::

    grpc_api.BatchStream → operations.Receiver → decoding → validation (definitions) → records → log_writer.LogWriter
        … NATS JetStream …
    log_reader.LogReader → aggregation.LaneState.fold → storage.checkpoints → sinks.delivery → sinks.remote_write

`lane.py` owns a lane, `lane_work.py` drives the second line for it. Nothing is acknowledged before the log has it on
disk, nothing is counted before the checkpoint has committed it, and only committed values leave for a sink.
"""
