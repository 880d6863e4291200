"""The embedded stack: real servers and the five services on loopback, kept running by one supervisor.

`python -m deploy.local run` (make run) starts it; `python -m deploy.local demo` (make demo) also sends real traffic and
compares it with what Prometheus answers. Everything listens on 127.0.0.1, on sixteen ports from `PULSEGATE_PORT` on;
everything that is kept lies in `PULSEGATE_DATA`.

    settings.py     what the caller may choose
    layout.py       the data folder and the ports
    secrets.py      passwords and keys, generated once into the data folder
    authority.py    a certificate authority
    certificates.py certificates for mutual TLS between the services, where it is asked for
    programs.py     one process: how it is started, probed and stopped
    reachable.py    what root must do for a server that refuses to run as root
    servers.py      Postgres, Valkey, NATS and Prometheus: configuration and command
    debian.py       programs of Debian's packages, fetched without root
    prometheus.py   where the Prometheus binary comes from
    backing.py      the servers of one stack, with their secrets
    bootstrap.py    roles, database and migrations
    services.py     the table of services: command, environment, ports
    supervisor.py   starts everything in order, restarts what dies, stops everything in order
    progress.py     lines on the terminal
    stack.py        puts these together
    demo/           a tenant, its metrics, its generated clients, their traffic
"""
