"""How long the aggregator needs to count again after it was killed, with a million series."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
import psycopg

from bench.exposition import scrape, total
from bench.processes import memory_bytes
from bench.suite import Suite
from deploy.local.backing import backing_servers
from deploy.local.bootstrap import DATABASE

_COMMITS = "pulsegate_aggregator_commit_duration_seconds_count"
_COPIES = 99
_MOST_SECONDS = 120.0
_LOOK_EVERY_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """After `kill -9` of the aggregator."""

    series: int
    #: from the kill until the first commit of its successor
    seconds: float
    #: of the successor
    memory_bytes: int


async def measure_recovery(suite: Suite) -> Recovery:
    """Call it last, after a load on the usual series: they get copies. Raises TimeoutError, OSError."""
    dsn = backing_servers(suite.data, suite.ports, None).postgres.dsn(DATABASE)
    series = await asyncio.to_thread(_multiply, dsn)
    os.kill(suite.pids()["aggregator"], signal.SIGKILL)
    killed = time.monotonic()
    async with asyncio.timeout(_MOST_SECONDS), aiohttp.ClientSession() as session:
        await _first_commit(session, suite)
    seconds = time.monotonic() - killed
    successor = {"aggregator": suite.pids()["aggregator"]}
    return Recovery(series=series, seconds=seconds, memory_bytes=memory_bytes(successor)["aggregator"])


async def _first_commit(session: aiohttp.ClientSession, suite: Suite) -> None:
    port = suite.ports.operations("aggregator")
    while True:
        with suppress(aiohttp.ClientError):  # there is none yet
            if total(await scrape(session, port), _COMMITS):
                return
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


def _multiply(dsn: str) -> int:
    """Gives each counter copies with labels of their own, as if clients had sent them; counts all series."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO ingest.series
            SELECT made.*
              FROM ingest.series AS own,
                   generate_series(1, %s) AS number,
                   jsonb_build_object('host', number || (own.labels->>'host')) AS host,
                   substring(sha256(own.series_id || number::text::bytea) FOR 16) AS new_id,
                   jsonb_populate_record(own, jsonb_build_object(
                       'series_id', new_id, 'labels', own.labels || host)) AS made
             WHERE own.name LIKE 'bench_00%%'
            """,
            (_COPIES,),
        )
        [count] = connection.execute("SELECT count(*) FROM ingest.series").fetchone() or (0,)
        return int(count)
