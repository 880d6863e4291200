"""What a backup takes from a real log, and when it says that some of that is gone."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from nats.js import JetStreamContext

from deploy.local.servers import Nats
from pulsegate import backups, frames
from pulsegate.installation import Installation
from tests.suite_database import Database
from tests.suite_servers import RunningServer

_STREAM = "BACKUP"


@pytest.fixture
async def log(nats_server: RunningServer[Nats]) -> AsyncIterator[JetStreamContext]:
    async with frames.connected(nats_server.server.url) as connected:
        await connected.add_stream(name=_STREAM, subjects=[f"{_STREAM}.lanes2.*"])
        yield connected
        await connected.delete_stream(_STREAM)


async def _append(log: JetStreamContext, lane: int, number: int) -> None:
    for _ in range(number):
        await log.publish(f"{_STREAM}.lanes2.{lane}", b"frame")


@pytest.mark.parametrize(
    ("before", "now", "dropped_below", "taken"),
    [
        pytest.param(3, 8, 3, 7, id="nothing behind the position was dropped"),
        pytest.param(3, 8, 4, None, id="some was"),
        pytest.param(3, 8, 8, None, id="all that was committed since was"),
        pytest.param(0, 0, 0, 10, id="nothing was ever committed"),
        pytest.param(0, 8, 8, None, id="the first commit came, and the frames went"),
        pytest.param(99, 99, 0, 0, id="lanes were regrouped, and nothing was committed since"),
        pytest.param(None, 8, 8, None, id="a lane that nobody had owned"),
    ],
)
async def test_a_backup_is_refused_where_the_log_has_dropped_what_the_dump_does_not_have(
    log: JetStreamContext,
    nats_server: RunningServer[Nats],
    database: Database,
    tmp_path: Path,
    before: int | None,
    now: int,
    dropped_below: int,
    taken: int | None,
) -> None:
    await _append(log, 0, 10)
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute("INSERT INTO ingest.lanes (lane, epoch, position) VALUES (0, 1, %s)", (now,))
    if dropped_below:
        await log.purge_stream(_STREAM, seq=dropped_below, subject=f"{_STREAM}.lanes2.0")
    told = Installation(
        processes={},
        database=database.superuser_dsn,
        owners={},
        nats=nats_server.server.url,
        stream=_STREAM,
        prometheus="",
    )
    taking = backups._take(told, {} if before is None else {0: before}, tmp_path / "frames")
    if taken is None:
        with pytest.raises(backups.BackupError, match="frames of lane 0"):
            await taking
    else:
        assert await taking == taken


async def test_an_idle_lane_does_not_have_what_others_have_committed_read(
    log: JetStreamContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _append(log, 0, 1)
    await _append(log, 1, 1000)
    await _append(log, 0, 2)
    requests, get = 0, log.get_msg

    async def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal requests
        requests += 1
        return await get(*arguments, **named)

    monkeypatch.setattr(log, "get_msg", counted)
    assert await frames.take(log, _STREAM, {0: 1, 1: 1001}, tmp_path / "frames") == 2
    assert requests < 10


async def test_what_was_taken_is_put_back_lane_by_lane_in_its_order(log: JetStreamContext, tmp_path: Path) -> None:
    for number in range(6):
        await log.publish(f"{_STREAM}.lanes2.{number % 2}", str(number).encode())
    assert await frames.take(log, _STREAM, {0: 1}, tmp_path / "frames") == 5
    await log.publish(f"{_STREAM}.lanes2.0", b"later")
    assert await frames.put_back(log, _STREAM, tmp_path / "frames") == 5
    held = [await log.get_msg(_STREAM, sequence) for sequence in range(1, 6)]
    for lane, expected in enumerate(([b"2", b"4"], [b"1", b"3", b"5"])):
        assert [each.data for each in held if each.subject == f"{_STREAM}.lanes2.{lane}"] == expected


async def test_a_log_that_is_closed_is_not_taken(log: JetStreamContext, tmp_path: Path) -> None:
    found = (await log.stream_info(_STREAM)).config
    await log.update_stream(found.evolve(subjects=[f"{_STREAM}.closed.0"]))
    with pytest.raises(frames.LogError, match="regrouped"):
        await frames.take(log, _STREAM, {0: 1}, tmp_path / "frames")
