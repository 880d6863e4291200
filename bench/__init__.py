"""What Pulsegate does on this machine: metrics a second, latency, processor time, memory, exactness, and its peers.

`python -m bench` (make bench) starts the whole suite as `make run` does, loads it from a process of its own, stops it,
and then gives the same metrics to other servers. Everything shares the machine's cores, the load generator too.

    workload.py     the series, and the batches of 100 metrics that are drawn from them
    encodings.py    a batch as JSON, text exposition and remote write
    load.lua        what wrk sends, numbered or timed, as fast as it can or at a fixed rate
    load.py         one run of wrk
    programs.py     processes that are started and ended here
    suite.py        the suite that is measured: started, given a project, stopped
    processes.py    processor time and memory of process trees
    exposition.py   what processes say about themselves
    visibility.py   when what was acknowledged shows in Prometheus, and whether all of it does
    phases.py       what is measured of the suite, one function a figure
    recovery.py     how long a killed aggregator is away
    disk.py         how fast the disk makes appended bytes durable
    peers.py        the servers that are compared
    machine.py      what the figures were taken on
    report.py       figures → Markdown
    plot.py         figures → a picture
    steady.py       eight hours, in which memory and files must not grow
    profiling.py    where the processes spend their time
"""
