"""Connects to servers as services do, and prints as JSON what came of each: `python -m tests.trusting_client JSON`.

A process of its own, because the libraries read its environment when they are imported.
"""

import asyncio
import json
import sys

import aiohttp
import nats
import psycopg
import redis.asyncio

from chassis import tracing

_SECONDS = 20


async def _postgres(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=_SECONDS) as connection:
        await connection.execute("SELECT 1")


async def _valkey(url: str) -> None:
    async with redis.asyncio.Redis.from_url(url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS) as client:
        await client.ping()


async def _nats(url: str) -> None:
    client = await nats.connect(url, allow_reconnect=False, connect_timeout=_SECONDS)
    await client.flush(_SECONDS)
    await client.close()


async def _http(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        answer.raise_for_status()


async def _otlp(endpoint: str) -> None:
    """Whether the span has arrived only the collector knows."""
    with tracing.exporting("tests", endpoint), tracing.span("a span"):
        pass


_CLIENTS = {"postgres": _postgres, "valkey": _valkey, "nats": _nats, "http": _http, "otlp": _otlp}


async def _outcome(kind: str, address: str) -> str:
    try:
        await _CLIENTS[kind](address)
    except (OSError, psycopg.Error, redis.RedisError, nats.errors.Error, aiohttp.ClientError) as error:
        return f"{type(error).__name__}: {error}"
    return "connected"


async def _main(addresses: dict[str, str]) -> None:
    print(json.dumps({kind: await _outcome(kind, address) for kind, address in addresses.items()}))


asyncio.run(_main(json.loads(sys.argv[1])))
