"""Who may call which method of the receiver (docs/zero-trust.md)."""

from chassis.callers import INSIDE, by, table

CALLERS = table(
    {
        "pulsegate.ingest.v1.IngestService": {
            "IngestBatch": by(INSIDE),
            "StreamBatches": by("gateway", INSIDE),
        },
        "pulsegate.ingest.v1.LedgerService": {
            "GetLedger": by("gateway"),
            "ListRejections": by("gateway"),
        },
    }
)
