"""config owns the metric definitions of every project, their history, and the feed that tells the other services.

It owns the schema `config`: `metrics` (what is defined now, and what was deleted lately), `metric_versions` (who
changed what, and when: the latest hundred versions of each of these), `tenant_bytes` (how much they take),
`project_settings`, `audit_outbox` (what auth has not been told of yet) and `feed` (the revision, which each change
raises by one). The gateway calls it for people and their programs; gateway and receiver watch the feed, and ask, as
codegen does, for one project's definitions; the receiver has it make definitions from data.

The path of one request, `CreateMetric`: `grpc_api.py` reads the message into a draft, `validation.py` names everything
wrong with it or fills in its defaults, `operations.py` opens a transaction bound to the caller's tenant and takes the
next revision, `storage.py` inserts, and the metric goes back as a message. Within 200 ms `feed.py` sees the new
revision and every watcher is sent the row.

What a project had ends with it: `deleted_projects.py` asks auth, every minute, which projects were deleted.
"""
