"""The SQL of ingest, a module a table or two: functions that take the connection of a transaction.

`checkpoints` loads a lane's state and commits it by means of the others; `leases` says who owns a lane.
"""
