"""The SQL of ingest, a module a table or two.

Functions take the connection of a transaction that their caller opened; `PostgresCheckpoints` and `Leases` open theirs.

    checkpoints.py     loads a lane's state and commits it, by means of the others
    leases.py          who of the aggregators lives and owns which lane
    postgres_clock.py  the clock that all processes share
    lane_groups.py     how many lanes the state is of
    producers.py       the windows of producers
    sources.py         the totals of cumulative sources
    recent.py          levels of gauges and sketches of summaries
    ended.py           deleted definitions, and their series
    full_projects.py   projects that have as much as they may
    ledger.py          the delivery ledger
    copy_format.py     series as rows of a binary COPY
    staging.py         temporary tables that are copied into
"""
