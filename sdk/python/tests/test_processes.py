"""Forks, exits and closing."""

import json
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Callable, List

import pytest

from ingestion_server import Answer, IngestionServer, wait_until
from pulsegate_runtime import Client

MakeClient = Callable[..., Client]
StartProgram = Callable[..., Any]


@pytest.mark.parametrize("directory", [True, False])
def test_a_fork_gets_a_producer_of_its_own_and_counts_nothing_twice(
    server: IngestionServer, start_program: StartProgram, tmp_path: Path, directory: bool
) -> None:
    program = start_program(
        """
client = Client(sys.argv[1], "sk_test", queue_directory=sys.argv[2] or None, flush_interval_seconds=60)
client.record("warm_total", 1, kind="counter")
client.flush()
client.record("parent_total", 1, kind="counter")  # gathered, not sealed, when the fork comes
child = os.fork()
if child == 0:
    fresh = client.stats.recorded == 0
    client.record("child_total", 1, kind="counter")
    os._exit(0 if fresh and client.flush() and client.stats.accepted == 1 else 1)
status = os.waitpid(child, 0)[1]
client.record("parent_total", 1, kind="counter")
sys.exit(0 if client.flush() and status == 0 else 1)
""",
        server.endpoint,
        tmp_path if directory else "",
    )
    assert program.wait(20) == 0, program.stderr.read()
    assert server.totals == {"warm_total": 1, "parent_total": 2, "child_total": 1}
    producers = {metric["name"]: batch["producer"] for batch in server.batches.values() for metric in batch["metrics"]}
    assert producers["warm_total"] == producers["parent_total"] != producers["child_total"]


def test_a_fork_under_load_neither_hangs_nor_loses(
    server: IngestionServer, start_program: StartProgram, tmp_path: Path
) -> None:
    program = start_program(
        """
import threading
client = Client(sys.argv[1], "sk_test", queue_directory=sys.argv[2], flush_interval_seconds=0.01)
def work():
    for index in range(4000):
        client.record("parent_total", 1, {"i": str(index % 200)}, kind="counter")
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
children = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        for _ in range(100): client.record("child_total", 1, kind="counter")
        os._exit(0 if client.flush(20) else 1)
    children.append(child)
bad = sum(os.waitpid(child, 0)[1] != 0 for child in children)
for thread in threads: thread.join()
sys.exit(0 if client.flush(20) and not bad else 1)
""",
        server.endpoint,
        tmp_path,
    )
    assert program.wait(60) == 0, program.stderr.read()
    assert server.totals == {"parent_total": 16_000, "child_total": 2000}


def test_nothing_is_imported_while_the_client_works(
    server: IngestionServer, start_program: StartProgram, tmp_path: Path
) -> None:
    """A module lock that a background thread holds during a fork would stay locked in the child for ever."""
    server.script = [Answer(503, headers=(("Retry-After", "Mon, 01 Jan 2024 00:00:00 GMT"),)), Answer(401)]
    program = start_program(
        """
import socket, ssl
before = set(sys.modules)
client = Client(sys.argv[1], "sk_test", queue_directory=sys.argv[2], retry_base_seconds=0.01)
client.record("seconds", [0.5] * 1000, kind="histogram")
flushed = client.flush()
client.close()
print(flushed, sorted(set(sys.modules) - before), flush=True)
""",
        server.endpoint,
        tmp_path,
    )
    assert program.stdout.readline() == "True []\n"


def test_a_childs_batches_are_not_held_by_its_parent_nor_the_parents_by_the_child(
    server: IngestionServer,
    make_client: MakeClient,
    start_program: StartProgram,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pulsegate_runtime.sealing._ADOPT_EVERY_SECONDS", 0.05)
    program = start_program(
        """
client = Client(sys.argv[1], "sk_test", queue_directory=sys.argv[2], flush_interval_seconds=0.01)
client.record("parent_total", 1, kind="counter")
while not client.stats.queued_batches: time.sleep(0.005)
child = os.fork()
if child == 0:
    os.close(1)
    sys.stdin.read()
    os._exit(0)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
""",
        "http://127.0.0.1:9",
        tmp_path,
    )
    assert int(program.stdout.readline())
    program.wait()
    make_client(queue_directory=str(tmp_path))
    wait_until(lambda: server.totals == {"parent_total": 1}, "the dead parent's batch is adopted, its child alive")


def test_exit_flushes(server: IngestionServer, start_program: StartProgram) -> None:
    program = start_program(
        """
client = Client(sys.argv[1], "sk_test", flush_interval_seconds=60)
for _ in range(150): client.record("n_total", 1)
""",
        server.endpoint,
    )
    assert program.wait(20) == 0
    assert server.totals == {"n_total": 150}


def test_at_exit_a_server_that_is_away_does_not_take_the_time_of_another(
    server: IngestionServer, start_program: StartProgram
) -> None:
    program = start_program(
        """
endpoints = ["http://127.0.0.1:9"] * 4 + [sys.argv[1]]
clients = [Client(endpoint, "sk_test", flush_interval_seconds=60) for endpoint in endpoints]
for client in clients: client.record("n_total", 1)
""",
        server.endpoint,
    )
    assert program.wait(20) == 0
    assert server.totals == {"n_total": 1}


def test_a_closed_client_stays_closed_in_a_child(server: IngestionServer, start_program: StartProgram) -> None:
    program = start_program(
        """
client = Client(sys.argv[1], "sk_test")
client.close()
child = os.fork()
client.record("n_total", 1)
flushed = client.flush()
if child == 0:
    os._exit(0 if flushed and client.stats.dropped == {"closed": 1} else 1)
sys.exit(os.waitpid(child, 0)[1])
""",
        server.endpoint,
    )
    assert program.wait(20) == 0
    assert server.totals == {}


def test_exit_waits_two_seconds_at_most_and_leaves_the_rest_to_the_next_process(
    server: IngestionServer, make_client: MakeClient, start_program: StartProgram, tmp_path: Path
) -> None:
    program = start_program(
        """
import atexit, time
clients = [Client(sys.argv[1], "sk_test", queue_directory=sys.argv[2], flush_interval_seconds=60) for _ in range(3)]
for client in clients: client.record("n_total", 1)
begin = time.monotonic()
import pulsegate_runtime.client
pulsegate_runtime.client._close_all()
print(time.monotonic() - begin)
""",
        "http://127.0.0.1:9",
        tmp_path,
    )
    assert program.wait(20) == 0
    assert float(program.stdout.readline()) < 3.5
    assert "Traceback" not in program.stderr.read()
    make_client(queue_directory=str(tmp_path))
    wait_until(lambda: server.totals == {"n_total": 3}, "the next process sends what was left")


@pytest.mark.parametrize("key", ["sk_revoked", ""])
def test_a_client_whose_key_is_of_no_use_leaves_what_ended_processes_left_to_one_that_can_send(
    server: IngestionServer,
    make_client: MakeClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
) -> None:
    monkeypatch.setattr("pulsegate_runtime.sealing._ADOPT_EVERY_SECONDS", 0.05)
    left = make_client(endpoint="http://127.0.0.1:9", queue_directory=str(tmp_path))
    left.record("n_total", 1, kind="counter")
    left.close(0.5)
    server.refused_key = "sk_revoked"
    useless = make_client(key=key, queue_directory=str(tmp_path), max_queue_bytes=1)
    wait_until(lambda: not key or (server.requests and not useless.stats.queued_batches), "its key is refused")
    for value in (2, 3):
        useless.record("n_total", value, kind="counter")
        useless.flush(0.1)
    wait_until(lambda: useless.stats.dropped == {"queue_full": 1}, "its queue is full of what it recorded itself")
    make_client(queue_directory=str(tmp_path))
    wait_until(lambda: server.totals == {"n_total": 1}, "what was left is delivered, the useless client alive")
    assert (useless.stats.adopted, useless.stats.queued_batches) == (0, 1)


def test_a_client_adopts_again_once_its_key_is_repaired(
    server: IngestionServer, make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pulsegate_runtime.sealing._ADOPT_EVERY_SECONDS", 0.05)
    left = make_client(endpoint="http://127.0.0.1:9", queue_directory=str(tmp_path))
    left.record("n_total", 1, kind="counter")
    left.close(0.5)
    server.script = [Answer(403)]
    client = make_client(queue_directory=str(tmp_path))
    wait_until(lambda: server.requests and not client.stats.queued_batches, "its key is refused")
    client.record("n_total", 2, kind="counter")
    assert client.flush()
    wait_until(lambda: server.totals == {"n_total": 3}, "what it gave back is adopted and delivered")


def test_an_exception_or_sys_exit_in_the_host_still_flushes(
    server: IngestionServer, start_program: StartProgram
) -> None:
    program = start_program('Client(sys.argv[1], "sk_test").record("n_total", 1)\nraise SystemExit(3)', server.endpoint)
    assert program.wait(20) == 3
    assert server.totals == {"n_total": 1}


def test_a_sigterm_that_exits_flushes(server: IngestionServer, start_program: StartProgram) -> None:
    program = start_program(
        """
client = Client(sys.argv[1], "sk_test", flush_interval_seconds=60)
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
client.record("n_total", 1)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(20)
""",
        server.endpoint,
    )
    assert program.wait(20) == 0
    assert server.totals == {"n_total": 1}


def test_the_producer_is_chosen_with_the_first_batch(
    server: IngestionServer, make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is snapshotted before, and restored many times, is a producer of its own each time."""
    client = make_client(queue_directory=str(tmp_path))
    wait_until(lambda: list(tmp_path.glob("*.lock")), "the thread that seals runs")
    restored = uuid.uuid4()
    monkeypatch.setattr("uuid.uuid4", lambda: restored)
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    assert [batch["producer"] for batch in server.batches.values()] == [str(restored)]


def test_close_settles_what_it_can_and_then_records_nothing(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client(flush_interval_seconds=60)
    client.record("n_total", 1, kind="counter")
    client.close()
    client.close()
    client.record("n_total", 1, kind="counter")
    assert server.totals == {"n_total": 1}
    assert client.stats.dropped == {"closed": 1}
    assert client.flush()


def test_close_without_a_directory_counts_what_is_lost(server: IngestionServer, make_client: MakeClient) -> None:
    server.otherwise = Answer(503)
    drops = []
    client = make_client(on_drop=lambda reason, calls: drops.append((reason, calls)))
    for _ in range(3):
        client.record("n_total", 1, kind="counter")
    client.close(0.2)
    wait_until(lambda: client.stats.dropped == {"closed": 3}, "the loss is counted")
    wait_until(lambda: drops == [("closed", 3)], "the loss is told")
    assert (client.stats.pending, client.stats.queued_batches, client.stats.queued_bytes) == (0, 0, 0)


def test_close_counts_what_a_server_never_answers(
    server: IngestionServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    answered = threading.Event()
    server.otherwise = Answer(after=answered)
    client = make_client()
    client.record("n_total", 1, kind="counter")
    wait_until(lambda: server.requests, "the first batch is sent")
    client.record("n_total", 2, kind="counter")
    client.close(0.2)
    wait_until(lambda: client.stats.dropped == {"closed": 2}, "the loss is counted, the batch in flight with it")
    wait_until(lambda: "dropped 2 record() calls: closed" in caplog.messages, "the loss is told")
    answered.set()
    wait_until(lambda: not sending_threads(), "the answer comes too late")
    assert (client.stats.accepted, client.stats.pending, client.stats.dropped) == (0, 0, {"closed": 2})


def sending_threads() -> List[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pulsegate-send"]


def test_on_drop_may_raise(server: IngestionServer, make_client: MakeClient) -> None:
    def on_drop(reason: str, calls: int) -> None:
        raise RuntimeError(reason)

    client = make_client(on_drop=on_drop)
    client.record("n_total", "wrong")
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    begin = time.monotonic()
    client.close()
    assert time.monotonic() - begin < 5
    assert server.totals == {"n_total": 1}


def test_flush_says_no_when_the_server_is_away(server: IngestionServer, make_client: MakeClient) -> None:
    server.stop()
    client = make_client()
    client.record("n_total", 1, kind="counter")
    assert not client.flush(0.1)
    server.start()
    assert client.flush()
    assert json.dumps(dict(server.totals)) == '{"n_total": 1}'
