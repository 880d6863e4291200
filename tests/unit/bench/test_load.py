"""The load generator sends what it says, each batch once, and counts what it is told."""

import asyncio
import os
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from bench.encodings import Shot, as_json, as_remote_write, as_text, write_shots
from bench.load import Load, LoadFailed, Outcome, Stamp, run_load
from bench.workload import batches
from tests.unit.ingest.remote_write_schema import read

_BATCHES = batches(1000)
_SECONDS = 0.5


class Door:
    """Takes every request; answers as it is told."""

    def __init__(self, status: int = 202, answer: str = "") -> None:
        self.requests: list[tuple[str, bytes]] = []
        self.asked = asyncio.Event()
        self._status = status
        self._answer = answer

    async def handle(self, request: web.BaseRequest) -> web.Response:
        self.requests.append((request.path, await request.read()))
        self.asked.set()
        return web.Response(status=self._status, text=self._answer)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        runner = web.ServerRunner(web.Server(self.handle))
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
            await site.start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


def _child(name: str) -> int:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    [pid] = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == f"{name}\n"]
    return pid


Send = Callable[..., Any]


@pytest.fixture
def send(tmp_path: Path) -> Send:
    async def send(door: Door, shots: list[Shot], stamp: Stamp, rate: float = 0.0) -> Outcome:
        file = tmp_path / "shots"
        write_shots(file, shots)
        async with door.open() as address:
            return await run_load(Load(address=address, shots=file, stamp=stamp, seconds=_SECONDS, rate=rate))

    return send


async def test_every_batch_is_numbered_once_and_without_gaps(send: Send) -> None:
    door = Door(answer='{"accepted":100,"rejected":[]}')
    outcome = await send(door, as_json(_BATCHES), "sequence")
    numbers: dict[str, list[int]] = defaultdict(list)
    for _, body in door.requests:
        batch = msgspec.json.decode(body)
        assert len(batch["metrics"]) == 100
        numbers[batch["producer"]].append(batch["sequence"])
    assert len(numbers) > 1
    assert all(sorted(found) == list(range(1, len(found) + 1)) for found in numbers.values())
    assert outcome.accepted == 100 * len(door.requests)
    assert outcome.unanswered == 0
    assert outcome.statuses == {"202": len(door.requests)}


async def test_what_the_answer_says_is_accepted_counts(send: Send) -> None:
    door = Door(answer='{"accepted":99,"rejected":[{}]}')
    outcome = await send(door, as_json(_BATCHES), "sequence")
    assert outcome.accepted == 99 * len(door.requests)


async def test_a_rate_is_kept_give_or_take_the_request_at_its_end(send: Send) -> None:
    door = Door()
    outcome = await send(door, as_text(_BATCHES, groups=3), "none", rate=200)
    assert outcome.sent == len(door.requests)
    assert abs(outcome.sent - 200 * _SECONDS) <= 1
    assert {path for path, _ in door.requests} == {f"/metrics/job/bench/group/{number}" for number in range(3)}


async def test_requests_are_late_that_wrk_itself_was_held_up_with(send: Send) -> None:
    door = Door()
    sending = asyncio.create_task(send(door, as_text(_BATCHES, groups=3), "none", rate=200))
    await door.asked.wait()
    wrk = _child("wrk")
    os.kill(wrk, signal.SIGSTOP)
    await asyncio.sleep(0.2)  # time is what is tested: a busy machine does this to it
    os.kill(wrk, signal.SIGCONT)
    outcome = await sending
    assert outcome.late_ratio > 0.2
    assert outcome.most_late_ms > 150


async def test_remote_write_carries_rising_values_and_fresh_times(send: Send) -> None:
    began_ms = int(time.time() * 1000)
    door = Door(status=204)
    await send(door, as_remote_write(_BATCHES), "time", rate=100)
    seen: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for _, body in door.requests:
        for labels, value, timestamp in read(body):
            seen[str(sorted(labels.items()))].append((value, timestamp))
    assert len(seen) == 1000
    for samples in seen.values():
        values, times = zip(*sorted(samples), strict=True)
        assert list(values) == list(range(1, len(values) + 1))
        assert began_ms <= times[0]
        assert sorted(set(times)) == list(times)


async def test_a_load_of_which_nothing_is_accepted_fails(send: Send) -> None:
    with pytest.raises(LoadFailed, match="503"):
        await send(Door(status=503), as_json(_BATCHES), "sequence")


async def test_a_load_to_nobody_fails(tmp_path: Path) -> None:
    write_shots(tmp_path / "shots", as_json(_BATCHES))
    with pytest.raises(LoadFailed, match="unable to connect"):
        await run_load(Load(address="http://127.0.0.1:1", shots=tmp_path / "shots", stamp="sequence", seconds=_SECONDS))


async def test_what_was_fetched_finds_its_libraries_on_any_kind_of_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries, wrk = tmp_path / "usr/lib/aarch64-linux-gnu", tmp_path / "usr/bin/wrk"
    for folder in (libraries, wrk.parent):
        folder.mkdir(parents=True)
    wrk.write_text('#!/bin/sh\necho "{\\"accepted\\": 0, \\"libraries\\": \\"$LD_LIBRARY_PATH\\"}"\n')
    wrk.chmod(0o755)
    monkeypatch.setattr("bench.load.find_wrk", lambda: wrk)
    with pytest.raises(LoadFailed, match=str(libraries)):
        await run_load(Load(address="http://127.0.0.1:1", shots=tmp_path / "shots", stamp="sequence", seconds=_SECONDS))
