"""The gateway: the only public door.

It owns no data. It knows who calls (from auth's verdicts, cached and kept true by auth's feed), counts calls against
limits (in Redis), and passes each call on to the one service that serves it, over gRPC, with a deadline and behind a
breaker. It never looks into a batch of metrics: it passes the bytes on.

A request: `connections` → the lists in `middlewares` (`authentication`, `limits`) → `http_api/<resource>` → `clients`
→ the service's `grpc_api`. Errors are raised anywhere and rendered in one place, `middlewares`.
"""
