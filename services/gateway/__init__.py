"""The gateway: the only public door.

It owns no data. It knows who calls (from auth's verdicts, cached and kept true by auth's feed), counts calls against
limits (in Redis, or out of shares that it leased there), and passes each call on to the one service that serves it,
over gRPC, with a deadline and behind a breaker. It never looks into a batch of metrics: it passes the bytes on, many
batches in one message of a long-lived stream.

A request: `connections` → the pipeline and the stages in `middlewares` (`authentication`, `limits`) →
`http_api/<resource>` → `clients` (batches: `ingestion_streams`) → the service's `grpc_api`. Errors are raised anywhere
and rendered in one place, `middlewares`.
"""
