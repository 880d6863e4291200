"""What record() makes of its arguments, and that it never hurts its caller."""

import gc
import math
import random
import signal
import threading
import time
from decimal import Decimal
from typing import Any, Callable, Dict, List

import pytest

from ingestion_server import IngestionServer, wait_until
from pulsegate_runtime import Client

MakeClient = Callable[..., Client]


def sent(server: IngestionServer, client: Client) -> List[Dict[str, Any]]:
    assert client.flush()
    return server.metrics()


def test_a_metric_arrives_as_it_was_recorded(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client()
    client.record("grüße_total", 2.5, {"plan": 'a"b\\\n', "city": "Zürich 🚲"})
    assert sent(server, client) == [
        {"name": "grüße_total", "labels": {"plan": 'a"b\\\n', "city": "Zürich 🚲"}, "value": 2.5}
    ]


def test_counters_of_one_label_set_are_sent_as_one_increment(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client(flush_interval_seconds=60)
    for _ in range(500):
        client.record("orders_total", 1, {"plan": "pro", "eu": "yes"}, kind="counter")
        client.record("orders_total", 2, {"eu": "yes", "plan": "pro"}, kind="counter")
        client.record("orders_total", 1, {"plan": "free"}, kind="counter")
    assert [metric["value"] for metric in sent(server, client)] == [1500, 500]
    assert client.stats.recorded == client.stats.accepted == 1500


def test_counters_that_would_overflow_are_not_folded(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client(flush_interval_seconds=60)
    client.record("big_total", 1e308, kind="counter")
    client.record("big_total", 1e308, kind="counter")
    assert [metric["value"] for metric in sent(server, client)] == [1e308, 1e308]


def test_observations_gather_in_arrays_of_at_most_a_thousand(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client(flush_interval_seconds=60)
    client.record("seconds", [0.5] * 2500, kind="histogram")
    for _ in range(600):
        client.record("seconds", 0.25, kind="histogram")
    arrays = [metric["value"] for metric in sent(server, client)]
    assert max(map(len, arrays)) <= 1000
    assert sum(map(sum, arrays)) == 2500 * 0.5 + 600 * 0.25
    assert client.stats.recorded == client.stats.accepted == 601


def test_a_gauge_keeps_the_newest_level_with_its_time(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client(flush_interval_seconds=60)
    for level, timestamp in ((1, 100.0), (3, 300.0), (2, 200.0)):
        client.record("depth", level, timestamp=timestamp, kind="gauge")
    before = time.time() * 1000
    client.record("width", 7, kind="gauge")
    depth, width = sent(server, client)
    assert (depth["value"], depth["timestamp"]) == (3, 300_000)
    assert before - 1 <= width["timestamp"] <= time.time() * 1000 + 1


def test_metrics_of_unknown_kind_are_sent_one_by_one(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client(flush_interval_seconds=60)
    client.record("any", 1)
    client.record("any", 2, timestamp=5.0)
    client.record("any", [1, 2], kind="of another world")
    assert [(metric["value"], metric.get("timestamp")) for metric in sent(server, client)] == [
        (1, None),
        (2, 5000),
        ([1, 2], None),
    ]


def test_one_name_recorded_as_two_kinds_is_not_folded(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client(flush_interval_seconds=60)
    client.record("mixed", 1, kind="counter")
    client.record("mixed", 1, kind="histogram")
    assert len(sent(server, client)) == 2


class Exploding:
    def __iter__(self) -> None:
        raise RuntimeError("boom")

    def __repr__(self) -> str:
        return "Exploding()"


@pytest.mark.parametrize(
    "arguments",
    [
        ("n", math.nan),
        ("n", math.inf),
        ("n", "3"),
        ("n", b"3"),
        ("n", None),
        ("n", []),
        ("n", [1, math.nan]),
        ("n", 10**400),
        ("n", Exploding()),
        ("n", 1, {"label": 3}),
        ("n", 1, {3: "value"}),
        ("n", 1, "labels"),
        ("n", 1, {"label": "\ud800"}),
        ("", 1),
        (None, 1),
        ("n", 1, None, math.inf),
        ("n", 1, None, 1e300),
        ("n", 1, None, "now"),
        ("n", -1, None, None, "counter"),
        ("n", [1, 2], None, None, "counter"),
        ("n", [1, 2], None, None, "gauge"),
    ],
    ids=repr,
)
def test_what_cannot_be_sent_is_counted_as_invalid(
    server: IngestionServer, make_client: MakeClient, arguments: "tuple[Any, ...]"
) -> None:
    client = make_client()
    client.record(*arguments)
    client.record("good_total", 1, kind="counter")
    assert client.flush()
    assert client.stats.dropped == {"invalid": 1}
    assert server.totals == {"good_total": 1}


def test_the_log_says_what_was_invalid_and_quotes_no_value(
    server: IngestionServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(flush_interval_seconds=60)
    client.record("first_total", 1, {"user": 3})
    client.record("level", "secret", {"user": "secret"}, kind="gauge")
    client.record("good_total", 1, kind="counter")
    assert client.flush()
    wait_until(lambda: caplog.messages, "the log is told")
    assert caplog.messages == ["dropped 2 record() calls: invalid (the latest: 'level': text is not a number)"]


def test_numbers_of_other_types_are_taken(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client()
    for value in (True, Decimal("1.5"), 2**60, (0.5, Decimal(1)), range(3)):
        client.record("n", value)
    assert [metric["value"] for metric in sent(server, client)] == [1.0, 1.5, 2.0**60, [0.5, 1.0], [0, 1, 2]]


def test_a_metric_too_large_for_any_batch_is_dropped(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client(max_batch_bytes=2000)
    client.record("n", 1, {"label": "x" * 5000})
    assert client.flush()
    assert client.stats.dropped == {"too_large": 1}


def test_batches_stay_below_their_limits(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client(flush_interval_seconds=60, max_batch_metrics=7, max_batch_bytes=1500)
    for index in range(300):
        client.record("n", index, {"label": "é" * (index % 60)})
        client.record("seconds", index / 7, kind="histogram")
    assert client.flush()
    assert all(len(request.body) <= 1500 for request in server.requests)
    assert all(len(batch["metrics"]) <= 7 for batch in server.batches.values())
    assert client.stats.accepted == 600


def test_a_batch_is_sent_after_the_flush_interval_without_being_asked(
    server: IngestionServer, make_client: MakeClient
) -> None:
    client = make_client()
    client.record("n_total", 1, kind="counter")
    deadline = time.monotonic() + 5
    while client.stats.accepted < 1:
        assert time.monotonic() < deadline


def test_a_client_that_could_not_start_its_threads_tries_again(
    server: IngestionServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Thread.start
    refusals = iter(["pulsegate-seal", "pulsegate-send"])
    refused = [next(refusals)]

    def start(thread: threading.Thread) -> None:
        if [thread.name] == refused:
            refused[:] = list(refusals)[:1]
            raise RuntimeError("can't start new thread")
        started(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    client = make_client()
    client.record("n_total", 1, kind="counter")
    wait_until(lambda: not refused and client._thread is None, "both threads were refused once")
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    assert server.totals == {"n_total": 2}


def test_many_threads_lose_nothing(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client()

    def work(worker: int) -> None:
        for index in range(20):
            client.record("calls_total", 1, {"worker": str(worker % 50)}, kind="counter")
            client.record("seconds", index, kind="histogram")

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.flush(30)
    assert server.totals == {"calls_total": 20_000, "seconds": 1000 * sum(range(20))}
    assert client.stats.accepted == client.stats.recorded == 40_000


@pytest.mark.alone
@pytest.mark.parametrize("away", ["refused", "silent"])
def test_record_takes_far_less_than_a_millisecond_while_the_server_is_away(
    server: IngestionServer, make_client: MakeClient, tmp_path: Any, away: str
) -> None:
    if away == "refused":
        server.stop()
    else:
        server.otherwise = server.otherwise._replace(after=threading.Event())
    client = make_client(queue_directory=str(tmp_path))
    durations = []
    for index in range(20_000):
        begin = time.perf_counter()
        client.record("calls_total", 1, {"route": str(index % 500)}, kind="counter")
        durations.append(time.perf_counter() - begin)
    durations.sort()
    assert durations[int(len(durations) * 0.99)] < 0.001
    server.otherwise = server.otherwise._replace(after=None)


def test_record_may_be_called_by_a_signal_handler_that_interrupts_record(
    server: IngestionServer, make_client: MakeClient
) -> None:
    client = make_client()
    handled = []

    def handler(*_: object) -> None:
        client.record("signals_total", 1, kind="counter")
        handled.append(1)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for _ in range(20_000):
            client.record("calls_total", 1, kind="counter")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert client.flush()
    assert handled
    assert server.totals == {"calls_total": 20_000, "signals_total": len(handled)}


def test_record_may_be_called_by_a_finaliser(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client()

    class Resource:
        def __del__(self) -> None:
            client.record("closed_total", 1, kind="counter")

    for _ in range(2000):
        cycle: List[Any] = [Resource()]
        cycle.append(cycle)
        client.record("opened_total", 1, kind="counter")
    del cycle
    gc.collect()
    assert client.flush()
    assert server.totals == {"opened_total": 2000, "closed_total": 2000}


def test_the_hosts_random_numbers_stay_the_same(server: IngestionServer, make_client: MakeClient) -> None:
    random.seed(7)
    expected = random.random()
    random.seed(7)
    server.script = [server.otherwise._replace(status=503)] * 2
    client = make_client()
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    assert random.random() == expected
