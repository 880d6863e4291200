"""The offline queue: in memory, in files, and over the end of processes."""

import json
import os
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any, Callable, List, Set

import pytest

from ingestion_server import Answer, IngestionServer, wait_until
from pulsegate_runtime import Client
from pulsegate_runtime.locks import remove_lock, try_lock

MakeClient = Callable[..., Client]
StartProgram = Callable[..., Any]

DAY_SECONDS = 24 * 3600

RECORD_AND_HANG = """
client = Client(sys.argv[1], "sk_test", queue_directory=sys.argv[2], flush_interval_seconds=60)
for index in range(int(sys.argv[3])):
    client.record("n_total", 1)
client.flush(0)
while client.stats.queued_batches * 100 < int(sys.argv[3]):
    time.sleep(0.005)
print("sealed", flush=True)
sys.stdin.read()
"""


def batch_files(directory: Path) -> List[Path]:
    return sorted(directory.glob("*.json"))


def left_by_another(directory: Path, calls: int) -> Path:
    """Where a process that is gone would have left a batch of so many calls."""
    return directory / f"{'0' * 32}.{int(time.time() * 1000)}.{uuid.uuid4()}.1.{calls}.json"


def make_unreadable(path: Path, client: Client) -> None:
    """Puts a link to itself there: never absent, and not readable. No attempt with what was read before is left."""
    loop = path.with_name("loop")
    loop.symlink_to(path.name)
    loop.replace(path)
    under_way = client.stats.retries + 1
    wait_until(lambda: client.stats.retries > under_way, "an attempt begun since has failed")


def test_a_batch_is_in_its_file_before_it_is_sent_and_gone_when_settled(
    server: IngestionServer, make_client: MakeClient, tmp_path: Path
) -> None:
    seen: List[Any] = []
    taken = server.take

    def take(request: Any) -> Answer:
        seen.extend((path.name, path.read_bytes(), request) for path in batch_files(tmp_path))
        return taken(request)

    server.take = take  # type: ignore[method-assign]
    client = make_client(queue_directory=str(tmp_path))
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    ((name, content, request),) = seen
    assert content == request.body
    assert f".{request.name[0]}.{request.name[1]}." in name
    assert batch_files(tmp_path) == []


def test_the_queue_survives_kill_9(
    server: IngestionServer, make_client: MakeClient, start_program: StartProgram, tmp_path: Path
) -> None:
    server.otherwise = Answer(503)
    program = start_program(RECORD_AND_HANG, server.endpoint, tmp_path, 1000)
    assert program.stdout.readline() == "sealed\n"
    wait_until(lambda: server.requests, "a first attempt")
    program.kill()
    program.wait()
    kept = {json.loads(path.read_bytes())["sequence"]: path.read_bytes() for path in batch_files(tmp_path)}
    assert sorted(kept) == list(range(1, 11))
    server.otherwise = Answer()
    client = make_client(queue_directory=str(tmp_path))
    wait_until(lambda: server.totals == {"n_total": 1000}, "the queue is delivered")
    assert {request.batch["sequence"]: request.body for request in server.requests} == kept
    wait_until(lambda: client.stats.adopted == 1000, "all is settled")
    assert client.stats.accepted == 1000
    assert client.stats.pending == 0
    client.close()
    assert list(tmp_path.iterdir()) == []


def test_a_batch_counted_just_before_kill_9_is_not_counted_again(
    server: IngestionServer, make_client: MakeClient, start_program: StartProgram, tmp_path: Path
) -> None:
    server.otherwise = Answer(cut=True)  # counted, but the client never hears of it
    program = start_program(RECORD_AND_HANG, server.endpoint, tmp_path, 300)
    assert program.stdout.readline() == "sealed\n"
    wait_until(lambda: server.totals["n_total"] >= 100, "a batch is counted")
    program.kill()
    program.wait()
    server.otherwise = Answer()
    client = make_client(queue_directory=str(tmp_path))
    wait_until(lambda: client.stats.adopted == 300, "the queue is settled")
    assert server.totals == {"n_total": 300}


def test_batches_of_living_processes_are_left_to_them(
    server: IngestionServer, make_client: MakeClient, start_program: StartProgram, tmp_path: Path
) -> None:
    server.otherwise = Answer(503)
    living = start_program(RECORD_AND_HANG, server.endpoint, tmp_path, 200)
    dead = start_program(RECORD_AND_HANG, server.endpoint, tmp_path, 300)
    assert living.stdout.readline() == dead.stdout.readline() == "sealed\n"
    dead.kill()
    dead.wait()
    client = make_client(queue_directory=str(tmp_path))
    wait_until(lambda: client.stats.queued_batches >= 3, "the dead process' batches are adopted")
    assert client.stats.queued_batches == 3
    assert sorted(Counter(path.name[:32] for path in batch_files(tmp_path)).values()) == [2, 3], "of two owners"
    living.kill()
    living.wait()
    assert make_client(queue_directory=str(tmp_path))
    server.otherwise = Answer()
    wait_until(lambda: server.totals == {"n_total": 500}, "everything is delivered")


def test_two_clients_of_one_process_share_a_directory(
    server: IngestionServer, make_client: MakeClient, tmp_path: Path
) -> None:
    first, second = make_client(queue_directory=str(tmp_path)), make_client(queue_directory=str(tmp_path))
    for client in (first, second):
        client.record("n_total", 1, kind="counter")
    assert first.flush()
    assert second.flush()
    assert (first.stats.adopted, second.stats.adopted) == (0, 0)
    assert len({producer for producer, _ in server.batches}) == 2


def test_a_long_lived_process_adopts_what_others_leave_later(
    server: IngestionServer,
    make_client: MakeClient,
    start_program: StartProgram,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pulsegate_runtime.sealing._ADOPT_EVERY_SECONDS", 0.05)
    client = make_client(queue_directory=str(tmp_path))
    program = start_program(RECORD_AND_HANG, "http://127.0.0.1:9", tmp_path, 200)
    assert program.stdout.readline() == "sealed\n"
    program.kill()
    program.wait()
    wait_until(lambda: client.stats.adopted == 200, "the batches are adopted and settled")
    assert server.totals == {"n_total": 200}


def test_an_unfinished_file_of_a_killed_process_is_removed(
    server: IngestionServer, make_client: MakeClient, tmp_path: Path
) -> None:
    owner = "0" * 32
    (tmp_path / f"{owner}.1.x.tmp").write_bytes(b'{"prod')
    (tmp_path / f"{owner}.lock").touch()
    (tmp_path / "README").write_text("not ours")
    client = make_client(queue_directory=str(tmp_path))
    wait_until(lambda: not list(tmp_path.glob(f"{owner}*")), "the rest of the dead process is gone")
    client.close()
    assert [path.name for path in tmp_path.iterdir()] == ["README"]


@pytest.mark.parametrize("persistent", [True, False])
def test_a_full_queue_drops_the_oldest_and_counts_them(
    server: IngestionServer, make_client: MakeClient, tmp_path: Path, persistent: bool
) -> None:
    server.stop()
    drops: List[Any] = []
    client = make_client(
        queue_directory=str(tmp_path) if persistent else None,
        max_batch_metrics=1,
        max_queue_bytes=2000,
        on_drop=lambda reason, calls: drops.append((reason, calls)),
    )
    for index in range(100):
        client.record(f"n_{index}", 1)
        client.flush(0)
        wait_until(
            lambda index=index: client.stats.queued_batches + sum(client.stats.dropped.values()) == index + 1,
            "it is sealed, at another's cost",
        )
    queued, dropped = client.stats.queued_batches, client.stats.dropped["queue_full"]
    assert 1 < queued < 30
    assert client.stats.queued_bytes <= 2000
    wait_until(lambda: len(batch_files(tmp_path)) == (queued if persistent else 0), "files of dropped ones are gone")
    server.start()
    assert client.flush()
    arrived: Set[str] = set(server.totals)
    assert len(arrived) == queued
    assert (
        len(arrived & {f"n_{index}" for index in range(100 - queued - 1, 100)}) >= queued - 1
    )  # but for one in flight
    wait_until(lambda: sum(calls for _, calls in drops) == dropped, "on_drop has heard of all")
    assert client.stats.recorded == client.stats.accepted + dropped


def test_a_batch_is_given_up_after_seven_days(
    server: IngestionServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.otherwise = Answer(503)
    client = make_client()
    client.record("n_total", 1, kind="counter")
    wait_until(lambda: server.requests, "a first attempt")
    later = time.clock_gettime(time.CLOCK_BOOTTIME) + 7 * DAY_SECONDS + 60
    monkeypatch.setattr(time, "clock_gettime", lambda clock: later)
    assert client.flush()
    assert client.stats.dropped == {"expired": 1}


@pytest.mark.parametrize("days", [30, -30])
def test_a_clock_that_is_set_right_gives_nothing_up(
    server: IngestionServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    server.otherwise = Answer(503)
    client = make_client()
    client.record("n_total", 1, kind="counter")
    wait_until(lambda: server.requests, "a first attempt")
    right = time.time() + days * DAY_SECONDS
    monkeypatch.setattr(time, "time", lambda: right)
    attempts = len(server.requests)
    wait_until(lambda: len(server.requests) > attempts + 1, "an attempt with the new clock")
    server.otherwise = Answer()
    assert client.flush()
    assert (client.stats.dropped, server.totals) == ({}, {"n_total": 1})


@pytest.mark.parametrize(("age_days", "delivered"), [(-2, False), (-0.9, True), (6.9, True), (7.1, False)])
def test_of_what_another_process_left_the_age_must_be_known(
    server: IngestionServer, make_client: MakeClient, tmp_path: Path, age_days: float, delivered: bool
) -> None:
    sealed_at = int((time.time() - age_days * DAY_SECONDS) * 1000)
    producer = "00000000-0000-4000-8000-000000000001"
    body = {"producer": producer, "sequence": 1, "floor": 1, "metrics": [{"name": "n_total", "value": 1}]}
    (tmp_path / f"{'0' * 32}.{sealed_at}.{producer}.1.1.json").write_text(json.dumps(body))
    client = make_client(queue_directory=str(tmp_path))
    wait_until(lambda: client.stats.accepted + sum(client.stats.dropped.values()), "the batch is settled")
    assert (server.totals, client.stats.dropped) == (({"n_total": 1}, {}) if delivered else ({}, {"expired": 1}))


@pytest.mark.parametrize("obstacle", ["a file", "below a file", "removed"])
def test_a_directory_that_fails_leaves_the_queue_in_memory(
    server: IngestionServer,
    make_client: MakeClient,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    obstacle: str,
) -> None:
    directory = tmp_path / "queue"
    if obstacle != "removed":
        directory.write_text("in the way")
    client = make_client(queue_directory=str(directory / "below" if obstacle == "below a file" else directory))
    if obstacle == "removed":
        wait_until(lambda: client._queue._lock is not None, "the directory is claimed")
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    assert server.totals == {"n_total": 1}
    assert client.stats.disk_errors >= 1
    assert any(
        record.levelname == "WARNING" and record.message.startswith("the queue directory fails")
        for record in caplog.records
    )


def test_a_batch_whose_file_cannot_be_read_for_now_is_kept(
    server: IngestionServer, make_client: MakeClient, tmp_path: Path
) -> None:
    server.stop()
    client = make_client(queue_directory=str(tmp_path))
    client.record("n_total", 1, kind="counter")
    wait_until(lambda: batch_files(tmp_path), "the batch is written")
    (path,) = batch_files(tmp_path)
    os.link(path, tmp_path / "aside")
    make_unreadable(path, client)
    server.start()
    before = client.stats.retries
    wait_until(lambda: client.stats.retries >= before + 2, "reading has failed")
    (tmp_path / "aside").replace(path)
    assert client.flush()
    assert server.totals == {"n_total": 1}


def test_a_batch_that_cannot_be_read_makes_the_client_no_more_patient(
    server: IngestionServer, make_client: MakeClient, tmp_path: Path
) -> None:
    server.stop()
    client = make_client(queue_directory=str(tmp_path), retry_cap_seconds=3600)
    client.record("lost_total", 1, kind="counter")
    wait_until(lambda: batch_files(tmp_path), "the batch is written")
    make_unreadable(batch_files(tmp_path)[0], client)
    server.start()
    before = client.stats.retries
    wait_until(lambda: client.stats.retries >= before + 14, "reading has failed: if waits grew, after minutes")
    client.record("n_total", 1, kind="counter")
    wait_until(lambda: server.totals == {"n_total": 1}, "a batch that can be read is sent")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_dropped_and_does_not_hold_up_the_others(
    server: IngestionServer, make_client: MakeClient, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(left_by_another(tmp_path, calls=3))
    client = make_client(queue_directory=str(tmp_path))
    wait_until(lambda: client.stats.dropped == {"unreadable": 3}, "it is dropped")
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    assert server.totals == {"n_total": 1}
    assert (client.stats.retries, client.stats.adopted) == (0, 3)


def test_an_owner_that_cannot_be_locked_does_not_stand_in_the_way_of_others(
    server: IngestionServer,
    make_client: MakeClient,
    start_program: StartProgram,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for owner in range(16):
        (tmp_path / f"{owner:032x}.lock").mkdir()
    program = start_program(RECORD_AND_HANG, "http://127.0.0.1:9", tmp_path, 100)
    assert program.stdout.readline() == "sealed\n"
    program.kill()
    program.wait()
    client = make_client(queue_directory=str(tmp_path))
    wait_until(lambda: server.totals == {"n_total": 100}, "the dead process' batch is adopted")
    assert client.stats.disk_errors >= 16
    assert not caplog.records  # nothing of ours fails


def test_nobody_locks_a_lock_file_that_is_about_to_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "owner.lock"
    held = try_lock(path)
    close, locked = os.close, []

    def close_and_be_overtaken(descriptor: int) -> None:
        close(descriptor)
        if descriptor == held and not locked:
            locked.append(try_lock(path))

    monkeypatch.setattr(os, "close", close_and_be_overtaken)
    remove_lock(held, path)
    assert locked != [None]
    assert path.exists()
    close(locked[0])


def test_a_batch_whose_file_was_taken_away_is_counted_as_dropped(
    server: IngestionServer, make_client: MakeClient, tmp_path: Path
) -> None:
    server.otherwise = Answer(503)
    client = make_client(queue_directory=str(tmp_path))
    client.record("n_total", 1, kind="counter")
    wait_until(lambda: batch_files(tmp_path), "the batch is written")
    batch_files(tmp_path)[0].unlink()
    assert client.flush()
    assert client.stats.dropped == {"unreadable": 1}
