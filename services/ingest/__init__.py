"""Ingestion: takes batches of metrics durably, counts each exactly once, delivers the series to Prometheus.

Two roles, one process each. The **receiver** serves the gateway: `IngestService` takes batches, in streams (single ones
of callers inside alone), `LedgerService` answers what became of them; `callers.py` has it method by method. The
**aggregator** serves nobody: it reads the log and writes to Postgres (schema `ingest`) and to the sinks.

The path of one batch, file by file::

    grpc_api.batch_stream → operations.batches.Receiver → decoding → validation → batch_records → log_writer.LogWriter
        … NATS JetStream …
    log_reader.LogReader → aggregation.LaneState.fold → storage.checkpoints → sinks.delivery → sinks.remote_write

`lane.py` owns a lane, `lane_work.py` drives the second line for it. Nothing is acknowledged before the log has it on
disk, nothing is counted before the checkpoint has committed it, and only committed values leave for a sink.

Beside the files that each service has (docs/path-of-a-request.md):

    receiver
        doors/                 the formats of the other doors, each into data points
        decoding.py            the format of `POST /api/v1/metrics`
        points.py              data points
        definitions.py         the definitions of all projects, as config's feed tells them
        allowed_values.py      what a label may be
        validation.py          holds metrics against their definitions
        point_validation.py    holds data points against them
        auto_definition.py     has config make definitions from data
        admission.py           refuses what is new to projects that are full
        newcomers.py           tells where publishable keys bring very much that is new
        durable_outcomes.py    answers a quick retry without the log
        fair_turns.py          large bodies, each tenant in its turn
        batch_records.py       what was accepted, as records
        tallies.py             what receivers alone know for the delivery ledger
    log
        records.py             the format of records and frames
        log.py                 the stream, and the connection to it
        log_writer.py          appends records, many in a frame
        log_reader.py          reads a lane's frames in order
        regrouping.py          the command `regroup`: another number of lanes
    aggregator
        fleet.py               how many of the lanes it should own
        lane.py                owns a lane, loads it, gives it up
        lane_work.py           folds, commits and delivers while it is owned
        commit_pace.py         how long a lane waits between commits
        fetches.py             what was read from the log, a part at a time
        folding.py             such a part in columns
        aggregation.py         the lane's state, and how records change it
        loading.py             what that state is given by the storage
        additions.py           how values are added to series
        sealing.py             copies of what a commit stores and sinks may have
        housekeeping.py        clears the log and the state
        pruning.py             deletes what is left of deleted definitions
    state in memory
        series.py              all series of a lane, a row each
        series_index.py        which row a series has
        columns.py             types of columns, and how they are joined
        native_histograms.py   exponential buckets
        recent.py              what passes with time, restored and settled
        gauge_levels.py        levels of merged gauges
        summary_windows.py     sketches of the last ten minutes
        sketches.py            quantiles of one of them
        exemplars.py           traces beside series
        producers.py           which producers are known
        windows.py             which sequence numbers of one were counted
        sources.py             what cumulative sources stood at last
        label_sets.py          label sets against the budgets
        substitutes.py         what those over a budget were folded into
        ended_definitions.py   deleted definitions, for late data
        ledger.py              the delivery ledger's lines of a commit
    sinks
        samples.py             what sinks are to write, in columns
        sinks/                 ways to them, and their protocols
    everywhere
        clock_check.py         holds this machine's clock against Postgres'
        turns.py               long work in steps between which others go on
"""
