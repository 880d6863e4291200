"""The part of the log that is not in Postgres yet: taken out, and put into a log that is empty.

A frame that is put back has another position in the stream; what it holds says all that counting needs.
"""

import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import nats
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig
from nats.js.errors import NotFoundError

_HEADER = struct.Struct("<II")
_PATIENCE_SECONDS = 10.0


class LogError(Exception):
    """The log does not hold what it must, or does not answer."""


@asynccontextmanager
async def connected(addresses: str) -> AsyncIterator[JetStreamContext]:
    """JetStream on the addresses' servers. Raises LogError where none answers, or one stops to."""
    servers = [address.strip() for address in addresses.split(",")]
    first = urlsplit(servers[0])
    try:
        client = await nats.connect(servers, user=first.username, password=first.password, max_reconnect_attempts=3)
        try:
            yield client.jetstream(timeout=_PATIENCE_SECONDS)
        finally:
            await client.close()
    except (NatsError, OSError, TimeoutError) as error:
        raise LogError(f"the log does not answer: {type(error).__name__}: {error}") from error


async def take(log: JetStreamContext, stream: str, positions: Mapping[int, int], path: Path) -> int:
    """Writes each frame behind its lane's position into a file, in the log's order; returns how many."""
    info = await log.stream_info(stream)
    state, taken = info.state, 0
    with path.open("wb") as file:
        # First what the log takes: the subjects of as many lanes as the positions are of.
        _write(file, ",".join(info.config.subjects or ()), b"")
        for sequence in range(max(min(positions.values(), default=0) + 1, state.first_seq), state.last_seq + 1):
            try:
                message = await log.get_msg(stream, sequence)
            except NotFoundError:  # taken away after it had been committed for minutes
                continue
            subject = message.subject or ""
            if sequence > positions.get(int(subject.rpartition(".")[2]), 0):
                _write(file, subject, message.data or b"")
                taken += 1
    return taken


def _write(file: BinaryIO, subject: str, frame: bytes) -> None:
    name = subject.encode()
    file.write(_HEADER.pack(len(name), len(frame)))
    file.write(name + frame)


def _read(path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file:
        while header := file.read(_HEADER.size):
            name, size = _HEADER.unpack(header)
            yield file.read(name).decode(), file.read(size)


async def put_back(log: JetStreamContext, stream: str, path: Path) -> int:
    """Replaces the log by the frames of a file; returns how many. Nobody else may use the log meanwhile."""
    held = _read(path)
    subjects, _ = next(held)
    try:
        config = (await log.stream_info(stream)).config
        await log.delete_stream(stream)
    except NotFoundError:
        config = StreamConfig(name=stream, discard=DiscardPolicy.NEW)
    config.subjects = subjects.split(",")
    await log.add_stream(config)
    put = 0
    for subject, frame in held:
        await log.publish(subject, frame, stream=stream)
        put += 1
    return put
