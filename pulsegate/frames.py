"""The part of the log that is not in Postgres yet: taken out, and put into a log that is empty.

A frame that is put back has another position in the stream; what it holds says all that counting needs.
"""

import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import nats
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RawStreamMsg, StreamConfig
from nats.js.errors import NotFoundError

from chassis.settings import credentials

_HEADER = struct.Struct("<II")
_PATIENCE_SECONDS = 10.0


class LogError(Exception):
    """The log does not hold what it must, or does not answer."""


@asynccontextmanager
async def connected(addresses: str) -> AsyncIterator[JetStreamContext]:
    """JetStream on the addresses' servers. Raises LogError where none answers, or one stops to."""
    servers = [address.strip() for address in addresses.split(",")]
    user, password = credentials(servers[0])
    signing_in = {"user": user, "password": password} if password else {"token": user or None}
    try:
        client = await nats.connect(servers, max_reconnect_attempts=3, **signing_in)
        try:
            yield client.jetstream(timeout=_PATIENCE_SECONDS)
        finally:
            await client.close()
    except (NatsError, OSError, TimeoutError) as error:
        raise LogError(f"the log does not answer: {type(error).__name__}: {error}") from error


async def take(log: JetStreamContext, stream: str, positions: Mapping[int, int], path: Path) -> int:
    """Writes each frame behind its lane's position into a file, each lane's in their order; returns how many.

    Raises LogError while the log is closed.
    """
    every = await _subject(log, stream)
    state, taken = (await log.stream_info(stream, subjects_filter=every)).state, 0
    with path.open("wb") as file:
        # First what the log takes: the subjects of as many lanes as the positions are of.
        _write(file, every, b"")
        for subject in sorted(state.subjects or ()):
            position = positions.get(int(subject.rpartition(".")[2]), 0)
            async for frame in _behind(log, stream, subject, position, state.last_seq):
                _write(file, subject, frame)
                taken += 1
    return taken


async def _behind(log: JetStreamContext, stream: str, subject: str, position: int, last: int) -> AsyncIterator[bytes]:
    while (message := await _next(log, stream, subject, position + 1)) and (message.seq or 0) <= last:
        position = message.seq or 0
        yield message.data or b""


async def still_has(log: JetStreamContext, stream: str, lane: int, position: int) -> bool:
    """Whether the lane's frame at its position is there: its owner drops frames in their order, so that those behind
    it are too."""
    message = await _next(log, stream, (await _subject(log, stream)).replace("*", str(lane)), max(1, position))
    return message is not None and message.seq == position


async def _subject(log: JetStreamContext, stream: str) -> str:
    """Of every lane, with a * for its number."""
    [subject] = (await log.stream_info(stream)).config.subjects or [""]
    if not subject.endswith("*"):
        raise LogError("the log is closed, because its lanes are being regrouped: end that first")
    return subject


async def _next(log: JetStreamContext, stream: str, subject: str, sequence: int) -> RawStreamMsg | None:
    """The subject's first message from there on."""
    try:
        return await log.get_msg(stream, sequence, subject=subject, next=True)
    except NotFoundError:
        return None


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
