-- Finds the lines with metrics that were over a budget, among a project's many without, the newest first.
CREATE INDEX ledger_folded ON ledger (partition, project_id, hour_ms) WHERE folded > 0;
